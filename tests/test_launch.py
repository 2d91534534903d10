"""One training over many devices: what is refused, how a step's rows are divided, and what each node is told to run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.executors.local import slots
from orchestrator.lib.errors import InputError
from orchestrator.lib.step import Step, fingerprint
from orchestrator.machine import environment, requirements
from orchestrator.machine.requirements import missing
from orchestrator.pipeline.estimate import EstimateInput, memory_estimate
from orchestrator.pipeline.nodes import rank_of
from orchestrator.pipeline.plan import Plan
from orchestrator.report.console import plan_json, plan_lines
from orchestrator.runs.reuse import Planned
from orchestrator.spec.launching import ZERO, accumulation, check_launch, indivisible
from orchestrator.spec.load import load_project
from orchestrator.spec.sections import Launch
from orchestrator.stages import predict, train
from orchestrator.stages.base import Context
from orchestrator.stages.launch import ALONE, DEEPSPEED, batch, node_commands, placed
from tests.conftest import write_tree
from tests.test_stages import context_of

TWO_NODES = {"devices": 4, "nodes": 2, "master": "10.0.0.1:29500"}
QUANTISED = {"quantization_bit": 8}
FULL = {"finetuning_type": "full"}

REFUSED: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({"nodes": 2}, {}, "launch.nodes", "needs master"),
    ({**TWO_NODES, "min_nodes": 3}, {}, "launch.min_nodes", "must be at most nodes"),
    ({**TWO_NODES, "min_nodes": 1, "global_batch_size": 64}, {}, "launch.min_nodes", "global_batch_size"),
    ({**TWO_NODES, "min_nodes": 1, "deepspeed": "z2"}, {}, "launch.min_nodes", "deepspeed"),
    ({"deepspeed": "z2", "fsdp": "full_shard"}, {}, "launch.deepspeed", "fsdp"),
    ({"deepspeed": "z2"}, {**FULL, "use_galore": True}, "launch.deepspeed", "use_galore"),
    ({"deepspeed": "z2"}, {**FULL, "use_apollo": True}, "launch.deepspeed", "use_apollo"),
    ({"deepspeed": "z3"}, {"use_unsloth": True}, "launch.deepspeed", "use_unsloth"),
    ({"deepspeed": "z3"}, QUANTISED, "launch.deepspeed", "quantization_bit 4 of bnb"),
    ({"deepspeed": "z3-offload"}, {"quantization_bit": 4, "quantization_method": "hqq"}, "launch.deepspeed", "bnb"),
    ({"deepspeed": "z3"}, {"pissa_init": True}, "launch.deepspeed", "pissa_init"),
    ({"deepspeed": "z3"}, {**FULL, "pure_bf16": True}, "launch.deepspeed", "pure_bf16"),
    ({"deepspeed": "z3"}, {"use_kt": True}, "launch.deepspeed", "use_kt"),
    ({"deepspeed": "own.json"}, {"use_unsloth": True}, "launch.deepspeed", "use_unsloth"),
    ({"deepspeed": "z4"}, {}, "launch.deepspeed", "z0, z2, z3, z2-offload, z3-offload"),
    ({"deepspeed": "broken.json"}, {}, "launch.deepspeed", "no DeepSpeed configuration"),
    ({"deepspeed": "list.json"}, {}, "launch.deepspeed", "no DeepSpeed configuration"),
    ({"fsdp": "full_shard"}, QUANTISED, "launch.fsdp", "quantization_bit 4 of bnb"),
    ({"fsdp": "full_shard"}, {"use_unsloth": True}, "launch.fsdp", "use_unsloth"),
    ({"fsdp": "full_shard"}, {"use_cpu": True}, "launch.fsdp", "use_cpu"),
    ({"ray": {"workers": 4}, **TWO_NODES}, {}, "launch.ray", "leave devices, nodes"),
    ({"ray": {"workers": 4}}, {"use_cpu": True}, "launch.ray", "use_cpu"),
    ({"ray": {"workers": 4}}, {"stage": "dpo"}, "launch.ray", "neither dpo nor kto"),
    ({"devices": 2}, {**FULL, "use_badam": True}, "launch.devices", "deepspeed: z3"),
    ({"devices": 3, "global_batch_size": 64}, {}, "launch.global_batch_size", "the nearest: 60 or 72"),
    ({"devices": 8, "global_batch_size": 8}, {}, "launch.global_batch_size", "the nearest: 32"),
    ({"ray": {"workers": 3}, "global_batch_size": 8}, {}, "launch.global_batch_size", "the nearest: 12"),
    (
        {"devices": 2, "global_batch_size": 64},
        {"gradient_accumulation_steps": 8},
        "train.gradient_accumulation_steps",
        "launch.global_batch_size",
    ),
    ({"devices": 2}, {"deepspeed": {}}, "train.deepspeed", "say it as launch.deepspeed"),
]
ACCEPTED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({**TWO_NODES, "deepspeed": "z3", "global_batch_size": 64}, {}),
    ({**TWO_NODES, "min_nodes": 1, "max_restarts": 3}, {}),
    ({"deepspeed": "z2"}, QUANTISED),
    ({"deepspeed": "z3"}, {"quantization_bit": 4}),
    ({"devices": 2, "deepspeed": "z3"}, {**FULL, "use_badam": True}),
    ({"fsdp": "full_shard auto_wrap"}, FULL),
    ({"ray": {"workers": 4}, "deepspeed": "z2", "global_batch_size": 64}, {}),
    ({"devices": 2}, {"use_cpu": True, "stage": "dpo"}),
]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    own = json.dumps({"zero_optimization": {"stage": 3}, "说明": "自己的"}, ensure_ascii=False)
    return write_tree(tmp_path, {"own.json": own, "broken.json": "{", "list.json": "[]"})


def found(launch: Mapping[str, Any], training: Mapping[str, Any], project: Path) -> dict[str, str]:
    section = Launch.model_validate_json(json.dumps(launch))
    return {".".join(map(str, f.key)): f.message for f in check_launch(section, training, project)}


@pytest.mark.parametrize(("launch", "training", "key", "words"), REFUSED)
def test_what_does_not_go_together_is_refused(
    launch: dict[str, Any], training: dict[str, Any], key: str, words: str, files: Path
) -> None:
    problems = found(launch, training, files)
    assert list(problems) == [key] and words in problems[key]


@pytest.mark.parametrize(("launch", "training"), ACCEPTED)
def test_what_goes_together_is_accepted(launch: dict[str, Any], training: dict[str, Any], files: Path) -> None:
    assert found(launch, training, files) == {}


def test_a_spec_is_told_all_of_it_with_its_line(tmp_path: Path) -> None:
    text = "name: a\ndata: {train: t.json, eval: e.json}\nlaunch:\n  nodes: 2\n  deepspeed: z3\n  fsdp: full_shard\n"
    write_tree(tmp_path, {"spec.yaml": text, "t.json": "[]", "e.json": "[]"})
    with pytest.raises(InputError) as raised:
        load_project(tmp_path / "spec.yaml")
    told = [line.removeprefix(f"{tmp_path / 'spec.yaml'}:") for line in raised.value.message.splitlines()]
    assert [line.split(": ")[:2] for line in told] == [["4", "launch.nodes"], ["5", "launch.deepspeed"]]


@pytest.mark.parametrize(
    ("wanted", "each", "devices", "said"),
    [(64, 4, 8, ""), (64, 4, 16, ""), (60, 4, 8, "32 or 64"), (33, 4, 8, "32 or 64"), (31, 4, 8, "32"), (1, 1, 2, "2")],
)
def test_a_batch_that_no_whole_number_holds_is_told_the_nearest(
    wanted: int, each: int, devices: int, said: str
) -> None:
    assert indivisible(wanted, each, devices).rpartition("the nearest: ")[2] == said


@pytest.mark.parametrize(("gpus", "steps"), [(0, 16), (1, 16), (2, 8), (8, 2)])
def test_auto_follows_the_gpus_of_this_machine(gpus: int, steps: int) -> None:
    assert accumulation(Launch(global_batch_size=64), {}, gpus) == steps
    assert accumulation(Launch(global_batch_size=64), {"use_cpu": True}, gpus) == 16


def test_auto_on_a_machine_that_cannot_hold_the_batch_says_so() -> None:
    with pytest.raises(InputError, match="64 is no multiple of 4 per device × 3 devices = 12; the nearest: 60 or 72"):
        accumulation(Launch(global_batch_size=64), {}, 3)


# ---- the steps


def step_of(launch: Mapping[str, Any] | None, gpus: int = 0, **training: Any) -> Step:
    return train.Train.plan(context(launch, gpus, **training))[0]


def context(launch: Mapping[str, Any] | None, gpus: int = 0, **training: Any) -> Context:
    made = context_of("spec.yaml")
    section = None if launch is None else Launch.model_validate_json(json.dumps(launch))
    spec = made.spec.model_copy(update={"launch": section, "train": {**made.spec.train, **training}})
    return replace(made, spec=spec, gpus=gpus, cores=8)


def print_of(step: Step) -> str:
    return fingerprint(step, {"prepare": "0"}, {})


def test_two_nodes_of_four_gpus_with_zero_3_are_told_exactly_what_to_run() -> None:
    step = step_of({**TWO_NODES, "deepspeed": "z3", "global_batch_size": 64}, bf16=True)
    common = "USE_RAY=0 NNODES=2 NODE_RANK={} NPROC_PER_NODE=4 MASTER_ADDR=10.0.0.1 MASTER_PORT=29500"
    assert node_commands(step) == [
        f"DISABLE_VERSION_CHECK=0 FORCE_TORCHRUN=1 {common.format(rank)} llamafactory-cli train configs/train.yaml"
        for rank in (0, 1)
    ]
    config = step.files["configs/train.yaml"]
    assert f'deepspeed: "{DEEPSPEED}"' in config and "gradient_accumulation_steps: 2\n" in config
    assert batch(step) == {"effective": 64, "per_device": 4, "accumulation": 2, "devices": 4, "nodes": 2}
    assert step.spawns


CPU = {"ACCELERATE_TORCH_DEVICE": "cpu", "OMP_NUM_THREADS": "4"}
ENVIRONMENTS: list[tuple[dict[str, Any], int, dict[str, Any], dict[str, str]]] = [
    ({}, 0, {}, ALONE),
    ({"devices": 1}, 4, {}, ALONE),
    ({}, 4, {"use_cpu": True}, ALONE),
    ({}, 4, {}, {**ALONE, "FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "4"}),
    ({"devices": 2}, 0, {}, {**ALONE, "FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "2", **CPU}),
    ({"devices": 2}, 4, {"use_cpu": True}, {**ALONE, "FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "2", **CPU}),
    ({"devices": 2, "deepspeed": "z2"}, 0, {}, {**ALONE, "FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "2"}),
    ({"devices": 1, "deepspeed": "z2-offload"}, 1, {}, {**ALONE, "FORCE_TORCHRUN": "1"}),
    ({"devices": 1, "fsdp": "full_shard"}, 1, {}, {**ALONE, "FORCE_TORCHRUN": "1"}),
    (
        {**TWO_NODES, "min_nodes": 1, "max_restarts": 3},
        4,
        {},
        {
            **ALONE,
            "FORCE_TORCHRUN": "1",
            "NNODES": "2",
            "NPROC_PER_NODE": "4",
            "MASTER_ADDR": "10.0.0.1",
            "MASTER_PORT": "29500",
            "RDZV_ID": "news",
            "MAX_RESTARTS": "3",
            "MIN_NNODES": "1",
            "MAX_NNODES": "2",
        },
    ),
    ({"ray": {"workers": 4}}, 1, {}, {"FORCE_TORCHRUN": "0", "USE_RAY": "1"}),
]


@pytest.mark.parametrize(("launch", "gpus", "training", "env"), ENVIRONMENTS)
def test_the_environment_is_what_llamafactorys_launcher_reads(
    launch: dict[str, Any], gpus: int, training: dict[str, Any], env: dict[str, str]
) -> None:
    assert step_of(launch, gpus, **training).env == {"DISABLE_VERSION_CHECK": "0", **env}


def test_answers_are_given_by_one_process_alone() -> None:
    for step in predict.Predict.plan(context(TWO_NODES, gpus=4)):
        assert step.env == ALONE and step.spawns  # where there are more GPUs, torchrun starts even one
    assert [step.env for step in predict.Predict.plan(context(None, gpus=4))] == [{}, {}, {}]
    assert not any(step.spawns for step in predict.Predict.plan(context({"devices": 2})))


def test_without_the_section_nothing_changes() -> None:
    step = step_of(None)
    assert step.env == {"DISABLE_VERSION_CHECK": "0"} and step.fingerprint_files == step.files
    assert batch(step) == {} and node_commands(step) == [] and not step.spawns
    assert print_of(step) == print_of(replace(step, fingerprint_files={}))


def test_the_same_rows_a_step_are_the_same_training_on_any_number_of_devices() -> None:
    one = print_of(step_of(None, gradient_accumulation_steps=16))
    for launch in ({"devices": 1}, {"devices": 2}, {"devices": 8}, TWO_NODES, {"ray": {"workers": 4}}):
        assert print_of(step_of({**launch, "global_batch_size": 64}, gpus=1)) == one
    assert print_of(step_of({"devices": 4}, gradient_accumulation_steps=4)) == one
    assert print_of(step_of({"devices": 8}, gradient_accumulation_steps=4)) != one


def test_what_divides_the_optimizer_is_part_of_the_result() -> None:
    prints = {
        print_of(step_of({"devices": devices, "global_batch_size": 64, **engine}))
        for devices in (2, 4)
        for engine in ({}, {"deepspeed": "z2"}, {"deepspeed": "z3"}, {"fsdp": "full_shard"})
    }
    assert len(prints) == 7  # plain data parallelism gives the same on two devices and on four


@pytest.mark.parametrize("name", ZERO)
def test_deepspeeds_configuration_leaves_to_the_trainer_what_the_trainer_knows(name: str) -> None:
    stage, offload = ZERO[name]
    made = json.loads(step_of({"devices": 2, "deepspeed": name}).files[DEEPSPEED])
    for key in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
        assert made[key] == "auto"
    zero = made["zero_optimization"]
    assert zero["stage"] == stage
    assert ("offload_optimizer" in zero, "offload_param" in zero) == (offload, offload and stage == 3)
    assert ("stage3_gather_16bit_weights_on_model_save" in zero) == (stage == 3)


def test_a_configuration_of_the_users_own_is_copied_whole(files: Path) -> None:
    made = replace(context({"devices": 2, "deepspeed": "own.json"}), project=files)
    assert train.Train.plan(made)[0].files[DEEPSPEED] == (files / "own.json").read_text(encoding="utf-8")


def test_ray_is_told_where_the_run_lies(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"train/checkpoint-{step}/trainer_state.json": "{}" for step in (9, 10, "19-copy")})
    step = step_of({"ray": {"workers": 4}, "deepspeed": "z2"}, gpus=1)
    assert "ray_num_workers: 4\n" in step.files["configs/train.yaml"] and step.spawns
    assert placed(step, tmp_path).argv[len(step.argv) :] == (
        f"dataset_dir={tmp_path}/data",
        f"output_dir={tmp_path}/train",
        f"deepspeed={tmp_path}/{DEEPSPEED}",
        f"resume_from_checkpoint={tmp_path}/train/checkpoint-10",
    )
    for other in (step_of({"devices": 2}), step_of(None)):
        assert placed(other, tmp_path) == other


@pytest.mark.parametrize(
    ("parallel", "each", "expected"),
    [("auto", 2, ["0,1", "2,3"]), (1, 4, ["0,1,2,3"]), ("auto", 3, ["0,1,2"]), (2, 8, ["0,1,2,3"] * 2)],
)
def test_a_trial_of_a_sweep_gets_as_many_gpus_as_it_has_processes(
    parallel: Any, each: int, expected: list[str]
) -> None:
    found = slots(parallel, ["0", "1", "2", "3"], 8, each)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in found] == expected
    assert slots(2, [], 8, 2) == [{"OMP_NUM_THREADS": "2"}] * 2


@pytest.mark.usefixtures("launchless")
def test_what_a_launch_needs_of_this_machine_is_known_before_it_starts() -> None:
    said = [one.message for one in missing({}, Launch(devices=4, deepspeed="z3").model_dump())]
    assert said == [
        "launch.deepspeed needs deepspeed, which is not installed",
        "launch.devices: 4, and this machine has 2",
    ]
    assert (
        missing({}, Launch(devices=2).model_dump()) == missing({"use_cpu": True}, Launch(devices=4).model_dump()) == []
    )
    assert [one.fix for one in missing({}, {"ray": {"workers": 2}})] == ["pip install ray"]


@pytest.fixture
def launchless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs, and no engine beyond torch's own."""
    monkeypatch.setattr(requirements, "_is_installed", lambda package: False)
    monkeypatch.setattr(environment, "gpus", lambda: [{"name": "H100", "memory_mib": 81559, "driver": "1"}] * 2)


# ---- what is told


def test_a_plan_tells_the_effective_batch_and_the_nodes() -> None:
    made = context({**TWO_NODES, "global_batch_size": 64})
    step = replace(train.Train.plan(made)[0], stage="train")
    plan = Plan(made.spec, None, (Planned(step, "0", False, "new run"),))
    lines = [line.strip() for line in plan_lines(plan, verbose=True)]
    assert "effective batch 64 = 4 rows × 2 accumulated × 4 devices × 2 nodes" in lines
    assert [line.split()[1] for line in lines if line.startswith("node ")] == ["0:", "1:"]
    told = plan_json(plan)["steps"][0]["launch"]
    assert told["batch"]["effective"] == 64 and len(told["nodes"]) == 2


def test_the_forecast_divides_what_the_engine_divides(
    tiny_model: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "gpus", lambda: [{"name": "H100", "memory_mib": 81559, "driver": "1"}] * 4)
    monkeypatch.setattr(environment, "gpu_memory", lambda: [(0.0, 80.0)] * 4)

    def of(launch: dict[str, Any] | None) -> list[int]:
        spec = context(launch, 4, **FULL, loraplus_lr_ratio=None).spec
        looked = memory_estimate(EstimateInput(spec, tiny_model, None, files))
        assert looked is not None
        return [sum(forecast.gpu.values()) for forecast in looked.forecasts[:2]]

    exclusive, divided = of({"devices": 1}), of({**TWO_NODES, "deepspeed": "z3"})
    assert divided[0] < exclusive[0] and divided[1] == exclusive[1]
    assert of({**TWO_NODES, "deepspeed": "own.json"}) == divided


@pytest.mark.parametrize(
    ("launch", "chosen", "variables", "rank"),
    [
        (None, None, {"NODE_RANK": "3"}, 0),
        (None, 0, {}, 0),
        ({"devices": 2}, None, {"NODE_RANK": "1"}, 0),
        (TWO_NODES, None, {}, 0),
        (TWO_NODES, None, {"NODE_RANK": "1"}, 1),
        (TWO_NODES, 1, {"NODE_RANK": "0"}, 1),
    ],
)
def test_a_node_knows_its_number(
    launch: dict[str, Any] | None, chosen: int | None, variables: dict[str, str], rank: int
) -> None:
    assert rank_of(Launch(**launch) if launch else None, chosen, variables) == rank


@pytest.mark.parametrize(
    ("launch", "chosen", "variables", "words"),
    [
        (None, 1, {}, "--node-rank 1: launch.nodes is 1"),
        (TWO_NODES, 2, {}, "--node-rank 2: launch.nodes is 2"),
        (TWO_NODES, -1, {}, "--node-rank -1"),
        (TWO_NODES, None, {"NODE_RANK": "一"}, "NODE_RANK 一"),
    ],
)
def test_a_node_that_there_is_not_is_refused(
    launch: dict[str, Any] | None, chosen: int | None, variables: dict[str, str], words: str
) -> None:
    with pytest.raises(InputError) as raised:
        rank_of(Launch(**launch) if launch else None, chosen, variables)
    assert words in raised.value.message
