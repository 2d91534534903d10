"""prepare: the spec's rows become the run's own, counted and checked, with the prompts as the model will see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import write_json
from orchestrator.lib.step import Step
from orchestrator.lib.training_kinds import TRAINING_KINDS
from orchestrator.spec.sections import AUTO, Data, Spec
from orchestrator.stages.base import Context, Stage

if TYPE_CHECKING:
    from orchestrator.chat_template.encode import Encoder
    from orchestrator.data import assemble
    from orchestrator.data.conversation import Conversation, Kind

Served = Callable[[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]], str]
"""Messages and tools → the text of the template that will be served."""


@dataclass(frozen=True, kw_only=True)
class Prepare(Stage):
    """The files under data/."""

    program = "prepare"
    phase = "prepare"
    optional = ("packing", "turns", "validation")
    base: str
    """The base model's folder."""
    template: str
    thinking: bool
    trust_remote_code: bool
    project: str
    kind: Kind
    """The kind of training that the rows are for."""
    packing: bool | None = None
    """Of a pretraining: whether its texts are packed into blocks, as LLaMA-Factory does unless told otherwise."""
    cutoff_len: int
    task: str
    turns: str | None = None
    """`all` where every answer of a held-out conversation is asked for."""
    # what follows is the spec's data: section, whole
    train: str | Sequence[str]
    eval: str | Sequence[str] | None
    eval_fraction: float | None
    test: str | None
    system: str | None
    columns: Mapping[str, str] | None
    weights: Sequence[float] | None
    max_samples: int | None
    accept: Sequence[str]
    seed: int
    validation: str | float | None = None

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step."""
        spec, training = context.spec, context.training
        stage = cls(
            base=str(context.base_path),
            template=context.template,
            thinking=spec.model.thinking,
            trust_remote_code=spec.model.trust_remote_code,
            project=str(context.project),
            kind=training["stage"],
            packing=training.get("packing") is not False if context.kind.reads else None,
            cutoff_len=training["cutoff_len"],
            task=spec.evaluate.task,
            turns="all" if spec.evaluate.turns == "all" else None,
            **{**spec.data.model_dump(mode="json"), "validation": validation_of(spec)},
        )
        packages = context.picked("llamafactory", "transformers")
        chosen_by = (layout.VALIDATION,) if stage.validation else ()
        info = context.render("dataset_info.json.j2", kind=stage.kind, kinds=TRAINING_KINDS)
        return [
            stage.step(
                "prepare",
                files={layout.DATASET_INFO: info},
                expects=(*_written(stage.kind), *chosen_by, layout.SERVING, layout.DATASET_INFO),
                leaves=(layout.FINDINGS,),
                single_flight=True,
                inputs={**context.data_hashes, "base": context.base_identity, **packages},
            )
        ]

    def run(self) -> None:
        """Write them. Raises InputError for rows, or a tokenizer, not fit to train with."""
        from orchestrator.chat_template.encode import Encoder, load_tokenizer
        from orchestrator.chat_template.registry import definition
        from orchestrator.chat_template.turns import special_tokens, stop_words
        from orchestrator.data import assemble
        from orchestrator.data.canonical import as_trained
        from orchestrator.data.conversation import write_rows
        from orchestrator.data.lengths import length, require_a_block, require_short, with_loss
        from orchestrator.models.tokenizer import require_sound

        sets = _canonical(assemble.assemble(self.rows()), self.template)
        rows = [*sets.train, *sets.eval, *sets.validation]
        _require_servable(self, rows)
        base = Path(self.base)
        tokenizer = load_tokenizer(base, self.trust_remote_code)
        words = stop_words(definition(self.template), special_tokens(base))
        words, left_out = require_sound(base, tokenizer, words)
        encoder = Encoder(self.template, tokenizer, self.thinking)
        lengths = [length(encoder, tokenizer, row) for row in rows]
        answers = [with_loss(tokenizer, row, long) for row, long in zip(rows, lengths, strict=True)]
        if TRAINING_KINDS[self.kind].reads:
            require_a_block(lengths[: len(sets.train)], self.cutoff_len, bool(self.packing))
        elif "tokens_over_cutoff" not in self.accept:
            require_short(lengths, rows, self.cutoff_len)
        for file, of in ((layout.TRAIN_ROWS, sets.train), (layout.EVAL_ROWS, sets.eval)):
            write_rows(Path(file), [as_trained(row, self.template) for row in of], self.kind)
        write_json(Path(layout.FINDINGS), {"findings": [found.to_json() for found in sets.findings]})
        if not TRAINING_KINDS[self.kind].reads:
            self._write_prompts(encoder, tokenizer, sets)
        missing = {"left_out": left_out} if left_out else {}
        write_json(Path(layout.SERVING), self._serving(words, sets, lengths, max(answers)) | missing)

    def _write_prompts(self, encoder: Encoder, tokenizer: Any, sets: assemble.Sets) -> None:
        """What the held-out rows ask, and those that choose a checkpoint where one is to be chosen."""
        from orchestrator.evaluation.rows import write_records

        served = self._server_text(sets)
        files = {layout.PROMPTS: _asked_rows(self.kind, sets.eval, self.template)}
        if self.validation:
            files[layout.VALIDATION] = [row for row in sets.validation if row.desirable is not False]
        for file, rows in files.items():
            prompts = [self._prompt(encoder, tokenizer, served, number, row) for number, row in enumerate(rows, 1)]
            write_records(Path(file), prompts)

    def _prompt(
        self, encoder: Encoder, tokenizer: Any, served: Served, number: int, row: Conversation
    ) -> dict[str, Any]:
        """What a held-out row asks, in words and in the tokens of training."""
        from orchestrator.chat_template.encode import decoded
        from orchestrator.data import canonical
        from orchestrator.data.canonical import label, question

        messages, tools = question(row, self.template), canonical.offered(row)
        ids = encoder.prompt_ids(messages, tools)
        return {
            "id": str(number),
            "prompt": row.prompt,
            "label": label(encoder, row),
            "messages": messages,
            "text": decoded(tokenizer, ids, lambda: served(messages, tools)),
            "ids": ids,
            **({"tools": tools} if tools else {}),
        }

    def _server_text(self, sets: assemble.Sets) -> Served:
        """What the template that will be served makes of a conversation."""
        from orchestrator.chat_template.jinja import jinja_template, render_messages
        from orchestrator.chat_template.registry import definition
        from orchestrator.chat_template.spaces import spaced, spaced_tools, spacing_of
        from orchestrator.chat_template.turns import special_tokens

        tokens, spacing = special_tokens(Path(self.base)), spacing_of(Path(self.base))
        shape = spaced(definition(self.template).with_default_system(_system(sets)), spacing)
        tools = spaced_tools(self.template, spacing) if _with_tools(sets) else None
        template = jinja_template(shape, tokens, self.thinking, tools)
        return lambda messages, offered: render_messages(template, messages, tokens, tools=offered)

    def _serving(self, words: list[str], sets: assemble.Sets, lengths: list[int], answer: int) -> dict[str, Any]:
        """What a server must know, and the lengths that were counted."""
        mean = round(sum(lengths) / len(lengths), 1)
        validation = {"validation": len(sets.validation)} if sets.validation else {}
        return {
            "template": self.template,
            "thinking": self.thinking,
            "system": _system(sets),
            "stop": words,
            "rows": {"read": sets.read, "train": len(sets.train), "eval": len(sets.eval)} | validation,
            "tokens": {"longest": max(lengths), "mean": mean, "longest_answer": answer},
            **({"tools": True} if _with_tools(sets) else {}),
        }

    def rows(self) -> assemble.Wanted:
        """Which rows these are."""
        from orchestrator.data import assemble
        from orchestrator.data.checks import Mode

        data = Data.model_validate({name: getattr(self, name) for name in Data.model_fields}, strict=False)
        labels, every = self.task == "classification", self.turns == "all"
        mode = Mode.of(self.template, self.thinking)
        return assemble.Wanted(Path(self.project), data, self.kind, labels, mode, every_answer=every)


def validation_of(spec: Spec) -> str | float | None:
    """What a checkpoint is chosen by; where the spec wants one chosen and does not say by what, some training rows."""
    return (spec.data.validation or AUTO) if spec.keeps_best else None


def _written(kind: Kind) -> tuple[str, ...]:
    """The files of rows: a pretraining asks nothing, and a preference set is also asked for plain answers."""
    asked = (layout.ASKED_ROWS,) if TRAINING_KINDS[kind].prefers else ()
    prompts = () if TRAINING_KINDS[kind].reads else (layout.PROMPTS,)
    return (layout.TRAIN_ROWS, layout.EVAL_ROWS, *asked, *prompts)


def _canonical(sets: assemble.Sets, template: str) -> assemble.Sets:
    """The rows with tools and calls as servers write them."""
    from orchestrator.data.canonical import canonical

    parts = (sets.train, sets.eval, sets.validation)
    train, held_out, validation = ([canonical(row, template) for row in rows] for rows in parts)
    return replace(sets, train=train, eval=held_out, validation=validation)


def _with_tools(sets: assemble.Sets) -> bool:
    from orchestrator.data.canonical import has_tools

    return any(map(has_tools, [*sets.train, *sets.eval]))


def _require_servable(wanted: Prepare, rows: Sequence[Conversation]) -> None:
    from orchestrator.chat_template.refusals import read_by_servers, refusal, tool_refusal
    from orchestrator.data.canonical import has_tools

    first = next(filter(has_tools, rows), None)
    if first and (reason := tool_refusal(wanted.template, wanted.thinking)):
        message = f"model.template: {wanted.template!r} cannot be served with tools: {reason}"
        where = f"{first.source}, row {first.row}, has tools"
        instead = read_by_servers(wanted.template, wanted.thinking) or "another, such as qwen,"
        raise InputError(f"{message} ({where})", f"Choose {instead} as model.template, or leave such rows out.")
    earlier_answers = any(message.role == "assistant" for row in rows for message in row.messages[:-1])
    if reason := refusal(wanted.template, wanted.thinking, multi_turn=earlier_answers):
        message = f"model.template: {wanted.template!r} cannot be served: {reason}"
        raise InputError(message, "Choose another template, or rows with a single question.")


def _asked_rows(kind: str, rows: Sequence[Conversation], template: str) -> Sequence[Conversation]:
    """The rows whose answer is a good one, which preference sets also get written as plain questions and answers.

    Raises InputError when a kto set holds out only one kind of row, for then no preference can be measured.
    """
    from orchestrator.data.canonical import answered, as_trained
    from orchestrator.data.conversation import write_rows

    if TRAINING_KINDS[kind].tags and len({row.desirable for row in rows}) < 2:
        raise InputError(
            f"the {len(rows)} held-out rows are all {'desirable' if rows[0].desirable else 'undesirable'}",
            "Hold out rows of both kinds: a larger data.eval_fraction, another data.seed, or a data.eval of your own.",
        )
    good = [row for row in rows if row.desirable is not False]
    if TRAINING_KINDS[kind].prefers:
        write_rows(Path(layout.ASKED_ROWS), [as_trained(answered(row), template) for row in good])
    return good


def _system(sets: assemble.Sets) -> str | None:
    """The system text that all rows share."""
    systems = {row.system for row in [*sets.train, *sets.eval]}
    return systems.pop() or None if len(systems) == 1 else None
