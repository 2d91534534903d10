"""The llama.cpp part of the chain as one would write it by hand with llama-cpp-python.

python -m benchmarks.by_hand quantise SOURCE TARGET TYPE
python -m benchmarks.by_hand ask GGUF PROMPTS.jsonl ANSWERS.jsonl MAX_NEW_TOKENS
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path


def quantise(source: str, target: str, kind: str) -> None:
    """Quantise with llama.cpp's own settings."""
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), parameters):
        sys.exit("llama.cpp could not quantise")


def ask(gguf: str, prompts: str, answers: str, limit: str) -> None:
    """One question after the other, greedily, through the chat interface."""
    from llama_cpp import Llama

    model = Llama(gguf, n_ctx=2048, verbose=False)
    rows = [json.loads(line) for line in Path(prompts).read_text(encoding="utf-8").splitlines()]
    with Path(answers).open("w", encoding="utf-8") as file:
        for row in rows:
            reply = model.create_chat_completion(row["messages"], temperature=0.0, max_tokens=int(limit))
            text = reply["choices"][0]["message"]["content"]
            file.write(json.dumps({"id": row["id"], "prediction": text}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {"quantise": quantise, "ask": ask}
    commands[sys.argv[1]](*sys.argv[2:])
