"""What is said while stages run."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import click
import pytest
from rich.console import Console

from orchestrator.cli import common
from orchestrator.lib.errors import StageError
from orchestrator.lib.files import write_text
from orchestrator.lib.step import Step
from orchestrator.machine import environment
from orchestrator.report import progress
from orchestrator.runs import training_log
from tests.example_runs import write_log

HIDES, SHOWS = "\x1b[?25l", "\x1b[?25h"
"""What hides a terminal's cursor, and shows it."""
TRAIN = Step("train", "train", ("llamafactory-cli", "train"))


def shown(folder: Path, step: Step = TRAIN, *, verbosity: int = 0, terminal: bool = False) -> str:
    """Everything that a display prints about one step."""
    text = io.StringIO()
    display = progress.Display(Console(file=text, force_terminal=terminal, width=200, color_system=None), verbosity)
    display.starts(step, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "PLAIN_SECONDS", 0.0)
        display.tick()
    display.ends(step, "completed", 2.0)
    return text.getvalue()


def test_a_download_that_breaks_off_leaves_the_terminal_its_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=80)
    monkeypatch.setattr(common, "stderr_console", lambda: console)

    @click.command()
    def fetch() -> None:
        common.download_progress()(1, 100)
        raise StageError("the network is gone")

    with pytest.raises(StageError):
        fetch.main([], standalone_mode=False)
    said = terminal.getvalue()
    assert said.count(HIDES) == said.count(SHOWS) == 1
    assert said.index(HIDES) < said.index(SHOWS)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"elapsed_time": "0:00:40", "current_steps": 80}, "2.0 steps/s"),
        ({"elapsed_time": "0:01:40", "current_steps": 10}, "10.0 s/step"),
        ({"elapsed_time": "1 day, 1:00:00", "current_steps": 9000}, "10.0 s/step"),
        ({"elapsed_time": "2 days, 0:00:00", "current_steps": 1728}, "100.0 s/step"),
        ({"elapsed_time": "0:00:00", "current_steps": 1}, ""),
        ({"elapsed_time": "soon", "current_steps": 1}, ""),
        ({}, ""),
    ],
)
def test_pace(entry: dict[str, object], said: str) -> None:
    assert training_log.pace(entry) == said


def test_training_line_has_step_loss_rate_pace_and_time_left() -> None:
    last = {"current_steps": 20, "total_steps": 60, "loss": 0.5, "lr": 1e-4}
    last |= {"elapsed_time": "0:00:10", "remaining_time": "0:00:20"}
    line = training_log.training_line(last, [{"loss": 2.0}, last])
    assert line == "step 20/60  loss 0.500 █▁  lr 0.0001  2.0 steps/s  0:00:20 left"


def test_time_left_is_of_the_steps_that_this_process_made() -> None:
    """LLaMA-Factory divides the seconds since the start by all steps, those before the checkpoint included."""
    last = {"current_steps": 80, "total_steps": 100, "elapsed_time": "0:00:10", "remaining_time": "0:00:02"}
    assert training_log.training_line(last, [], start=60) == "step 80/100  2.0 steps/s  0:00:10 left"
    assert training_log.training_line(last | {"current_steps": 60}, [], start=60) == "step 60/100"
    assert training_log.seconds_left(last | {"total_steps": 80}, 60) == 0


@pytest.mark.parametrize(
    ("argv", "name", "step"),
    [
        (("llamafactory-cli", "train", "c.yaml", "resume_from_checkpoint=train/checkpoint-19"), "checkpoint-19", 19),
        (("llamafactory-cli", "train", "c.yaml"), "", 0),
    ],
)
def test_a_resumed_training_is_known_by_its_command(argv: tuple[str, ...], name: str, step: int) -> None:
    assert (training_log.resumed_from(argv), training_log.resumed_step(argv)) == (name, step)


def test_a_resumed_training_says_so_and_shows_nothing_of_before(tmp_path: Path) -> None:
    write_log(tmp_path, 3)
    step = replace(TRAIN, argv=(*TRAIN.argv, "resume_from_checkpoint=train/checkpoint-15"), checkpoints=True)
    said = shown(tmp_path, step).splitlines()
    assert said[0] == "… train, resumed from checkpoint-15"
    assert said[1].endswith(" s, loading")


def test_only_a_checkpoint_that_is_there_is_promised(tmp_path: Path) -> None:
    text, step = io.StringIO(), replace(TRAIN, checkpoints=True)
    display = progress.Display(Console(file=text, width=200))
    display.starts(step, tmp_path)
    display.ends(step, "interrupted", 2.0)
    assert text.getvalue().endswith("no checkpoint was written yet: the training would begin again\n")
    for number in (9, 19):
        write_text(tmp_path / f"train/checkpoint-{number}/trainer_state.json", "{}")
    display.starts(step, tmp_path)
    display.ends(step, "interrupted", 2.0)
    assert text.getvalue().endswith("checkpoint-19 is kept: the same command goes on from there\n")


def test_a_count_that_begins_again_is_another_pass() -> None:
    passes = progress.Passes()
    counts = ((50, 100), (100, 100), (0, 100), (10, 100), (3, 7), None)
    assert [passes.said(count) for count in counts] == [
        ", 50 of 100", ", 100 of 100", "", ", 10 of 100 (pass 2)", ", 3 of 7", "",
    ]  # fmt: skip


def test_plain_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    write_log(tmp_path, 3)
    said = shown(tmp_path).splitlines()
    assert said[0] == "… train"
    assert said[1].startswith("  train: step 15/60  loss 0.667 █▃▁  lr 0.00017")
    assert said[2].split() == ["✓", "train", "2.0", "s", "loss", "0.667", "█▃▁"]


def test_a_training_that_has_logged_no_loss_says_its_step(tmp_path: Path) -> None:
    loading = "Loading weights: 100%|██████████| 272/272 [00:00<00:00, 9000.00it/s]\n"
    step = "\n  0%|          | 0/20 [00:00<?, ?it/s]\r 25%|██▌       | 5/20 [04:43<14:07, 56.49s/it]"
    for printed, said in ((loading, "loading"), (loading + step, "step 5/20, no loss logged yet")):
        write_text(tmp_path / "logs/train.log", printed)
        assert shown(tmp_path).splitlines()[1].endswith(f" s, {said}")


def test_quiet_says_nothing_and_verbose_the_command(tmp_path: Path) -> None:
    assert shown(tmp_path, verbosity=-1) == ""
    assert "$ llamafactory-cli train" in shown(tmp_path, verbosity=1)


def test_counts_of_other_stages(tmp_path: Path) -> None:
    write_text(tmp_path / "logs/ask-f16.log", "loading\n12/100\n")
    assert ", 12 of 100" in shown(tmp_path, Step("ask-f16", "verify", ()))


def test_a_stage_that_prints_nothing_for_long_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: moment)
    step = Step("ask-f16", "verify", ())
    stage = progress.ShownStage(step, tmp_path)
    for moment, printed, said in (
        (130.0, "loading\n", "30 s"),
        (189.0, "loading\n", "89 s"),
        (191.0, "loading\n", "91 s, silent for 61 s"),
        (192.0, "loading\n1/9\n", "92 s, 1 of 9"),
        (193.0, "Writing: 0.00/6.44M\n", "93 s"),
    ):
        write_text(tmp_path / "logs/ask-f16.log", printed)
        assert stage.state(moment) == said


def test_stages_that_run_beside_each_other_are_all_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    text = io.StringIO()
    display = progress.Display(Console(file=text))
    for name in ("f16", "q8_0"):
        write_text(tmp_path / f"logs/ask-{name}.log", f"{len(name)}/100\n")
        display.starts(Step(f"ask-{name}", "verify", ()), tmp_path)
    display.tick()
    display.ends(Step("ask-f16", "verify", ()), "completed", 2.0)
    display.tick()
    said = text.getvalue().splitlines()
    assert [line.split()[1] for line in said[:2]] == ["ask-f16", "ask-q8_0"]
    assert [line.partition(",")[2] for line in said[2:4]] == [" 3 of 100", " 4 of 100"]
    assert said[4].split()[:2] == ["✓", "ask-f16"] and len(said) == 5  # nothing new of the other one


def test_gpu_memory_is_shown_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(tmp_path, 3)
    monkeypatch.setattr(environment, "_nvidia_smi", lambda fields: [])
    assert "GPU" not in shown(tmp_path)
    monkeypatch.setattr(environment, "_nvidia_smi", lambda fields: [["5120", "81559"], ["[N/A]", "[N/A]"]])
    assert "GPU 5.0/80 GiB" in shown(tmp_path)
