"""What a model folder's own files say of whether the chain will go through. Takes a second, and no transformers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.chat_template.registry import definition
from orchestrator.chat_template.turns import special_tokens, stop_words
from orchestrator.lib.errors import InputError
from orchestrator.lib.llamafactory import package_folder
from orchestrator.models import cure, llamacpp
from orchestrator.models.tokenizer import (
    AGAIN,
    PROBES,
    SENTENCEPIECE,
    json_object,
    known_stop_words,
    load,
    require_round_trip,
)

SOURCES = ("tokenizer.json", SENTENCEPIECE[0], "vocab.json", "vocab.txt", "tekken.json")
"""One of these holds the vocabulary."""


def require_fit(folder: Path, template: str, converter: Path | None, quoted: str) -> list[str]:
    """What is worth knowing about a base model, a line each; `converter` is llama.cpp's folder, if it is here.

    Raises InputError for whatever would stop a stage later, as far as the folder tells.
    """
    config = json_object(folder / "config.json")
    _require_architecture(config, converter, quoted)
    _require_files(folder, quoted)
    if not (folder / "tokenizer.json").is_file():
        return ["tokenizer: no tokenizer.json; `prepare` will look at what transformers makes of its other files"]
    tokenizer = load(folder)
    for text in PROBES:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        require_round_trip(text, tokenizer.decode(ids, skip_special_tokens=False))
    _require_convertible(folder, tokenizer, str((config.get("architectures") or [""])[0]), converter, quoted)
    return [*_cure(folder, quoted), *_left_out(folder, tokenizer, template, quoted)]


def _require_architecture(config: dict[str, Any], converter: Path | None, quoted: str) -> None:
    architectures, kind = config.get("architectures"), config.get("model_type")
    if not isinstance(architectures, list) or not architectures or not kind:
        raise InputError(f"model.base: config.json of {quoted!r} names no architectures, or no model_type", AGAIN)
    if not config.get("auto_map") and kind not in (known := _model_types()) and known:
        raise InputError(
            f"model.base: the installed transformers does not know the model_type {kind!r} of {quoted!r}",
            "Install a newer transformers that LLaMA-Factory allows, or choose another model.",
        )
    if fault := _fault(str(kind)):
        raise InputError(f"model.base: {quoted!r} cannot be trained: {fault}", "Choose another model.")
    if converter:
        llamacpp.require_known(str(architectures[0]), converter, quoted)


def _require_files(folder: Path, quoted: str) -> None:
    names = [name for name in (*SOURCES, "tokenizer_config.json") if (folder / name).is_file()]
    if not set(names).intersection(SOURCES) and not any(folder.glob("*.tiktoken")):
        raise InputError(f"model.base: {quoted!r} has no tokenizer: none of {', '.join(SOURCES)}", AGAIN)
    if "tokenizer_config.json" not in names:
        raise InputError(f"model.base: {quoted!r} has no tokenizer_config.json", AGAIN)
    json_object(folder / "tokenizer_config.json")
    if SENTENCEPIECE[0] in names:
        _require_sentencepiece(folder / SENTENCEPIECE[0], quoted)


def _require_sentencepiece(file: Path, quoted: str) -> None:
    from sentencepiece import SentencePieceProcessor

    try:
        SentencePieceProcessor().LoadFromFile(str(file))
    except (RuntimeError, OSError, ValueError):
        raise InputError(f"model.base: {file.name} of {quoted!r} is no SentencePiece model", AGAIN) from None


def _require_convertible(folder: Path, tokenizer: Any, architecture: str, converter: Path | None, quoted: str) -> None:
    """A SentencePiece vocabulary needs its tokenizer.model, a byte-level one a way of splitting that is known."""
    if (folder / SENTENCEPIECE[0]).is_file() or converter is None:
        return
    of_sentencepiece = getattr(tokenizer.model, "byte_fallback", False) or type(tokenizer.model).__name__ == "Unigram"
    if of_sentencepiece or llamacpp.wants_sentencepiece(architecture, converter):
        raise InputError(
            f"model.base: {quoted!r} has no tokenizer.model, which llama.cpp's converter makes its vocabulary from",
            "Copy tokenizer.model from the model's repository into its folder.",
        )
    llamacpp.require_known_split(tokenizer, converter, quoted)


def _cure(folder: Path, quoted: str) -> Iterator[str]:
    if wrong := cure.wrong_class(folder):
        yield (
            f"tokenizer: {cure.described(wrong)}, as which transformers would read other tokens than tokenizer.json; "
            f"used so through links in the cache, {quoted} itself stays as it is"
        )


def _left_out(folder: Path, tokenizer: Any, template: str, quoted: str) -> Iterator[str]:
    def is_token(word: str) -> bool:
        return len(tokenizer.encode(word, add_special_tokens=False).ids) == 1

    words = stop_words(definition(template), special_tokens(folder))
    _, missing = known_stop_words(words, is_token, quoted)
    if missing:
        yield left_out(missing, template, quoted)


def left_out(missing: list[str], template: str, quoted: str) -> str:
    """One line about stop words of a template that a model does not have."""
    return f"template: {template} also stops at {', '.join(missing)}, no token of {quoted}: left out of what is served"


def _fault(kind: str) -> str | None:
    """What is known to fail in the installed LLaMA-Factory, whatever the data: told by the source that fails."""
    if kind == "gpt_oss":
        name = "load_and_register_kernel"
        asks = name in (package_folder("llamafactory") / "model/model_utils/attention.py").read_text(encoding="utf-8")
        has = name in (package_folder("transformers") / "integrations/hub_kernels.py").read_text(encoding="utf-8")
        if asks and not has:
            return f"LLaMA-Factory asks the installed transformers for {name}, which it no longer has"
    return None


def _model_types() -> frozenset[str]:
    folder = package_folder("transformers") / "models/auto"
    texts = [
        file.read_text(encoding="utf-8")
        for name in ("auto_mappings.py", "configuration_auto.py")
        if (file := folder / name).is_file()
    ]
    return frozenset(
        kind for text in texts for kind in re.findall(r"^ {8}\(?\"([\w.-]+)\"[,:] \"\w+Config\"", text, re.MULTILINE)
    )
