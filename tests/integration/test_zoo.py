"""The zoo's way through the whole chain: two small families that need no network; the others are for `make zoo`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from benchmarks.zoo import chain, recipe
from benchmarks.zoo.families import FAMILIES, miniature
from tests.small_families import SMALL

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, builtin_model: Path) -> dict[str, dict[str, Any]]:
    """What came of each small family, both run at once."""
    work = tmp_path_factory.mktemp("zoo")
    bases = {name: miniature(family, work / "models") for name, family in SMALL.items()}
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda name: chain.passed_through(bases[name], work / name), bases)
    return dict(zip(bases, found, strict=True))


@pytest.mark.parametrize("name", SMALL)
def test_a_small_family_goes_through_with_the_prompts_of_training(name: str, rows: dict[str, dict[str, Any]]) -> None:
    row = rows[name]
    assert (row["outcome"], row["because"]) == ("passes", "")
    for artifact in ("gguf-f16", "gguf-adapter"):
        assert row[artifact]["equal_prompts"] == row[artifact]["compared"] == row[artifact]["rows"] > 0
        assert row[artifact]["agreement"] >= 90  # a random model's answers are near ties, of which one may fall


def test_check_says_that_a_tokenizer_was_put_right(rows: dict[str, dict[str, Any]]) -> None:
    assert "instead of LlamaTokenizerFast" in rows["misnamed"]["cure"]
    assert "instead of LlamaTokenizer," in rows["llama2-like"]["cure"]  # which swallows a space in front of a text


@pytest.mark.nightly
def test_the_commands_of_the_recipe_run(tmp_path: Path) -> None:
    base = miniature(FAMILIES["r1-distill-qwen"], tmp_path / "models")
    assert recipe.failures(base, tmp_path / "recipe") == []
