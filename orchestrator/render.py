"""Templates and values become text; nothing is decided here.

A project's own `templates/` wins over the packaged ones. Names that a template asks for and nobody gave are errors,
and templates run in Jinja's sandbox, since a project may come from a stranger.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError

PACKAGED = (Path(__file__).parent / "templates", Path(__file__).parent.parent / "templates")
"""Inside an installed package, or beside it in a checkout."""


class Renderer:
    """Renders the templates of one project."""

    def __init__(self, project: Path) -> None:
        from jinja2 import FileSystemLoader, StrictUndefined
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        self._environment = ImmutableSandboxedEnvironment(
            loader=FileSystemLoader([project / "templates", *PACKAGED]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=lambda name: bool(name) and name.endswith(".html.j2"),
        )
        self._environment.filters["yaml"] = yaml_scalar
        self._environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
        self._environment.filters["modelfile"] = modelfile_text
        self._environment.filters["modelfile_word"] = modelfile_word

    def __call__(self, template: str, /, **values: Any) -> str:
        """The rendered text. Raises InputError that names the template when it cannot be rendered."""
        from jinja2 import TemplateError

        try:
            return self._environment.get_template(template).render(values)
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            where = f"{template}:{line}" if line else template
            raise InputError(
                f"template {where}: {error}", "A project's templates/ overrules the packaged ones."
            ) from error

    def source_hash(self, template: str) -> str:
        """The sha256 of a template's text, for the fingerprint of what a worker renders later."""
        source, _, _ = self._environment.loader.get_source(self._environment, template)  # type: ignore[union-attr]
        return hashlib.sha256(source.encode()).hexdigest()


def yaml_scalar(value: Any) -> str:
    """A value as YAML that every YAML version reads back unchanged: text is always quoted, floats have a point."""
    if isinstance(value, float) and math.isfinite(value):
        return _float(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(yaml_scalar(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{yaml_scalar(str(key))}: {yaml_scalar(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\x7f")


def modelfile_text(text: str) -> str:
    """Text between the triple quotes of a Modelfile, which knows no escapes. Raises InputError for what it cannot hold."""
    if '"""' in text or text.endswith('"'):
        raise InputError(
            f'a Modelfile cannot hold {text[-40:]!r}: it ends at """',
            'Leave """ out, and do not end the text with a quote.',
        )
    return f'"""{text}"""'


def modelfile_word(value: Any) -> str:
    """A parameter's value in a Modelfile: numbers bare, text in the quotes that it does not contain itself."""
    if not isinstance(value, str):
        return json.dumps(value)
    return f'"{value}"' if not set(value) & set('"\n\r') else modelfile_text(value)


def _float(value: float) -> str:
    # PyYAML reads 1e-05 as text (YAML 1.1 wants a point), and LLaMA-Factory would then train with a string.
    mantissa, mark, exponent = repr(value).partition("e")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}{mark}{exponent}"
