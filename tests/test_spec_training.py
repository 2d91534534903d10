"""What may stand under `train:`, compared with what the installed LLaMA-Factory itself says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.lib.llamafactory import arguments
from orchestrator.spec.rules import RULES
from orchestrator.spec.sections import DEFAULTS
from orchestrator.spec.training import BOUNDS, ELSEWHERE, FILES, POSITIVE, REMOVED, check_training
from tests.warm_tool import told

BEST = {"load_best_model_at_end": True}
STEPS = {"eval_strategy": "steps", "save_strategy": "steps"}
FULL = {"finetuning_type": "full"}

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"stage": "ppo"}, "stage", "ppo cannot run"),
    ({"stage": "dpo", "neat_packing": True}, "neat_packing", "works only with stage: sft"),
    ({"stage": "dpo", "train_on_prompt": True}, "train_on_prompt", "works only with stage: sft"),
    ({"stage": "kto", "mask_history": True}, "mask_history", "works only with stage: sft"),
    (
        {"stage": "rm", **BEST, "eval_strategy": "epoch"},
        "load_best_model_at_end",
        "works only with stage: sft or pt or",
    ),
    ({"stage": "dpo", "pref_loss": "hinge", "dpo_label_smoothing": 0.1}, "dpo_label_smoothing", "pref_loss: sigmoid"),
    ({**FULL, "loraplus_lr_ratio": 16}, "loraplus_lr_ratio", "works only with finetuning_type: lora"),
    ({**FULL, "use_rslora": True}, "use_rslora", "works only with finetuning_type: lora"),
    ({**FULL, "use_dora": True}, "use_dora", "works only with finetuning_type: lora"),
    ({"finetuning_type": "oft", "pissa_init": True}, "pissa_init", "works only with finetuning_type: lora"),
    ({**FULL, "quantization_bit": 4}, "quantization_bit", "works only with finetuning_type: lora or oft"),
    ({**FULL, "use_llama_pro": True}, "use_llama_pro", "works only with finetuning_type: lora or oft or freeze"),
    ({"use_galore": True}, "use_galore", "works only with finetuning_type: full or freeze or oft"),
    ({"use_apollo": True}, "use_apollo", "works only with finetuning_type: full or freeze or oft"),
    ({"use_badam": True}, "use_badam", "works only with finetuning_type: full or freeze or oft"),
    ({"quantization_bit": 4, "pissa_init": True}, "quantization_bit", "cannot be combined with pissa_init"),
    ({"quantization_bit": 8, "resize_vocab": True}, "quantization_bit", "cannot be combined with resize_vocab"),
    ({"quantization_bit": 4, "fp8": True}, "quantization_bit", "cannot be combined with fp8"),
    ({"bf16": True, "fp16": True}, "bf16", "cannot be combined with fp16"),
    ({"bf16_full_eval": True, "fp16_full_eval": True}, "bf16_full_eval", "cannot be combined with fp16_full_eval"),
    ({"mask_history": True, "train_on_prompt": True}, "mask_history", "cannot be combined with train_on_prompt"),
    ({**FULL, "use_galore": True, "use_badam": True}, "use_galore", "cannot be combined with use_badam"),
    ({**FULL, "deepspeed": "/z.json", "use_galore": True}, "deepspeed", "cannot be combined with use_galore"),
    ({"quantization_device_map": "auto"}, "quantization_device_map", "cannot be used in training"),
    ({"stage": "kto", "pissa_init": True}, "pissa_init", "works neither with kto nor"),
    ({"stage": "dpo", "pissa_init": True}, "pissa_init", "works neither with kto nor"),
    ({"streaming": True}, "streaming", "needs max_steps"),
    (BEST, "load_best_model_at_end", "needs eval_strategy: steps or epoch, and the same save_strategy"),
    ({**BEST, "eval_strategy": "steps"}, "load_best_model_at_end", "needs eval_strategy: steps or epoch, and the same"),
    ({**BEST, **STEPS, "save_steps": 30, "eval_steps": 20}, "load_best_model_at_end", "save_steps to be a multiple"),
    ({**BEST, **STEPS, "save_steps": 0.5, "eval_steps": 20}, "load_best_model_at_end", "save_steps to be a multiple"),
    ({"lr_scheduler_type": "reduce_lr_on_plateau"}, "lr_scheduler_type", "needs an eval_strategy"),
    ({"dataloader_prefetch_factor": 2}, "dataloader_prefetch_factor", "needs dataloader_num_workers of at least 1"),
    ({"logging_steps": 1.5}, "logging_steps", "must be a whole number"),
    ({**STEPS, "eval_steps": 2.5}, "eval_steps", "must be a whole number"),
    ({**STEPS, "save_steps": 2.5}, "save_steps", "must be a whole number"),
    ({"warmup_steps": -1}, "warmup_steps", "must be at least 0, got -1"),
    ({"torch_empty_cache_steps": 0}, "torch_empty_cache_steps", "must be at least 1, got 0"),
    ({"logging_steps": 0}, "logging_steps", "must be more than 0, got 0"),
    ({"lr_scheduler_type": "cosin"}, "lr_scheduler_type", "did you mean cosine?"),
    ({"optim": "adamw"}, "optim", "expected one of adamw_torch"),
    ({"save_strategy": False}, "save_strategy", "expected one of no, steps, epoch, best, got false"),
    ({"evaluation_strategy": "epoch"}, "evaluation_strategy", "it is called eval_strategy"),
]
"""Arguments, the key and the message: LLaMA-Factory refuses every one of them as well, with a traceback."""

SILENT: list[tuple[dict[str, Any], str, str]] = [
    ({"stage": "sfd"}, "stage", "expected one of pt, sft, rm, ppo, dpo, kto, got the text 'sfd'"),
    ({"pref_loss": "sigmoid"}, "pref_loss", "works only with stage: dpo"),
    ({"pref_beta": 0.2}, "pref_beta", "works only with stage: dpo or kto"),
    ({"kto_chosen_weight": 2.0}, "kto_chosen_weight", "works only with stage: kto"),
    ({"learning_rate": "1e-4"}, "learning_rate", "expected a number, got the text '1e-4'"),
    ({"learning_rate": -1}, "learning_rate", "must be more than 0, got -1"),
    ({"num_train_epochs": 0}, "num_train_epochs", "must be more than 0, got 0"),
    ({"per_device_train_batch_size": 0}, "per_device_train_batch_size", "must be at least 1, got 0"),
    ({"lora_rank": 0}, "lora_rank", "must be at least 1, got 0"),
    ({"adam_beta1": 1.0}, "adam_beta1", "must be at most 0.9999999, got 1.0"),
    ({"quantization_bit": 3}, "quantization_bit", "must be 4 or 8 with quantization_method: bnb"),
    ({"quantization_bit": 4, "quantization_method": "eetq"}, "quantization_bit", "eetq takes 8"),
    ({"quantization_bit": 4, "quantization_method": "gptq"}, "quantization_bit", "others quantise nothing"),
    ({"save_strategy": "best"}, "save_strategy", "best needs eval_strategy and metric_for_best_model"),
    ({"early_stopping_steps": 3}, "early_stopping_steps", "needs load_best_model_at_end: true and an eval_strategy"),
    ({"dataloader_persistent_workers": True}, "dataloader_persistent_workers", "needs dataloader_num_workers"),
    ({"warmup_ratio": 0.1, "warmup_steps": 5}, "warmup_ratio", "cannot be combined with warmup_steps"),
    (
        {"train_sampling_strategy": "length"},
        "train_sampling_strategy",
        "expected one of random, sequential, group_by_len",
    ),
    ({"flash_attn": "fa4"}, "flash_attn", "expected one of auto, disabled, sdpa, fa2, fa3, got the text 'fa4'"),
]
"""What LLaMA-Factory takes without a word, and then fails late, trains nothing, or does something else."""

ACCEPTED: list[dict[str, Any]] = [
    {},
    DEFAULTS,
    {"loraplus_lr_ratio": 16, "learning_rate": 5e-4, "num_train_epochs": 10, "gradient_accumulation_steps": 4},
    {**FULL, "lora_rank": 8, "loraplus_lr_ratio": None, "use_dora": False, "max_grad_norm": 0},
    {"stage": "dpo", "pref_loss": "orpo", "pref_beta": 0.2, "pissa_init": True},
    {"stage": "kto", "kto_chosen_weight": 0.5},
    {"streaming": True, "max_steps": 10, "buffer_size": 8},
    {**BEST, **STEPS, "save_steps": 40, "eval_steps": 20, "early_stopping_steps": 2},
    {**BEST, **STEPS, "save_steps": 0.3, "eval_steps": 0.1},
    {**BEST, "eval_strategy": "epoch", "save_strategy": "epoch"},
    {"save_strategy": "best", "eval_strategy": "epoch", "metric_for_best_model": "loss"},
    {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-5}, "warmup_steps": 0.1},
    {"dataloader_num_workers": 2, "dataloader_prefetch_factor": 2, "dataloader_persistent_workers": True},
    {"report_to": ["tensorboard"], "save_total_limit": None, "tf32": None, "max_grad_norm": 1},
]

ASK = """
import json, os, sys
os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="29531")
from llamafactory.hparams import get_train_args
base = dict(model_name_or_path="x", dataset="d", eval_dataset="e", template="default", output_dir="nowhere",
            do_train=True, use_cpu=True)
answers = []
for case in json.load(open(sys.argv[1])):
    try:
        get_train_args({**base, **case})
        answers.append(True)
    except Exception:
        answers.append(False)
print("ANSWERS" + json.dumps(answers))
"""


@pytest.mark.parametrize(("train", "key", "message"), REFUSED + SILENT)
def test_what_cannot_work(train: dict[str, Any], key: str, message: str) -> None:
    found = check_training(train)
    assert [name for name, _ in found] == [key]
    assert message in found[0][1]


@pytest.mark.parametrize("train", ACCEPTED)
def test_what_can_work(train: dict[str, Any]) -> None:
    assert check_training(train) == []


def test_llamafactory_itself_agrees() -> None:
    """One process asks LLaMA-Factory's own parser about every case above, on top of our defaults."""
    cases = [{**DEFAULTS, **case} for case in [*(case for case, *_ in REFUSED + SILENT), *ACCEPTED]]
    said = told(ASK, json.dumps(cases))
    line = next((line for line in said.splitlines() if line.startswith("ANSWERS")), None)
    assert line, said
    expected = [False] * len(REFUSED) + [True] * (len(SILENT) + len(ACCEPTED))
    wrong = [case for case, said, wanted in zip(cases, json.loads(line[7:]), expected, strict=True) if said != wanted]
    assert wrong == []


@pytest.mark.parametrize("key", sorted(ELSEWHERE))
def test_what_is_decided_elsewhere_is_an_argument_that_exists(key: str) -> None:
    assert key in arguments()
    ((name, message),) = check_training({key: arguments()[key].default})
    assert (name, message.split(":")[0]) == (key, "cannot be set here")


def test_the_tables_name_arguments_that_exist() -> None:
    named = {*BOUNDS, *POSITIVE, *FILES, *DEFAULTS, *(rule.key for rule in RULES)}
    assert named <= set(arguments())
    assert not set(REMOVED) & set(arguments())


def test_the_defaults_of_llamafactory_are_within_bounds() -> None:
    settable = {name: a.default for name, a in arguments().items() if a.default is not None and name not in ELSEWHERE}
    settable = {name: value for name, value in settable.items() if not name.startswith(("export_", "vllm_", "sglang_"))}
    wrong = [(key, message) for key, message in check_training(settable) if "works only with" not in message]
    assert wrong == []


def test_a_wrong_type_asks_no_further_rule() -> None:
    assert check_training({"streaming": True, "max_steps": "ten"}) == [
        ("max_steps", "expected a whole number, got the text 'ten'"),
        ("streaming", "needs max_steps, since a stream has no known length"),
    ]


def test_a_settings_file_is_named_so_that_the_run_finds_it() -> None:
    ((key, message),) = check_training({"deepspeed": "ds_z2.json"})
    assert key == "deepspeed"
    assert "give the absolute path of 'ds_z2.json', or the settings as a mapping" in message
    for found in ("/etc/ds_z2.json", '{"zero_optimization": {"stage": 2}}', {"zero_optimization": {"stage": 2}}, None):
        assert check_training({"deepspeed": found}) == []


def test_a_long_text_is_cut() -> None:
    ((_, message),) = check_training({"learning_rate": "好" * 500})
    assert message == f"expected a number, got the text '{'好' * 40}…'"
