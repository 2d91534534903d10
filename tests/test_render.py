"""Templates: text is quoted in each language, floats stay floats, and nothing is undefined or escapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.lib.errors import InputError
from orchestrator.lib.render import Renderer, modelfile_text, modelfile_word, yaml_scalar

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=("Cs",))),
)  # fmt: skip


@settings(deadline=None)
@given(st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text("abc新", min_size=1), inner)))
def test_yaml_comes_back_as_it_was(value: Any) -> None:
    assert yaml.safe_load(f"key: {yaml_scalar(value)}") == {"key": value}


@pytest.mark.parametrize(("value", "text"), [(1e-5, "1.0e-05"), (5e-4, "0.0005"), (3.0, "3.0"), ("no", '"no"')])
def test_yaml_scalars(value: Any, text: str) -> None:
    assert yaml_scalar(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.7, "0.7"), (True, "true"), ("<|im_end|>", '"<|im_end|>"'), ("a\nb", '"""a\nb"""')],
)
def test_modelfile_words(value: Any, text: str) -> None:
    assert modelfile_word(value) == text


@pytest.mark.parametrize("text", ['a """ b', 'ends with "'])
def test_a_modelfile_refuses_what_it_cannot_hold(text: str) -> None:
    with pytest.raises(InputError, match="Modelfile"):
        modelfile_text(text)


def test_a_projects_own_template_wins(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "export.yaml.j2").write_text("mine: {{ word | yaml }}\n")
    assert Renderer(tmp_path)("export.yaml.j2", word="no") == 'mine: "no"\n'


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{{ missing }}", "'missing' is undefined"),
        ("{% if %}", "Expected an expression"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ word.append(1) }}", "has no attribute"),
    ],
)
def test_a_broken_or_hostile_template_is_an_error_with_its_name(tmp_path: Path, template: str, complaint: str) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "export.yaml.j2").write_text(template)
    with pytest.raises(InputError, match=complaint) as caught:
        Renderer(tmp_path)("export.yaml.j2", word="a")
    assert "export.yaml.j2" in caught.value.message
