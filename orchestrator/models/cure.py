"""A base model whose tokenizer transformers loads wrongly is used through a folder of links with other settings.

Everything in it is the model's own, but for tokenizer_config.json, whose `tokenizer_class` names the class that loads
tokenizer.json as it is. The model's own folder is never written to.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from orchestrator.lib.files import building, cache_folder, link, read_json, sha256, sha256_of, write_json
from orchestrator.models import tokenizer_class
from orchestrator.models.tokenizer import ids_of, json_object, load
from orchestrator.models.tokenizer_class import SAVED_AS

SETTINGS = "tokenizer_config.json"
MARK = f"+tokenizer_class={SAVED_AS}"
"""What tells the identity of a cured model from that of the model itself."""


def wrong_class(folder: Path, hash_of: Callable[[Path], str] = sha256) -> str | None:
    """The class as which transformers would load the tokenizer, where it would cut up texts in another way.

    None where nothing needs a cure. An answer is remembered for a tokenizer and a version of transformers, since it
    takes executing that class. Raises InputError for a tokenizer.json that must be looked into and is damaged.
    """
    if not (folder / "tokenizer.json").is_file():
        return None
    settings = _settings(folder)
    name = tokenizer_class.chosen_class(json_object(folder / "config.json"), settings)
    known = (hash_of(folder / "tokenizer.json"), json.dumps(settings, sort_keys=True), name)
    memory = cache_folder() / "tokenizers" / f"{_key(*known, _loader())}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return name if read_json(memory)["differs"] else None
    frame = tokenizer_class.built_by(name, settings)
    differs = frame is not None and _differs(folder, frame)
    with contextlib.suppress(OSError):  # a lost memory costs a second, nothing else
        write_json(memory, {"differs": differs}, durable=False)
    return name if differs else None


@functools.cache
def _loader() -> str:
    """The version of what loads tokenizers: a sweep asks for it before each of its trials."""
    return metadata.version("transformers")


def described(wrong: str) -> str:
    """The cure in a few words, as records and reports name it."""
    return f"tokenizer_class {SAVED_AS} instead of {wrong}"


def cured(folder: Path, identity: str) -> Path:
    """The folder of links through which a model is used, made the first time."""
    target = cache_folder() / "cured" / f"{folder.name.replace(' ', '-')}-{_key(identity, str(folder), MARK)}"
    if not target.is_dir():
        with building(target) as temporary:
            for path in folder.iterdir():
                if path.name != SETTINGS:
                    _link(path, temporary / path.name)
            settings = {key: value for key, value in _settings(folder).items() if key != "auto_map"}
            write_json(temporary / SETTINGS, {**settings, "tokenizer_class": SAVED_AS})
    return target


def _differs(folder: Path, frame: Any) -> bool:
    tokenizer = load(folder)
    eos = _settings(folder).get("eos_token")
    ends = [str(eos.get("content")) if isinstance(eos, dict) else eos] if eos else []
    meant = ids_of(tokenizer, ends)
    if not tokenizer_class.holds(tokenizer, frame):
        return True
    with tokenizer_class.rebuilt(tokenizer, frame):
        try:
            return ids_of(tokenizer, ends) != meant
        except Exception:  # what the library raises plainly where a class needs a token that is not there
            return True


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source.absolute(), target_is_directory=source.is_dir())
    except OSError:  # a system without links for everybody
        if source.is_file():
            link(source.resolve(), target)


def _settings(folder: Path) -> dict[str, Any]:
    return json_object(folder / SETTINGS)


def _key(*parts: str) -> str:
    return sha256_of("\n".join(parts))[:16]
