"""`speed: auto`: what changes how fast LLaMA-Factory runs, and no result, where memory allows.

It is chosen when a stage starts, from its arguments, the lengths that `prepare` measured and the memory that is free
then. It is no part of the fingerprint: another machine may choose otherwise and still reuse the result. The run's
record says what was chosen. What the user wrote is never overridden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.lib.cpu import threads
from orchestrator.lib.step import Step
from orchestrator.machine import environment
from orchestrator.models import gpu
from orchestrator.models.memory import MemoryInput, computed_bytes, merge, predict
from orchestrator.models.situation import Situation, counted, devices, of_step, total, training_bytes

CHECKPOINTING = "disable_gradient_checkpointing"
UNSAFE = ("gradient_checkpointing", "use_unsloth", "quantization_bit", "deepspeed", "fsdp", "use_kt")
"""Where one of these is set, checkpointing is the user's choice or another library's."""
BATCH = "per_device_eval_batch_size"
ANSWERED_TOGETHER = 32
"""Rows; a 135M model on two cores answered 2.4 times as many a second as with LLaMA-Factory's 8, and no more with 100.
"""
TOGETHER = 2
"""Stages at once: two predictions with one thread each took 0.78 of the time of one after the other with two."""
LOGITS, SORTED, SHARED = "answer_logits", "by_length", "shared_prefix"
OWN = (LOGITS, SORTED, SHARED)
"""Choices that no argument of LLaMA-Factory makes: fields of the program that runs in its command's place."""
MICRO = ("per_device_train_batch_size", "gradient_accumulation_steps")
ALIKE = 2.0
"""The longest row over the mean up to which large micro-batches are chosen: each is padded to its longest row."""
ENOUGH = 200
"""Tokens of a micro-batch from which on a processor computes each as fast as in a larger one. 135M, two cores: in
micro-batches of 265 tokens each took as long as in those of 515, in those of 150 it took 11 % longer."""

WHOLE_LOGITS = {
    "packing": "packing", "neat_packing": "packing", "use_dft_loss": "the dft loss", "use_eaft_loss": "the eaft loss",
    "use_asft_loss": "the asft loss", "label_smoothing_factor": "label smoothing",
    "compute_accuracy": "compute_accuracy", "enable_liger_kernel": "Liger's own loss", "use_unsloth": "unsloth",
    "use_unsloth_gc": "unsloth", "quantization_bit": "a quantised model", "mixture_of_depths": "mixture of depths",
    "deepspeed": "deepspeed", "fsdp": "fsdp", "use_kt": "KTransformers", "ld_alpha": "ld_alpha", "use_mca": "mcore",
    "fp8": "fp8", "use_hyper_parallel": "hyper parallel", "trust_remote_code": "the model's own code",
}  # fmt: skip
"""Argument → what needs, or may need, the logits of every token."""
UNEQUAL = (
    "lora_dropout", "neftune_noise_alpha", "dataloader_drop_last", "streaming", "moe_aux_loss_coef", "use_badam",
    "use_galore", "use_apollo", "label_smoothing_factor", "use_eaft_loss", "use_asft_loss", "mixture_of_depths",
    "trust_remote_code", "deepspeed", "fsdp", "use_kt", "use_mca", "use_hyper_parallel", "use_unsloth",
    "auto_find_batch_size",
)  # fmt: skip
"""Where one of these is set, another division of a step's rows would be another training: what is drawn, dropped or
averaged is so for each micro-batch."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An argument and why it was chosen."""

    name: str
    value: str
    """As a YAML scalar."""
    why: str

    @property
    def argument(self) -> str:
        """As a command line has it."""
        return f"{self.name}={self.value}"


def chosen(found: Iterable[Choice]) -> dict[str, str]:
    """Name → value of some choices."""
    return {choice.name: choice.value for choice in found}


def for_training(now: Situation) -> list[Choice]:
    """Logits at the answers alone, no gradient checkpointing where all activations fit, and large micro-batches."""
    found = [] if whole_logits(now) else [_answer_logits(now)]
    now = replace(now, answer=now.answer if found else None)
    found += _no_checkpointing(now)
    found += _micro_batches(now, kept=bool(found and found[-1].name == CHECKPOINTING))
    return found + _steps_by_length(now, chosen(found))


def whole_logits(now: Situation) -> str:
    """Why logits are computed at every token; nothing where those of the answers do."""
    stage = now.arguments["stage"]
    if stage not in ("sft", "dpo", "kto", "pt"):
        return f"stage {stage}"
    if stage == "pt" and now.arguments.get("packing") is not False:
        return "packing"
    return next((why for name, why in WHOLE_LOGITS.items() if now.arguments.get(name)), now.barred)


def _answer_logits(now: Situation) -> Choice:
    of = f"at most {now.answer} of {now.longest} tokens of a row" if now.answer else "the tokens of a row"
    return Choice(LOGITS, "true", f"logits at {of} that carry a loss; none needs the others")


def _no_checkpointing(now: Situation) -> list[Choice]:
    if now.model is None or CHECKPOINTING in now.arguments or any(now.arguments.get(key) for key in UNSAFE):
        return []
    needed = training_bytes(now, {CHECKPOINTING: True})
    if not now.affords(needed):
        return []
    why = f"training takes about {_gib(needed)} with all activations kept, and {_gib(now.free)} are free"
    return [Choice(CHECKPOINTING, "true", why)]


def _micro_batches(now: Situation, kept: bool) -> list[Choice]:
    """A step's rows in fewer micro-batches, as large as memory affords, where nobody wrote how many."""
    if now.model is None or set(MICRO) - set(now.unset) or not (divides_equally(now) and saves_passes(now)):
        return []
    split = larger(now, kept)
    if split is None:
        return []
    rows, times = split
    needed = training_bytes(now, _split(rows, times, kept))
    why = f"{rows} × {times} rows a step take about {_gib(needed)}; equal but for rounding to {_written(now)}"
    return [Choice(name, str(value), why) for name, value in zip(MICRO, split, strict=True)]


def _steps_by_length(now: Situation, chosen: Mapping[str, str]) -> list[Choice]:
    """A step's rows dealt to its micro-batches by length, where it has several."""
    several = int(chosen.get(MICRO[1], now.arguments.get(MICRO[1], 1))) > 1
    if now.model is None or not several or not divides_equally(now):
        return []
    return [Choice(SORTED, "true", "a step's rows of like lengths are computed together; equal but for rounding")]


def divides_equally(now: Situation) -> bool:
    """Whether a step's result, rounding aside, is the same however its rows are divided: where a loss is summed over
    the tokens of all of them, as transformers does for sft and pt of models of text."""
    unequal = any(now.arguments.get(name) for name in UNEQUAL)
    return now.arguments["stage"] in ("sft", "pt") and not unequal and not now.barred


def saves_passes(now: Situation) -> bool:
    """Whether fewer passes outweigh the padding of larger micro-batches: rows are of like lengths."""
    return now.longest <= ALIKE * now.mean


def larger(now: Situation, kept: bool) -> tuple[int, int] | None:
    """Rows × times of a larger micro-batch than the present one: the largest that is of use and that memory affords.

    None if there is none. `kept` says whether all activations are.
    """
    rows, times = (int(now.arguments[name]) for name in MICRO)
    splits = [(many, rows * times // many) for many in range(rows, rows * times + 1) if rows * times % many == 0]
    if not devices(now.arguments):
        of_use = next((n for n, (many, _) in enumerate(splits) if many * now.mean >= ENOUGH), len(splits))
        splits = splits[: of_use + 1]
    affords = (split for split in reversed(splits[1:]) if now.affords(training_bytes(now, _split(*split, kept))))
    return next(affords, None)


def _split(rows: int, times: int, kept: bool) -> dict[str, Any]:
    return dict(zip(MICRO, (rows, times), strict=True)) | ({CHECKPOINTING: True} if kept else {})


def _written(now: Situation) -> str:
    return " × ".join(str(now.arguments[name]) for name in MICRO)


def for_predicting(now: Situation) -> list[Choice]:
    """More rows at a time, those of like lengths together, and what all begin with once. In half precision the size of
    a batch shows in the rounding, so there all stays as it is."""
    if now.model is None or computed_bytes(now.model, now.arguments) < 4:
        return []
    found = [] if now.barred else [*ALIKE_PROMPTS]
    if BATCH in now.arguments:
        return found
    arguments = {**now.arguments, BATCH: ANSWERED_TOGETHER}
    new_tokens = now.arguments["max_new_tokens"]
    needed = total(predict(now.model, MemoryInput(arguments, now.longest, new_tokens, devices(arguments))))
    if not now.affords(needed):
        return found
    why = f"{ANSWERED_TOGETHER} rows at a time take about {_gib(needed)}, and {_gib(now.free)} are free"
    return [*found, Choice(BATCH, str(ANSWERED_TOGETHER), why)]


ALIKE_PROMPTS = (
    Choice(SORTED, "true", "rows of like lengths need little padding"),
    Choice(SHARED, "true", "what all prompts begin with is computed once"),
)
CHOOSE: Mapping[str, Callable[[Situation], list[Choice]]] = {
    "train": for_training,
    "predict-base": for_predicting,
    "predict-base-prompted": for_predicting,
    "predict-tuned": for_predicting,
}
"""Stage → what is chosen for it."""


def choices(step: Step, run_folder: Path | None, share: float = 1.0) -> list[Choice]:
    """What would be chosen for a step now, with a share of the free memory."""
    if step.stage not in CHOOSE or not share:
        return []
    return CHOOSE[step.stage](of_step(step, run_folder, share))


def at_once(steps: Sequence[Step], run_folder: Path, share: float = 1.0) -> int:
    """How many stages of a run may be under way at once: as many as there are cores and, twice over, memory for.

    Who has but a share of the machine, as a trial beside others, does one after the other.
    """
    asked = [step for step in steps if CHOOSE.get(step.stage) is for_predicting]
    if share < 1 or threads() < TOGETHER or not asked:
        return 1
    now = of_step(asked[-1], run_folder, share)
    if now.model is None:
        return 1
    setting = MemoryInput(now.arguments, now.longest, now.arguments["max_new_tokens"])
    largest = max(sum(needed.host.values()) for needed in (predict(now.model, setting), merge(now.model)))
    return TOGETHER if 2 * TOGETHER * largest <= environment.free_main_memory() else 1


def forecast(step: Step, run_folder: Path | None) -> dict[str, str]:
    """Argument → reason, as a plan shows it; what is left out, and what is the user's to change, in words."""
    found = {choice.argument: choice.why for choice in choices(step, run_folder)}
    if step.stage != "train":
        return found
    if not counted(run_folder):
        found = {name: why for name, why in found.items() if name.startswith(LOGITS)}
        return found | {"speed: auto": "the rest is decided once `prepare` has measured the rows"}
    now = of_step(step, run_folder, 1.0)
    card = gpu.here()
    return found | dict(remarks(now)) | dict(gpu.advice(now, card) if card else ())


def remarks(now: Situation) -> list[tuple[str, str]]:
    """What is not chosen for a training, and why: said once, in the plan."""
    found = []
    if why := whole_logits(now):
        found.append(("logits of every token", f"computed, because of {why}"))
    if now.model and set(MICRO) - set(now.unset) and divides_equally(now) and saves_passes(now):
        now = replace(now, answer=None if found else now.answer)
        kept = bool(now.arguments.get(CHECKPOINTING))
        if split := larger(now, kept):
            needed, present = training_bytes(now, _split(*split, kept)), training_bytes(now, {})
            found.append((
                f"{' × '.join(map(str, split))} instead of your {_written(now)}",
                f"would take about {_gib(needed)} instead of {_gib(present)} and be faster; equal but for rounding",
            ))  # fmt: skip
    return found


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
