"""What the warm process imports before stages are forked from it. Importing this module is the work.

LLaMA-Factory itself is left out: its `extras.misc` asks the GPU what it can do as soon as it is imported, and a process
that has initialised CUDA cannot be forked. These packages do not ask; they take nine tenths of the time.
"""

from __future__ import annotations

import contextlib
import importlib
import signal

PACKAGES = (
    "torch",
    "torchaudio",
    "datasets",
    "accelerate",
    "peft",
    "transformers",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe",
    "transformers.trainer_seq2seq",
    "trl.trainer.kto_trainer",
    "trl.trainer.ppo_trainer",
    "trl.models",
    "matplotlib.pyplot",
    "nltk.translate.bleu_score",
    "rouge_chinese",
    "jieba",
    "omegaconf",
    "av",
    "sacrebleu",
    "rouge_score.rouge_scorer",
    "scipy.stats",
)
"""What LLaMA-Factory and our workers import; a name that an update takes away costs time, nothing else."""

# Ctrl-C goes to the whole terminal group. The tool answers it; a traceback from here would only confuse.
signal.signal(signal.SIGINT, signal.SIG_IGN)
for name in PACKAGES:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
