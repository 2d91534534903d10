"""llama.cpp's converter: of the runtime's commit, from one pinned source archive, or the user's own checkout; and what
it knows, read from its source: architectures, and ways in which tokenizers split texts.

It finds out how a byte-level BPE splits by encoding one text and looking the hash of the ids up (`get_vocab_base_pre`
in conversion/base.py). What it does not know it refuses, which happens after training.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import shutil
from pathlib import Path
from typing import Any

from orchestrator.lib.errors import InputError, MissingError
from orchestrator.lib.fetch import Pin, Progress, download, unpack_source
from orchestrator.lib.files import building, cache_folder, sha256_of
from orchestrator.machine import environment

ARCHIVE = Pin(
    requirement="llama-cpp-python==0.3.36",
    filename="llama_cpp_python-0.3.36.tar.gz",
    sha256="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    bytes=76_589_250,
    source=True,
)
INSIDE = "vendor/llama.cpp/"
CONVERTER = "convert_hf_to_gguf.py"
PARTS = (CONVERTER, "convert_lora_to_gguf.py", "conversion/", "gguf-py/", "LICENSE")
NEWER = "Name a checkout of a newer llama.cpp with `llama_cpp:` in the spec, or choose another model."


def checkout(chosen: str | None) -> Path | None:
    """The llama.cpp folder to convert with, or None while the pinned one has not been fetched.

    `chosen` is the spec's `llama_cpp`; LLAMA_CPP_DIR comes next. Raises MissingError when that one has no converter.
    """
    own = chosen or os.environ.get("LLAMA_CPP_DIR")
    if own is None:
        folder = _pinned()
        return folder if folder.is_dir() else None
    folder = Path(own).expanduser().resolve()
    if not (folder / CONVERTER).is_file():
        raise MissingError(f"{own!r} has no {CONVERTER}", "Name a llama.cpp checkout, or leave llama_cpp out.")
    return folder


def fetch(chosen: str | None = None, progress: Progress = lambda done, total: None) -> Path:
    """`checkout`, after downloading the pinned archive if it is needed and not there yet."""
    if found := checkout(chosen):
        return found
    archive = download(ARCHIVE, cache_folder() / "downloads", progress)
    with building(_pinned()) as temporary:
        unpack_source(archive, temporary / "all", lambda name: name.startswith(tuple(INSIDE + part for part in PARTS)))
        for path in (temporary / "all" / INSIDE).iterdir():
            path.rename(temporary / path.name)
        shutil.rmtree(temporary / "all")
    return _pinned()


def version(folder: Path) -> str:
    """What to record: the pinned release, the commit of the user's own checkout, or the folder of what is none."""
    if folder == _pinned():
        return ARCHIVE.requirement
    state = environment.git_state(folder) if (folder / ".git").exists() else None
    return str(state["commit"]) if state else str(folder)


def require_known(architecture: str, converter: Path, quoted: str) -> None:
    """Raise InputError for an architecture that llama.cpp does not know."""
    if architecture not in (known := _architectures(converter)) and known:
        raise InputError(f"model.base: llama.cpp does not know the architecture {architecture!r} of {quoted!r}", NEWER)


def require_known_split(tokenizer: Any, converter: Path, quoted: str) -> None:
    """Raise InputError for a byte-level BPE that splits texts in a way that llama.cpp does not know."""
    text, known = _probe(converter)
    hashes = [_hash(tokenizer.encode(text, add_special_tokens=special).ids) for special in (True, False)]
    if known and not known.intersection(hashes):
        raise InputError(
            f"model.base: llama.cpp does not know how the tokenizer of {quoted!r} splits texts (hash {hashes[0][:12]})",
            NEWER,
        )


def wants_sentencepiece(architecture: str, converter: Path) -> bool:
    """Whether the converter makes a vocabulary of this architecture from tokenizer.model only."""
    source = _vocabulary_source(architecture, converter)
    reads = "tokenizer.model" in source or "_set_vocab_sentencepiece" in source
    return reads and ("_set_vocab_gpt2" not in source or "'GPT2Tokenizer'" in source)


def _pinned() -> Path:
    return cache_folder() / "llama.cpp-0.3.36"


def _hash(ids: list[int]) -> str:
    return sha256_of(str(ids))


@functools.cache
def _architectures(converter: Path) -> frozenset[str]:
    """Those of conversion/__init__.py, or in older checkouts of the classes registered in the converter itself."""
    text = _text(converter / "conversion/__init__.py")
    if found := re.search(r"^TEXT_MODEL_MAP.*?^\}", text, re.MULTILINE | re.DOTALL):
        return frozenset(re.findall(r"^    \"(\w+)\":", found[0], re.MULTILINE))
    calls = re.findall(
        r"^@\w+\.register\((.*?)\)$", _text(converter / "convert_hf_to_gguf.py"), re.MULTILINE | re.DOTALL
    )
    return frozenset(name for call in calls for name in re.findall(r"\"(\w+)\"", call))


@functools.cache
def _probe(converter: Path) -> tuple[str, frozenset[str]]:
    """The text that is encoded, and the hashes that are known."""
    sources = [_text(converter / name) for name in ("conversion/base.py", "convert_hf_to_gguf.py")]
    text = next(
        (found[1] for source in sources if (found := re.search(r"^ +chktxt = ('.*')$", source, re.MULTILINE))), "''"
    )
    known = {hash_ for source in sources for hash_ in re.findall(r"chkhsh == \"([0-9a-f]{64})\"", source)}
    return str(ast.literal_eval(text)), frozenset(known)


@functools.cache
def _vocabulary_source(architecture: str, converter: Path) -> str:
    """The text of the `set_vocab` of the class registered for an architecture; empty where it inherits one."""
    for file in sorted((converter / "conversion").glob("*.py")):
        text = _text(file)
        for part in re.split(r"^(?=@ModelBase\.register\()", text, flags=re.MULTILINE)[1:]:
            head, _, body = part.partition("\nclass ")
            if f'"{architecture}"' in head and "mmproj" not in head.lower():
                own = re.split(r"^class |^@", body, flags=re.MULTILINE)[0]
                found = re.search(r"^    def set_vocab\(.*?(?=^    \S|\Z)", own, re.MULTILINE | re.DOTALL)
                return found[0] if found else ""
    return ""


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""
