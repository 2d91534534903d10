"""What may stand under `train:`, against the installed LLaMA-Factory.

LLaMA-Factory itself checks names only, after eight seconds, and neither types nor choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from orchestrator.lib.llamafactory import Argument, arguments
from orchestrator.machine.requirements import TRACKERS, trackers
from orchestrator.spec.document import did_you_mean, one_of, quote
from orchestrator.spec.rules import RULES
from orchestrator.spec.sections import DEFAULTS, KEEP, KEEPS

_TOKEN = "set it in the environment, so that no file holds it"
_PLACES: Mapping[str, tuple[str, ...]] = {
    "say it as model.base": ("model_name_or_path", "model_revision"),
    "say it as model.template": ("template",),
    "say it as model.thinking": ("enable_thinking",),
    "say it as model.trust_remote_code": ("trust_remote_code",),
    "say it as data.train": ("dataset", "dataset_dir"),
    "say it as data.eval": ("eval_dataset",),
    "say it as data.eval_fraction": ("val_size",),
    "say it as data.system": ("default_system",),
    "say it as data.max_samples": ("max_samples",),
    "say it as data.weights": ("interleave_probs", "mix_strategy"),
    "say it as evaluate.max_new_tokens": ("max_new_tokens", "max_length"),
    "held-out rows are answered greedily; say it in export.ollama.parameters for serving": ("do_sample",),
    "every run has a folder of its own": ("output_dir", "overwrite_output_dir"),
    "an interrupted run continues from its newest whole checkpoint by itself": ("resume_from_checkpoint",),
    "the stages set it": ("do_train", "do_eval", "do_predict", "predict_with_generate", "adapter_name_or_path"),
    "the stages choose what answers": ("infer_backend",),
    "servers would be asked other prompts than those of training": ("preserve_thinking",),
    "say it behind the template's name: model.template: gemma+qwen": ("tool_format",),
    "it would not notice changed data": ("tokenized_path",),
    "evaluate measures the accuracy of whole answers": ("compute_accuracy",),
    f"{_TOKEN}: HF_TOKEN": ("hf_hub_token", "hub_token"),
    f"{_TOKEN}: MODELSCOPE_API_TOKEN": ("ms_hub_token",),
    f"{_TOKEN}: OM_HUB_TOKEN": ("om_hub_token",),
    f"{_TOKEN}: SWANLAB_API_KEY": ("swanlab_api_key",),
    "`orchestrator push RUN hf:ORG/NAME` does it once the model is proven": ("push_to_hub",),
}
ELSEWHERE = {key: place for place, keys in _PLACES.items() for key in keys}
"""Arguments that LLaMA-Factory has and that are decided in another place, which is named."""

_NEW_NAMES = {
    "evaluation_strategy": "eval_strategy",
    "group_by_length": "train_sampling_strategy: group_by_length",
    "no_cuda": "use_cpu",
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "max_seq_length": "cutoff_len",
    "lora_r": "lora_rank",
}
REMOVED = {old: f"it is called {new}" for old, new in _NEW_NAMES.items()} | {
    "save_safetensors": "weights are always saved as safetensors; leave it out"
}
"""What transformers removed, and what other tools call it."""

_RANGES: Mapping[tuple[float, float], tuple[str, ...]] = {
    (1, 65536): (
        "per_device_train_batch_size",
        "per_device_eval_batch_size",
        "gradient_accumulation_steps",
        "lora_rank",
    ),
    (1, 1e9): ("lora_alpha", "save_total_limit", "early_stopping_steps", "preprocessing_batch_size"),
    (1, 4096): ("preprocessing_num_workers", "torch_empty_cache_steps"),
    (16, 1 << 24): ("cutoff_len",),
    (0, 0.99): ("lora_dropout", "label_smoothing_factor"),
    (0, 0.9999999): ("adam_beta1", "adam_beta2"),
    (0, 0.5): ("dpo_label_smoothing",),
    (0, 1): ("warmup_ratio",),
    (0, 1e9): ("warmup_steps", "weight_decay", "max_grad_norm", "neftune_noise_alpha", "dataloader_num_workers"),
    (0, 2**32 - 1): ("seed", "data_seed"),
}
BOUNDS = {key: bounds for bounds, keys in _RANGES.items() for key in keys}
"""The least and the greatest value that can work."""
FILES = ("deepspeed", "fsdp_config", "accelerator_config", "hyper_parallel_args", "new_special_tokens_config")
POSITIVE = ("learning_rate", "num_train_epochs", "logging_steps", "save_steps", "eval_steps", "loraplus_lr_ratio")


MODELS = ("ref_model", "ref_model_adapters")
"""Arguments that may name a folder of the user's as well as a model of a hub."""


def paths(train: Mapping[str, Any], project: Path) -> dict[str, Path]:
    """Argument → the user's file or folder that it names; settings in place and models of a hub are neither."""
    named = {key: train[key] for key in (*FILES, *MODELS) if isinstance(train.get(key), str)}
    found = {key: project / Path(value).expanduser() for key, value in named.items() if not value.startswith("{")}
    return {key: path for key, path in found.items() if path.exists()}


def defaults() -> dict[str, Any]:
    """Every argument of the installed LLaMA-Factory, and what it is where a spec does not say it."""
    return {key: DEFAULTS.get(key, argument.default) for key, argument in arguments().items()}


def check_training(train: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(key, message) for everything wrong under `train:`. Raises MissingError where LLaMA-Factory is not installed."""
    known = arguments()
    found = [(key, message) for key, value in train.items() if (message := _wrong(key, value, known))]
    wrong = {key for key, _ in found}
    values = defaults() | {key: value for key, value in train.items() if key not in wrong}
    return found + [
        (rule.key, rule.message)
        for rule in RULES
        if rule.key in train and rule.key not in wrong and rule.broken(values)
    ]


def decided_elsewhere(key: str) -> str:
    """Where an argument of LLaMA-Factory is decided that cannot stand in a spec; "" for those that can."""
    exporting = key.startswith(("export_", "vllm_", "sglang_")) and key in arguments()
    return ELSEWHERE.get(key, "the export section decides it" if exporting else "")


def _wrong(key: str, value: Any, known: Mapping[str, Argument]) -> str | None:
    """What is wrong with one argument by itself."""
    if key == KEEP:
        return None if value in KEEPS else f"expected one of {one_of(KEEPS)}, got {quote(value)}"
    if place := decided_elsewhere(key):
        return f"cannot be set here: {place}"
    if key not in known:
        return f"unknown key{f'; {REMOVED[key]}' if key in REMOVED else did_you_mean(key, [*known, KEEP])}"
    return (
        _mistyped(known[key], value)
        or _out_of_bounds(key, value)
        or _out_of_reach(key, value)
        or _unknown_tracker(key, value)
    )


_KINDS: Mapping[str, tuple[type[Any] | tuple[type[Any], ...], str]] = {
    "text": (str, "text"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "bool": (bool, "true or false"),
    "dict": (dict, "a mapping"),
    "list": ((list, tuple), "a list"),
    "null": (type(None), "nothing"),
}


def _mistyped(argument: Argument, value: Any) -> str | None:
    fitting = [kind for kind in argument.kinds if isinstance(value, _KINDS[kind][0])]
    if isinstance(value, bool):  # Python's booleans are whole numbers, a configuration's are not
        fitting = [kind for kind in fitting if kind == "bool"]
    if fitting and not (isinstance(value, str) and argument.choices and value not in argument.choices):
        return None
    if argument.choices:
        guess = did_you_mean(value, argument.choices) if isinstance(value, str) else ""
        return f"expected one of {one_of(argument.choices)}, got {quote(value)}{guess}"
    words = " or ".join(_KINDS[kind][1] for kind in argument.kinds if kind != "null")
    hint = "; join them with commas in one text" if isinstance(value, list) and "text" in argument.kinds else ""
    return f"expected {words}, got {quote(value)}{hint}"


def _out_of_bounds(key: str, value: Any) -> str | None:
    if value is None or (key not in POSITIVE and key not in BOUNDS):
        return None
    if key in POSITIVE:
        return None if value > 0 else f"must be more than 0, got {value}"
    low, high = BOUNDS[key]
    if value < low:
        return f"must be at least {low:g}, got {value}"
    return f"must be at most {high:.7g}, got {value}" if value > high else None


def _out_of_reach(key: str, value: Any) -> str | None:
    """A relative path would be looked for in the run's folder, where training works. Text in braces is JSON."""
    if key not in FILES or not isinstance(value, str) or value.startswith("{") or PurePath(value).is_absolute():
        return None
    return f"each run works in a folder of its own; give the absolute path of {value!r}, or the settings as a mapping"


def _unknown_tracker(key: str, value: Any) -> str | None:
    if key != "report_to" or not (unknown := [name for name in trackers({key: value}) if name not in TRACKERS]):
        return None
    guess = did_you_mean(unknown[0], TRACKERS) or f"; choose from none, all, {', '.join(TRACKERS)}"
    return f"unknown tracker {unknown[0]!r}{guess}"
