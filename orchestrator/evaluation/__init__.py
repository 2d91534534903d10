"""Predictions + labels → figures. Pure: what is read and written is a file of rows, and no model is ever loaded.

`Row` is what a metric of the user's own is given.
"""

from __future__ import annotations

from orchestrator.evaluation.rows import Row

__all__ = ["Row"]
