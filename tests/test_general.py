"""Did it forget: what is read, what is said of it, and where it is said."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from orchestrator import report
from orchestrator.evaluation import divergence, general
from orchestrator.evaluation.general import MARGIN, Read
from orchestrator.evaluation.intervals import Interval
from orchestrator.lib import layout
from orchestrator.lib.files import read_json, read_json_lines, write_json
from orchestrator.report import card, run_page
from orchestrator.report.summary import advice
from orchestrator.report.table import artifact_table
from orchestrator.runs.results import measured, metrics, summaries
from orchestrator.stages import general as stage
from orchestrator.stages.general import General
from tests.example_runs import make_run
from tests.test_stages import context_of, steps_of

ASKED = general.prompts()


def test_the_prompts_are_sixty_half_of_them_chinese() -> None:
    assert len(ASKED) == len({one.prompt for one in ASKED}) == len({one.id for one in ASKED}) == 60
    assert Counter(one.language for one in ASKED) == {"en": 30, "zh": 30}
    assert set(Counter(one.about for one in ASKED)) == {"sum", "fact", "instruction", "chat"}
    assert all(any("\u4e00" <= letter <= "\u9fff" for letter in one.prompt) == (one.language == "zh") for one in ASKED)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.05, 0.1, "kept"),
        (-0.2, 0.1, "cannot say"),
        (-0.2, -0.05, "cannot say"),
        (-3.0, -0.2, "damaged"),
        (0.1, 0.3, "kept"),
    ],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(low: float, high: float, verdict: str) -> None:
    assert general.verdict(Interval((low + high) / 2, low, high)) == verdict
    assert pytest.approx(math.log(1.1)) == MARGIN


def read(change: float, spread: float = 0.02, right: bool = True) -> list[dict[str, Any]]:
    """Rows of answers of two tokens, of which the base model expects both most."""
    rng = np.random.default_rng(0)
    logits = np.tile(np.log(np.array([0.5, 0.3, 0.2])), (2 * len(ASKED), 1))
    base = divergence.expectations(divergence.expectation(row, 0, 2) for row in logits)
    logs = base.chosen + change + spread * rng.standard_normal(len(logits))
    tuned = [[Read(abs(change), float(logs[2 * at + place]), right) for place in (0, 1)] for at in range(len(ASKED))]
    return list(general.rows(ASKED, [([7], [0, 0])] * len(ASKED), base, tuned))


def test_rows_hold_both_models_and_the_change() -> None:
    first = read(-1.0, spread=0)[0]
    assert (first["base"], first["tuned"]) == (pytest.approx(math.log(0.5)), pytest.approx(math.log(0.5) - 1))
    assert (first["change"], first["divergence"]) == (pytest.approx(-1), 1)
    assert (first["base_says_it"], first["tuned_says_it"], first["tokens"]) == (True, True, 2)


@pytest.mark.parametrize(
    ("change", "right", "verdict"), [(0.0, True, "kept"), (-1.0, False, "damaged"), (-MARGIN, True, "cannot say")]
)
def test_what_is_said(change: float, right: bool, verdict: str) -> None:
    figures, told = general.summarise(read(change, right=right))
    assert told["verdict"] == verdict and told["sentence"].startswith(f"general ability: {verdict}; ")
    assert figures["general_change"].low <= change <= figures["general_change"].high
    assert told["says_it"] == {"base": 60, "tuned": 60 if right else 0}
    assert sum(part["prompts"] for part in told["about"].values()) == 60
    assert {name: part["prompts"] for name, part in told["languages"].items()} == {"en": 30, "zh": 30}
    assert len(told["worst"]) == 3 and told["worst"][0]["change"] <= told["worst"][1]["change"]


def test_a_model_whose_numbers_are_lost_gets_no_figure() -> None:
    rows = read(0.0)
    rows[3]["change"] = math.nan
    assert general.summarise(rows) == (
        {}, {"verdict": "cannot say", "sentence": "general ability: cannot say, for a figure is no number"}
    )  # fmt: skip


def test_it_stands_in_table_page_card_and_record(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs")
    figures, told = general.summarise(read(-1.0, right=False))
    tuned = {"tuned": {name: figure.to_json() for name, figure in figures.items()}}
    write_json(run.folder / layout.summary("general"), {"metrics": tuned, "general": told})
    summary, text = summaries(run.folder), io.StringIO()
    artifact_table(summary, Console(file=text, width=400))
    assert "general ability: damaged; the answers to 60 general prompts changed by -1.00 nats" in text.getvalue()
    assert any(line.startswith("General ability is damaged") for line in advice(run.record, summary, [], []))
    words = [shape.text for shape in card.shapes(run, summary) if isinstance(shape, card.Words)]
    assert "damaged: gives 0 of 60 general answers word for word, base 60" in words
    assert max(shape.y for shape in card.shapes(run, summary) if isinstance(shape, card.Words)) < card.HEIGHT
    assert metrics(run.folder)["tuned"]["general_change"]["high"] < -MARGIN
    assert measured(run.folder)["general"] == {"verdict": "damaged", "sentence": told["sentence"]}
    page = report.write(run.folder).read_text(encoding="utf-8")
    assert "General ability: damaged" in page and "Lost most" in page
    assert run_page.facts(run.folder, run.record)["summary"]["general"]["verdict"] == "damaged"


def test_the_stage_is_planned_unless_it_is_switched_off() -> None:
    step = steps_of("spec.yaml")["general"]
    assert (step.phase, step.needs) == ("verify", ("train",))
    assert step.inputs["prompts"] == stage.sha256(general.FILE) and general.FILE == stage.PROMPTS
    assert "general" not in steps_of("spec.yaml", "evaluate.general=false")


def test_two_models_are_loaded_only_where_they_must_be() -> None:
    def planned(**changes: Any) -> str:
        [step] = General.plan(dataclasses.replace(context_of("spec.yaml", *changes.pop("sets", ())), **changes))
        return step.files["configs/general.json"]

    assert '"adapter": "train"' in planned() and '"tuned"' not in planned()
    assert '"tuned"' in planned(sets=("train.finetuning_type=full", "train.loraplus_lr_ratio=null"))
    assert '"tuned"' in planned(adapter=Path("/earlier")), "its adapter goes on, and lies over the bare model"
    over = planned(adapter=Path("/earlier"), sets=("train.create_new_adapter=true",))
    assert '"adapter": "train"' in over and "/earlier" in over


def test_both_ways_of_loading_read_the_same(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter over the base model, and LLaMA-Factory's own way to load the tuned one."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(general, "prompts", lambda: ASKED[::20])
    torch.manual_seed(1)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(str(tiny_model)), LoraConfig(r=2))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    adapted.save_pretrained(str(tmp_path / layout.TRAINED))
    shared = {
        "template": "smollm2", "do_eval": True, "dataset_dir": "data", "eval_dataset": "eval",
        "output_dir": "evaluation", "report_to": "none", "use_cpu": True,
    }  # fmt: skip
    base = {"model_name_or_path": str(tiny_model), **shared}
    tuned = {**base, "adapter_name_or_path": layout.TRAINED, "finetuning_type": "lora"}
    ways: dict[str, dict[str, Any]] = {"over": {"adapter": layout.TRAINED}, "apart": {"tuned": tuned}}
    for name, way in ways.items():
        with contextlib.chdir(tmp_path):
            General(base, "smollm2", False, f"{name}.jsonl", f"{name}.json", **way).run()
    over, apart = (read_json_lines(tmp_path / f"{name}.jsonl") for name in ways)
    assert [row["change"] for row in over] == pytest.approx([row["change"] for row in apart], abs=1e-4)
    assert [row["divergence"] for row in over] == pytest.approx([row["divergence"] for row in apart], abs=1e-4)
    assert all(row["divergence"] > 0 for row in over)
    assert read_json(tmp_path / "over.json")["general"]["prompts"] == len(ASKED[::20])
