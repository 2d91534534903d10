"""The reference for people and the schema for editors say what the code does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

from click.testing import CliRunner
from pydantic import BaseModel

from orchestrator.cli.project import schema as command
from orchestrator.lib.llamafactory import arguments
from orchestrator.spec.editing import section_at
from orchestrator.spec.reference import json_schema, reference
from orchestrator.spec.sections import DEFAULTS, Spec
from orchestrator.spec.training import ELSEWHERE, check_training


def keys(section: type[BaseModel] = Spec, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of a spec, those of sections in sections too."""
    for name in section.model_fields:
        yield (*path, name)
        if inner := section_at((*path, name)):
            yield from keys(inner, (*path, name))


def test_every_key_has_a_row_and_a_description() -> None:
    rows = {row.split("|")[1].strip(): row for row in reference().splitlines() if row.startswith("| `")}
    for key in keys():
        *_, description, _ = rows[f"`{'.'.join(key)}`"].split("|")
        assert description.strip()


def test_rows_of_each_kind() -> None:
    rows = reference().splitlines()
    for start in (
        "| `name` | text | required | Lower-case letters, digits and hyphens",
        "| `model` | section | | The model that is trained. |",
        "| `model.thinking` | true or false | `false` | ",
        "| `data.train` | text or list of text | required | ",
        "| `data.eval_fraction` | number > 0, < 1 |  | ",
        "| `evaluate.task` | `classification`, `generation`, `tools` | `classification` | ",
        "| `evaluate.max_new_tokens` | whole number ≥ 1, ≤ 32768 | `16` | ",
        "| `sweep.parallel` | whole number ≥ 1 or `auto` | `1` | ",
        "| `train.learning_rate` | `0.0001` | ",
        f"One of {len(arguments())} arguments. Without it:",
    ):
        assert any(row.startswith(start) for row in rows), start


def test_the_schema_has_every_training_argument_that_may_be_set() -> None:
    train = json_schema()["properties"]["train"]
    assert train["additionalProperties"] is False
    assert not set(train["properties"]) & set(ELSEWHERE)
    for name in train["properties"]:
        assert not any("cannot be set here" in message for _, message in check_training({name: None}))


def test_properties_of_the_schema() -> None:
    properties = json_schema()["properties"]["train"]["properties"]
    assert properties["learning_rate"]["type"] == ["number"]
    assert properties["learning_rate"]["default"] == DEFAULTS["learning_rate"]
    assert properties["save_strategy"]["enum"] == ["no", "steps", "epoch", "best"]
    assert properties["rope_scaling"]["enum"] == ["linear", "dynamic", "yarn", "llama3", None]
    assert properties["lora_alpha"]["type"] == ["integer", "null"]
    assert "LoRA" in properties["lora_alpha"]["description"]


def test_unknown_keys_are_errors_in_an_editor_too() -> None:
    schema = json_schema()
    assert schema["additionalProperties"] is False
    assert all(section["additionalProperties"] is False for section in schema["$defs"].values())


def test_the_command_prints_the_schema_or_the_tables() -> None:
    assert json.loads(CliRunner().invoke(command).stdout) == json_schema()
    assert CliRunner().invoke(command, ["--markdown"]).stdout == reference() + "\n"


def test_the_command_loads_nothing_before_it_is_called() -> None:
    code = "import sys, orchestrator.cli.project; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pydantic", "yaml", "jinja2", "torch"} & set(modules)
