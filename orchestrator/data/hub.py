"""Data sets of the Hugging Face hub: `hf:ORG/NAME[@REVISION][/CONFIG]:SPLIT` stands where a file name does.

The client takes mirrors (HF_ENDPOINT), its cache (HF_HOME) and the token (HF_TOKEN) from the environment only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from orchestrator.data import card
from orchestrator.data.rows import SUFFIXES
from orchestrator.lib.errors import InputError, MissingError
from orchestrator.lib.files import building, cache_folder, link
from orchestrator.models.hub import unreachable

PREFIX = "hf:"
_REFERENCE = re.compile(
    r"hf:(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?(/(?P<config>[\w.-]+))?:(?P<split>[\w.-]+)"
)
_NUMBER = re.compile(r"(?:^|[-_.])\d+(?:-of-\d+)?(?:-[0-9a-f]{16})?$")
_CARD = "README.md"
_CONVERTED = "refs/convert/parquet"  # where the hub keeps a Parquet copy of data sets in other formats


@dataclass(frozen=True)
class Reference:
    """A split of a data set on the hub."""

    repository: str
    revision: str | None
    config: str | None
    split: str

    @property
    def folder(self) -> Path:
        """Where its files are kept once they are here."""
        parts = [self.repository.replace("/", "--"), self.revision or "main", self.config or "default", self.split]
        return cache_folder().joinpath("datasets", *parts)


def parse(name: str) -> Reference:
    """Returns what `hf:ORG/NAME:SPLIT` refers to. Raises InputError when it is written otherwise."""
    match = _REFERENCE.fullmatch(name)
    if not match:
        raise InputError(f"cannot read {name!r}", "write hf:ORG/NAME:SPLIT, hf:ORG/NAME@REVISION/CONFIG:SPLIT")
    return Reference(**match.groupdict())


def is_reference(name: str) -> bool:
    """Whether a name is a well written reference to a data set of the hub."""
    return _REFERENCE.fullmatch(name) is not None


def local_files(name: str, project: Path) -> list[Path]:
    """Returns the files that a name in `data:` means. Raises MissingError for a hub data set that is not here yet."""
    if not name.startswith(PREFIX):
        return [project / name]
    folder = parse(name).folder
    if not folder.is_dir():
        raise MissingError(f"{name} is not on this machine yet", f"run `orchestrator data fetch {name}`")
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)


def fetch(name: str) -> list[Path]:
    """Returns the files of a hub data set, downloaded if they are not here. Raises MissingError if that fails."""
    reference = parse(name)
    if not reference.folder.is_dir():
        with building(reference.folder) as folder:
            _download(name, reference, folder)
    return local_files(name, Path())


def fetch_missing(names: Iterable[str]) -> None:
    """Downloads those of the names that mean hub data sets and are not here."""
    for name in names:
        if name.startswith(PREFIX):
            fetch(name)


def _download(name: str, reference: Reference, folder: Path) -> None:
    from huggingface_hub import hf_hub_download

    try:
        revision, files = _find(name, reference)
        for number, file in enumerate(files):
            path = Path(hf_hub_download(reference.repository, file, repo_type="dataset", revision=revision))
            link(path.resolve(), folder / f"{number:05}{PurePosixPath(file).suffix}")
    except InputError:
        raise
    except Exception as error:
        raise unreachable(name, error) from error


def _find(name: str, reference: Reference) -> tuple[str | None, list[str]]:
    """The revision that has the files of a split, and these. Raises InputError where none are, or several configs'."""
    from huggingface_hub import list_repo_files

    listed = list_repo_files(reference.repository, repo_type="dataset", revision=reference.revision)
    config = card.choose(_configs(reference, listed), reference.config, name)
    if files := _files_of(name, reference, config, listed):
        return reference.revision, files
    if config and config.splits and reference.split not in config.splits:
        raise _none(name, reference, f"its card names {', '.join(config.splits)}")
    converted = _converted(reference)
    if files := _files_of(name, replace(reference, config=config.name) if config else reference, None, converted):
        return _CONVERTED, files
    raise _none(name, reference, f"it has {_some(converted or listed)}")


def _configs(reference: Reference, listed: Sequence[str]) -> list[card.Config]:
    """Those that the card names."""
    from huggingface_hub import hf_hub_download

    if _CARD not in listed:
        return []
    path = hf_hub_download(reference.repository, _CARD, repo_type="dataset", revision=reference.revision)
    return card.configs(Path(path))


def _converted(reference: Reference) -> list[str]:
    """The files that the hub has converted; none where it converted nothing."""
    from huggingface_hub import list_repo_files
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        return list_repo_files(reference.repository, repo_type="dataset", revision=_CONVERTED)
    except RevisionNotFoundError:
        return []


def _files_of(name: str, reference: Reference, config: card.Config | None, listed: Sequence[str]) -> list[str]:
    """The files of a split: those that the card names for a config, else those that are called after the split."""
    if config and config.splits:
        return of_one_format(config.files(reference.split, listed))
    if config and config.folder:
        return files_of_split([file for file in listed if file.startswith(f"{config.folder}/")], None, reference.split)
    files = files_of_split(listed, reference.config, reference.split)
    _require_one_config(name, reference, files)
    return files


def _none(name: str, reference: Reference, has: str) -> InputError:
    return InputError(f"{name}: the data set has no files of split {reference.split!r}", has)


def files_of_split(listed: Sequence[str], config: str | None, split: str) -> list[str]:
    """Returns the data files of a split, and of the config if one is wanted; of one format only.

    They are called after the split (`test_sft-00000-of-00001.parquet`), or lie in a folder that is. Where none are, the
    split is a word in the name of all (`train_data.json`); `train` means neither `train_sft` nor `train_gen`, though.
    """
    data = [PurePosixPath(file) for file in listed if file.endswith(SUFFIXES)]
    data = [file for file in data if config is None or config in file.parts]
    exact = [file for file in data if split in (_unnumbered(file), *file.parent.parts)]
    akin = [file for file in data if split in re.split(r"[/._-]", str(file))]
    one_name = len({file.with_name(_unnumbered(file) or "number") for file in akin}) == 1
    named = [str(file) for file in exact or (akin if one_name else [])]
    return of_one_format(named)


def of_one_format(files: Sequence[str]) -> list[str]:
    """Those that can be read, Parquet before all others."""
    formats = [[file for file in files if file.endswith(suffix)] for suffix in (".parquet", *SUFFIXES)]
    return next((sorted(of_format) for of_format in formats if of_format), [])


def _require_one_config(name: str, reference: Reference, files: Sequence[str]) -> None:
    """Raise InputError where the files of a split lie in folders of several names, as configs do."""
    folders = [set(_folders(PurePosixPath(file), reference.split)) for file in files]
    configs = sorted(part for part in set().union(*folders) if not all(part in of for of in folders))
    if reference.config is None and len(configs) > 1:
        raise card.several(configs, name)


def _folders(file: PurePosixPath, split: str) -> tuple[str, ...]:
    """The folders of a data file that may be configs: neither its split, nor `data`, nor a number of a part."""
    parts = file.parent.parts
    before = parts[: parts.index(split)] if split in parts else parts
    return tuple(part for part in before if part != "data" and not part.isdigit())


def _unnumbered(file: PurePosixPath) -> str:
    """The name of a data file without its number: `train` of `train-00000-of-00002-a09b74b3ef9c3b56.parquet`."""
    return _NUMBER.sub("", file.stem)


def _some(files: Sequence[str]) -> str:
    data = [file for file in files if file.endswith(SUFFIXES)]
    return ", ".join(data[:8]) or "no data files"
