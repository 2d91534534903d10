"""Training arguments of a spec that does not name them."""

from __future__ import annotations

from typing import Any

LORA = "lora"

DEFAULTS: dict[str, Any] = {
    "stage": "sft",
    "finetuning_type": LORA,
    "lora_target": "all",
    "cutoff_len": 1024,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "learning_rate": 1.0e-4,
    "num_train_epochs": 3.0,
    "lr_scheduler_type": "cosine",
    "logging_steps": 5,
    "logging_nan_inf_filter": False,  # else transformers logs 0 for a loss that is no number, as if all were well
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "plot_loss": True,
    "report_to": "none",
    "seed": 42,
}
"""Where LLaMA-Factory's own defaults would not learn from 300 rows, or would fill the disk."""
