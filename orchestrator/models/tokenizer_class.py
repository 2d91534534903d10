"""How transformers will load a tokenizer, without importing it, which takes seconds and torch.

A tokenizer class with an `__init__` of its own takes vocabulary and merges from tokenizer.json and builds all the rest,
normalizer, pre-tokenizer and decoder, as its own source says (`convert_to_native_format` in
tokenization_utils_tokenizers.py). Where a repository names a class that its tokenizer.json was not made with, texts are
cut up in another way, and nothing is said. So the class's own source is executed here, on an empty vocabulary, and what
it builds is put around the vocabulary of tokenizer.json.
"""

from __future__ import annotations

import ast
import builtins
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from orchestrator.lib.llamafactory import package_folder

FAITHFUL = "TokenizersBackend"
"""The class that loads a tokenizer.json as it is, by the name that transformers 5 gives it."""
SAVED_AS = "PreTrainedTokenizerFast"
"""Its name of old, which transformers 4 knows as well: what is written into settings."""
PARTS = ("normalizer", "pre_tokenizer", "decoder")
FLAGS = ("byte_fallback", "fuse_unk", "ignore_merges", "unk_token")
"""Properties of a BPE model that a class decides too."""


def chosen_class(config: Mapping[str, Any], tokenizer_config: Mapping[str, Any]) -> str:
    """The name of the class that `AutoTokenizer.from_pretrained` takes for a model folder's two configurations."""
    named = tokenizer_config.get("tokenizer_class") or config.get("tokenizer_class")
    return str(named or _mapping().get(str(config.get("model_type"))) or FAITHFUL)


def built_by(name: str, arguments: Mapping[str, Any]) -> Any:
    """The `tokenizers.Tokenizer` that a class builds around an empty vocabulary.

    None where the class loads tokenizer.json as it is, and where its source cannot be executed alone: prepare, which
    has transformers, then finds out.
    """
    given = {key: value for key, value in arguments.items() if isinstance(value, (str, bool, int, float, type(None)))}
    try:
        made = _class(name)
        if made is not None and "__init__" in vars(made):
            made(**given)
    except _Built as built:
        return built.args[0]
    except Exception:  # whatever a stranger's source raises where half of what it imports is not there
        return None
    return None


@contextmanager
def rebuilt(tokenizer: Any, frame: Any) -> Iterator[None]:
    """Within the block, the tokenizer of a tokenizer.json is what a class would make of it."""
    own = _looks(tokenizer)
    _dress(tokenizer, _looks(frame))
    try:
        yield
    finally:
        _dress(tokenizer, own)


def _looks(tokenizer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    flags = {name: getattr(tokenizer.model, name) for name in FLAGS if hasattr(tokenizer.model, name)}
    return {name: getattr(tokenizer, name) for name in PARTS}, flags


def _dress(tokenizer: Any, looks: tuple[dict[str, Any], dict[str, Any]]) -> None:
    for owner, values in zip((tokenizer, tokenizer.model), looks, strict=True):
        for name, value in values.items():
            setattr(owner, name, value)


def holds(tokenizer: Any, frame: Any) -> bool:
    """Whether a class builds the kind of model that a tokenizer.json holds."""
    return type(tokenizer.model) is type(frame.model)


# ---- reading and executing the source


class _Built(Exception):
    """Carries the tokenizer that a class built."""


class _Backend:
    """Stands for `TokenizersBackend`: a class hands over what it built in `_tokenizer`, which is all that is wanted."""

    _tokenizer: Any = None

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        raise _Built(self._tokenizer)


class _Anything:
    """Stands for what a tokenizer's module imports and does not need to build one: loggers, decorators, types."""

    def __getattr__(self, name: str) -> _Anything:
        return self

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self

    def __getitem__(self, key: Any) -> _Anything:
        return self


@functools.cache
def _class(name: str) -> type | None:
    for wanted in dict.fromkeys((name, name.removesuffix("Fast"))):
        for file in _files():
            text = _text(file)
            if f"\nclass {wanted}(" in text or f"\n{wanted} = " in text:
                found = _executed(file).get(wanted)
                return found if isinstance(found, type) and issubclass(found, _Backend) else None
    return None


@functools.cache
def _executed(file: Path) -> dict[str, Any]:
    """The names that a module defines; its relative imports lead to sibling tokenizers, or to stand-ins."""

    def imported(
        name: str, globals_: Any = None, locals_: Any = None, wanted: Iterable[str] | None = (), level: int = 0
    ) -> Any:
        if level == 0:
            return builtins.__import__(name, globals_, locals_, tuple(wanted or ()), 0)
        sibling = _root() / "models" / f"{name.replace('.', '/').removeprefix('models/')}.py"
        source = _executed(sibling) if sibling.is_file() else {}
        return SimpleNamespace(**{each: source.get(each) or _stand_in(each) for each in wanted or ()})

    names: dict[str, Any] = {"__name__": file.stem, "__builtins__": {**vars(builtins), "__import__": imported}}
    exec(compile(_text(file), str(file), "exec"), names)  # nosec B102
    return names


def _stand_in(name: str) -> Any:
    if name in (FAITHFUL, SAVED_AS):
        return _Backend
    if name == "AddedToken":
        from tokenizers import AddedToken

        return AddedToken
    return _helper(name) or _Anything()


def _helper(name: str) -> Any:
    """A function of tokenization_utils_base.py, such as the one that chooses how a space is put in front."""
    base = _text(_root() / "tokenization_utils_base.py")
    found = re.search(rf"^def {name}\(.*?(?=^\S)", base, re.MULTILINE | re.DOTALL)
    if not found:
        return None
    names: dict[str, Any] = {}
    exec(f"from __future__ import annotations\n{found[0]}", names)  # nosec B102
    return names[name]


@functools.cache
def _mapping() -> dict[str, str]:
    """Model type → tokenizer class: `TOKENIZER_MAPPING_NAMES` of models/auto/tokenization_auto.py."""
    text = _text(_root() / "models/auto/tokenization_auto.py")
    pairs = re.findall(r"^ {8}\(\"([\w-]+)\", \"(\w+)\"", text, re.MULTILINE)
    incorrect = re.search(r"^MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS.*?= (\{.*?^\})", text, re.MULTILINE | re.DOTALL)
    forced = ast.literal_eval(incorrect[1]) if incorrect else ()
    return dict.fromkeys(forced, FAITHFUL) | dict(pairs)


@functools.cache
def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@functools.cache
def _files() -> tuple[Path, ...]:
    return tuple(sorted((_root() / "models").glob("*/tokenization_*.py")))


def _root() -> Path:
    return package_folder("transformers")
