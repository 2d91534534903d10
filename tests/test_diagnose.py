"""diagnose: planted faults are named, a sound model is not accused, and the corrected Modelfile cures."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.chat_template.byte_model import write_model
from orchestrator.chat_template.ollama import ollama_template
from orchestrator.chat_template.registry import definition
from orchestrator.chat_template.turns import SpecialTokens
from orchestrator.lib.errors import InputError, StageError
from orchestrator.lib.files import read_json, write_json
from orchestrator.models import gguf_tensor
from orchestrator.models.saves import read_saves
from orchestrator.runs.store import Run
from orchestrator.serving import bundle
from orchestrator.serving.diagnose import answers, probes, shipped, trained
from orchestrator.serving.diagnose.diagnosis import Diagnosis, diagnose
from orchestrator.serving.diagnose.finding import IN_MODELFILE
from orchestrator.serving.http import Endpoint
from orchestrator.stages.quantise import Quantise
from tests.fake_ollama import FakeOllama, Made, fake_ollama
from tests.gguf_text import read, with_number, with_template
from tests.test_ship_endpoint import server as answering
from tests.warm_tool import run_tool_warm

NAME = "tiny"
FEW = 4
"""Rows that are asked."""
TOKENS = SpecialTokens("<|im_start|>", "<|im_end|>")
JINJA = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}{# tools, <think> and </think> #}"


@pytest.fixture(scope="module")
def saves(shipped_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the web UI leaves: an adapter and training_args.yaml, no tokenizer."""
    folder = tmp_path_factory.mktemp("saves") / "lora"
    shutil.copytree(shipped_run.folder / "train", folder)
    return with_arguments(folder, template="smollm2")


def with_arguments(folder: Path, **arguments: Any) -> Path:
    (folder / "training_args.yaml").write_text(yaml.safe_dump({"stage": "sft", "cutoff_len": 128, **arguments}))
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeOllama]:
    with fake_ollama(tmp_path_factory.mktemp("ollama")) as state:
        yield state


@pytest.fixture
def sound(server: FakeOllama, shipped_run: Run) -> Made:
    """The model as our own Modelfile makes it."""
    file = shipped_run.folder / "export/Modelfile.f16"
    wanted = bundle.read(file)
    return Made(stored(server, file.parent / wanted.model), None, wanted.template or "", "", dict(wanted.parameters))


def stored(server: FakeOllama, gguf: Path) -> str:
    digest = f"sha256:{hashlib.sha256(gguf.read_bytes()).hexdigest()}"
    shutil.copyfile(gguf, server.blob(digest))
    return digest


def found(server: FakeOllama, made: Made, saves: Path, data: Path | None = None) -> Diagnosis:
    server.models[f"{NAME}:latest"] = made
    rows, shared = probes.read_rows(data) if data else ([], None)
    known = trained.read(read_saves(saves), system=shared)
    return diagnose(known, Endpoint(server.url, "ollama", NAME), rows[:FEW])


def wrong(diagnosis: Diagnosis) -> list[str]:
    return [finding.kind for finding in diagnosis.findings if finding.wrong]


def template(name: str, thinking: bool = True) -> str:
    return ollama_template(definition(name), TOKENS, thinking, bos_added_by_runtime=False)


def test_a_sound_model_is_not_accused(server: FakeOllama, sound: Made, saves: Path, shipped_run: Run) -> None:
    diagnosis = found(server, sound, saves, shipped_run.folder / "data/eval.json")
    assert (diagnosis.findings, diagnosis.sound, list(diagnosis.unseen)) == ([], True, [])
    assert diagnosis.answers is not None
    assert diagnosis.answers.served == diagnosis.answers.trained == FEW


Plant = Callable[[FakeOllama, Made, Run, Path], Made]


def gguf_of(server: FakeOllama, made: Made, file: Path) -> Made:
    return replace(made, blob=stored(server, file))


def other_jinja(server: FakeOllama, made: Made, run: Run, folder: Path) -> Made:
    return gguf_of(server, made, with_template(run.folder / "export/tiny-f16.gguf", folder / "a.gguf", JINJA))


def other_base(server: FakeOllama, made: Made, run: Run, folder: Path) -> Made:
    write_model(folder / "other.gguf", TOKENS)
    return gguf_of(server, made, folder / "other.gguf")


def adds_bos(server: FakeOllama, made: Made, run: Run, folder: Path) -> Made:
    file = with_number(run.folder / "export/tiny-f16.gguf", folder / "a.gguf", "tokenizer.ggml.add_bos_token", 1)
    return gguf_of(server, made, file)


def markers_are_text(server: FakeOllama, made: Made, run: Run, folder: Path) -> Made:
    sound, im_start = run.folder / "export/tiny-f16.gguf", 1
    file = with_number(sound, folder / "a.gguf", "tokenizer.ggml.token_type", 1, place=im_start)
    return gguf_of(server, made, file)


def few_bits(server: FakeOllama, made: Made, run: Run, folder: Path) -> Made:
    Quantise(str(run.folder / "export/tiny-f16.gguf"), str(folder / "q2.gguf"), "q2_k").run()
    return gguf_of(server, made, folder / "q2.gguf")


def parameters(**given: Any) -> Plant:
    return lambda server, made, run, folder: replace(made, parameters={**made.parameters, **given})


FAULTS: dict[str, tuple[str, str, Plant]] = {
    "another TEMPLATE": (
        "template",
        "it is llama3",
        lambda server, made, run, folder: replace(made, template=template("llama3")),
    ),
    "the GGUF's own template is taken": ("template", "which Ollama takes instead of TEMPLATE", other_jinja),
    "a SYSTEM of its own": (
        "system",
        "puts 'You are a pirate.' in front",
        lambda server, made, run, folder: replace(made, system="You are a pirate."),
    ),
    "no system text": (
        "system",
        "has another one, or none",
        lambda server, made, run, folder: replace(made, template=template("chatml")),
    ),
    "two BOS": ("bos", "have '<|im_start|>' at their start 2 times", adds_bos),
    "a stop word inside answers": ("stop", "'ort' stands inside right answers", parameters(stop=["<|im_end|>", "ort"])),
    "a repeat penalty": ("parameters", "repeat_penalty is 1.3", parameters(repeat_penalty=1.3)),
    "labels drawn at random": ("parameters", "temperature is 0.8", parameters(temperature=0.8)),
    "no room for the prompt": ("context", "num_ctx is 16", parameters(num_ctx=16)),
    "too short answers": ("context", "num_predict is 1", parameters(num_predict=1)),
    "the base without its adapter": (
        "adapter",
        "holds 0 % of what was learnt",
        lambda server, made, run, folder: gguf_of(server, made, run.folder / "export/tiny-base.gguf"),
    ),
    "another base model": ("base", "1 layers, trained were 2", other_base),
    "markers that became text": ("tokenizer", "cuts the same text into other tokens", markers_are_text),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(
    fault: str, server: FakeOllama, sound: Made, saves: Path, shipped_run: Run, tmp_path: Path
) -> None:
    kind, words, plant = FAULTS[fault]
    with_rows = kind in ("stop", "parameters", "context")  # which are of answers
    data = shipped_run.folder / "data/eval.json" if with_rows else None
    spoilt = plant(server, sound, shipped_run, tmp_path)
    diagnosis = found(server, spoilt, saves, data)
    assert set(wrong(diagnosis)) == {kind}, [finding.sentence for finding in diagnosis.findings]
    assert words in diagnosis.findings[0].sentence
    if kind in IN_MODELFILE or kind == "bos":
        assert diagnosis.modelfile is not None
        assert wrong(found(server, mended(server, spoilt, diagnosis.modelfile), saves, data)) == []


def mended(server: FakeOllama, made: Made, modelfile: str) -> Made:
    """What `ollama create` makes of the corrected Modelfile."""
    read = bundle.parse(modelfile)
    assert read.model == str(server.blob(made.blob))
    return replace(made, template=read.template or "", system=read.system or "", parameters=read.parameters)


def test_one_matrix_is_read_as_the_gguf_package_reads_it(shipped_run: Run, tmp_path: Path) -> None:
    from gguf import dequantize

    Quantise(str(shipped_run.folder / "export/tiny-f16.gguf"), str(tmp_path / "q8.gguf"), "q8_0").run()
    for file in (shipped_run.folder / "export/tiny-f16.gguf", tmp_path / "q8.gguf"):
        wanted = next(one for one in read(file).tensors if one.name == "blk.1.attn_v.weight")
        values = dequantize(wanted.data, wanted.tensor_type).reshape(wanted.shape[::-1])
        assert (gguf_tensor.matrix(file, "blk.1.attn_v.weight") == values).all()
    assert gguf_tensor.matrix(file, "blk.9.attn_v.weight") is None


def test_few_bits_are_named_unless_the_answers_are_right(
    server: FakeOllama, sound: Made, saves: Path, shipped_run: Run, tmp_path: Path
) -> None:
    spoilt = few_bits(server, sound, shipped_run, tmp_path)
    assert wrong(found(server, spoilt, saves)) == ["quantisation"]


@pytest.mark.parametrize(("served", "kinds"), [(True, ["thinking"]), (False, [])])
def test_an_empty_thought_that_serving_leaves_out_is_named(
    served: bool, kinds: list[str], server: FakeOllama, sound: Made, saves: Path, tmp_path: Path
) -> None:
    folder = with_arguments(Path(shutil.copytree(saves, tmp_path / "s")), template="qwen3", enable_thinking=False)
    made = replace(sound, template=template("qwen3", thinking=served))
    diagnosis = found(server, made, folder)
    assert wrong(diagnosis) == kinds
    if kinds:
        assert "in training '<think>\\n\\n</think>\\n\\n'" in diagnosis.findings[0].sentence
        assert wrong(found(server, mended(server, made, str(diagnosis.modelfile)), folder)) == []


def test_an_end_that_nobody_stops_at_is_named(
    server: FakeOllama, sound: Made, saves: Path, tiny_model: Path, tmp_path: Path
) -> None:
    folder = with_arguments(Path(shutil.copytree(saves, tmp_path / "s")), template="vicuna")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tiny_model / name, folder / name)
    config = read_json(folder / "tokenizer_config.json")
    write_json(folder / "tokenizer_config.json", {**config, "eos_token": "<issue_start>"})
    diagnosis = found(server, replace(sound, template=template("vicuna")), folder)
    assert "stop" in wrong(diagnosis)
    assert "trained to end with '<issue_start>'" in " ".join(finding.sentence for finding in diagnosis.findings)
    assert 'PARAMETER stop "<issue_start>"' in str(diagnosis.modelfile)


def test_a_file_alone(saves: Path, shipped_run: Run, tmp_path: Path) -> None:
    known, sound = trained.read(read_saves(saves)), shipped_run.folder / "export/tiny-f16.gguf"
    rows, _ = probes.read_rows(shipped_run.folder / "data/eval.json")
    diagnosis = diagnose(known, sound, rows[:FEW])
    assert diagnosis.findings == []
    assert diagnosis.answers is not None
    assert diagnosis.answers.served == diagnosis.answers.trained == FEW
    assert wrong(diagnose(known, with_template(sound, tmp_path / "a.gguf", JINJA))) == ["template"]
    with pytest.raises(InputError, match="damaged"):
        (tmp_path / "cut.gguf").write_bytes(sound.read_bytes()[:5000])
        diagnose(known, tmp_path / "cut.gguf")


LONG = "ein langer Satz, " * 20


class Repeats:
    """llama.cpp in whose vocabulary each byte is a token, and whose model says LONG to everything."""

    bos = None

    def __init__(self, file: Path) -> None:
        self.file = file

    def __enter__(self) -> Repeats:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def tokenize(self, text: str) -> list[int]:
        return list(text.encode())

    def detokenize(self, tokens: list[int]) -> str:
        return bytes(tokens).decode()

    def stops(self, words: Any) -> frozenset[int]:
        return frozenset()

    def answers(self, asked: Any, limit: int, ends: Any) -> Iterator[tuple[int, list[int]]]:
        yield from ((n, self.tokenize(LONG)[:limit]) for n in range(len(asked)))


def test_a_long_right_answer_of_a_file_is_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(answers, "GgufModel", Repeats)
    file = shipped.Shipped(kind="gguf", name="a", maker="", texts=["Q"], gguf=tmp_path / "a.gguf", adds_bos=False)
    rows = [probes.Row([{"role": "user", "content": "Q"}], LONG)]
    given = answers.ask(rows, [trained.Prompt("Q", [81])], file, [], None)
    assert (given.served, given.trained) == (1, 1)


@pytest.mark.parametrize("message", [{"content": None, "tool_calls": []}, {"content": ""}])
def test_an_answer_without_a_text_is_an_empty_one(message: dict[str, Any]) -> None:
    given = asked_of({"choices": [{"message": message, "text": None}]})
    assert given.sentence() == "0 of 1 rows are answered right as it is served; with the prompts of training 0"


@pytest.mark.parametrize("answer", [{}, {"choices": []}, {"choices": [{"message": "None"}]}, {"choices": 7}])
def test_an_answer_of_another_kind_is_said_so(answer: dict[str, Any]) -> None:
    with pytest.raises(StageError, match="answered something else"):
        asked_of(answer)


def asked_of(answer: dict[str, Any]) -> answers.Answers:
    """What a server's one answer to everything comes to, where the right one is the text None."""
    with answering(lambda *_: (200, answer)) as url:
        at = shipped.Shipped(kind="openai", name="a", maker="", texts=[], endpoint=Endpoint(f"{url}/v1", "openai", "m"))
        rows = [probes.Row([{"role": "user", "content": "Q"}], "None")]
        return answers.ask(rows, [trained.Prompt("Q", [81])], at, [], None)


def test_our_own_server(saves: Path, shipped_run: Run, served_once: Callable[[str], Endpoint], tmp_path: Path) -> None:
    """It tells no prompts, only their number of tokens: the sound one is not accused, another template is noticed."""
    rows, _ = probes.read_rows(shipped_run.folder / "data/eval.json")
    diagnosis = diagnose(trained.read(read_saves(saves)), served_once("f16"), rows[:FEW])
    assert wrong(diagnosis) == []
    assert diagnosis.answers is not None
    assert diagnosis.answers.served == diagnosis.answers.trained == FEW
    assert "the text of the prompts: this server does not tell it" in list(diagnosis.unseen)
    folder = with_arguments(Path(shutil.copytree(saves, tmp_path / "s")), template="vicuna")
    assert "template" in wrong(diagnose(trained.read(read_saves(folder)), served_once("f16"), rows[:FEW]))


def test_folders_that_say_too_little(saves: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no result of a training"):
        read_saves(tmp_path)
    cut = Path(shutil.copytree(saves, tmp_path / "cut" / "checkpoint-7"))
    (cut / "training_args.yaml").unlink()
    assert (read_saves(cut.parent).folder.name, read_saves(cut.parent).remark != "") == ("checkpoint-7", True)
    with pytest.raises(InputError, match="nothing in checkpoint-7 says with which template"):
        trained.read(read_saves(cut.parent))
    weights = saves / "adapter_model.safetensors"
    (cut.parent / "adapter_model.safetensors").write_bytes(weights.read_bytes()[:5000])
    shutil.copyfile(saves / "adapter_config.json", cut.parent / "adapter_config.json")
    assert "damaged" in read_saves(cut.parent).remark and read_saves(cut.parent).folder == cut
    (cut / "adapter_config.json").write_text('{"r": 8', encoding="utf-8")
    with pytest.raises(InputError, match=r"adapter_model\.safetensors is damaged"):
        read_saves(cut.parent)
    shutil.copyfile(saves / "adapter_config.json", cut / "adapter_config.json")
    (cut / "training_args.yaml").write_text("template: [", encoding="utf-8")
    with pytest.raises(InputError, match=r"cannot read training_args\.yaml"):
        read_saves(cut)
    no_base = {**read_json(cut / "adapter_config.json"), "base_model_name_or_path": "Qwen/Qwen3-8B"}
    write_json(cut / "adapter_config.json", no_base)
    (cut / "training_args.yaml").unlink()
    with pytest.raises(InputError, match="has no tokenizer, and its base model 'Qwen/Qwen3-8B' is not on this machine"):
        trained.read(read_saves(cut))


def test_the_board_file_names_its_fields_otherwise(saves: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saves, tmp_path / "s"))
    (folder / "training_args.yaml").unlink()
    (folder / "llamaboard_config.yaml").write_text("top.template: qwen3\ntrain.enable_thinking: false\n")
    known = trained.read(read_saves(folder))
    assert (str(known.template), known.thinking) == ("qwen3 (llamaboard_config.yaml)", False)


def test_the_command(server: FakeOllama, sound: Made, saves: Path, tmp_path: Path) -> None:
    server.models["tiny:latest"] = replace(sound, system="You are a pirate.")
    options = ("diagnose", str(saves), "--ollama", "tiny", "-o", "my own.Modelfile")
    told = run_tool_warm(options, tmp_path, {"OLLAMA_HOST": server.url})
    assert told.code == 5, told.stderr
    assert "system text: questions that bring none: Ollama's tiny puts 'You are a pirate.'" in told.stdout
    assert "error: Ollama's tiny is not served as it was trained: system" in told.stderr
    assert (tmp_path / "my own.Modelfile").read_text(encoding="utf-8").count("SYSTEM") == 1
    assert told.stdout.rstrip().endswith("ollama create my-own -f 'my own.Modelfile'")
    other = ("diagnose", str(saves), "--ollama", "tony", "--json")
    missing = run_tool_warm(other, tmp_path, {"OLLAMA_HOST": server.url})
    assert (missing.code, "has no model 'tony'" in missing.stderr, "tiny:latest" in missing.stderr) == (2, True, True)
