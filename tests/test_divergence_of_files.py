"""How far files are from what they were made from, what they may lose, and what matters in their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import beta

from orchestrator.evaluation import divergence
from orchestrator.evaluation.divergence import own_places, tokens_read
from orchestrator.evaluation.noninferiority import loss
from orchestrator.lib import layout
from orchestrator.lib.files import read_json_lines, write_json
from orchestrator.report.table import divergence_lines


def kl(p: Any, q: Any) -> float:
    return float(np.sum(np.exp(p) * (p - q)))


@pytest.fixture
def pairs() -> tuple[Any, Any]:
    """Logits of a reference and of a candidate that is near it, 40 places of a vocabulary of 1,000."""
    rng = np.random.default_rng(1)
    reference = (4 * rng.standard_normal((40, 1000))).astype(np.float32)
    return reference, reference + 0.1 * rng.standard_normal(reference.shape).astype(np.float32)


def measured(reference: Any, candidate: Any, keep: int) -> list[float]:
    found = divergence.expectations(divergence.expectation(logits, 7, keep) for logits in reference)
    return [divergence.at_place(found, place, logits, 7)[0] for place, logits in enumerate(candidate)]


def test_with_the_whole_vocabulary_it_is_the_kullback_leibler_divergence(pairs: Any) -> None:
    exact = [kl(log_softmax(p), log_softmax(q)) for p, q in zip(*pairs, strict=True)]
    assert measured(*pairs, keep=999) == pytest.approx(exact, rel=1e-3)
    some = measured(*pairs, keep=256)
    assert all(lower <= whole + 1e-7 for lower, whole in zip(some, exact, strict=True))
    assert sum(some) == pytest.approx(sum(exact), rel=0.1)
    assert measured(pairs[0], pairs[0], keep=64) == pytest.approx([0.0] * 40, abs=1e-6)


def test_what_is_kept_grows_no_further_than_there_is_room() -> None:
    assert [divergence.kept(places) for places in (1, 10_000, 40_000, 10_000_000)] == [256, 256, 100, 16]


def row(name: str, nats: float | None, change: float = 0.0) -> dict[str, Any]:
    return {"id": name, "tokens": 2, "divergence": nats, "probability": 0.5 + change, "before": 0.5}


def test_a_row_has_its_mean_and_the_probability_of_its_whole_answer() -> None:
    before = np.log(np.array([0.9, 0.5], dtype=np.float32))
    found = divergence.row("3", [(0.1, np.log(0.8)), (0.3, np.log(0.5))], before)
    assert found == {
        "id": "3", "tokens": 2, "divergence": pytest.approx(0.2), "probability": pytest.approx(0.4),
        "before": pytest.approx(0.45),
    }  # fmt: skip
    assert divergence.row("4", [(float("nan"), -0.1)], before[:1])["divergence"] is None


def test_figures_have_intervals_over_rows() -> None:
    rows = [row(str(i), i / 100, -0.01) for i in range(20)]
    found = divergence.figures(rows)
    nats = found["divergence"]
    assert nats.value == pytest.approx(0.095) and 0.06 < nats.low < nats.value < nats.high < 0.13
    assert found["probability_change"].value == pytest.approx(-1)
    assert [one["id"] for one in divergence.worst([*rows, row("没有数", None)])] == ["没有数", "19", "18"]
    assert divergence.figures([*rows, row("x", None)]) == {}


def test_files_are_ranked_by_paired_differences() -> None:
    hard = np.random.default_rng(0).lognormal(size=60)
    rows = {
        name: [row(str(i), float(h * scale)) for i, h in enumerate(hard)]
        for name, scale in (("q2_k", 0.03), ("q8_0", 0.001), ("q4_k_m", 0.02))
    }
    rows["q4_k_s"] = [row(str(i), float(h * 0.02 + (-1) ** i * 1e-4)) for i, h in enumerate(hard)]
    found = divergence.ranking(rows)
    assert {found[1]["artifact"], found[2]["artifact"]} == {"q4_k_m", "q4_k_s"}
    assert [one.get("apart") for one in found] == [None, True, False, True]


def test_where_prompts_were_read_files_are_ranked_by_all_that_was() -> None:
    before = np.log(np.array([0.7, 0.9, 0.5], dtype=np.float32))
    found = divergence.row("3", [(0.8, np.log(0.6)), (0.1, np.log(0.8)), (0.3, np.log(0.5))], before, own=[-7])
    assert (found["read"], found["reading_divergence"]) == (3, pytest.approx(0.4))
    assert {**found, "read": 0, "reading_divergence": 0} == {
        **divergence.row("3", [(0.1, np.log(0.8)), (0.3, np.log(0.5))], before[1:]), "read": 0, "reading_divergence": 0,
    }  # fmt: skip
    near = [row(str(i), 0.02 + i % 2) | {"reading_divergence": 0.05} for i in range(20)]
    far = [row(str(i), 0.02 + i % 2) | {"reading_divergence": 0.06 + i / 1000} for i in range(20)]
    assert list(divergence.figures(far)) == ["divergence", "reading_divergence", "probability_change"]
    read = {"q4_k_m": far, "q8_0": near, "broken": [row("0", None) | {"reading_divergence": None}]}
    assert divergence.ranked_by(read) == "reading_divergence"
    assert [(one["artifact"], one.get("apart")) for one in divergence.ranking(read)] == [
        ("q8_0", None),
        ("q4_k_m", True),
    ]
    earlier = {"q4_k_m": far, "q8_0": [row(str(i), 0.02 + i % 2) for i in range(20)]}
    assert divergence.ranked_by(earlier) == "divergence"
    assert divergence.ranking(earlier)[1]["apart"] is False


def test_of_a_prompt_its_own_text_is_read() -> None:
    frame, end = [1, 2, 3], [8, 9]
    prompts = [[*frame, 21, 22, 23, *end], [*frame, 31, 32, *end], [*frame, *range(100, 160), *end]]
    own = own_places(prompts)
    assert [[prompt[place] for place in of] for prompt, of in zip(prompts, own, strict=True)][:2] == [[22, 23], [32]]
    gaps = np.diff(own[2])
    assert len(own[2]) == 16 and gaps.min() >= 3 and gaps.max() <= 4 and own[2][0] > -62 and own[2][-1] < -2
    assert own_places(prompts[:1]) == own_places([[1, 2]] * 2)[:1] == [[]]
    many = own_places([[1, *range(number, number + 40), 7] for number in range(1000)])
    assert {len(of) for of in many} == {4}
    assert tokens_read({"prompt": prompts[0], "own": own[0], "answer": [50, 2]}) == [22, 23, 50, 2]
    assert tokens_read({"prompt": prompts[0], "answer": [50, 2]}) == [50, 2]


@pytest.mark.parametrize(("n", "lost"), [(100, 0), (100, 3), (400, 1), (59, 10)])
def test_where_nothing_is_won_the_loss_is_bounded_as_by_clopper_and_pearson(n: int, lost: int) -> None:
    found = loss(np.array([-100.0] * lost + [0.0] * (n - lost)), 3.0)
    assert found.at_most == pytest.approx(100 * beta.ppf(0.95, lost + 1, n - lost), rel=0.01)
    assert (found.seen, found.shown) == (pytest.approx(100 * lost / n), found.at_most <= 3.0)


def test_the_rows_that_would_do_are_named() -> None:
    assert loss(np.zeros(50), 3.0).rows_needed == 99
    assert loss(np.zeros(99), 3.0).shown
    assert loss(np.array([-100.0] * 4 + [0.0] * 96), 3.0).rows_needed is None
    some = loss(np.array([-100.0] * 2 + [100.0] + [0.0] * 97), 3.0)
    assert some.rows_needed is not None and 250 < some.rows_needed < 350


def test_a_loss_at_the_limit_is_seldom_shown_to_be_allowed() -> None:
    rng = np.random.default_rng(0)
    shown = [
        loss(rng.choice([-100.0, 100.0, 0.0], 200, p=[0.04, 0.01, 0.95]), 3.0, needs=False).shown for _ in range(200)
    ]
    assert sum(shown) <= 10


@pytest.fixture(scope="module")
def gguf(shipped_run: Any) -> Path:
    return shipped_run.folder / layout.gguf("tiny", "f16")


@pytest.fixture(scope="module")
def texts(shipped_run: Any) -> list[list[int]]:
    return [row["ids"] for row in read_json_lines(shipped_run.folder / layout.PROMPTS)]


@pytest.fixture(scope="module")
def merged(shipped_run: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(shipped_run.folder / layout.MERGED))


def test_the_matrix_is_what_the_layers_are_given(gguf: Path, texts: Any, merged: Any, tmp_path: Path) -> None:
    import torch

    from orchestrator.models import importance
    from orchestrator.models.decoder import common_prefix
    from orchestrator.models.gguf import GgufModel

    squares: dict[str, Any] = {}
    assert common_prefix(texts)

    def add(name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            squares[name] = squares.get(name, 0) + inputs[0][0].square().sum(0).numpy()

        return hook

    layer = merged.model.layers[1]
    layer.mlp.down_proj.register_forward_hook(add("blk.1.ffn_down.weight"))
    layer.self_attn.q_proj.register_forward_hook(add("blk.1.attn_q.weight"))
    with torch.inference_mode():
        for text in texts:
            merged(torch.tensor([text]))
    with GgufModel(gguf) as model:
        importance.write(tmp_path / "x.imatrix", importance.collect(model, texts), "data/train.json")
    found = importance.read(tmp_path / "x.imatrix")
    assert len(found) == 14  # two layers of seven matrices; embeddings and output are left to the type
    for name, expected in squares.items():
        mean = expected / sum(map(len, texts))
        assert found[name].shape == (1, len(mean))
        assert found[name][0] == pytest.approx(mean, rel=0.05, abs=0.01 * float(mean.max()))


def test_answers_are_read_with_the_probabilities_of_the_model(gguf: Path, texts: Any, merged: Any) -> None:
    import torch

    from orchestrator.models.gguf import GgufModel
    from orchestrator.models.reader import read_answers

    pairs = [(text[:-3], text[-3:]) for text in texts]

    def look(logits: Any, row: int, place: int) -> float:
        return float(log_softmax(logits)[pairs[row][1][place]])

    expected = read_answers(merged, pairs, look, 4)
    with torch.inference_mode():
        whole = torch.log_softmax(merged(torch.tensor([texts[0]])).logits[0].double(), -1)
    assert expected[0] == pytest.approx([float(whole[at - 1, texts[0][at]]) for at in (-3, -2, -1)], abs=1e-4)
    with GgufModel(gguf) as model:
        seen = model.read_answers(
            [prompt for prompt, _ in pairs],
            [answer for _, answer in pairs],
            look,
        )
        for found, known in zip(seen, expected, strict=True):
            assert found == pytest.approx(known, abs=0.05)


def read(model: Any, given: list[dict[str, Any]], look: Any) -> list[list[Any]]:
    """What `look` makes of the logits and the token, wherever a row is read."""
    tokens = [tokens_read(row) for row in given]
    return list(
        model.read_answers(
            [row["prompt"] for row in given],
            [row["answer"] for row in given],
            lambda logits, row, number: look(logits, tokens[row][number]),
            [row.get("own", ()) for row in given],
        )
    )


def test_places_of_prompts_are_read_as_answers_are(gguf: Path, texts: Any, merged: Any) -> None:
    from orchestrator.models.gguf import GgufModel
    from orchestrator.models.reader import read_answers

    def look(logits: Any, token: int) -> float:
        return float(log_softmax(logits)[token])

    own = own_places([text[:-3] for text in texts])
    given = [{"prompt": text[:-3], "answer": text[-3:], "own": of} for text, of in zip(texts, own, strict=True)]
    tokens = [tokens_read(row) for row in given]
    whole = read_answers(
        merged, [(text[:1], text[1:]) for text in texts], lambda at, row, n: look(at, texts[row][n + 1]), 4
    )
    pairs = [(text[:-3], text[-3:]) for text in texts]
    some = read_answers(merged, pairs, lambda logits, row, number: look(logits, tokens[row][number]), 4, own)
    with GgufModel(gguf) as model:
        seen = read(model, given, look)
    assert any(own)
    for text, of, every, by_torch, by_llama in zip(texts, own, whole, some, seen, strict=True):
        places = [*(len(text) - 3 + place for place in of), *range(len(text) - 3, len(text))]
        assert by_torch == pytest.approx([every[place - 1] for place in places], abs=1e-4)
        assert by_llama == pytest.approx(by_torch, abs=0.05)


def test_a_gguf_that_reads_prompts_too_has_the_same_figures_of_its_answers(
    gguf: Path, texts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.evaluation.rows import write_records
    from orchestrator.models.gguf import GgufModel
    from orchestrator.stages.diverge import Diverge
    from orchestrator.stages.given import load, save
    from orchestrator.stages.quantise import quantise

    monkeypatch.chdir(tmp_path)
    quantise(gguf, Path("q8_0.gguf"), "q8_0")
    write_json(Path(layout.SERVING), {"stop": []})
    rows = [{"id": str(at), "prompt": text[:-3], "answer": text[-3:]} for at, text in enumerate(texts)]
    own = own_places([row["prompt"] for row in rows])
    reading = [{**row, "own": places} for row, places in zip(rows, own, strict=True)]
    found = {}
    for name, given in (("answers", rows), ("all", reading)):
        write_records(Path(f"{name}.given"), given)
        with GgufModel(gguf) as model:
            seen = read(model, given, lambda logits, token: divergence.expectation(logits, token, 256))
            save(Path(f"{name}.npz"), divergence.expectations(place for places in seen for place in places))
        rows_file, own_file = f"{name}.rows", f"{name}.own.npz"
        Diverge("q8_0.gguf", f"{name}.given", f"{name}.npz", rows_file, None, own_file).run()
        found[name] = read_json_lines(Path(rows_file))
        assert len(load(Path(own_file)).chosen) == sum(map(len, map(tokens_read, given)))
    assert not any("reading_divergence" in row for row in found["answers"])
    for before, now, places in zip(found["answers"], found["all"], own, strict=True):
        assert now["read"] == 3 + len(places) and now["reading_divergence"] > 0
        assert {name: now[name] for name in before} == {
            name: pytest.approx(value, rel=0.05, abs=1e-6) if isinstance(value, float) else value
            for name, value in before.items()
        }
    assert divergence.ranked_by({"q8_0": found["all"]}) == "reading_divergence"


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({}, "divergence (KL, nats a token): f16 < q8_0; gguf-q8_0 most on rows 7 (0.250)"),
        (
            {"ranked_by": "reading_divergence"},
            "divergence of what is read (KL, nats a token): f16 < q8_0; gguf-q8_0's answers most on rows 7 (0.250)",
        ),
    ],
)
def test_the_line_below_the_table_says_what_files_are_ranked_by(about: dict[str, str], said: str) -> None:
    ranking = [{"artifact": "gguf-f16"}, {"artifact": "gguf-q8_0", "apart": True}]
    worst = {"gguf-q8_0": [{"id": "7", "divergence": 0.25}]}
    assert divergence_lines({"divergence": {"ranking": ranking, "worst": worst, **about}}) == [said]
