"""diagnose against a real Ollama: what people do to a Modelfile, or to the file it names, is found; sound ones are not
accused; and what the corrected Modelfile makes is sound."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.chat_template.ollama import ollama_template
from orchestrator.chat_template.registry import definition
from orchestrator.chat_template.turns import SpecialTokens
from orchestrator.lib.files import read_json, write_json
from orchestrator.lib.render import modelfile_text
from orchestrator.models import llamacpp
from orchestrator.models.saves import read_saves
from orchestrator.runs.store import Run
from orchestrator.serving import bundle
from orchestrator.serving.diagnose import probes, trained
from orchestrator.serving.diagnose.diagnosis import Diagnosis, diagnose
from orchestrator.serving.diagnose.finding import IN_MODELFILE, Kind
from orchestrator.serving.ollama_server import Ollama
from orchestrator.stages.quantise import Quantise
from tests.gguf_text import with_number, with_template
from tests.servers.conftest import NAMES
from tests.test_diagnose import JINJA

pytestmark = pytest.mark.nightly
OTHER_END = "<issue_start>"
TOKENS = SpecialTokens("<|im_start|>", "<|im_end|>")
CHINESE = [
    {"messages": [{"role": "user", "content": "“杯赛”属于哪一类？"}, {"role": "assistant", "content": "Sports"}]}
]


@dataclass(frozen=True)
class Bench:
    """Where a fault is planted: a finished run, its folder of a training, an Ollama, and a folder to write in."""

    run: Run
    server: Ollama
    folder: Path
    tiny_model: Path

    @property
    def gguf(self) -> Path:
        return self.run.folder / "export/tiny-f16.gguf"

    def saves(self, template: str = "smollm2", **arguments: Any) -> Path:
        """The folder that the web UI leaves: an adapter and training_args.yaml, no tokenizer."""
        folder = Path(shutil.copytree(self.run.folder / "train", self.folder / "lora"))
        told = {"stage": "sft", "cutoff_len": 128, "template": template, **arguments}
        (folder / "training_args.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
        return folder


@dataclass(frozen=True)
class Served:
    """What stands in a Modelfile; None for a TEMPLATE that is not there."""

    gguf: Path
    template: str | None
    stop: tuple[str, ...] = ("<|im_end|>",)
    parameters: dict[str, Any] = field(default_factory=lambda: {"temperature": 0, "repeat_penalty": 1})
    system: str = ""

    def text(self) -> str:
        lines = [f"FROM {self.gguf}"]
        lines += [f"TEMPLATE {modelfile_text(self.template)}"] if self.template is not None else []
        lines += [f"SYSTEM {modelfile_text(self.system)}"] if self.system else []
        lines += [f'PARAMETER stop "{word}"' for word in self.stop]
        lines += [f"PARAMETER {name} {value}" for name, value in self.parameters.items()]
        return "\n".join(lines) + "\n"


@pytest.fixture
def bench(shipped_run: Run, real_ollama: Ollama, tmp_path: Path, tiny_model: Path) -> Bench:
    return Bench(shipped_run, real_ollama, tmp_path, tiny_model)


def sound(bench: Bench, **others: Any) -> Served:
    """As our own Modelfile has it, but for `others`."""
    file = bench.run.folder / "export/Modelfile.f16"
    return Served(**{"gguf": bench.gguf, "template": bundle.read(file).template, **others})


def written(name: str, thinking: bool = True, tokens: SpecialTokens = TOKENS) -> str:
    return ollama_template(definition(name), tokens, thinking, bos_added_by_runtime=False)


def made(bench: Bench, modelfile: str, name: str) -> str:
    """The name of what `ollama create` makes of a Modelfile, by the program, as people do it."""
    program = shutil.which("ollama")
    if program is None:
        pytest.skip("no `ollama` on PATH to read a Modelfile with")
    (bench.folder / "Modelfile").write_text(modelfile, encoding="utf-8")
    env = {**os.environ, "OLLAMA_HOST": bench.server.url}
    argv = [program, "create", f"{NAMES}-{name}", "-f", "Modelfile"]
    done = subprocess.run(argv, cwd=bench.folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-600:]
    return argv[2]


def found(bench: Bench, saves: Path, name: str, data: Path | None = None) -> Diagnosis:
    rows, shared = probes.read_rows(data) if data else ([], None)
    return diagnose(trained.read(read_saves(saves), system=shared), bench.server.endpoint(name), rows[:6])


def wrong(diagnosis: Diagnosis) -> set[str]:
    return {finding.kind for finding in diagnosis.findings if finding.wrong}


# ---- sound ones

SOUND: dict[str, Callable[[Bench], tuple[Served, Path]]] = {
    "our Modelfile": lambda bench: (sound(bench), bench.saves()),
    "no stop word where the GGUF ends by itself": lambda bench: (sound(bench, stop=()), bench.saves()),
    "no thought, as trained": lambda bench: (
        sound(bench, template=written("qwen3", thinking=False)),
        bench.saves("qwen3", enable_thinking=False),
    ),
}


@pytest.mark.parametrize("which", SOUND)
def test_a_sound_model_is_not_accused(which: str, bench: Bench) -> None:
    served, saves = SOUND[which](bench)
    name = made(bench, served.text(), f"sound-{list(SOUND).index(which)}")
    diagnosis = found(bench, saves, name, bench.run.folder / "data/eval.json")
    assert wrong(diagnosis) == set(), [finding.sentence for finding in diagnosis.findings]


def test_a_sound_model_is_not_accused_over_chinese_rows(bench: Bench) -> None:
    write_json(bench.folder / "rows.json", CHINESE)
    diagnosis = found(bench, bench.saves(), made(bench, sound(bench).text(), "zh"), bench.folder / "rows.json")
    assert wrong(diagnosis) == set(), [finding.sentence for finding in diagnosis.findings]


# ---- planted faults


def two_bos(bench: Bench) -> Served:
    return sound(bench, gguf=with_number(bench.gguf, bench.folder / "a.gguf", "tokenizer.ggml.add_bos_token", 1))


def markers_are_text(bench: Bench) -> Served:
    im_start = 1
    changed = with_number(bench.gguf, bench.folder / "a.gguf", "tokenizer.ggml.token_type", 1, place=im_start)
    return sound(bench, gguf=changed)


def few_bits(bench: Bench) -> Served:
    Quantise(str(bench.gguf), str(bench.folder / "q2.gguf"), "q2_k").run()
    return sound(bench, gguf=bench.folder / "q2.gguf")


def other_base(bench: Bench) -> Served:
    """One layer of the two, converted as anybody would."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(bench.tiny_model)
    model.model.layers = model.model.layers[:1]
    model.config.num_hidden_layers = 1
    model.config.layer_types = None
    other, target = bench.folder / "other", bench.folder / "other.gguf"
    model.save_pretrained(other)
    AutoTokenizer.from_pretrained(bench.tiny_model).save_pretrained(other)
    converter = llamacpp.checkout(None)
    assert converter is not None
    program = converter / "convert_hf_to_gguf.py"
    subprocess.run([sys.executable, program, other, "--outfile", target], check=True, capture_output=True)
    return sound(bench, gguf=target)


def unended(bench: Bench) -> tuple[Served, Path]:
    """A training whose answers end with a token that the GGUF does not end at."""
    saves = bench.saves("vicuna")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(bench.tiny_model / name, saves / name)
    config = read_json(saves / "tokenizer_config.json")
    write_json(saves / "tokenizer_config.json", {**config, "eos_token": OTHER_END})
    ended = written("vicuna", tokens=SpecialTokens("<|im_start|>", OTHER_END))
    return sound(bench, template=ended, stop=()), saves


def with_parameters(**given: Any) -> Callable[[Bench], Served]:
    return lambda bench: sound(bench, parameters={"temperature": 0, "repeat_penalty": 1, **given})


Plant = Callable[[Bench], Served | tuple[Served, Path]]
FAULTS: dict[str, tuple[Kind, str, Plant]] = {
    "another TEMPLATE": ("template", "it is llama3", lambda bench: sound(bench, template=written("llama3"))),
    # Ollama then takes a template of its own that looks like the GGUF's, here its chatml, which has no system text
    "FROM alone": ("system", "has another one, or none", lambda bench: sound(bench, template=None)),
    "no TEMPLATE over another chat template": (
        "template",
        "",
        lambda bench: sound(
            bench, template=None, gguf=with_template(bench.gguf, bench.folder / "other-jinja.gguf", JINJA)
        ),
    ),
    "another SYSTEM": ("system", "You are a pirate.", lambda bench: sound(bench, system="You are a pirate.")),
    "no stop word": ("stop", "trained to end with '<issue_start>'", unended),
    "a stop word inside answers": (
        "stop",
        "'ort' stands inside right answers",
        lambda bench: sound(bench, stop=("<|im_end|>", "ort")),
    ),
    "repeat_penalty 1.5": ("parameters", "repeat_penalty is 1.5", with_parameters(repeat_penalty=1.5)),
    "temperature 0.9": ("parameters", "temperature is 0.9", with_parameters(temperature=0.9)),
    "two BOS": ("bos", "have '<|im_start|>' at their start 2 times", two_bos),
    "no empty thought": (
        "thinking",
        "in training '<think>\\n\\n</think>\\n\\n'",
        lambda bench: (sound(bench, template=written("qwen3")), bench.saves("qwen3", enable_thinking=False)),
    ),
    "two bits": ("quantisation", "2 bits", few_bits),
    "another base model": ("base", "1 layers, trained were 2", other_base),
    "no adapter": (
        "adapter",
        "holds 0 % of what was learnt",
        lambda bench: sound(bench, gguf=bench.run.folder / "export/tiny-base.gguf"),
    ),
    "markers that became text": ("tokenizer", "cuts the same text into other tokens", markers_are_text),
    "no room for the prompt": ("context", "num_ctx is 16", with_parameters(num_ctx=16)),
    "too short answers": ("context", "num_predict is 1", with_parameters(num_predict=1)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named_and_its_cure_cures(fault: str, bench: Bench) -> None:
    kind, words, plant = FAULTS[fault]
    planted = plant(bench)
    served, saves = planted if isinstance(planted, tuple) else (planted, bench.saves())
    number = list(FAULTS).index(fault)
    data = bench.run.folder / "data/eval.json" if kind in ("stop", "parameters", "context") else None
    diagnosis = found(bench, saves, made(bench, served.text(), f"fault-{number}"), data)
    sentences = [finding.sentence for finding in diagnosis.findings]
    assert wrong(diagnosis) == {kind}, sentences
    assert words in sentences[0], sentences
    if kind in IN_MODELFILE:
        cured = made(bench, str(diagnosis.modelfile), f"cured-{number}")
        again = found(bench, saves, cured, data)
        assert wrong(again) == set(), [finding.sentence for finding in again.findings]
