"""Predictions + labels → figures. Pure: what is read and written is a file of rows, and no model is ever loaded."""

from orchestrator.evaluation.measure import evaluate_file

__all__ = ["evaluate_file"]
