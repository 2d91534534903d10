"""What llama.cpp's converter knows, read from its source: architectures, and ways in which tokenizers split texts.

It finds out how a byte-level BPE splits by encoding one text and looking the hash of the ids up (`get_vocab_base_pre`
in conversion/base.py). What it does not know it refuses, which happens after training.
"""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path
from typing import Any

from orchestrator.lib.errors import InputError
from orchestrator.lib.files import sha256_of

NEWER = "Name a checkout of a newer llama.cpp with `llama_cpp:` in the spec, or choose another model."


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
