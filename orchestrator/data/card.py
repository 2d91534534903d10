"""What the card of a data set on the hub says of its configs, and of the files of their splits, as `datasets` reads it.

See https://huggingface.co/docs/hub/datasets-manual-configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from orchestrator.lib.errors import InputError

DEFAULT, TRAIN = "default", "train"


@dataclass(frozen=True)
class Config:
    """A part of a data set."""

    name: str
    is_default: bool = False
    folder: str = ""
    """Where its files lie; anywhere, if empty."""
    splits: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Split → patterns of the names of its files; empty where these are found by their names."""

    def files(self, split: str, listed: Sequence[str]) -> list[str]:
        """Those of the listed files that are the split's."""
        patterns = [f"{self.folder}/{pattern}" if self.folder else pattern for pattern in self.splits.get(split, ())]
        return [file for file in listed if any(fnmatchcase(file, pattern) for pattern in patterns)]


def configs(card: Path) -> list[Config]:
    """The configs that a card names; none where it names none, or is no card that can be read."""
    import yaml
    from huggingface_hub import metadata_load

    try:
        said = (metadata_load(card) or {}).get("configs")
    except (ValueError, yaml.YAMLError):  # the hub shows such a card, too; its files are found by their names
        return []
    return [_config(one) for one in said if isinstance(one, dict)] if isinstance(said, list) else []


def choose(said: Sequence[Config], name: str | None, data_set: str) -> Config | None:
    """The config of a name, or the one that is meant without; None where the card does not know the name.

    Raises InputError where one has to be named.
    """
    if name is not None or not said:
        return next((config for config in said if config.name == name), None)
    default = [config for config in said if config.is_default or config.name == DEFAULT]
    if not default and len(said) > 1:
        raise several([config.name for config in said], data_set)
    return (default or list(said))[0]


def several(names: Sequence[str], data_set: str) -> InputError:
    """What is said where one of several configs has to be named; `data_set` is as in `hf:ORG/NAME:SPLIT`."""
    repository, _, split = data_set.rpartition(":")
    return InputError(
        f"{data_set}: the data set has several configs: {', '.join(names)}",
        f"name one, {repository}/{names[0]}:{split}, or several in a list",
    )


def _config(said: Mapping[str, Any]) -> Config:
    return Config(
        name=str(said.get("config_name", DEFAULT)),
        is_default=said.get("default") is True,
        folder=str(said.get("data_dir") or "").strip("/"),
        splits=_splits(said.get("data_files")),
    )


def _splits(said: Any) -> dict[str, list[str]]:
    """`data_files` in all its forms: a pattern or several, which are the training rows, or those of each split."""
    if isinstance(said, dict):
        return {str(split): _patterns(of) for split, of in said.items()}
    found: dict[str, list[str]] = {}
    for one in said if isinstance(said, list) else [said] if said else []:
        split, patterns = (one.get("split", TRAIN), one.get("path")) if isinstance(one, dict) else (TRAIN, one)
        found.setdefault(str(split), []).extend(_patterns(patterns))
    return found


def _patterns(said: Any) -> list[str]:
    """`**/` may stand for no folder at all."""
    named = [str(pattern).removeprefix("./") for pattern in (said if isinstance(said, list) else [said]) if pattern]
    return [*named, *(pattern.removeprefix("**/") for pattern in named if pattern.startswith("**/"))]
