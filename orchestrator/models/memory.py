"""How much memory a training, a prediction and a merge will take, forecast before anything starts.

The formulas: pure functions from a model's size and the training arguments to the parts of the peak, in bytes.

What each part is made of stands beside it; docs/memory.md compares the sums with measured and with published ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.lib.training_kinds import TRAINING_KINDS
from orchestrator.models.shape import Model

PROCESS = int(1.06 * 2**30)
"""Main memory of a process that has imported torch, transformers and LLaMA-Factory; measured."""
CUDA_PROCESS = 3 * 2**30
"""The same with CUDA's libraries loaded; pinned buffers included."""
CUDA_CONTEXT = 2**30
"""GPU memory that CUDA itself, cuBLAS's workspace and the caching allocator's rounding take."""
NF4 = 0.516
"""Bytes a parameter in 4 bits with doubly quantised constants: Dettmers et al. 2023, "QLoRA", section 3."""
LOGITS = {4: 24, 2: 14}
"""Bytes for each logit, by the bytes of a computed value. In float32 six copies, measured on the CPU at batches of 1, 4
and 8 (4.9, 5.4 and 6.3); in half precision the logits, and in float32 their log-softmax and two gradients."""
SMALLER = "model.base (a smaller one)"


@dataclass(frozen=True, slots=True)
class MemoryInput:
    """What else decides how much is needed."""

    arguments: Mapping[str, Any]
    """LLaMA-Factory's, with our defaults."""
    tokens: int
    """Of the longest row."""
    new_tokens: int = 0
    """Of the longest answer."""
    devices: int = 0
    """GPUs; 0 for the CPU."""
    zero: int = 0
    """DeepSpeed's ZeRO stage: 1 divides the optimizer among devices, 2 also gradients, 3 also weights."""
    answer: int | None = None
    """Most tokens of a row that a loss is computed on, where logits are computed at those alone; None: everywhere."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """The parts of the peak, in bytes."""

    stage: str
    gpu: Mapping[str, int]
    """Of each GPU; empty on a machine without one."""
    host: Mapping[str, int]
    """Of main memory."""
    lower: str
    """The setting that lowers it most."""


def train(model: Model, setting: MemoryInput) -> Forecast:
    """The peak of training: somewhere between the forward pass's logits and the optimizer's step."""
    parts = _weights(model, setting) | _trained(model, setting) | _passing(model, setting)
    return _placed("train", model, setting, parts, _lower(parts, setting))


def _lower(parts: Mapping[str, int], setting: MemoryInput) -> str:
    """The setting that takes most off the largest part of a training."""
    chosen = setting.arguments
    if chosen.get("disable_gradient_checkpointing"):
        return "train.disable_gradient_checkpointing (to false)"
    if parts["activations"] + parts["logits"] > parts["weights"] + parts["optimizer"]:
        if chosen["per_device_train_batch_size"] > 1:
            return "train.per_device_train_batch_size (and raise gradient_accumulation_steps as much)"
        return "train.cutoff_len"
    if chosen["finetuning_type"] == "full":
        return "train.finetuning_type (to lora)"
    return "train.quantization_bit (to 4)" if setting.devices and not chosen.get("quantization_bit") else SMALLER


def predict(model: Model, setting: MemoryInput) -> Forecast:
    """The peak of answering the held-out rows: the keys and values of all tokens, and one layer at work."""
    batch = setting.arguments.get("per_device_eval_batch_size", 8)
    tokens = batch * (setting.tokens + setting.new_tokens)
    width = computed_bytes(model, setting.arguments)
    parts = _weights(model, setting) | {
        "keys and values": width * tokens * model.cached * model.layers,
        "activations": width * tokens * (4 * model.hidden + 3 * model.inner),
        "logits": 3 * 4 * batch * model.vocabulary,
    }
    return _placed("predict", model, setting, parts, "train.per_device_eval_batch_size")


def merge(model: Model) -> Forecast:
    """The peak of merging the adapter, in main memory: each mapped weight turns into its sum, which is written."""
    return Forecast("merge", {}, {"process": PROCESS, "weights": model.weights}, SMALLER)


# ---- parts


def _weights(model: Model, setting: MemoryInput) -> dict[str, int]:
    """The base model, in the type it is stored in or quantised by bitsandbytes, which leaves the embeddings alone."""
    bits = setting.arguments.get("quantization_bit")
    linear = sum(outputs * inputs for _, outputs, inputs in model.matrices)
    size = float(model.weights)
    if bits in (4, 8):
        size += linear * ((NF4 if bits == 4 else 1) - model.width)
    return {"weights": int(size / (max(1, setting.devices) if setting.zero >= 3 else 1))}


def _trained(model: Model, setting: MemoryInput) -> dict[str, int]:
    """What is trained, its gradients and AdamW's two moments; LLaMA-Factory trains in float32 unless pure_bf16."""
    chosen, devices = setting.arguments, max(1, setting.devices)
    count, width = trainable(model, chosen), 2 if chosen.get("pure_bf16") else 4
    moment = 1 if "8bit" in str(chosen.get("optim", "")) else width
    copies = float(width)
    if not _adapts(chosen):  # the trained weights replace the stored ones; autocast keeps a copy in half precision
        copies += (2 if width == 4 and computed_bytes(model, chosen) == 2 else 0) - model.width
    return {
        "trained weights": int(count * copies) // (devices if setting.zero >= 3 else 1),
        "gradients": count * width // (devices if setting.zero >= 2 else 1),
        "optimizer": count * 2 * moment // (devices if setting.zero >= 1 else 1),
    }


def _adapts(chosen: Mapping[str, Any]) -> bool:
    return chosen["finetuning_type"] in ("lora", "oft")


def trainable(model: Model, chosen: Mapping[str, Any]) -> int:
    """How many parameters are trained."""
    kind = chosen["finetuning_type"]
    if kind == "full":
        return model.parameters
    if kind == "freeze":
        share = abs(chosen.get("freeze_trainable_layers", 2)) / model.layers
        return int(share * sum(outputs * inputs for _, outputs, inputs in model.matrices))
    target = chosen.get("lora_target", "all")
    names = target.split(",") if isinstance(target, str) else list(target)
    sides = [outputs + inputs for name, outputs, inputs in model.matrices if "all" in names or name in names]
    return int(chosen.get("lora_rank", 8)) * sum(sides)


def _passing(model: Model, setting: MemoryInput) -> dict[str, int]:
    """What the forward pass leaves for the backward pass."""
    chosen = setting.arguments
    kind = TRAINING_KINDS[chosen["stage"]]
    rows = chosen["per_device_train_batch_size"] * kind.sequences
    tokens = rows * setting.tokens
    width = computed_bytes(model, chosen)
    layer = layer_activations(model, chosen, tokens)
    if chosen.get("flash_attn") == "disabled":
        layer += 3 * width * model.heads * tokens * setting.tokens
    at = tokens if setting.answer is None else rows * min(setting.tokens, setting.answer + 1)
    none = chosen.get("enable_liger_kernel") or kind.value_head
    logits = 0 if none else at * model.vocabulary * LOGITS[width]
    if chosen.get("disable_gradient_checkpointing"):
        return {"activations": model.layers * layer, "logits": logits}
    # One layer is computed anew at a time, when the logits are gone; until then only its inputs are kept.
    inputs = model.layers * width * tokens * model.hidden
    return {"activations": inputs + max(0, layer - logits), "logits": logits}


def layer_activations(model: Model, chosen: Mapping[str, Any], tokens: int) -> int:
    """Bytes that one layer keeps for its backward pass.

    After Korthikanti et al. 2022, "Reducing activation recomputation in large transformer models", equation 1, without
    the attention scores, which fused kernels do not keep, and with a gated MLP. Adapters in float32 on a model in half
    precision keep a float32 copy of their inputs, and under autocast one in half precision.
    """
    width, inputs = computed_bytes(model, chosen), 6 * model.hidden + model.inner
    copies = (4 + 2) * inputs if width == 2 and _adapts(chosen) else 0
    return tokens * (width * (8 * model.hidden + 4 * model.inner) + copies)


def computed_bytes(model: Model, chosen: Mapping[str, Any]) -> int:
    """Bytes of one value while computing: 2 or 4."""
    half = any(chosen.get(key) for key in ("bf16", "fp16", "pure_bf16")) or model.width <= 2
    return 2 if half else 4


def _placed(stage: str, model: Model, setting: MemoryInput, parts: Mapping[str, int], lower: str) -> Forecast:
    if setting.devices == 0:
        return Forecast(stage, {}, {"process": PROCESS, **parts}, lower)
    host = {"process": CUDA_PROCESS, "file being read": min(model.weights, 5 * 2**30)}
    return Forecast(stage, {"CUDA": CUDA_CONTEXT, **parts}, host, lower)
