"""Which writing system a text is in, for many texts at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# In order of precedence: Japanese also holds Chinese characters, and every script also holds Latin letters.
SCRIPTS = {
    "kana": ((0x3041, 0x30FF),),
    "hangul": ((0xAC00, 0xD7A3),),
    "chinese": ((0x3400, 0x9FFF), (0x20000, 0x323AF)),
    "cyrillic": ((0x0400, 0x052F),),
    "arabic": ((0x0600, 0x06FF),),
    "latin": ((0x0041, 0x005A), (0x0061, 0x007A), (0x00C0, 0x024F)),
}
NAMES = (*SCRIPTS, "none")
_SHARE = 0.15  # of the letters, for a script to name the text


def scripts(texts: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Returns for each text the index in NAMES of the first script that holds 15 % of its letters."""
    code = np.frombuffer("\x00".join([*texts, ""]).encode("utf-32-le", "surrogatepass"), np.uint32)
    lengths = np.fromiter((len(text) + 1 for text in texts), np.int64, len(texts))
    starts = np.cumsum(lengths) - lengths
    counts = np.stack([np.add.reduceat(_within(code, ranges), starts) for ranges in SCRIPTS.values()])
    letters = counts.sum(axis=0)
    enough = (counts >= _SHARE * letters) & (counts > 0)
    return np.where(enough.any(axis=0), enough.argmax(axis=0), len(SCRIPTS)).astype(np.uint8)


def _within(code: npt.NDArray[np.uint32], ranges: tuple[tuple[int, int], ...]) -> npt.NDArray[np.int32]:
    inside = np.zeros(len(code), np.bool_)
    for first, last in ranges:
        inside |= (code >= first) & (code <= last)
    return inside.astype(np.int32)
