"""Training arguments that do not go together, and values that may be written and are hardly meant. Pure.

What is refused is what llamafactory/hparams/parser.py, `__post_init__` of the dataclasses of LLaMA-Factory, and
TrainingArguments and DataLoader of transformers refuse, as far as they need no machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from orchestrator.machine.requirements import QUANTISERS
from orchestrator.spec.editing import spec_key
from orchestrator.spec.sections import Spec

Arguments: TypeAlias = Mapping[str, Any]
"""Every argument that LLaMA-Factory knows, with the spec's value or its default."""


class Rule(NamedTuple):
    """It is asked only where the key stands in the spec."""

    key: str
    message: str
    broken: Callable[[Arguments], Any]
    """True, or anything true, where the arguments break the rule."""


def _only(owner: str, allowed: tuple[str, ...], *keys: str) -> Iterator[Rule]:
    """Arguments that have a meaning only while another has one of some values."""
    for key in keys:
        yield Rule(
            key,
            f"works only with {owner}: {' or '.join(allowed)}",
            lambda a, key=key: a[key] and a[owner] not in allowed,  # type: ignore[misc]
        )


def _exclusive(*pairs: tuple[str, str]) -> Iterator[Rule]:
    """Pairs of which at most one may be set. A pair is reported once, at its first key."""
    for key, other in pairs:
        yield Rule(
            key,
            f"cannot be combined with {other}; keep one",
            lambda a, key=key, other=other: a[key] and a[other],  # type: ignore[misc]
        )


def _wrong_bits(a: Arguments) -> Any:
    bits = {"bnb": (4, 8), "hqq": (8, 6, 5, 4, 3, 2, 1), "eetq": (8,)}.get(a["quantization_method"])
    return bits and a["quantization_bit"] is not None and a["quantization_bit"] not in bits


def _pissa_with_reference(a: Arguments) -> Any:
    reference = a["stage"] == "kto" or (a["stage"] == "dpo" and a["pref_loss"] not in ("orpo", "simpo"))
    return a["pissa_init"] and reference


def _best_misaligned(a: Arguments) -> Any:
    """Whether the best checkpoint could fall between two evaluations."""
    if not (a["load_best_model_at_end"] and a["save_strategy"] == a["eval_strategy"] == "steps"):
        return False
    saving, measuring = a["save_steps"], a["eval_steps"] or a["logging_steps"]
    mixed = (saving < 1) != (measuring < 1)
    return mixed or round(saving * 1e6) % round(measuring * 1e6)  # in millionths, where shares are exact


def _whole(key: str) -> Rule:
    message = "must be a whole number, or a share of all steps below 1"
    return Rule(key, message, lambda a: (a[key] or 0) > 1 and a[key] != int(a[key]))


RULES: tuple[Rule, ...] = (
    Rule("stage", "ppo cannot run with the trl that LLaMA-Factory requires; use dpo or kto",
         lambda a: a["stage"] == "ppo"),
    *_only("stage", ("sft",), "neat_packing", "train_on_prompt", "mask_history"),
    *_only("stage", ("sft", "pt", "dpo", "kto"), "load_best_model_at_end"),
    *_only("stage", ("dpo", "kto"), "pref_beta", "ref_model"),
    *_only("stage", ("dpo",), "pref_loss", "pref_ftx", "pref_bco_weight", "simpo_gamma", "ld_alpha"),
    *_only("stage", ("dpo",), "dpo_label_smoothing"),
    *_only("stage", ("kto",), "kto_chosen_weight", "kto_rejected_weight"),
    *_only("pref_loss", ("sigmoid",), "dpo_label_smoothing"),
    *_only("finetuning_type", ("lora",), "loraplus_lr_ratio", "use_rslora", "use_dora", "pissa_init"),
    *_only("finetuning_type", ("lora", "oft"), "quantization_bit"),
    *_only("finetuning_type", ("lora", "oft", "freeze"), "use_llama_pro"),
    *_only("finetuning_type", ("full", "freeze", "oft"), "use_galore", "use_apollo", "use_badam"),
    *_exclusive(
        ("quantization_bit", "pissa_init"), ("quantization_bit", "resize_vocab"), ("quantization_bit", "fp8"),
        ("bf16", "fp16"), ("bf16_full_eval", "fp16_full_eval"), ("mask_history", "train_on_prompt"),
        ("warmup_ratio", "warmup_steps"), ("use_galore", "use_apollo"), ("use_galore", "use_badam"),
        ("use_apollo", "use_badam"), ("deepspeed", "use_galore"), ("deepspeed", "use_apollo"),
    ),
    Rule("quantization_bit", "must be 4 or 8 with quantization_method: bnb; eetq takes 8, hqq 1–6 and 8", _wrong_bits),
    # LLaMA-Factory would train the whole model without a word: `configure_quantization`.
    Rule("quantization_bit", "needs quantization_method: bnb, hqq or eetq; others quantise nothing",
         lambda a: a["quantization_bit"] and a["quantization_method"] not in QUANTISERS),
    Rule("quantization_device_map", "cannot be used in training", lambda a: a["quantization_device_map"]),
    Rule("pissa_init", "works neither with kto nor with a dpo loss that has a reference model", _pissa_with_reference),
    Rule("streaming", "needs max_steps, since a stream has no known length",
         lambda a: a["streaming"] and a["max_steps"] < 1),
    Rule("load_best_model_at_end", "needs eval_strategy: steps or epoch, and the same save_strategy",
         lambda a: a["load_best_model_at_end"]
         and (a["eval_strategy"] == "no" or a["save_strategy"] not in ("best", a["eval_strategy"]))),
    Rule("load_best_model_at_end", "needs save_steps to be a multiple of eval_steps", _best_misaligned),
    Rule("save_strategy", "best needs eval_strategy and metric_for_best_model",
         lambda a: a["save_strategy"] == "best"
         and (a["eval_strategy"] == "no" or not (a["metric_for_best_model"] or a["load_best_model_at_end"]))),
    Rule("early_stopping_steps", "needs load_best_model_at_end: true and an eval_strategy",
         lambda a: a["early_stopping_steps"] and (a["eval_strategy"] == "no" or not a["load_best_model_at_end"])),
    Rule("lr_scheduler_type", "needs an eval_strategy, to watch the loss on held-out rows",
         lambda a: a["lr_scheduler_type"] in ("reduce_lr_on_plateau", "greedy") and a["eval_strategy"] == "no"),
    Rule("dataloader_prefetch_factor", "needs dataloader_num_workers of at least 1",
         lambda a: a["dataloader_prefetch_factor"] and a["dataloader_num_workers"] == 0),
    Rule("dataloader_persistent_workers", "needs dataloader_num_workers of at least 1",
         lambda a: a["dataloader_persistent_workers"] and a["dataloader_num_workers"] == 0),
    *map(_whole, ("logging_steps", "eval_steps", "save_steps")),
)  # fmt: skip


# ---- what is hardly meant: nothing is refused for it


HIGH, LOW = 1e-2, 1e-7
"""Learning rates beyond which AdamW diverges, or moves nothing; fine-tunings use 1e-6 (full) to 2e-3 (LoRA)."""
APART = 1000
"""Times that the largest of the rates a sweep tries may be the smallest."""
RATE = ("train", "learning_rate")


def doubts(spec: Spec) -> Iterator[str]:
    """What of the learning rates looks like a slip, a sentence each."""
    yield from _of_rate(spec.training["learning_rate"], "train.learning_rate")
    for name, space in (spec.sweep.parameters if spec.sweep else {}).items():
        if spec_key(name) == RATE:
            yield from _of_rates(_values(space), f"sweep.parameters.{name}")


def _values(space: object) -> list[float]:
    """The numbers of a list, or the ends of a range."""
    if isinstance(space, Mapping):
        space = [space.get("low"), space.get("high")]
    items = space if isinstance(space, list) else []
    return [float(item) for item in items if isinstance(item, int | float)]


def _of_rates(rates: list[float], key: str) -> Iterator[str]:
    for rate in rates:
        yield from _of_rate(rate, key)
    if rates and min(rates) > 0 and max(rates) > APART * min(rates):
        times = max(rates) / min(rates)
        yield f"{key}: {max(rates):g} is {times:,.0f} times {min(rates):g}; is one of them a slip?"


def _of_rate(rate: object, key: str) -> Iterator[str]:
    if isinstance(rate, int | float) and rate > HIGH:
        yield f"{key}: {rate:g} is far above what fine-tuning takes (1e-5 to 1e-3), and will likely diverge"
    elif isinstance(rate, int | float) and 0 < rate < LOW:
        yield f"{key}: {rate:g} is far below what fine-tuning takes (1e-5 to 1e-3), and will likely teach nothing"
