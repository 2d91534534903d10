"""Quantise a GGUF with llama.cpp: `quantise CONFIG.json` with source, target and type."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.lib.cpu import threads
from orchestrator.lib.errors import StageError
from orchestrator.lib.files import read_json
from orchestrator.stages import entry


def main(config: Path) -> None:
    """Write the target. Raises StageError when llama.cpp reports a failure."""
    import llama_cpp

    wanted = read_json(config)
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_{_name(wanted['type'])}")
    parameters.nthread = threads()
    source, target = os.fsencode(wanted["source"]), os.fsencode(wanted["target"])
    if (code := llama_cpp.llama_model_quantize(source, target, parameters)) != 0:
        raise StageError(f"llama.cpp could not quantise {wanted['source']} to {wanted['type']} (code {code})")


def _name(kind: str) -> str:
    return "ALL_F32" if kind == "f32" else f"MOSTLY_{kind.upper()}"


if __name__ == "__main__":
    entry.run(main)
