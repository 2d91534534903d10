"""The encoding of a text file, found out rather than guessed."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from orchestrator.lib.errors import InputError

_CHUNK = 1 << 20
_NULS = 0.02  # share of zero bytes that makes a file UTF-16


def detect_encoding(path: Path) -> str:
    """Returns the codec that decodes the whole file: utf-8-sig, utf-16, utf-16-le, utf-16-be or gb18030 (GBK).

    Raises InputError for any other: a wrong guess would go unnoticed. UTF-8 comes before GBK, because text in another
    encoding hardly ever passes as it.
    """
    with path.open("rb") as file:
        head = file.read(_CHUNK)
    found = next((encoding for encoding in _candidates(head) if _decodes(path, encoding)), None)
    if found is None:
        raise InputError(f"{path}: the text is neither UTF-8 nor GBK nor UTF-16", "save it as UTF-8 and try again")
    return found


def _candidates(head: bytes) -> list[str]:
    """The codecs that a file with this beginning may be in, the likeliest first."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return ["utf-16"]
    if head.count(0) > _NULS * len(head):  # every ASCII character of UTF-16 has one
        return ["utf-16-be" if head[0::2].count(0) > head[1::2].count(0) else "utf-16-le"]
    return ["utf-8-sig", "gb18030"] if _looks_like_gbk(head) else ["utf-8-sig"]


def _decodes(path: Path, encoding: str) -> bool:
    try:
        with path.open(encoding=encoding, newline="") as file:
            while file.read(_CHUNK):
                pass
    except UnicodeDecodeError:
        return False
    return True


def _looks_like_gbk(head: bytes) -> bool:
    # GBK decodes much Latin-1 by accident. Real Chinese text lies in the GB2312 block, both bytes of it >= 0xA1.
    pairs = re.findall(rb"[\x80-\xff].", head, re.DOTALL)
    common = sum(0xA1 <= first <= 0xF7 and second >= 0xA1 for first, second in pairs)
    return bool(pairs) and common >= 0.9 * len(pairs)
