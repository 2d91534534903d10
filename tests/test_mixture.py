"""A GGUF of a wanted size: which matrices get which types, exactly; and how a spec asks for it."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import read_json
from orchestrator.models.mixture import Group, Matrix, Option, called, choose, groups, measured, size, smallest
from orchestrator.stages.mix import Mix, megabytes


def drawn(seed: int) -> list[Group]:
    """Groups in which fewer bytes lose more."""
    generator = np.random.default_rng(seed)
    found = []
    for number in range(5):
        sizes = np.sort(generator.integers(1, 60, 4))[::-1]
        losses = np.concatenate([[0.0], np.sort(generator.exponential(0.01, 3))])
        options = (
            Option(f"q{8 - at}", int(size), float(loss))
            for at, (size, loss) in enumerate(zip(sizes, losses, strict=True))
        )
        found.append(Group(f"role{number}", tuple(options)))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_no_other_mixture_that_fits_loses_less(seed: int) -> None:
    of = drawn(seed)
    every = list(itertools.product(*(group.options for group in of)))
    for room in np.quantile([sum(option.bytes for option in one) for one in every], [0.0, 0.1, 0.5, 1.0]):
        fits = [one for one in every if sum(option.bytes for option in one) <= room]
        chosen = choose(of, int(room)).values()
        assert sum(option.bytes for option in chosen) <= room
        least = min(sum(option.damage for option in one) for one in fits)
        assert sum(option.damage for option in chosen) == pytest.approx(least)


def test_matrices_of_one_role_are_a_group_with_the_types_that_fit_their_columns() -> None:
    of = [
        Matrix("token_embd.weight", (576, 1000), "f16"),
        Matrix("blk.0.ffn_down.weight", (1536, 576), "f16"),
        Matrix("blk.11.ffn_down.weight", (1536, 576), "f16"),
        Matrix("blk.0.attn_norm.weight", (576,), "f32"),
        Matrix("blk.0.odd.weight", (33, 4), "f16"),
    ]
    found = groups(of, [one.name for one in of if one.kind == "f16"])
    assert {group.role: [option.kind for option in group.options] for group in found} == {
        "token_embd.weight": ["f16", "q8_0", "q5_1", "q5_0", "iq4_nl"],
        "ffn_down.weight": ["f16", "q8_0", "q6_k", "q5_k", "q4_k", "q3_k", "q2_k"],
        "odd.weight": ["f16"],
    }
    assert [option.bytes for option in found[1].options[:2]] == [2 * 1536 * 576 * 2, 2 * 1536 * 576 * 34 // 32]
    assert [bool(re.search(found[1].pattern, one.name)) for one in of] == [False, True, True, False, False]
    assert smallest(found) == sum(min(option.bytes for option in group.options) for group in found)
    assert size(Matrix("x", (32, 3), "q8_0")) == 128  # 3 × 34 bytes, and the gap


def test_fewer_bits_never_lose_less() -> None:
    of = [Group("a", (Option("f16", 9), Option("q8_0", 5), Option("q6_k", 4), Option("q4_k", 2)))]
    (found,) = measured(of, {("a", "q8_0"): 0.002, ("a", "q6_k"): 0.001, ("a", "q4_k"): 0.01})
    assert [option.damage for option in found.options] == [0.0, 0.002, 0.002, 0.01]


def test_a_mixture_is_called_by_what_most_of_it_is() -> None:
    big, small, whole = Option("q4_k", 9), Option("q8_0", 5), Option("f16", 99)
    assert called({"a": big, "b": small, "c": whole}) == "q4_k_m"
    assert called({"a": small, "b": Option("iq4_nl", 6)}) == "iq4_nl"
    assert called({"a": whole}) == "q8_0"  # which types are laid over


@pytest.mark.parametrize(("bytes_", "told"), [(90_000_000, "90 MB"), (71_350_721, "71.4 MB"), (100_000, "0.1 MB")])
def test_sizes_are_rounded_up(bytes_: int, told: str) -> None:
    assert megabytes(bytes_) == told


class Words:
    """Tokenizes by characters."""

    def tokenize(self, text: str) -> list[int]:
        return [*map(ord, text)]


@pytest.mark.parametrize(("lengths", "read"), [((90, 5), [50]), ((30, 90, 5), [29, 21]), ((10, 10), [9, 9])])
def test_rows_are_read_until_there_are_enough_tokens(lengths: tuple[int, ...], read: list[int]) -> None:
    stage = Mix("f16.gguf", "mixed.gguf", "record.json", "rows.json", 1, most_tokens=50)
    given = list(stage._given(cast("Any", Words()), [{"text": "字" * length} for length in lengths]))
    assert [len(answer) for _, answer in given] == read


# ---- with llama.cpp


@pytest.fixture
def mix(shipped_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the file of a size, in a folder with the run's f16 GGUF and training rows."""
    (tmp_path / "export").mkdir()
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "data").symlink_to(shipped_run.folder / "data")
    source = "export/tiny-f16.gguf"
    (tmp_path / source).symlink_to(shipped_run.folder / source)
    monkeypatch.chdir(tmp_path)

    def make(budget: int) -> Any:
        stage = Mix(source, "export/mixed.gguf", layout.summary("mixture"), layout.TRAIN_ROWS, budget, most_rows=6)
        stage.run()
        assert Path(stage.target).stat().st_size <= budget
        assert not list(Path("export").glob(".*"))
        return read_json(Path(stage.record))["mixture"]

    return make


def test_a_file_of_a_wanted_size(mix: Any, shipped_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (shipped_run.folder / "export/tiny-f16.gguf").stat().st_size
    fits = mix(whole)
    assert set(fits["types"].values()) == {"f16"} and "all of it fits as f16" in fits["sentence"]
    with pytest.raises(InputError, match="smallest file of this model has") as error:
        mix(100_000)
    assert error.value.hint and "Set export.size to" in error.value.hint
    budget = whole * 7 // 10
    found = mix(budget)
    assert found["bytes"] <= budget < whole and set(found["types"].values()) != {"f16"}
    assert found["expected"] == pytest.approx(
        sum(found["tried"][role][kind]["divergence"] for role, kind in found["types"].items())
    )
    assert "mixed: " in capsys.readouterr().out
