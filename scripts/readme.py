"""Writes the generated parts of the READMEs and docs/spec.md anew: `python scripts/readme.py [--check]`.

A part lies between `<!-- begin NAME -->` and `<!-- end NAME -->`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from orchestrator.cli import COMMANDS
from orchestrator.lib.files import write_text
from orchestrator.lib.language import localised
from orchestrator.spec.reference import reference

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "README.zh.md", "docs/spec.md")


def commands(language: str) -> str:
    """The commands, as `orchestrator --help` lists them where that language is set."""
    head = {"zh": "| 命令 | 作用 |"}.get(language, "| command | does |")
    rows = [f"| `{name}` | {localised(text, {'LANG': language})} |" for name, (_, text) in COMMANDS.items()]
    return "\n".join([head, "|---|---|", *rows])


def renew(text: str, language: str) -> str:
    """A page with its generated parts made anew."""
    parts = {"commands": commands(language), "reference": reference().strip()}
    for name, part in parts.items():
        text = replaced(text, name, part)
    return text


def replaced(text: str, name: str, part: str) -> str:
    """A page with one part made anew; unchanged where it has no such part."""

    def between(found: re.Match[str]) -> str:
        return f"{found[1]}\n{part}\n\n{found[2]}"

    return re.sub(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", between, text, flags=re.DOTALL)


def main() -> None:
    """Write the files, or with --check fail when one would change."""
    for name in PAGES:
        path = ROOT / name
        before, language = path.read_text(encoding="utf-8"), "zh" if ".zh." in name else "en"
        if "--check" not in sys.argv:
            write_text(path, renew(before, language))
        elif renew(before, language) != before:
            sys.exit(f"{name} is older than the code: run `make docs`")


if __name__ == "__main__":
    main()
