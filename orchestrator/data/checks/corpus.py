"""One pass over a data set: per row a few numbers and a signature, so that a million rows fit into memory."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice

import numpy as np
import numpy.typing as npt

from orchestrator.data.checks.finding import Place
from orchestrator.data.checks.minhash import PERMUTATIONS, Signatures, signatures
from orchestrator.data.checks.text import (
    LONG_ANSWER,
    label_of,
    names_its_label,
    same_text,
    scripts,
    signs,
    unfinished,
    words_of,
)
from orchestrator.data.conversation import Conversation
from orchestrator.data.reading import RowProblem
from orchestrator.lib.sequences import first_difference

LONG = 256  # characters; beyond it near copies are told by their signatures alone, and the text is not kept
MAX_LABELS = 1000  # more different answers than this are no labels
_HEAD = 60  # characters of each row kept to show it
_SAMPLE = 1000  # rows that decide the common frame
_BATCH_ROWS, _BATCH_CHARACTERS = 4096, 2_000_000  # signed at a time, with about 50 bytes for each character
_SIGNED = 100_000  # characters of a text that are signed


@dataclass
class Corpus:
    """What the checks need to know of the rows of a set. Arrays have one entry a good row."""

    sources: list[str] = field(default_factory=list)
    source: array[int] = field(default_factory=lambda: array("H"))
    row: array[int] = field(default_factory=lambda: array("I"))
    question: array[int] = field(default_factory=lambda: array("Q"))  # hash of same_text
    answer: array[int] = field(default_factory=lambda: array("Q"))  # hash of the stripped answer
    length: array[int] = field(default_factory=lambda: array("I"))  # characters of question and answer
    script: list[npt.NDArray[np.uint8]] = field(default_factory=list)  # one array a batch
    label: array[int] = field(default_factory=lambda: array("Q"))  # hash of the answer without its thought
    labels: Counter[str] = field(default_factory=Counter)  # the first MAX_LABELS of them
    heads: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    signed: list[Signatures] = field(default_factory=list)
    signs: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    long_answers: int = 0
    problems: list[RowProblem] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.row)

    @property
    def signatures(self) -> Signatures:
        """All rows' signatures as one array, made once; the batches are let go one by one, to hold them only once."""
        if len(self.signed) != 1:
            whole, end = np.empty((len(self), PERMUTATIONS), np.uint16), len(self)
            while self.signed:
                batch = self.signed.pop()
                whole[end - len(batch) : end] = batch
                end -= len(batch)
            self.signed = [whole]
        return self.signed[0]

    def places(self, indices: Iterable[int]) -> list[Place]:
        """Files and row numbers of several rows."""
        return [(self.sources[self.source[index]], self.row[index]) for index in indices]

    def labelled(self, labels: Iterable[str]) -> list[Place]:
        """Files and rows whose answer is one of these labels, as they stand."""
        wanted = np.array([hashed(label) for label in labels], np.uint64)
        return self.places(np.flatnonzero(np.isin(np.frombuffer(self.label, np.uint64), wanted)).tolist())

    def label_of(self, index: int) -> str:
        """The answer of a row as it stands; "…" where there were too many different ones to keep."""
        return next((label for label in self.labels if hashed(label) == self.label[index]), "…")

    def show(self, index: int) -> str:
        """`file:row text`, for a person."""
        return f"{self.sources[self.source[index]]}:{self.row[index]} {self.heads[index]}"


def question_of(conversation: Conversation) -> str:
    """Everything the model sees before its last answer, apart from the system text."""
    last_is_answer = conversation.messages[-1].role in ("assistant", "function_call")
    asked = conversation.messages[:-1] if last_is_answer else conversation.messages
    return asked[0].content if len(asked) == 1 else "\n".join(message.content for message in asked)


def hashed(text: str) -> int:
    """64 bits of BLAKE2b."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Frame:
    """What all prompts begin and end with (`News category: `). Only what lies between tells rows apart."""

    prefix: str = ""
    suffix: str = ""

    @staticmethod
    def of(texts: Sequence[str]) -> Frame:
        """The common frame of at least ten different texts; a few rows have too much in common by chance."""
        different = list(set(texts))
        if len(different) < 10:
            return Frame()
        prefix = _beginning(different)
        backwards = _beginning([text[len(prefix) :][::-1] for text in different])
        return Frame(prefix, backwards[::-1])

    def inside(self, text: str) -> str:
        """The text without the frame; the whole text where the frame does not fit or leaves nothing."""
        inner = text.removeprefix(self.prefix).removesuffix(self.suffix)
        return inner if inner.strip() and inner != text else text


def _beginning(texts: Sequence[str]) -> str:
    """What all texts begin with, which is what the first and the last in order do."""
    first, last = min(texts), max(texts)
    return first[: first_difference(first, last)]


def build(rows: Iterable[Conversation | RowProblem], progress: Callable[[int], None] | None = None) -> Corpus:
    """Returns the Corpus of a stream of rows; `progress` hears the number of rows done so far."""
    corpus = Corpus()
    frames: dict[str, Frame] = {}
    for batch in _batches(rows, corpus.problems):
        _add(corpus, batch, frames)
        if progress:
            progress(len(corpus))
    return corpus


def _batches(rows: Iterable[Conversation | RowProblem], problems: list[RowProblem]) -> Iterator[list[Conversation]]:
    batch: list[Conversation] = []
    characters = 0
    for row in rows:
        if isinstance(row, RowProblem):
            problems.append(row)
            continue
        batch.append(row)
        characters += sum(len(message.content) for message in row.messages)
        if len(batch) == _BATCH_ROWS or characters > _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _add(corpus: Corpus, batch: list[Conversation], frames: dict[str, Frame]) -> None:
    words = []
    for conversation in batch:
        question = question_of(conversation)
        if conversation.source not in frames:
            same_file = (question_of(other) for other in batch if other.source == conversation.source)
            frames[conversation.source] = Frame.of(list(islice(same_file, _SAMPLE)))
            corpus.sources.append(conversation.source)
        inner = frames[conversation.source].inside(question)
        words.append(_add_row(corpus, conversation, question, inner))
    corpus.signed.append(signatures([text[:_SIGNED] for text in words]))
    corpus.script.append(scripts(words))


def _add_row(corpus: Corpus, conversation: Conversation, question: str, inner: str) -> str:
    answer = conversation.answer
    label = label_of(answer)
    index = len(corpus.row)
    same = same_text(question)
    words = words_of(same if inner is question else same_text(inner)) or same
    corpus.source.append(corpus.sources.index(conversation.source))
    corpus.row.append(conversation.row)
    corpus.question.append(hashed(same))
    corpus.label.append(hashed(label))
    corpus.answer.append(hashed(stripped) if (stripped := answer.strip()) != label else corpus.label[-1])
    corpus.length.append(len(question) + len(answer))
    if label in corpus.labels or len(corpus.labels) < MAX_LABELS:
        corpus.labels[label] += 1
    corpus.heads.append(inner[:_HEAD])
    corpus.words.append(words if len(words) <= LONG else "")
    corpus.long_answers += len(answer) > LONG_ANSWER
    for sign in _noted(question, words, answer):
        corpus.signs[sign].append(index)
    return words


def _noted(question: str, words: str, answer: str) -> Iterator[str]:
    yield from signs(f"{question}\n{answer}")
    if unfinished(answer):
        yield "unfinished"
    if names_its_label(words, answer):
        yield "label_in_prompt"
