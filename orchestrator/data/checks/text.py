"""Signs of trouble inside one text, and the writing system it is in. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from orchestrator.evaluation.rows import has_thinking, strip_thinking

# What a sign is called, how it is put to a person, and the pattern. Each has a cheap guard in `signs`.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060\ufeff\ufff9-\ufffb]")
# UTF-8 read as Latin-1 or cp1252 (Ã© â€™ ä½ å¥½), the replacement character, and the two classics of GBK.
# Two, three or four characters as UTF-8 has bytes; but é» and É» are French, with a space or without, and ß» is German
# (UTF-8's DF is N'Ko). Of cp1252, which has dashes and quotes where Latin-1 has C1, two Chinese characters in a row.
_CONTINUES = "\u0080-\u00bf" + bytes(byte for byte in range(0x80, 0xA0)).decode("cp1252", "ignore")
_MOJIBAKE = re.compile(
    "[\u00c2\u00c3][\u0080-\u00bf]|[\u00c4-\u00de](?![\u00a0«»])[\u0080-\u00bf]"
    "|[\u00e0-\u00ef](?![\u00a0«»]{2})[\u0080-\u00bf]{2}|[\u00f0-\u00f4][\u0080-\u00bf]{3}"
    f"|(?:[\u00e0-\u00ef][{_CONTINUES}]{{2}}){{2}}|ðŸ|â€|ã€|ï¼|ï»¿|\ufffd|锟斤拷|烫烫烫|屯屯屯"
)
_LINE_ENDS = re.compile("[\x0b\x0c\x85\u2028\u2029]")
_MARKUP = re.compile(r"&(?:[a-z]{2,6}|#\d{2,5});|(?<!&)#\d{2,4};|</?(?:b|br|p|div|span|a|i|strong)\b[^<>]{0,80}>", re.I)
_TEMPLATE_TOKEN = re.compile(r"<\|[A-Za-z_]\w*\|>|<｜[^｜<>]{1,30}｜>|<(?:start|end)_of_turn>|\[/?INST\]|</s>")
_EMAIL = re.compile(r"[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{2,63})+")
_PHONE = re.compile(r"(?<!\d)(?:1[3-9]\d{9}|\+\d{1,3}[ -]?(?:\d[ -]?){8,11}\d)(?!\d)")
_CHINESE_ID = re.compile(r"(?<!\d)[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?!\d)")
_DIGITS = re.compile(r"\d{8}")
LONG_ANSWER = 80  # characters; shorter ones may be names, labels, numbers
_NOT_WORDS = re.compile(r"[\W_]+")

SIGNS = {
    "control_characters": "hold invisible control characters",
    "mojibake": "look like text read in the wrong encoding",
    "markup": "hold HTML remains",
    "template_tokens": "hold tokens of a chat template, which would end the turn in the middle",
    "personal_data": "hold an e-mail address, a phone number or an identity number",
}


def signs(text: str) -> Iterator[str]:
    """Yields the keys of SIGNS that the text shows."""
    if not text.isprintable() and _CONTROL.search(text):
        yield "control_characters"
    if not text.isascii() and _MOJIBAKE.search(text):
        yield "mojibake"
    if ("&" in text or "#" in text or "<" in text) and _MARKUP.search(text):
        yield "markup"
    if ("<" in text or "[" in text) and _TEMPLATE_TOKEN.search(text):
        yield "template_tokens"
    if has_personal_data(text):
        yield "personal_data"


def without_control_characters(text: str) -> str:
    """The text without the characters that `control_characters` means; those that end a line are a new line."""
    return text if text.isprintable() else _CONTROL.sub("", _LINE_ENDS.sub("\n", text))


def has_personal_data(text: str) -> bool:
    """Whether there is an e-mail address, a phone number (Chinese, or with a country code), or a valid Chinese ID."""
    if "@" in text and _EMAIL.search(text):
        return True
    if not _DIGITS.search(text) and "+" not in text:
        return False
    return bool(_PHONE.search(text)) or any(_valid_id(match[0]) for match in _CHINESE_ID.finditer(text))


def _valid_id(number: str) -> bool:
    # GB 11643-1999: the last character is a checksum, so that other numbers of 18 digits raise no alarm.
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(number[:17]))
    return "10X98765432"[total % 11] == number[17].upper()


def same_text(text: str) -> str:
    """The text without differences of case, width and spacing: equal results are exact copies."""
    if not unicodedata.is_normalized("NFKC", text):  # several times faster than to normalise what is normal
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def words_of(text: str) -> str:
    """What `same_text` returns, without punctuation too; for near copies."""
    return _NOT_WORDS.sub(" ", text).strip()


def label_of(answer: str) -> str:
    """An answer as it stands, without the thought in front of it."""
    return strip_thinking(answer) if has_thinking(answer) else answer


def names_its_label(words: str, answer: str) -> bool:
    """Whether a short answer stands in the prompt as a word; `words` is what `words_of` returned."""
    if len(answer) > LONG_ANSWER or not (label := words_of(same_text(answer))):
        return False
    return f" {label} " in f" {words} " if label.isascii() else label in words


@lru_cache(1024)
def unfinished(answer: str) -> bool:
    """Whether a long answer stops without a final mark."""
    return len(answer) > LONG_ANSWER and answer.rstrip()[-1:] not in ".!?。！？…”\"'’)]}）】》」』`*|:：;；>~"


# In order of precedence: Japanese also holds Chinese characters, and every script also holds Latin letters.
SCRIPTS = {
    "kana": ((0x3041, 0x30FF),),
    "hangul": ((0xAC00, 0xD7A3),),
    "chinese": ((0x3400, 0x9FFF), (0x20000, 0x323AF)),
    "cyrillic": ((0x0400, 0x052F),),
    "arabic": ((0x0600, 0x06FF),),
    "latin": ((0x0041, 0x005A), (0x0061, 0x007A), (0x00C0, 0x024F)),
}
SCRIPT_NAMES = (*SCRIPTS, "none")
_SHARE = 0.15  # of the letters, for a script to name the text


def scripts(texts: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Returns for each text the index in SCRIPT_NAMES of the first script that holds 15 % of its letters."""
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
