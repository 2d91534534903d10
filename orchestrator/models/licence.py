"""Under which licence a base model stands, as far as its own files say."""

from __future__ import annotations

from pathlib import Path

import yaml

from orchestrator.models.builtin import BUILTIN, LICENCES


def licence(folder: Path) -> str | None:
    """The licence that the base model's own card names, or the one known of a builtin model; None for neither."""
    known = {BUILTIN[name]: of for name, of in LICENCES.items()}
    return known.get(folder.name) or _in_card(folder / "README.md")


def _in_card(card: Path) -> str | None:
    if not card.is_file():
        return None
    text = card.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---"):
        return None
    try:
        head = yaml.safe_load(text.split("---", 2)[1])
    except yaml.YAMLError:
        return None
    found = head.get("license") if isinstance(head, dict) else None
    return str(found) if found else None
