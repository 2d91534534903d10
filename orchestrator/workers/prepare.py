"""Make the run's own data from the spec's: `prepare CONFIG.json`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator import layout, workers
from orchestrator.chat_template.encode import Encoder, load_tokenizer
from orchestrator.chat_template.jinja import jinja_template, render_messages
from orchestrator.chat_template.refusals import refusal
from orchestrator.chat_template.registry import definition
from orchestrator.chat_template.spaces import spaced, spacing_of
from orchestrator.chat_template.tokens import special_tokens
from orchestrator.chat_template.turns import stop_words
from orchestrator.data import assemble
from orchestrator.data.conversation import Conversation, Message
from orchestrator.data.writing import write_rows
from orchestrator.errors import InputError
from orchestrator.evaluation.rows import write_records
from orchestrator.files import read_json, write_json
from orchestrator.models.tokenizer_check import require_sound

PLAIN = {"user", "assistant"}


def main(config: Path) -> None:
    """Write the files under data/. Raises InputError for rows, or a tokenizer, not fit to train with."""
    wanted = read_json(config)
    sets = assemble.assemble(assemble.Wanted.from_config(wanted))
    rows = [*sets.train, *sets.eval]
    base = Path(wanted["base"])
    tokenizer = load_tokenizer(base)
    words = stop_words(definition(wanted["template"]), special_tokens(base))
    words, left_out = require_sound(base, tokenizer, words)
    _require_servable(wanted, rows)
    encoder = Encoder(wanted["template"], tokenizer, wanted["thinking"])
    lengths = [_length(encoder, tokenizer, row) for row in rows]
    if wanted["kind"] == "pt":
        _require_a_block(lengths[: len(sets.train)], wanted)
    elif "tokens_over_cutoff" not in wanted["accept"]:
        _require_short(lengths, rows, wanted["cutoff_len"])
    write_rows(Path(layout.TRAIN_ROWS), sets.train, wanted["kind"])
    write_rows(Path(layout.EVAL_ROWS), sets.eval, wanted["kind"])
    write_json(Path(layout.FINDINGS), {"findings": [found.to_json() for found in sets.findings]})
    if wanted["kind"] != "pt":
        asked = _asked(wanted["kind"], sets.eval)
        served = _served(wanted, base, _system(sets))
        prompts = [_prompt(encoder, tokenizer, served, number, row) for number, row in enumerate(asked, 1)]
        write_records(Path(layout.PROMPTS), prompts)
    missing = {"left_out": left_out} if left_out else {}
    write_json(Path(layout.SERVING), _serving(wanted, words, sets, lengths) | missing)


def _require_servable(wanted: dict[str, Any], rows: Sequence[Conversation]) -> None:
    earlier_answers = any(message.role == "assistant" for row in rows for message in row.messages[:-1])
    if reason := refusal(wanted["template"], wanted["thinking"], multi_turn=earlier_answers):
        message = f"model.template: {wanted['template']!r} cannot be served: {reason}"
        raise InputError(message, "Choose another template, or rows with a single question.")


def _asked(kind: str, rows: Sequence[Conversation]) -> Sequence[Conversation]:
    """The rows whose answer is a good one, which preference sets also get written as plain questions and answers.

    Raises InputError when a kto set holds out only one kind of row, for then no preference can be measured.
    """
    if kind == "kto" and len({row.desirable for row in rows}) < 2:
        raise InputError(
            f"the {len(rows)} held-out rows are all {'desirable' if rows[0].desirable else 'undesirable'}",
            "Hold out rows of both kinds: a larger data.eval_fraction, another data.seed, or a data.eval of your own.",
        )
    good = [row for row in rows if row.desirable is not False]
    if kind in ("dpo", "kto"):
        write_rows(Path(layout.ASKED_ROWS), [_answered(row) for row in good])
    return good


def _answered(row: Conversation) -> Conversation:
    """The row with its good answer as the last turn, and no other."""
    answer = (Message("assistant", row.chosen),) if row.chosen else ()
    return replace(row, messages=(*row.messages, *answer), chosen="", rejected="", desirable=None)


def _prompt(
    encoder: Encoder, tokenizer: Any, served: Callable[[Any], str], number: int, row: Conversation
) -> dict[str, Any]:
    """What a held-out row asks, in words and in the tokens of training."""
    messages = _question(row)
    ids = _prompt_ids(encoder, messages)
    return {
        "id": str(number),
        "prompt": row.prompt,
        "label": row.answer,
        "messages": messages,
        "text": _text(tokenizer, ids, lambda: served(messages)) if ids else None,
        "ids": ids,
    }


def _text(tokenizer: Any, ids: list[int], served: Callable[[], str]) -> str:
    """A text that the tokenizer of training turns into these tokens: the decoded one, or where that one does not lead
    back, as with SentencePiece and its spaces, the served one if it does."""

    def leads_back(text: str) -> bool:
        return list(tokenizer.encode(text, add_special_tokens=False)) == list(ids)

    decoded = str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
    return decoded if leads_back(decoded) or not leads_back(text := served()) else text


def _served(wanted: dict[str, Any], base: Path, system: str | None) -> Callable[[Any], str]:
    """What the template that will be served makes of a conversation."""
    tokens = special_tokens(base)
    shape = spaced(definition(wanted["template"]).with_default_system(system), spacing_of(base))
    template = jinja_template(shape, tokens, wanted["thinking"])
    return lambda messages: render_messages(template, messages, tokens)


def _question(row: Conversation) -> list[dict[str, str]]:
    """The conversation up to the answer that is asked for."""
    asked = row.messages if row.chosen else row.messages[:-1]
    system = [{"role": "system", "content": row.system}] if row.system else []
    return system + [{"role": message.role, "content": message.content} for message in asked]


def _prompt_ids(encoder: Encoder, messages: list[dict[str, str]]) -> list[int] | None:
    """The tokens of training, or None for conversations with tools, which no served template is compared on."""
    if {message["role"] for message in messages} - {"system"} - PLAIN:
        return None
    return encoder.prompt_ids(messages)


def _length(encoder: Encoder, tokenizer: Any, row: Conversation) -> int:
    """Tokens of a row: its prompt as the template makes it, and its longest answer; or a text of a pretraining."""
    prompt = len(_prompt_ids(encoder, _question(row)) or ()) if row.answer else 0
    texts = [row.answer or row.prompt, row.rejected]
    return prompt + max(len(tokenizer.encode(text, add_special_tokens=False)) for text in texts) + 1


def _require_short(lengths: list[int], rows: Sequence[Conversation], cutoff: int) -> None:
    over = [(length, row) for length, row in zip(lengths, rows, strict=True) if length > cutoff]
    if over:
        length, row = max(over, key=lambda pair: pair[0])
        enough = -(-length // 64) * 64
        raise InputError(
            f"{len(over)} of {len(rows)} rows are longer than cutoff_len {cutoff}; the longest has {length} tokens "
            f"({row.source}, row {row.row}), and LLaMA-Factory would cut off the end of its prompt",
            f"Set train.cutoff_len to {enough}, shorten the rows, or accept tokens_over_cutoff under data.",
        )


def _require_a_block(lengths: list[int], wanted: dict[str, Any]) -> None:
    """LLaMA-Factory packs a pretraining's texts into blocks of cutoff_len and drops what fills none."""
    if wanted["packing"] and sum(lengths) < wanted["cutoff_len"]:
        raise InputError(
            f"the training texts have {sum(lengths)} tokens, less than one block of cutoff_len {wanted['cutoff_len']}",
            "Lower train.cutoff_len, or set train.packing to false.",
        )


def _system(sets: assemble.Sets) -> str | None:
    """The system text that all rows share."""
    systems = {row.system for row in [*sets.train, *sets.eval]}
    return systems.pop() or None if len(systems) == 1 else None


def _serving(wanted: dict[str, Any], words: list[str], sets: assemble.Sets, lengths: list[int]) -> dict[str, Any]:
    return {
        "template": wanted["template"],
        "thinking": wanted["thinking"],
        "system": _system(sets),
        "stop": words,
        "rows": {"read": sets.read, "train": len(sets.train), "eval": len(sets.eval)},
        "tokens": {"longest": max(lengths), "mean": round(sum(lengths) / len(lengths), 1)},
    }


if __name__ == "__main__":
    workers.run(main)
