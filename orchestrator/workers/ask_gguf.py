"""Ask a GGUF the held-out rows in llama.cpp, with its own chat template: `ask_gguf CONFIG.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator import layout, workers
from orchestrator.chat_template.jinja import render_messages
from orchestrator.chat_template.tokens import SpecialTokens
from orchestrator.errors import StageError
from orchestrator.evaluation.parity import Asked, parity
from orchestrator.evaluation.rows import read_records
from orchestrator.files import read_json, write_json, write_text
from orchestrator.models.gguf_model import GgufModel


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
    lines = [
        {"id": row["id"], "prompt": row["prompt"], "label": row["label"], "prediction": prediction}
        for row, prediction in zip(rows, predictions, strict=True)
    ]
    write_text(Path(wanted["answers"]), "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    write_json(Path(wanted["parity"]), parity(asked))


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
    workers.run(main)
