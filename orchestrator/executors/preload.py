"""What the warm process imports before stages are forked from it. Importing this module is the work.

LLaMA-Factory itself is left out: its `extras.misc` asks the GPU what it can do as soon as it is imported, and a process
that has initialised CUDA cannot be forked. These packages do not ask; they take nine tenths of the time.
"""

from __future__ import annotations

import contextlib
import gc
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

MAPPINGS = ("AutoModelForImageTextToText", "AutoModelForSeq2SeqLM", "AutoModelForTextToWaveform")
"""Classes of transformers that LLaMA-Factory looks a model up in, which imports the configuration of all they know."""


def import_all() -> None:
    """Import everything, and have it looked through by no garbage collector.

    What modules are made of is there to stay: collecting meanwhile takes a fifth of the time, and collecting in the
    stages would copy the memory that they share.
    """
    gc.disable()
    for name in PACKAGES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name in MAPPINGS:
        with contextlib.suppress(ImportError, AttributeError):
            list(getattr(importlib.import_module("transformers"), name)._model_mapping.keys())
    gc.freeze()
    gc.enable()


# Ctrl-C goes to the whole terminal group. The tool answers it; a traceback from here would only confuse.
signal.signal(signal.SIGINT, signal.SIG_IGN)
import_all()
