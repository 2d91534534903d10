"""`python -m orchestrator.stages.trl train CONFIG.yaml …`: `llamafactory-cli train` for stages whose trainer is trl's.

trl asks transformers whether optional packages are installed. Since transformers 5 the answer is a pair, which is true
even where it says no, and trl 0.24, the newest that LLaMA-Factory takes, then imports packages that are not there.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Correct trl's answers, then train; where LLaMA-Factory starts a process for each GPU, they start here too."""
    correct_flags()
    from llamafactory import launcher

    if sys.argv[1] == "train":
        launcher.__file__ = __file__  # the program that torchrun is told to start
        launcher.launch()
    else:
        from llamafactory.train.tuner import run_exp

        run_exp()


def correct_flags() -> None:
    """Make trl's flags plain booleans."""
    from trl import import_utils

    for name, value in list(vars(import_utils).items()):
        if name.endswith("_available") and isinstance(value, tuple):
            setattr(import_utils, name, value[0])


if __name__ == "__main__":
    main()
