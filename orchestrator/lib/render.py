"""Templates and values become text; nothing is decided here.

A project's own `templates/` wins over the packaged ones. Names that a template asks for and nobody gave are errors,
and templates run in Jinja's sandbox, since a project may come from a stranger.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib.errors import InputError

if TYPE_CHECKING:
    import yaml
    from jinja2 import Environment

MOST_TEXT = 1 << 24
"""Characters that a template may write; the report of a sweep with thousands of trials has a quarter of that."""
MOST_POWER = 10_000
SECONDS = 30.0

_PACKAGE = Path(__file__).parents[1]
PACKAGED = (_PACKAGE / "templates", _PACKAGE.parent / "templates")
"""Inside an installed package, or beside it in a checkout."""


class Renderer:
    """Renders the templates of one project."""

    def __init__(self, project: Path) -> None:
        self._own = project / "templates"
        self._environment = _environment(self._own)

    def __call__(self, template: str, /, **values: Any) -> str:
        """The rendered text. Raises InputError that names the template when it cannot be rendered."""
        from jinja2 import TemplateError

        try:
            return _bounded(self._environment.get_template(template).generate(values))
        except (TemplateError, OverflowError, RecursionError) as error:
            line = getattr(error, "lineno", None)
            where = f"{template}:{line}" if line else template
            raise InputError(
                f"template {where}: {error}", "A project's templates/ overrides the packaged ones."
            ) from error

    def source_hash(self, template: str) -> str:
        """The sha256 of a template's text, for the fingerprint of what a worker renders later."""
        source, _, _ = self._environment.loader.get_source(self._environment, template)  # type: ignore[union-attr]
        return hashlib.sha256(source.encode()).hexdigest()

    def overrides(self, template: str) -> bool:
        """Whether the project has a template of its own in the place of a packaged one."""
        return (self._own / template).is_file()


def _bounded(parts: Iterable[str]) -> str:
    """The text of a template that ends. Raises SecurityError for one that does not within bounds."""
    from jinja2.exceptions import SecurityError

    kept, length, deadline = [], 0, time.monotonic() + SECONDS
    for part in parts:
        kept.append(part)
        length += len(part)
        if length > MOST_TEXT:
            raise SecurityError(f"it writes more than {MOST_TEXT:,} characters")
        if time.monotonic() > deadline:
            raise SecurityError(f"it takes more than {SECONDS:.0f} s")
    return "".join(kept)


@functools.cache
def _sandbox() -> type[Environment]:
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        """Jinja's sandbox, in which no single operation makes something huge."""

        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            """Powers, and repeated texts or lists, have limits."""
            sizes = [len(side) for side in (left, right) if isinstance(side, (str, list, tuple))]
            counts = [abs(side) for side in (left, right) if isinstance(side, int)]
            if operator == "**" and max(counts, default=0) > MOST_POWER:
                raise SecurityError(f"{left!r} ** {right!r} is too large")
            if operator == "*" and sizes and sizes[0] * max(counts, default=0) > MOST_TEXT:
                raise SecurityError("a repeated text is too long")
            return super().call_binop(context, operator, left, right)

    return Sandbox


@functools.cache
def _environment(own: Path) -> Environment:
    """One for each project's folder of templates, which are compiled once, and again when their files change."""
    from jinja2 import FileSystemLoader, StrictUndefined

    environment = _sandbox()(
        loader=FileSystemLoader([own, *PACKAGED]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
    )
    environment.filters["yaml"] = yaml_scalar
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.filters["modelfile"] = modelfile_text
    environment.filters["modelfile_word"] = modelfile_word
    return environment


def yaml_scalar(value: Any) -> str:
    """A value as YAML on one line that every YAML version reads back unchanged: text is always quoted."""
    return _known_scalar(value) if isinstance(value, (str, int, float)) else _dumped(value)


@functools.lru_cache(maxsize=4096, typed=True)  # a sweep renders the same few hundred values for every trial
def _known_scalar(value: str | float) -> str:
    return _dumped(value)


def _dumped(value: Any) -> str:
    import yaml

    text = yaml.dump(value, Dumper=_dumper(), default_flow_style=True, allow_unicode=True, width=float("inf"))
    return str(text).removesuffix("\n").removesuffix("\n...")


@functools.cache
def _dumper() -> type[yaml.SafeDumper]:
    import yaml

    class Quoting(yaml.SafeDumper):
        """PyYAML's dumper, which writes floats with the point that YAML 1.1 wants, and text in double quotes."""

    Quoting.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))
    Quoting.add_representer(tuple, lambda dumper, items: dumper.represent_list(items))
    return Quoting


def modelfile_text(text: str) -> str:
    """Text between a Modelfile's triple quotes, which know no escapes. Raises InputError for what they cannot hold."""
    if not fits_modelfile(text):
        raise InputError(
            f"a Modelfile cannot hold {text[-40:]!r}",
            'Leave """ and unprintable characters out, and do not end the text with a quote.',
        )
    return f'"""{text}"""'


def fits_modelfile(text: str) -> bool:
    """Whether a Modelfile can hold a text as it is."""
    return all(map(survives_modelfile, text)) and '"""' not in text and not text.endswith('"')


def survives_modelfile(character: str) -> bool:
    """Whether Ollama's parser/parser.go keeps it: Go's `strconv.IsPrint`, which agrees with Python, and white space."""
    return character.isprintable() or character in "\n\r\t"


def modelfile_word(value: Any) -> str:
    """A parameter's value in a Modelfile: numbers bare, text in the quotes that it does not contain itself."""
    if not isinstance(value, str):
        return json.dumps(value)
    return f'"{value}"' if not set(value) & set('"\n\r') else modelfile_text(value)
