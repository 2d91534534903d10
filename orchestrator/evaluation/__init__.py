"""Predictions + labels → figures. Pure: what is read and written is a file of rows, and no model is ever loaded."""

from __future__ import annotations

from orchestrator.evaluation.measure import evaluate_file
from orchestrator.evaluation.rows import Row

__all__ = ["Row", "evaluate_file"]
