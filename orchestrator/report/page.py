"""Facts become a page: templates with every value escaped, under a policy that runs no script but ours."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from orchestrator.lib.render import Renderer

REFRESH_SECONDS = 5
"""How often an open tab reads the page of a run again while it runs."""


def page(renderer: Renderer, template: str, /, **values: Any) -> str:
    """The whole page as text; style and script stand in it, so that one file can be kept or sent."""
    from markupsafe import Markup
    from rich.filesize import decimal

    style, script = renderer("report.css"), renderer("report.js")
    return renderer(
        template,
        style=Markup(style),  # ours, from templates/  # nosec B704
        script=Markup(script),  # nosec B704
        policy=policy(style, script),
        refresh=REFRESH_SECONDS,
        decimal=decimal,
        **values,
    )


def policy(style: str, script: str) -> str:
    """A Content-Security-Policy under which nothing is loaded, and only this style and this script count."""
    allowed = f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    return f"default-src 'none'; {allowed}; img-src data:; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
