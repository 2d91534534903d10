"""Whether the answers of a classification set are labels one can learn."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain

from orchestrator.data.checks.corpus import MAX_LABELS, Corpus
from orchestrator.data.checks.finding import Finding, finding
from orchestrator.data.checks.text import same_text, words_of
from orchestrator.lib.words import counted

IMBALANCE = 10  # times as many rows for the most frequent label as for the rarest
LONGEST_LABEL = 60  # characters
_NAMED = 10  # labels in one message
_RARE = 0.05  # a label this much rarer than one a letter away is a slip of the keyboard


def are_labels(answers: Counter[str]) -> bool:
    """Whether all answers of a set are few, short and repeated, as labels are."""
    few = 2 <= len(answers) < MAX_LABELS and len(answers) <= max(2, answers.total() // 5)
    return few and all(len(answer) <= LONGEST_LABEL for answer in answers)


def label_findings(train: Corpus, held_out: Corpus) -> Iterator[Finding]:
    """Yields label_variant, class_imbalance and class_missing."""
    everywhere = train.labels + held_out.labels
    variants = label_variants(everywhere)
    if variants:
        pairs = ", ".join(f"{visible(a)} ({counted(everywhere[a], 'row')}) → {visible(b)}" for a, b in variants.items())
        places = train.labelled(variants) + held_out.labelled(variants)
        yield finding("label_variant", "warning", f"labels that may mean the same: {pairs}", places)
    merged: Counter[str] = Counter()
    for label, count in train.labels.items():
        merged[variants.get(label, label)] += count
    yield from _imbalance(merged)
    if len(held_out):
        yield from _missing(train, held_out, variants)


def visible(label: str) -> str:
    """A label in quotes, its white space marked where it would not be seen: at the ends, doubled, no plain space.

    `Sport ` becomes 'Sport␣', a tab ⇥, a new line ⏎, and other spaces, such as the full-width one of Chinese, [U+3000].
    """
    marked = re.sub(r"^ +| +$|  +", lambda found: "␣" * len(found[0]), label)
    marked = marked.replace("\t", "⇥").replace("\n", "⏎")
    return "'" + re.sub(r"[^\S ]", lambda found: f"[U+{ord(found[0]):04X}]", marked) + "'"


def label_variants(labels: Counter[str]) -> dict[str, str]:
    """Returns {variant: the spelling to use}; the most frequent spelling wins.

    Variants differ by case, width, spaces or marks only (`Sport `), by a plural (`Sports`), or are rare and one letter
    off a frequent label. Labels whose digits differ never are (`class 1`, `class 2`).
    """
    found: dict[str, str] = {}
    by_frequency = sorted(labels, key=lambda label: (-labels[label], label))[:MAX_LABELS]
    bare = {label: words_of(same_text(label)).replace(" ", "") for label in by_frequency}
    for place, label in enumerate(by_frequency):
        known = [other for other in by_frequency[:place] if other not in found]
        alike = (other for other in known if bare[label] and bare[other] == bare[label])
        close = (other for other in known if _close(bare[label], bare[other], _is_rare(labels, label, other)))
        if (meant := next(chain(alike, close), None)) is not None:
            found[label] = meant
    return found


def _is_rare(labels: Counter[str], label: str, beside: str) -> bool:
    return labels[label] <= max(1, _RARE * labels[beside])


def _close(a: str, b: str, rare: bool) -> bool:
    """Whether one bare label is the other's plural or, where the first is rare, a slip of the keyboard."""
    from rapidfuzz.distance import OSA

    if re.findall(r"\d", a) != re.findall(r"\d", b) or min(len(a), len(b)) < 4 or not (a + b).isascii():
        return False
    if a in (b + "s", b + "es") or b in (a + "s", a + "es"):
        return True
    return rare and len(a) >= 5 and OSA.distance(a, b) == 1


def _imbalance(labels: Counter[str]) -> Iterator[Finding]:
    if len(labels) < 2:
        return
    (most, many), (least, few) = labels.most_common(1)[0], labels.most_common()[-1]
    if many > IMBALANCE * few:
        message = (
            f"{counted(many, 'training row')} for {most!r}, but {few} for {least!r}: rare labels will hardly be learnt"
        )
        yield finding("class_imbalance", "warning", message)


def _missing(train: Corpus, held_out: Corpus, variants: dict[str, str]) -> Iterator[Finding]:
    taught, asked = ({variants.get(label, label) for label in corpus.labels} for corpus in (train, held_out))
    if unseen := sorted(asked - taught):
        message = f"never in the training rows: {_listed(unseen)}"
        yield finding("class_missing", "warning", message, held_out.labelled(unseen))
    if unmeasured := sorted(taught - asked):
        yield finding("class_missing", "info", f"never in the held-out rows: {_listed(unmeasured)}")


def _listed(labels: list[str]) -> str:
    more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return ", ".join(map(repr, labels[:_NAMED])) + more
