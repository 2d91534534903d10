"""Import what the stages import, all in one process: packages made for each other's other versions say so only then."""

from __future__ import annotations

import importlib

PACKAGES = ("torch", "torchvision", "torchaudio", "llama_cpp", "llamafactory.train.tuner")


if __name__ == "__main__":
    for package in PACKAGES:
        importlib.import_module(package)
