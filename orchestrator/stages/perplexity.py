"""Read the held-out texts of a pretraining in llama.cpp: `perplexity_gguf CONFIG.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.evaluation.parity import Asked, parity
from orchestrator.evaluation.rows import read_records, write_records
from orchestrator.lib.files import read_json, write_json
from orchestrator.models.gguf import GgufModel
from orchestrator.stages import entry


def main(config: Path) -> None:
    """Write what the GGUF gives each text, as log-likelihoods in nats, and whether it sees the tokens of training."""
    wanted = read_json(config)
    rows = [record for _, record in read_records(Path(wanted["prompts"]))]
    texts = [row["text"] for row in read_json(Path(wanted["texts"]))]
    adapter = Path(wanted["adapter"]) if "adapter" in wanted else None
    read: list[dict[str, Any]] = []
    with GgufModel(Path(wanted["gguf"]), adapter) as model:
        seen = [same_tokens(row["id"], row["ids"], model.tokenize(text)) for row, text in zip(rows, texts, strict=True)]
        for row, values in zip(rows, model.log_likelihoods([row["ids"] for row in rows]), strict=True):
            scored = [value for at, value in enumerate(values, 1) if at not in row["unscored"]]
            read.append({"id": row["id"], "text": float(sum(scored)), "tokens": len(scored)})
            print(f"{len(read)}/{len(rows)}", flush=True)
    write_records(Path(wanted["answers"]), read)
    write_json(Path(wanted["parity"]), parity(seen))


def same_tokens(name: str, trained: Sequence[int], text: Sequence[int]) -> Asked:
    """The tokens of training beside those of llama.cpp.

    Training frames a text (BOS, EOS) and may cut it off; llama.cpp is given the text alone.
    """
    framed = next((at for at in range(2) if list(trained[at : at + len(text)]) == list(text[: len(trained) - at])), 0)
    kept = trained[framed : framed + len(text)]
    return Asked(name, kept, text[: len(kept)], same_text=True, answer=(), cut_off=False)


if __name__ == "__main__":
    entry.run(main)
