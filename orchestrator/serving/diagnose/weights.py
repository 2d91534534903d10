"""Is what was learnt in the file? One matrix of the GGUF against the base model's and the adapter's.

LoRA adds `scale · B·A` to a matrix W. The file's matrix G = W + c · scale · B·A + rounding, where c is 1 for a merged
model, 0 for the untouched base and 2 for one that was merged twice; rounding is independent of B·A, so that the
projection of G − W on B·A tells c at any quantisation. The scale is PEFT's: lora_alpha / r, or lora_alpha / √r with
use_rslora (LoraLayer in peft/tuners/lora/layer.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestrator.models import gguf_tensor
from orchestrator.models.saves import Saves
from orchestrator.models.tokenizer import json_object
from orchestrator.serving.diagnose.finding import Finding

NAMES = {
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.down_proj": "ffn_down",
    "mlp.up_proj": "ffn_up", "mlp.gate_proj": "ffn_gate",
}  # fmt: skip
"""transformers' modules → the GGUF's, where the converter keeps the order of rows (that of q and k it may change)."""
WEIGHTS = "adapter_model.safetensors"
_KEY = re.compile(r"(?P<path>.*\.layers\.(?P<layer>\d+)\.(?P<module>\w+\.\w+))\.lora_A\.(default\.)?weight")
RELATED = 0.5
"""Cosine of the file's matrix with the base's below which they are two models."""


def of_base(saves: Saves, metadata: Callable[[str], str | None], name: str) -> list[Finding]:
    """Whether the file has the layers and the width of what was trained: those of another base model differ mostly.

    `metadata` gives the value of a key of the GGUF.
    """
    layers, hidden = _shape(saves)
    architecture = metadata("general.architecture")
    depth, width = (metadata(f"{architecture}.{key}") for key in ("block_count", "embedding_length"))
    said = []
    if layers and depth and int(depth) != layers:
        said.append(f"{depth} layers, trained were {layers}")
    if hidden and width and int(width) != hidden:
        said.append(f"a width of {width}, trained was {hidden}")
    if not said:
        return []
    cure = f"make the GGUF of {saves.base or 'the model that was trained'}, with the adapter merged"
    return [Finding("base", f"{name} is made from another base model: it has {' and '.join(said)}", cure)]


def share_learnt(saves: Saves, gguf: Path) -> tuple[float, float] | None:
    """How much of the adapter is in the file (1 where it was merged once), and the cosine of file and base.

    None where that cannot be told: no base model here, an adapter of another kind, matrices of other names.
    """
    base = saves.base_folder()
    if base is None or not saves.adapter or not (saves.folder / WEIGHTS).is_file():
        return None
    for path, layer, module in _candidates(saves.folder / WEIGHTS):
        tensor = gguf_tensor.matrix(gguf, f"blk.{layer}.{NAMES[module]}.weight")
        matrix = _matrix(base, f"{path.removeprefix('base_model.model.')}.weight")
        if tensor is not None and matrix is not None and tensor.shape == matrix.shape:
            return _compared(tensor, matrix, _delta(saves, path))
    return None


def of_adapter(saves: Saves, share: float, related: float, name: str) -> list[Finding]:
    """What `share_learnt` tells."""
    merge = "merge the adapter (llamafactory-cli export), convert the merged folder, and make the model of that"
    if related < RELATED:
        sentence = f"the weights of {name} are not those of {saves.base}: it is made from another base model"
        return [Finding("base", sentence, merge)]
    if share < 0.5:
        sentence = f"{name} holds {100 * max(share, 0):.0f} % of what was learnt: the adapter was not merged into it"
        return [Finding("adapter", sentence, merge)]
    if share > 1.5:
        return [Finding("adapter", f"{name} holds the adapter {share:.1f} times: it was merged twice", merge)]
    return []


def _shape(saves: Saves) -> tuple[int, int]:
    """Layers and width, by the adapter or by the trained model's own configuration; 0 for what neither tells."""
    file = saves.folder / WEIGHTS
    if not file.is_file():
        config = json_object(saves.folder / "config.json")
        config = config.get("text_config", config)
        return int(config.get("num_hidden_layers") or 0), int(config.get("hidden_size") or 0)
    found = [match for key in _shapes(file) if (match := _KEY.fullmatch(key))]
    layers = max((int(match["layer"]) + 1 for match in found), default=0)
    widths = [shape[1] for key, shape in _shapes(file).items() if re.search(r"(v_proj|up_proj|q_proj)\.lora_A", key)]
    partly = saves.adapter.get("layers_to_transform")
    return 0 if partly else layers, widths[0] if widths else 0


def _candidates(file: Path) -> Iterator[tuple[str, int, str]]:
    for key in sorted(_shapes(file)):
        match = _KEY.fullmatch(key)
        if match and match["module"] in NAMES:
            yield match["path"], int(match["layer"]), match["module"]


def _shapes(file: Path) -> dict[str, list[int]]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as weights:
        return {key: list(weights.get_slice(key).get_shape()) for key in weights.keys()}  # noqa: SIM118


def _matrix(folder: Path, name: str) -> Any:
    """A matrix of a model folder as float32, or None."""
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            if name in weights.keys():  # noqa: SIM118  # no mapping
                return weights.get_tensor(name).float().numpy()
    return None


def _delta(saves: Saves, path: str) -> Any:
    """What the adapter adds to a matrix."""
    import math

    from safetensors import safe_open

    with safe_open(saves.folder / WEIGHTS, framework="pt") as weights:
        a, b = (weights.get_tensor(f"{path}.lora_{part}.weight").float().numpy() for part in "AB")
    rank, alpha = int(saves.adapter["r"]), float(saves.adapter["lora_alpha"])
    return (b @ a) * (alpha / (math.sqrt(rank) if saves.adapter.get("use_rslora") else rank))


def _compared(file: Any, base: Any, delta: Any) -> tuple[float, float] | None:
    import numpy as np

    length = float((delta * delta).sum())
    if length == 0 or not np.isfinite(file).all():
        return None
    share = float(((file - base) * delta).sum()) / length
    cosine = float((file * base).sum()) / float(np.linalg.norm(file) * np.linalg.norm(base))
    return share, cosine
