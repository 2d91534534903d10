"""What a fingerprint depends on, and what it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.lib.step import Step, fingerprint

STEP = Step(
    stage="train",
    phase="train",
    argv=("/venv/bin/python", "train", "configs/train.yaml"),
    files={"configs/train.yaml": 'model_name_or_path: "/models/tiny"\nlearning_rate: 0.0005\n'},
    expects=("train/adapter.safetensors",),
    needs=("prepare",),
    inputs={"base": "abc", "torch": "2.14.1"},
)
UPSTREAM = {"prepare": "1" * 64}
ALIASES = {"/models/tiny": "BASE", "/venv/bin/python": "PYTHON"}


@pytest.mark.parametrize(
    "changed",
    [
        replace(STEP, argv=(*STEP.argv, "--more")),
        replace(STEP, files={"configs/train.yaml": "learning_rate: 0.0001\n"}),
        replace(STEP, inputs={"base": "abd", "torch": "2.14.1"}),
        replace(STEP, inputs={"base": "abc", "torch": "2.14.0"}),
        replace(STEP, stage="train-2"),
        replace(STEP, needs=()),
    ],
)
def test_what_decides_the_result_decides_the_fingerprint(changed: Step) -> None:
    assert fingerprint(changed, UPSTREAM, ALIASES) != fingerprint(STEP, UPSTREAM, ALIASES)


def test_what_only_makes_it_faster_does_not() -> None:
    faster = replace(STEP, after=("convert",), hints={"configs/convert.json": "{}"})
    assert fingerprint(faster, UPSTREAM, ALIASES) == fingerprint(STEP, UPSTREAM, ALIASES)


def test_an_upstream_change_goes_all_the_way_down() -> None:
    assert fingerprint(STEP, {"prepare": "2" * 64}, ALIASES) != fingerprint(STEP, UPSTREAM, ALIASES)


def test_a_moved_cache_or_interpreter_changes_nothing() -> None:
    moved = replace(
        STEP,
        argv=("/other/python", *STEP.argv[1:]),
        files={name: text.replace("/models/tiny", "/elsewhere/tiny") for name, text in STEP.files.items()},
    )
    aliases = {"/elsewhere/tiny": "BASE", "/other/python": "PYTHON"}
    assert fingerprint(moved, UPSTREAM, aliases) == fingerprint(STEP, UPSTREAM, ALIASES)


def test_a_longer_path_is_replaced_before_its_own_beginning() -> None:
    aliases = {"/a": "SHORT", "/a/b": "LONG"}
    long = replace(STEP, argv=("/a/b",))
    assert fingerprint(long, UPSTREAM, aliases) == fingerprint(replace(STEP, argv=("LONG",)), UPSTREAM, {})
