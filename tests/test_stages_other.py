"""Everything but sft with LoRA: what each kind of training renders to, and the figures that fit it.

`UPDATE_GOLDEN=1 pytest tests/test_stages_other.py` writes the golden files anew.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from orchestrator.data.conversation import Conversation, Message
from orchestrator.data.lengths import require_a_block
from orchestrator.evaluation import gate, preference
from orchestrator.evaluation.recommend import recommend_perplexity
from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.lib.training_kinds import TRAINING_KINDS
from orchestrator.runs.results import summaries
from orchestrator.spec.load import load_project
from orchestrator.stages import perplexity, prepare, trl
from orchestrator.stages.likelihoods import Scores
from orchestrator.stages.preference import Preference, records
from tests.conftest import write_tree
from tests.test_stages import ROOT, compare, steps_of

STAGES = {
    "dpo": ("train.stage=dpo", "train.pref_beta=0.2", "evaluate.task=generation"),
    "orpo": ("train.stage=dpo", "train.pref_loss=orpo", "evaluate.task=generation"),
    "kto": ("train.stage=kto", "evaluate.task=generation"),
    "rm": ("train.stage=rm",),
    "pt": ("train.stage=pt", "train.cutoff_len=256"),
}
METHODS = {
    "full": ("train.finetuning_type=full",),
    "freeze": ("train.finetuning_type=freeze", "train.freeze_trainable_layers=1"),
    "oft": ("train.finetuning_type=oft", "train.oft_block_size=8"),
    "qlora": ("train.quantization_bit=4", "train.quantization_method=bnb"),
    "dora": ("train.use_dora=true",),
    "rslora": ("train.use_rslora=true",),
    "pissa": ("train.pissa_init=true", "train.pissa_convert=true"),
    "packing": ("train.packing=true",),
    "neftune": ("train.neftune_noise_alpha=5",),
    "best": (
        "train.eval_strategy=epoch",
        "train.save_strategy=epoch",
        "train.load_best_model_at_end=true",
        "train.early_stopping_steps=2",
    ),
    "trackers": ("train.report_to=[tensorboard, wandb]",),
}
OURS = ("loraplus_lr_ratio=null",)
"""What the shipped spec sets, and only LoRA has."""


def overrides(name: str) -> tuple[str, ...]:
    return (*(f"train.{one}" for one in OURS), *(STAGES | METHODS)[name])


@pytest.mark.parametrize("name", STAGES)
def test_the_configs_of_a_stage(name: str) -> None:
    shown = ("prepare", "train", "predict-tuned", "preference", "perplexity", "merge")
    parts = []
    steps = steps_of("spec.yaml", *overrides(name))
    for step in (steps[stage] for stage in shown if stage in steps):
        parts.append(f"===== {step.stage}: {' '.join(step.argv)}\n")
        parts += [f"--- {path}\n{text.rstrip()}\n" for path, text in step.files.items()]
    compare(f"stage-{name}.txt", "".join(parts))


def test_the_configs_of_the_methods() -> None:
    parts = []
    for name in METHODS:
        steps = steps_of("spec.yaml", *overrides(name))
        loads = steps["merge"].files[layout.config("merge")].split("trust_remote_code")[0].rstrip()
        parts.append(f"===== {name}: {' '.join(steps['train'].expects)}\n")
        parts.append(f"{steps['train'].files[layout.config('train')].rstrip()}\n--- merge\n{loads}\n")
    compare("stage-methods.txt", "".join(parts))


def test_a_reward_model_is_measured_and_not_exported() -> None:
    assert list(steps_of("spec.yaml", *overrides("rm"))) == ["prepare", "train", "preference"]
    assert "nothing is exported" in TRAINING_KINDS["rm"].limit


def test_the_files_of_a_pretraining_read_the_texts_and_are_asked_nothing() -> None:
    steps = steps_of("spec.yaml", *overrides("pt"), "export.gguf=[f16, q4_k_m]", "export.adapter=true")
    assert not [stage for stage in steps if stage.startswith(("predict", "score"))]
    assert steps["ask-q4_k_m"].argv[-2:] == ("read-texts", "configs/ask-q4_k_m.json")
    assert steps["ask-q4_k_m"].needs == ("prepare", "perplexity", "quantise-q4_k_m")
    judge = json.loads(steps["judge"].files["configs/judge.json"])
    assert list(judge["artifacts"]) == ["gguf-f16", "gguf-q4_k_m", "gguf-adapter"]
    assert judge["gate"]["max_perplexity_rise"] == 0.1
    assert "judge" not in steps_of("spec.yaml", *overrides("pt"), "evaluate.artifacts=[base]")


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_preference_models_are_proven_like_any_other(name: str) -> None:
    stages = steps_of("spec.yaml", *overrides(name))
    assert {"predict-base", "predict-tuned", "score", "preference", "ask-f16", "judge"} <= set(stages)
    assert "eval_dataset: asked" in stages["predict-tuned"].files[layout.config("predict-tuned")]
    assert stages["train"].argv[1:] == ("-m", "orchestrator.stages.trl", "train", "configs/train.yaml")


def test_ppo_is_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match="trl that LLaMA-Factory requires; use dpo or kto"):
        load_project(ROOT / "spec.yaml", ("train.stage=ppo",))


# ---- the rows that are asked

QUESTION = (Message("user", "今天的新闻？"),)


def test_a_pair_is_asked_for_its_chosen_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [Conversation(QUESTION, chosen="体育", rejected="政治")]
    assert prepare._asked_rows("dpo", rows, "qwen") == rows
    written = json.loads((tmp_path / layout.ASKED_ROWS).read_text(encoding="utf-8"))
    turns = [{"from": "human", "value": "今天的新闻？"}, {"from": "gpt", "value": "体育"}]
    assert written == [{"conversations": turns, "system": "", "tools": ""}]


def test_only_good_answers_are_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good, bad = (Conversation((*QUESTION, Message("assistant", "体育")), desirable=thumb) for thumb in (True, False))
    assert prepare._asked_rows("kto", [bad, good], "qwen") == [good]
    assert "kto_tag" not in (tmp_path / layout.ASKED_ROWS).read_text(encoding="utf-8")
    with pytest.raises(InputError, match="2 held-out rows are all undesirable"):
        prepare._asked_rows("kto", [bad, bad], "qwen")


def test_texts_that_fill_no_block_are_refused() -> None:
    require_a_block([40, 30], 64, packing=True)
    require_a_block([40], 64, packing=False)
    with pytest.raises(InputError, match="40 tokens, less than one block of cutoff_len 64"):
        require_a_block([40], 64, packing=True)


# ---- figures


def test_preferences_are_shares_of_pairs() -> None:
    pairs = np.array([[-1.0, -2.0], [-3.0, -1.0], [-1.0, -4.0], [-2.0, -2.0]])
    found = preference.preferred(pairs) | preference.margin(pairs)
    assert found[preference.ACCURACY].value == 50
    assert found[preference.MARGIN].value == pytest.approx((1 - 2 + 3 + 0) / 4)
    for interval in found.values():
        assert interval.low < interval.value < interval.high


def test_unanimous_rows_are_no_certainty() -> None:
    found = preference.preferred(np.array([[1.0, 0.0]] * 10))[preference.ACCURACY]
    assert (found.value, found.high) == (100, 100)
    assert found.low == pytest.approx(100 * 0.025 ** (1 / 10))


def test_ranking_is_the_area_under_the_roc_curve() -> None:
    from sklearn.metrics import roc_auc_score

    generator = np.random.default_rng(3)
    scores, liked = generator.integers(0, 12, 60).astype(float), generator.random(60) < 0.3  # many ties
    found = preference.ranked(scores + liked, liked)[preference.ACCURACY]
    assert found.value == pytest.approx(100 * roc_auc_score(liked, scores + liked))
    assert 0 < found.low < found.value < found.high < 100


def test_the_margin_of_thumbs_is_a_difference_of_means() -> None:
    found = preference.ranked_margin(np.array([1.0, 2.0, -1.0, -4.0]), np.array([True, True, False, False]))
    assert found[preference.MARGIN].value == pytest.approx(1.5 + 2.5)


def test_perplexity_weighs_texts_by_their_tokens() -> None:
    found = preference.perplexity(np.array([-3.0, -40.0]), np.array([3.0, 10.0]))[preference.PERPLEXITY]
    assert found.value == pytest.approx(math.exp(43 / 13))
    assert (found.low, found.high) == (pytest.approx(math.e), pytest.approx(math.exp(4)))


def config(**values: Any) -> Preference:
    known = {"models": {}, "arguments": {}, "reported": ["tuned"], "summary": "", "rows": ""}
    return Preference(**{**known, "kind": "dpo", "reference": "base", "loss": "sigmoid", "beta": 0.5, **values})


def scores(*values: list[float], tokens: int = 2) -> Scores:
    table = np.array(values)
    return Scores(table, np.full(table.shape, tokens))


NOBODY = np.zeros(0, dtype=bool)
BASE, TUNED = scores([-4.0, -2.0], [-2.0, -6.0]), scores([-2.0, -4.0], [-2.0, -2.0])


def test_rewards_are_relative_to_the_reference() -> None:
    both = {"base": BASE, "tuned": TUNED}
    tuned = config().measured("tuned", both, NOBODY)
    assert {name: interval.value for name, interval in tuned.items()} == {
        "preference_accuracy": 50,  # (-2, -4) and a tie
        "reward_accuracy": 50,  # gains (2, -2) and (0, 4)
        "reward_margin": 0.5 * (4 - 4) / 2,
    }
    assert list(config().measured("base", both, NOBODY)) == ["preference_accuracy"]


def test_ipo_takes_the_mean_of_a_token_and_simpo_has_no_reference() -> None:
    both = {"base": BASE, "tuned": scores([-2.0, -4.0], [-2.0, -3.0])}
    ipo = config(loss="ipo").measured("tuned", both, NOBODY)
    assert ipo["reward_margin"].value == pytest.approx(0.5 * (4 - 3) / 2 / 2)
    simpo = config(loss="simpo", reference=None).measured("tuned", both, NOBODY)
    assert list(simpo) == ["preference_accuracy", "reward_margin"]
    assert simpo["reward_margin"].value == pytest.approx(0.5 * (2 + 1) / 2 / 2)


def test_thumbs_are_ranked_by_their_rewards() -> None:
    both = {"base": scores([-1.0], [-2.0], [-3.0]), "tuned": scores([-1.0], [-4.0], [-1.0])}
    found = config(kind="kto").measured("tuned", both, np.array([True, False, True]))
    assert found["reward_accuracy"].value == 100
    assert found["reward_margin"].value == pytest.approx(0.5 * (1 + 2))
    assert records(both, np.array([True, False, True]), "kto")[1] == {
        "id": "2",
        "desirable": False,
        "base": {"answer": -2.0},
        "tuned": {"answer": -4.0},
    }


def test_figures_of_preference_stand_beside_those_of_the_answers(tmp_path: Path) -> None:
    answered = {"metrics": {"tuned": {"n": 8, "rougeL": 1}, "gguf-f16": {"n": 8}}, "failures": []}
    preferred = {"metrics": {"tuned": {"n": 12, "preference_accuracy": 2}}}
    tree = {layout.summary("judge"): json.dumps(answered), layout.summary("preference"): json.dumps(preferred)}
    found = summaries(write_tree(tmp_path, tree))
    assert found["metrics"] == {"tuned": {"n": 12, "rougeL": 1, "preference_accuracy": 2}, "gguf-f16": {"n": 8}}
    assert found["failures"] == []


def test_trls_flags_become_booleans(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    flags = SimpleNamespace(_mergekit_available=(False, "N/A"), _vllm_available=False, is_mergekit_available=str)
    monkeypatch.setitem(sys.modules, "trl", SimpleNamespace(import_utils=flags))
    trl.correct_flags()
    assert flags._mergekit_available is False and flags._vllm_available is False
    assert flags.is_mergekit_available is str


# ---- the gate of a pretraining

PERPLEXITIES = {"gguf-f16": 20.0, "gguf-q8_0": 20.3, "gguf-q4_k_m": 22.4, "tuned": 20.0}
SIZES = {"gguf-f16": 270_000_000, "gguf-q8_0": 144_000_000, "gguf-q4_k_m": 105_000_000}


@pytest.mark.parametrize(
    ("limit", "refused", "best"),
    [(0.2, [], "gguf-q4_k_m"), (0.1, ["gguf-q4_k_m"], "gguf-q8_0"), (0.0, ["gguf-q8_0", "gguf-q4_k_m"], "gguf-f16")],
)
def test_a_perplexity_may_rise_so_much(limit: float, refused: list[str], best: str) -> None:
    failures = gate.judge_perplexity(PERPLEXITIES, {"max_perplexity_rise": limit})
    assert [failure.artifact for failure in failures] == refused
    found = recommend_perplexity(PERPLEXITIES, SIZES, refused)
    assert found and found.artifact == best
    assert recommend_perplexity(PERPLEXITIES, SIZES, list(SIZES)) is None


def test_the_gate_says_by_how_much_a_perplexity_rose() -> None:
    (failure,) = gate.judge_perplexity(PERPLEXITIES, {"max_perplexity_rise": 0.1})
    rose = "gguf-q4_k_m has perplexity 22.40 after 20.00 of tuned (+12.0 %); the gate allows 10.0 %"
    assert failure.sentence == rose


@pytest.mark.parametrize(
    ("trained", "text", "equal"),
    [
        ([5, 6, 7, 2], [5, 6, 7], True),  # EOS at the end
        ([1, 5, 6, 7, 2], [5, 6, 7], True),  # BOS in front as well
        ([5, 6], [5, 6, 7, 8], True),  # cut off at cutoff_len
        ([1, 5, 6], [5, 6, 7, 8], True),
        ([5, 9, 7, 2], [5, 6, 7], False),
        ([5, 6, 7, 2], [5, 67], False),
    ],
)
def test_a_text_has_the_tokens_of_training_but_for_its_frame(trained: list[int], text: list[int], equal: bool) -> None:
    seen = perplexity.same_tokens("1", trained, text)
    assert (list(seen.trained or ()) == list(seen.served)) == equal
