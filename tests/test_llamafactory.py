"""What is read with `ast` is what the installed LLaMA-Factory really has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.lib import llamafactory
from orchestrator.lib.errors import MissingError
from orchestrator.lib.llamafactory import Argument, arguments, inference_arguments
from tests.warm_tool import told

REAL = """
import dataclasses, enum, json
from llamafactory.hparams import parser

def plain(field):
    made = None if field.default_factory is dataclasses.MISSING else field.default_factory()
    value = made if field.default is dataclasses.MISSING else field.default
    return value.value if isinstance(value, enum.Enum) else value

def fields(classes):
    return {f.name: plain(f) for cls in classes for f in dataclasses.fields(cls) if f.init}

print("REAL" + json.dumps([fields(parser._TRAIN_ARGS), fields(parser._INFER_ARGS)]))
"""

COMPUTED = {
    "image_max_pixels",
    "image_min_pixels",
    "video_max_pixels",
    "video_min_pixels",
    "optim",
    "include_for_metrics",
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and no memory of an earlier reading."""
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path))
    llamafactory._schema.cache_clear()
    yield tmp_path
    llamafactory._schema.cache_clear()


def test_names_and_defaults_are_those_of_the_imported_dataclasses() -> None:
    said = told(REAL)
    line = next((line for line in said.splitlines() if line.startswith("REAL")), None)
    assert line, said
    train, inference = json.loads(line[4:])
    assert set(arguments()) == set(train)
    assert set(inference_arguments()) == set(inference)
    wrong = {name for name, default in train.items() if arguments()[name].default != default}
    assert wrong <= COMPUTED


@pytest.mark.parametrize(
    ("name", "kinds", "choices"),
    [
        ("learning_rate", ("float",), ()),
        ("lora_target", ("text",), ()),
        ("lora_alpha", ("int", "null"), ()),
        ("bf16", ("bool",), ()),
        ("lr_scheduler_kwargs", ("dict", "text", "null"), ()),
        ("report_to", ("null", "text", "list"), ()),
        ("stage", ("text",), ("pt", "sft", "rm", "ppo", "dpo", "kto")),
        ("save_strategy", ("text",), ("no", "steps", "epoch", "best")),
        ("flash_attn", ("text",), ("auto", "disabled", "sdpa", "fa2", "fa3")),
        ("mixture_of_depths", ("text", "null"), ("convert", "load")),
        ("train_sampling_strategy", ("text",), ("random", "sequential", "group_by_length")),
        ("profiler_output_dir", ("text", "null"), ()),
        ("include_num_input_tokens_seen", ("text", "bool"), ()),
        ("fsdp", ("list", "text", "null"), ()),
    ],
)
def test_kinds_and_choices(name: str, kinds: tuple[str, ...], choices: tuple[str, ...]) -> None:
    argument = arguments()[name]
    assert (argument.kinds, argument.choices) == (kinds, choices)


def test_an_argument_tells_where_it_comes_from() -> None:
    assert arguments()["lora_rank"] == Argument(
        name="lora_rank",
        kinds=("int",),
        choices=(),
        default=8,
        help="The intrinsic dimension for LoRA fine-tuning.",
        source="llamafactory/hparams/finetuning_args.py",
    )
    assert arguments()["flash_attn"].default == "auto"  # a member of an Enum
    assert arguments()["seed"].source == "transformers/training_args.py"


def test_what_is_derived_cannot_be_set() -> None:
    assert "compute_dtype" not in arguments()


def test_inference_has_no_trainer() -> None:
    assert "output_dir" not in inference_arguments()
    assert "temperature" in inference_arguments()


def test_the_second_reading_comes_from_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = arguments()
    assert [file.suffix for file in cache.iterdir()] == [".json"]
    llamafactory._schema.cache_clear()
    monkeypatch.setattr(llamafactory, "_read", lambda: pytest.fail("read the source again"))
    assert arguments() == first


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"train": 3}', b'{"train": [{}], "inference": []}', b"\xff"]
)
def test_a_broken_cache_is_read_again(cache: Path, content: bytes) -> None:
    first = arguments()
    (file,) = cache.iterdir()
    file.write_bytes(content)
    llamafactory._schema.cache_clear()
    assert arguments() == first


def test_a_cache_that_cannot_be_written_is_no_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "file").write_text("")
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(cache / "file" / "inside"))
    assert len(arguments()) > 300


def test_a_changed_source_is_read_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments()
    before = llamafactory._fingerprint()
    original = llamafactory.package_folder
    monkeypatch.setattr(
        llamafactory, "package_folder", lambda package: cache if package == "llamafactory" else original(package)
    )
    assert llamafactory._fingerprint() != before


def test_without_llamafactory(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    llamafactory.package_folder.cache_clear()
    with pytest.raises(MissingError, match="llamafactory is not installed"):
        arguments()
    llamafactory.package_folder.cache_clear()


def test_an_unknown_llamafactory_is_named(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = llamafactory.package_folder
    monkeypatch.setattr(
        llamafactory, "package_folder", lambda package: tmp_path if package == "llamafactory" else original(package)
    )
    with pytest.raises(MissingError, match="declares no ModelArguments, DataArguments, FinetuningArguments"):
        arguments()


def test_reading_loads_neither_of_the_packages() -> None:
    code = "import sys; from orchestrator.lib.llamafactory import arguments; arguments(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "llamafactory", "pydantic", "jinja2"} & set(modules)
