"""What a check has to say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "info"]
Place = tuple[str, int]  # file, row (rows count from 1)

MAX_ROWS = 1000  # listed in one finding; the message counts them all
MAX_EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """One kind of trouble: a stable word, how bad it is, a sentence, the rows concerned and some of their texts."""

    kind: str
    severity: Severity
    message: str
    rows: tuple[Place, ...] = ()
    examples: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The finding as `data check --json` prints it."""
        rows = [{"file": file, "row": row} for file, row in self.rows]
        head = {"kind": self.kind, "severity": self.severity, "message": self.message}
        return {**head, "rows": rows, "examples": list(self.examples)}


def finding(
    kind: str, severity: Severity, message: str, rows: Iterable[Place] = (), examples: Sequence[str] = ()
) -> Finding:
    """Returns a Finding with no more rows and examples than a person, or a page, can bear."""
    return Finding(kind, severity, message, tuple(rows)[:MAX_ROWS], tuple(examples)[:MAX_EXAMPLES])
