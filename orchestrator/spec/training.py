"""What may stand under `train:`, against the installed LLaMA-Factory.

LLaMA-Factory itself checks names only, after eight seconds, and neither types nor choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.llamafactory import Argument, arguments
from orchestrator.spec.rules import RULES
from orchestrator.spec.wording import did_you_mean, one_of, quote

ELSEWHERE = {
    "model_name_or_path": "say it as model.base",
    "model_revision": "say it as model.base: hf:ORG/NAME@REVISION",
    "trust_remote_code": "say it as model.trust_remote_code",
    "template": "say it as model.template",
    "enable_thinking": "say it as model.thinking",
    "default_system": "say it as data.system",
    "dataset": "say it as data.train",
    "dataset_dir": "say it as data.train",
    "eval_dataset": "say it as data.eval",
    "val_size": "say it as data.eval_fraction",
    "max_samples": "say it as data.max_samples",
    "interleave_probs": "say it as data.weights",
    "mix_strategy": "say it as data.weights",
    "max_new_tokens": "say it as evaluate.max_new_tokens",
    "max_length": "say it as evaluate.max_new_tokens, or train.cutoff_len for training",
    "do_sample": "held-out rows are answered greedily; for serving, say it under export.ollama.parameters",
    "output_dir": "every run has a folder of its own",
    "overwrite_output_dir": "every run has a folder of its own",
    "resume_from_checkpoint": "an interrupted run continues from its newest whole checkpoint by itself",
    "do_train": "the stages set it",
    "do_eval": "the stages set it; train.eval_strategy measures the loss during training",
    "do_predict": "the stages set it",
    "predict_with_generate": "the stages set it",
    "adapter_name_or_path": "the stages set it; a trained model is named as model.base",
    "infer_backend": "GGUF files answer in llama.cpp, the tuned model in LLaMA-Factory",
    "tokenized_path": "it would not notice changed data",
    "hf_hub_token": "set HF_TOKEN in the environment, so that no file holds it",
    "ms_hub_token": "set MODELSCOPE_API_TOKEN in the environment, so that no file holds it",
    "om_hub_token": "set OM_HUB_TOKEN in the environment, so that no file holds it",
    "hub_token": "set HF_TOKEN in the environment, so that no file holds it",
    "swanlab_api_key": "set SWANLAB_API_KEY in the environment, so that no file holds it",
    "compute_accuracy": "the held-out rows are answered in full, and evaluate measures the accuracy of that",
    "push_to_hub": "`orchestrator push RUN hf:ORG/NAME` does it once the model is proven",
}
"""Arguments that LLaMA-Factory has and that are decided in another place."""

RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "group_by_length": "train_sampling_strategy: group_by_length",
    "no_cuda": "use_cpu",
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "max_seq_length": "cutoff_len",
    "lora_r": "lora_rank",
    "quantization": "quantization_bit",
}
"""What transformers removed, and what other tools call it."""

BOUNDS: Mapping[str, tuple[float, float]] = {
    "per_device_train_batch_size": (1, 65536),
    "per_device_eval_batch_size": (1, 65536),
    "gradient_accumulation_steps": (1, 65536),
    "lora_rank": (1, 65536),
    "lora_alpha": (1, 1e6),
    "lora_dropout": (0, 0.99),
    "cutoff_len": (16, 2**24),
    "warmup_ratio": (0, 1),
    "warmup_steps": (0, 1e9),
    "weight_decay": (0, 1e3),
    "max_grad_norm": (0, 1e9),
    "label_smoothing_factor": (0, 0.99),
    "adam_beta1": (0, 0.9999999),
    "adam_beta2": (0, 0.9999999),
    "save_total_limit": (1, 1e9),
    "early_stopping_steps": (1, 1e9),
    "preprocessing_num_workers": (1, 4096),
    "preprocessing_batch_size": (1, 1e9),
    "dataloader_num_workers": (0, 4096),
    "dpo_label_smoothing": (0, 0.5),
    "torch_empty_cache_steps": (1, 1e9),
    "neftune_noise_alpha": (0, 1e3),
    "seed": (0, 2**32 - 1),
}
"""Least and greatest value that can work."""

POSITIVE = ("learning_rate", "num_train_epochs", "logging_steps", "save_steps", "eval_steps", "loraplus_lr_ratio")


def check_training(train: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(key, message) for everything wrong under `train:`. Raises MissingError where LLaMA-Factory is not installed."""
    known = arguments()
    found = [(key, message) for key, value in train.items() if (message := _wrong(key, value, known))]
    wrong = {key for key, _ in found}
    values = {key: train[key] if key in train and key not in wrong else known[key].default for key in known}
    return found + [
        (rule.key, rule.message)
        for rule in RULES
        if rule.key in train and rule.key not in wrong and rule.broken(values)
    ]


def _wrong(key: str, value: Any, known: Mapping[str, Argument]) -> str | None:
    """What is wrong with one argument by itself."""
    if key in ELSEWHERE or (key.startswith(("export_", "vllm_", "sglang_")) and key in known):
        return f"cannot be set here: {ELSEWHERE.get(key, 'the export section decides it')}"
    if key not in known:
        return f"unknown key{f'; it is now {RENAMED[key]}' if key in RENAMED else did_you_mean(key, known)}"
    return _mistyped(known[key], value) or _out_of_bounds(key, value)


_KINDS: Mapping[str, tuple[type, ...]] = {
    "text": (str,), "int": (int,), "float": (int, float), "bool": (bool,), "dict": (dict,), "list": (list, tuple),
    "null": (type(None),),
}  # fmt: skip
_WORDS = {"text": "text", "int": "a whole number", "float": "a number", "bool": "true or false",
          "dict": "a mapping", "list": "a list"}  # fmt: skip


def _mistyped(argument: Argument, value: Any) -> str | None:
    kinds = [kind for kind in argument.kinds if isinstance(value, _KINDS[kind])]
    if isinstance(value, bool):  # Python's booleans are whole numbers, a configuration's are not
        kinds = [kind for kind in kinds if kind == "bool"]
    if argument.choices and value not in argument.choices and "null" not in kinds and "bool" not in kinds:
        guess = did_you_mean(value, argument.choices) if isinstance(value, str) else ""
        return f"expected one of {one_of(argument.choices)}, got {quote(value)}{guess}"
    if kinds:
        return None
    hint = "; join them with commas in one text" if isinstance(value, list) and "text" in argument.kinds else ""
    words = " or ".join(_WORDS[kind] for kind in argument.kinds if kind != "null")
    return f"expected {words}, got {quote(value)}{hint}"


def _out_of_bounds(key: str, value: Any) -> str | None:
    if isinstance(value, str) or value is None:
        return None
    if key in POSITIVE and value <= 0:
        return f"must be more than 0, got {value}"
    low, high = BOUNDS.get(key, (value, value))
    if not low <= value <= high:
        return f"must be at least {low:g}, got {value}" if value < low else f"must be at most {high:g}, got {value}"
    return None
