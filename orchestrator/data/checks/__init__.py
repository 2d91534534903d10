"""Checks of training data before anything is trained.

Everything is seen once, as a stream; what is kept of a row is about 1 KB (see corpus.py), so a million rows fit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from orchestrator.data.checks.content import FEW_HELD_OUT, content_findings
from orchestrator.data.checks.copies import duplicates, leakage
from orchestrator.data.checks.corpus import Corpus, build
from orchestrator.data.checks.finding import Finding, finding
from orchestrator.data.checks.labels import are_labels, label_findings
from orchestrator.data.checks.speech import Mode, Speech
from orchestrator.data.checks.tokens import TokenCounter
from orchestrator.data.conversation import Conversation
from orchestrator.data.reading import MIN_TRAINING_ROWS, RowProblem
from orchestrator.lib.errors import InputError
from orchestrator.lib.words import counted

__all__ = ["Finding", "Mode", "check_data", "require_clean"]
Rows = Iterable[Conversation | RowProblem]
_ORDER = ("error", "warning", "info")
_LISTED = 6  # errors in one message


def check_data(
    train: Rows,
    held_out: Rows = (),
    *,
    labels_task: bool | None = None,
    tokens: TokenCounter | None = None,
    mode: Mode | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Finding]:
    """Returns everything that is wrong or odd, errors first.

    The rows are what `reading.read` yields. `labels_task` None means: find out from the answers. `mode` is how they
    will be trained, where that is known. `progress` hears the number of rows read so far. Time grows as n log n in the
    rows (copies.py), memory with the rows.
    """
    speech = Speech(mode)
    counted_by = [tokens.look] if tokens else []
    learnt = build(_seen(train, speech.look, *counted_by), progress)
    asked = build(_seen(held_out, *counted_by), progress)
    labels = are_labels(learnt.labels) if labels_task is None else labels_task
    findings = [*leakage(learnt, asked), *_sizes(learnt, asked), *(tokens.findings() if tokens else ())]
    findings += speech.findings()
    if labels:
        findings += label_findings(learnt, asked)
    for corpus in (learnt, asked):
        findings += [*duplicates(corpus, labels_task=labels), *content_findings(corpus, labels_task=labels)]
    return sorted(findings, key=lambda found: _ORDER.index(found.severity))


def _seen(rows: Rows, *looks: Callable[[Conversation], None]) -> Rows:
    """The rows as they are, each shown to whoever counts them while they flow by."""
    for row in rows:
        if isinstance(row, Conversation):
            for look in looks:
                look(row)
        yield row


def _sizes(train: Corpus, held_out: Corpus) -> Iterable[Finding]:
    if len(train) < MIN_TRAINING_ROWS:
        message = (
            f"only {counted(len(train), 'training row')}: {MIN_TRAINING_ROWS} are the least, a few hundred a good start"
        )
        yield finding("few_rows", "error", message)
    if 0 < len(held_out) < FEW_HELD_OUT:
        rows = counted(len(held_out), "held-out row")
        message = f"only {rows}: measured on them, one row is {100 / len(held_out):.1f} points"
        yield finding("few_rows", "warning", message)


CLEANED = ("leakage_exact", "leakage_near", "leakage_label_conflict")
"""Errors that `data clean` takes away."""


def require_clean(findings: Sequence[Finding], accept: Collection[str] = ()) -> None:
    """Raises one InputError if there is an error that `data: {accept: […]}` does not name."""
    errors = [found for found in findings if found.severity == "error" and found.kind not in accept]
    if errors:
        lines = "\n".join(f"  {found.kind}: {found.message}{_first_place(found)}" for found in errors[:_LISTED])
        kinds = ", ".join(dict.fromkeys(found.kind for found in errors))
        hint = f"`orchestrator data check` shows the rows; to train on them all the same: `data: {{accept: [{kinds}]}}`"
        if any(found.kind in CLEANED for found in errors):
            hint = f"`orchestrator data clean TRAIN --eval EVAL --out FOLDER` leaves such rows out; {hint}"
        raise InputError(f"the data has errors:\n{lines}", hint)


def _first_place(found: Finding) -> str:
    return "".join(f" ({file}, row {row})" for file, row in found.rows[:1])
