"""ask-…: every GGUF answers the held-out rows in llama.cpp, from prompts whose tokens must equal those of training.

The texts of a pretraining ask nothing: there it reads them.

Ask a GGUF the held-out rows in llama.cpp, with its own chat template: `ask_gguf CONFIG.json`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.chat_template import llama_server
from orchestrator.chat_template.jinja import render_messages
from orchestrator.chat_template.turns import SpecialTokens
from orchestrator.evaluation.parity import Asked, parity, same_texts
from orchestrator.evaluation.rows import read_records
from orchestrator.lib import layout
from orchestrator.lib.errors import StageError
from orchestrator.lib.files import read_json, sha256_of, write_json, write_text
from orchestrator.lib.step import Step
from orchestrator.models.gguf import GgufModel
from orchestrator.stages import adapter, entry
from orchestrator.stages.base import Context, worker
from orchestrator.stages.export import source_type


def build(context: Context) -> list[Step]:
    """One process for each GGUF, since a broken file may take llama.cpp down with it."""
    if not (context.answers or context.reads):
        return []
    return [_step(context, kind) for kind in kinds_asked(context)]


def kinds_asked(context: Context) -> tuple[str, ...]:
    """Every GGUF to prove, the adapter over its base model among them."""
    export = context.spec.export
    made = (*export.gguf, *((adapter.KIND,) if export.adapter else ()))
    return tuple(kind for kind in made if context.spec.evaluate.asks(f"gguf-{kind}"))


def _step(context: Context, kind: str) -> Step:
    artifact, config = f"gguf-{kind}", f"configs/ask-{kind}.json"
    values = {
        "gguf": layout.gguf(context.spec.name, adapter.BASE_KIND if kind == adapter.KIND else kind),
        "prompts": layout.READ_ROWS if context.reads else layout.PROMPTS,
        "answers": layout.predictions(artifact),
        "parity": layout.parity(artifact),
        "max_new_tokens": context.spec.evaluate.max_new_tokens,
    }
    if context.reads:
        values["texts"] = layout.EVAL_ROWS
    if kind == adapter.KIND:
        values["adapter"] = layout.gguf(context.spec.name, kind)
    return Step(
        stage=f"ask-{kind}",
        phase="verify",
        argv=worker("perplexity_gguf" if context.reads else "ask_gguf", config),
        files={config: json.dumps(values, indent=2) + "\n"},
        expects=(layout.predictions(artifact), layout.parity(artifact)),
        needs=("prepare", *(("perplexity",) if context.reads else ()), _made_by(context, kind)),
        inputs=context.picked("llama-cpp-python"),
        judges=True,
    )


def _made_by(context: Context, kind: str) -> str:
    if kind == adapter.KIND:
        return adapter.STAGE
    return "convert" if kind == source_type(context.spec.export.gguf) else f"quantise-{kind}"


def main(config: Path) -> None:
    """Write the answers, and whether the prompts were those of training."""
    wanted = read_json(config)
    rows = [record for _, record in read_records(Path(wanted["prompts"]))]
    stop_words = read_json(Path(layout.SERVING))["stop"]
    adapter = Path(wanted["adapter"]) if "adapter" in wanted else None
    print(f"llama.cpp loads {wanted['gguf']}", flush=True)  # the last line, should a damaged file end this process
    with GgufModel(Path(wanted["gguf"]), adapter) as model:
        texts = [prompt_text(model, row["messages"]) for row in rows]
        prompts = [model.tokenize(text) for text in texts]
        answers = _answers(model, prompts, wanted["max_new_tokens"], stop_words)
        asked = [
            Asked(row["id"], row["ids"], ids, text == row["text"], answer, len(answer) >= wanted["max_new_tokens"])
            for row, text, ids, answer in zip(rows, texts, prompts, answers, strict=True)
        ]
        predictions = [model.detokenize(answer) for answer in answers]
        served = _by_llama_server(model, rows)
    lines = [
        {"id": row["id"], "prompt": row["prompt"], "label": row["label"], "prediction": prediction}
        for row, prediction in zip(rows, predictions, strict=True)
    ]
    write_text(Path(wanted["answers"]), "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    write_json(Path(wanted["parity"]), parity(asked) | ({"llama_server": served} if served else {}))


def _by_llama_server(model: GgufModel, rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """What llama.cpp's own server makes of the template inside the GGUF; None where that server is not installed.

    All GGUFs of a run have one template, so what was found for another of them is taken over.
    """
    server, trained = llama_server.find(), [row for row in rows if row["text"] is not None]
    template = model.metadata("tokenizer.chat_template")
    if server is None or template is None or not trained:
        return None
    tokens = SpecialTokens(bos=model.bos, eos=model.eos)
    key = sha256_of(json.dumps([template, model.bos, model.eos, [row["text"] for row in trained]]))
    for file in sorted(Path(layout.parity("x")).parent.glob(Path(layout.parity("*")).name)):
        if (known := read_json(file).get("llama_server", {})).get("key") == key:
            return dict(known)
    thinking = read_json(Path(layout.SERVING))["thinking"] or None
    cases = [llama_server.Case(template, row["messages"], thinking) for row in trained]
    return {"key": key, **same_texts(trained, llama_server.render(server, cases, tokens), tokens.bos or "")}


def prompt_ids(model: GgufModel, messages: Sequence[dict[str, str]]) -> list[int]:
    """The tokens that llama.cpp evaluates for a conversation, by the template inside the GGUF."""
    return model.tokenize(prompt_text(model, messages))


def prompt_text(model: GgufModel, messages: Sequence[dict[str, str]]) -> str:
    """The text of a conversation by the template inside the GGUF. Raises StageError when there is none."""
    template = model.metadata("tokenizer.chat_template")
    if template is None:
        raise StageError("the GGUF has no chat template", "Export again; the merged model lost chat_template.jinja.")
    tokens = SpecialTokens(bos=model.bos, eos=model.eos)
    return render_messages(template, messages, tokens)


def _answers(model: GgufModel, prompts: list[list[int]], limit: int, stop_words: list[str]) -> list[list[int]]:
    answers: list[list[int]] = [[] for _ in prompts]
    done: Any = model.answers(prompts, limit, model.stops(stop_words))
    for count, (index, answer) in enumerate(done, 1):
        answers[index] = answer
        print(f"{count}/{len(prompts)}", flush=True)
    return answers


if __name__ == "__main__":
    entry.run(main)
