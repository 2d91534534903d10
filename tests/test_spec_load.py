"""spec.yaml → Spec, or everything wrong with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.lib.errors import InputError
from orchestrator.spec.export import Export
from orchestrator.spec.load import build_spec, load_project
from orchestrator.spec.sections import Spec

SPECS = Path(__file__).parent / "specs"
HEAD = "name: news\ndata:\n  train: train.json\n  eval: eval.json\n"
"""Four lines that every case begins with, unless it says something about them."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data files, which is also the working folder."""
    for name in ("train.json", "eval.json", "新闻.csv"):
        (tmp_path / name).write_text("[]")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str | bytes, name: str = "spec.yaml") -> Path:
    """A spec in the working folder, by its relative name."""
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return Path(name)


def refusal(path: Path, *overrides: str) -> str:
    """What is said about a spec that cannot run."""
    with pytest.raises(InputError) as caught:
        load_project(path, overrides)
    assert caught.value.exit_code == 2
    assert caught.value.hint
    return caught.value.message


BAD_SECTIONS = [
    # keys
    ("trian: {}", "5: trian: unknown key; did you mean train?"),
    ("Train: {}", "5: Train: unknown key; did you mean train?"),
    ("learning_rate: 1e-4", "5: learning_rate: unknown key; did you mean train.learning_rate?"),
    ("gguf: [f16]", "5: gguf: unknown key; did you mean export.gguf?"),
    ("template: auto", "5: template: unknown key; did you mean model.template?"),
    ("xyzzy: 1", "5: xyzzy: unknown key; known are name, model, data, train, evaluate, export, sweep, "),
    ("数据: 1", "5: 数据: unknown key; known are name, "),
    ("model: {bas: x}", "5: model.bas: unknown key; did you mean base?"),
    ("export: {gate: {min_agrement: 1}}", "5: export.gate.min_agrement: unknown key; did you mean min_agreement?"),
    ("export: {ollama: {parameter: {}}}", "5: export.ollama.parameter: unknown key; did you mean parameters?"),
    ("name: other", "5: name: given twice, here and in line 1; keep one"),
    ("train:\n  seed: 1\n  seed: 2", "7: train.seed: given twice, here and in line 6; keep one"),
    # types and choices
    ("model: x", "5: model: expected a mapping, got the text 'x'"),
    ("train: [1]", "5: train: expected a mapping, got a list"),
    ("train: yes", "5: train: expected a mapping, got the text 'yes'"),
    ("model:\n  thinking: yes", "6: model.thinking: expected true or false, got the text 'yes'"),
    ("model:\n  thinking: 1", "6: model.thinking: expected true or false, got 1"),
    ("model: {base: 7}", "5: model.base: expected text, got 7"),
    ("evaluate: {max_new_tokens: 1.5}", "5: evaluate.max_new_tokens: expected a whole number, got 1.5"),
    ("evaluate: {max_new_tokens: true}", "5: evaluate.max_new_tokens: expected a whole number, got true"),
    ("evaluate: {max_new_tokens: 0}", "5: evaluate.max_new_tokens: expected at least 1, got 0"),
    ("evaluate: {max_new_tokens: }", "5: evaluate.max_new_tokens: expected a whole number, got nothing"),
    (
        "evaluate: {task: classify}",
        "5: evaluate.task: expected one of classification, generation, tools, got the text 'classify'",
    ),
    ("evaluate: {labels: [1, a]}", "5: evaluate.labels[0]: expected text, got 1"),
    ("export: {gguf: []}", "5: export.gguf: expected at least 1 entry, got an empty list"),
    ("export: {gguf: f16}", "5: export.gguf: expected a list, got the text 'f16'"),
    ("export:\n  gguf:\n    - f16\n    - q4_k_n", "8: export.gguf[1]: expected one of f32, f16, "),
    ("export: {gguf: [f16, f16]}", "5: export.gguf: f16 stands 2 times in the list; keep one"),
    ("export: {gate: {min_agreement: 90}}", "5: export.gate.min_agreement: expected at most 1, got 90"),
    ("export: {gate: {min_agreement: '0.9'}}", "5: export.gate.min_agreement: expected a number, got the text '0.9'"),
    ("export: {gate: {min_agreement: .nan}}", "5: export.gate.min_agreement: .nan is not a usable number"),
    ("export: {ollama: {name: 'a b'}}", "5: export.ollama.name: cannot be the text 'a b': The model's name in Ollama"),
    ("execution: fast", "5: execution: expected one of auto, cli, warm, got the text 'fast'"),
    # the model
    ("model: {base: 'builtin:llama'}", "5: model.base: unknown builtin model 'llama'"),
    ("model: {base: 'hf:nobody'}", "5: model.base: cannot read 'hf:nobody'. Write hf:ORG/NAME"),
    ("model: {base: org/name}", "5: model.base: no folder 'org/name'. Name a folder, or a model with builtin:, hf:"),
    ("model: {base: ~nobody/models}", "5: model.base: no folder '~nobody/models'"),
    ("llama_cpp: ~nobody/llama.cpp", "5: llama_cpp: the folder '~nobody/llama.cpp' does not exist"),
    ("model: {base: folder}", "5: model.base: 'folder' has no config.json"),
    ("model: {template: qwen33}", "5: model.template: unknown template 'qwen33'; did you mean qwen3?"),
    (
        "model: {template: gemma+qwn}",
        "5: model.template: unknown tool format 'qwn' behind the +; did you mean qwen?",
    ),
    ("model: {template: gemm+qwen}", "5: model.template: unknown template 'gemm'; did you mean gemma?"),
    ("model: {template: gemma+}", "5: model.template: no tool format behind the + of 'gemma+'"),
    ("model: {template: '中文'}", "5: model.template: unknown template '中文'; LLaMA-Factory has "),
    ("llama_cpp: nowhere", "5: llama_cpp: the folder 'nowhere' does not exist"),
    ("llama_cpp: folder", "5: llama_cpp: the folder 'folder' has no convert_hf_to_gguf.py"),
    # training arguments
    ("train:\n  learning_rat: 1e-4", "6: train.learning_rat: unknown key; did you mean learning_rate?"),
    ("train:\n  Learning_Rate: 1e-4", "6: train.Learning_Rate: unknown key; did you mean learning_rate?"),
    ("train:\n  evaluation_strategy: epoch", "6: train.evaluation_strategy: unknown key; it is called eval_strategy"),
    (
        "train:\n  group_by_length: true",
        "6: train.group_by_length: unknown key; it is called train_sampling_strategy: group",
    ),
    (
        "train:\n  save_safetensors: true",
        "6: train.save_safetensors: unknown key; weights are always saved as safetensors",
    ),
    ("train:\n  learning_rate: '1e-4'", "6: train.learning_rate: expected a number, got the text '1e-4'"),
    ("train:\n  learning_rate: 1e-4x", "6: train.learning_rate: expected a number, got the text '1e-4x'"),
    ("train:\n  learning_rate:", "6: train.learning_rate: expected a number, got nothing"),
    ("train:\n  learning_rate: 0", "6: train.learning_rate: must be more than 0, got 0"),
    ("train:\n  num_train_epochs: -1", "6: train.num_train_epochs: must be more than 0, got -1"),
    ("train:\n  per_device_train_batch_size: 0", "6: train.per_device_train_batch_size: must be at least 1, got 0"),
    ("train:\n  lora_rank: 8.0", "6: train.lora_rank: expected a whole number, got 8.0"),
    ("train:\n  lora_dropout: 1", "6: train.lora_dropout: must be at most 0.99, got 1"),
    ("train:\n  cutoff_len: 8", "6: train.cutoff_len: must be at least 16, got 8"),
    ("train:\n  bf16: yes", "6: train.bf16: expected true or false, got the text 'yes'"),
    ("train:\n  bf16: 1", "6: train.bf16: expected true or false, got 1"),
    ("train:\n  lora_rank: true", "6: train.lora_rank: expected a whole number, got true"),
    ("train:\n  save_strategy: false", "6: train.save_strategy: expected one of no, steps, epoch, best, got false"),
    (
        "train:\n  save_strategy: epochs",
        "6: train.save_strategy: expected one of no, steps, epoch, best, got the text 'epo",
    ),
    ("train:\n  optim: adam", "6: train.optim: expected one of adamw_torch, adamw_torch_fused, "),
    (
        "train:\n  lora_target: [q_proj]",
        "6: train.lora_target: expected text, got a list; join them with commas in one text",
    ),
    ("train:\n  lr_scheduler_kwargs: [1]", "6: train.lr_scheduler_kwargs: expected a mapping or text, got a list"),
    ("train:\n  model_name_or_path: x", "6: train.model_name_or_path: cannot be set here: say it as model.base"),
    ("train:\n  template: qwen", "6: train.template: cannot be set here: say it as model.template"),
    ("train:\n  dataset: news", "6: train.dataset: cannot be set here: say it as data.train"),
    ("train:\n  val_size: 0.1", "6: train.val_size: cannot be set here: say it as data.eval_fraction"),
    ("train:\n  output_dir: out", "6: train.output_dir: cannot be set here: every run has a folder of its own"),
    ("train:\n  do_train: true", "6: train.do_train: cannot be set here: the stages set it"),
    ("train:\n  export_dir: out", "6: train.export_dir: cannot be set here: the export section decides it"),
    ("train:\n  hub_token: hf_x", "6: train.hub_token: cannot be set here: set it in the environment"),
    ("train:\n  stage: ppo", "6: train.stage: ppo cannot run with the trl that LLaMA-Factory requires; use dpo or kto"),
    # sweeps
    ("sweep: {parameters: {}}", "5: sweep.parameters: expected at least 1 entry, got an empty mapping"),
    ("sweep: {}", "5: sweep.parameters: is missing: Key → list"),
    ("sweep:\n  parameters:\n    lr: [1]", "7: sweep.parameters.lr: unknown key; it is called learning_rate"),
    ("sweep:\n  parameters:\n    lora_rnk: [1]", "7: sweep.parameters.lora_rnk: unknown key; did you mean lora_rank?"),
    ("sweep:\n  parameters:\n    data.evl: [1]", "7: sweep.parameters.data.evl: unknown key; did you mean eval?"),
    (
        "sweep:\n  parameters:\n    seed: []",
        "7: sweep.parameters.seed: expected a list of values, or {low: …, high: …}, got an ",
    ),
    (
        "sweep:\n  parameters:\n    seed: 3",
        "7: sweep.parameters.seed: expected a list of values, or {low: …, high: …}, got 3",
    ),
    (
        "sweep:\n  parameters:\n    learning_rate: [1e-4, -1]",
        "7: sweep.parameters.learning_rate: must be more than 0, got -1",
    ),
    (
        "sweep:\n  parameters:\n    seed: {low: 1, hihg: 2}",
        "7: sweep.parameters.seed: unknown key hihg; did you mean high?",
    ),
    (
        "sweep:\n  parameters:\n    seed: {low: 3, high: 2, step: 1}",
        "7: sweep.parameters.seed: expected low below high",
    ),
    (
        "sweep:\n  parameters:\n    seed: {low: 1, high: 2}",
        "7: sweep.parameters.seed: a grid needs a list, or a range with a",
    ),
    (
        "sweep:\n  method: random\n  parameters:\n    learning_rate: {low: 0, high: 1, log: true}",
        "8: sweep.parameters.learning",
    ),
    ("sweep:\n  parameters:\n    name: [a, b]", "7: sweep.parameters.name: name cannot be swept"),
    (
        "sweep:\n  parameters:\n    finetuning_type: [lora, full]\n    use_dora: [true]",
        "7: sweep.parameters.finetuning_type: train.use_dora: works only with finetuning_type: lora",
    ),
    # not YAML
    ("train:\n\tseed: 1", "6: not valid YAML: a tab where YAML wants spaces"),
    ("train: {seed: 1", "5: not valid YAML: a bracket that is not closed"),
]


@pytest.mark.parametrize(("section", "expected"), BAD_SECTIONS)
def test_a_bad_section(project: Path, section: str, expected: str) -> None:
    message = refusal(write(HEAD + section + "\n"))
    assert message.startswith(f"spec.yaml:{expected}")
    assert "\n" not in message  # one mistake, one line


BAD_HEADS = [
    ("", "1: is not a spec; it begins with name: and data:"),
    ("# nothing\n", "1: is not a spec"),
    ("- a\n- b\n", "1: is not a spec"),
    ("news\n", "1: is not a spec"),
    ("data: {train: train.json, eval: eval.json}", "1: name: is missing: Lower-case letters, digits and hyphens"),
    ("name: news", "1: data: is missing"),
    ("name: news\ndata:", "2: data: is missing"),
    ("name: news\ndata: {eval: eval.json}", "2: data.train: is missing: A file or several"),
    ("name: Big\ndata: {train: train.json, eval: eval.json}", "1: name: cannot be the text 'Big'"),
    ("name: ../x\ndata: {train: train.json, eval: eval.json}", "1: name: cannot be the text '../x'"),
    ("name: 新闻\ndata: {train: train.json, eval: eval.json}", "1: name: cannot be the text '新闻'"),
    ("name: 2024\ndata: {train: train.json, eval: eval.json}", "1: name: expected text, got 2024"),
    (
        "name: news\ndata:\n  train: train.json",
        "2: data: names no held-out rows; add eval: FILE, or eval_fraction: 0.2",
    ),
    (
        "name: news\ndata: {train: train.json, eval: eval.json,\n  eval_fraction: 0.2}",
        "3: data.eval_fraction: and eval excl",
    ),
    (
        "name: news\ndata: {train: train.json, eval_fraction: 20}",
        "2: data.eval_fraction: expected less than 1, got 20",
    ),
    ("name: news\ndata:\n  train: train.jsn\n  eval: eval.json", "3: data.train: no file 'train.jsn' in "),
    (
        "name: news\ndata:\n  train:\n  - train.json\n  - tests.json\n  eval: eval.json",
        "5: data.train[1]: no file 'tests.json'",
    ),
    ("name: news\ndata: {train: 5, eval: eval.json}", "2: data.train: expected text or a list, got 5"),
    ("name: news\ndata: {train: [5], eval: eval.json}", "2: data.train[0]: expected text, got 5"),
    ("name: news\ndata: {train: [], eval: eval.json}", "2: data.train: names no file"),
    ("name: news\ndata: {train: folder, eval: eval.json}", "2: data.train: 'folder' is a folder; name the files in it"),
    (
        "name: news\ndata: {train: train.json, eval: ../eval.json}",
        "2: data.eval: '../eval.json' leads out of the project",
    ),
    (
        "name: news\ndata: {train: folder/../../x, eval: eval.json}",
        "2: data.train: 'folder/../../x' leads out of the proje",
    ),
    ("name: news\ndata: {train: train.json, eval: eval.json, test: t.json}", "2: data.test: no file 't.json' in "),
    (
        "name: news\ndata: {train: train.json, eval: eval.json, weights: [1, 2]}",
        "2: data.weights: expected 1, one for each",
    ),
    (
        "name: news\ndata: {train: train.json, eval: eval.json, weights: [0]}",
        "2: data.weights: expected numbers above 0",
    ),
    (
        "name: news\ndata: {train: train.json, eval: eval.json, max_samples: 0}",
        "2: data.max_samples: expected at least 1",
    ),
    (
        "name: news\ndata: {train: train.json, eval: eval.json, columns: [a]}",
        "2: data.columns: expected a mapping, got a lis",
    ),
    (
        'name: news\ndata: {train: "a\\0b", eval: eval.json}',
        "2: data.train: the character U+0000 is not allowed in a text",
    ),
]


@pytest.mark.parametrize(("text", "expected"), BAD_HEADS)
def test_a_bad_head(project: Path, text: str, expected: str) -> None:
    message = refusal(write(text))
    assert message.startswith(f"spec.yaml:{expected}")
    assert "\n" not in message


def test_every_problem_is_reported_at_once_and_the_list_is_short(project: Path) -> None:
    message = refusal(write((SPECS / "bad" / "many.yaml").read_text()))
    assert message == (SPECS / "bad" / "many.txt").read_text().strip().replace("PROJECT", str(project))


@pytest.mark.parametrize("path", sorted((SPECS / "good").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_good_spec(project: Path, path: Path) -> None:
    loaded = load_project(write(path.read_text()))
    assert loaded.root == project
    assert build_spec(loaded.spec.model_dump(mode="json"), project) == loaded.spec


def test_what_a_good_spec_holds(project: Path) -> None:
    loaded = load_project(write((SPECS / "good" / "everything.yaml").read_text()))
    assert loaded.spec.train["learning_rate"] == 1e-4
    assert loaded.spec.data.train == ("train.json", "新闻.csv")
    assert loaded.spec.evaluate.labels == ("yes", "no", "国际")
    assert loaded.spec.export.gate.min_agreement == 1.0
    assert loaded.text.startswith("# every section")


def test_an_unquoted_no_and_an_empty_section(project: Path) -> None:
    assert load_project(write((SPECS / "good" / "no-save.yaml").read_text())).spec.train["save_strategy"] == "no"
    assert load_project(write((SPECS / "good" / "empty-sections.yaml").read_text())).spec.export == Export()


def test_an_absolute_path_may_lead_anywhere(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "train.json"
    elsewhere.write_text("[]")
    assert load_project(write(HEAD.replace("train.json", str(elsewhere)))).spec.data.train == str(elsewhere)


def test_paths_are_relative_to_the_folder_of_the_projects_spec(project: Path) -> None:
    write(HEAD)
    Path("specs").mkdir()
    assert load_project(write(HEAD, "specs/other.yaml")).root == project


def test_a_byte_order_mark_and_windows_line_ends(project: Path) -> None:
    text = "\ufeff" + HEAD.replace("\n", "\r\n") + "trian: {}\r\n"
    assert refusal(write(text)) == "spec.yaml:5: trian: unknown key; did you mean train?"


# ---- --set


def test_an_override_wins(project: Path) -> None:
    path = write(HEAD + "train: {learning_rate: 1e-3, seed: 1}\n")
    loaded = load_project(
        path, ["train.learning_rate=1e-4", "export.gguf=[f16, q8_0]", "data.eval=null", "data.eval_fraction=0.1"]
    )
    assert loaded.spec.train == {"learning_rate": 1e-4, "seed": 1}
    assert loaded.spec.export.gguf == ("f16", "q8_0")
    assert (loaded.spec.data.eval, loaded.spec.data.eval_fraction) == (None, 0.1)


def test_what_is_recorded_means_what_was_run(project: Path) -> None:
    path = write(HEAD + "train: {seed: 1, save_steps: 3}\n")
    loaded = load_project(path, ["train.save_total_limit=null", "data.eval=null", "data.eval_fraction=0.1"])
    again = load_project(write(loaded.text))
    assert again.spec.training == loaded.spec.training and again.spec.data == loaded.spec.data
    assert loaded.spec.training["save_total_limit"] is None and "eval:" not in loaded.text


def test_an_override_mends_a_file(project: Path) -> None:
    assert load_project(write(HEAD + "train: {seed: x}\n"), ["train.seed=3"]).spec.train == {"seed": 3}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.learning_rat=1", "train.learning_rat: unknown key; did you mean learning_rate?"),
        ("learning_rate=1", "learning_rate: unknown key; did you mean train.learning_rate?"),
        ("train.learning_rate=x", "train.learning_rate: expected a number, got the text 'x'"),
        ("train.seed=1=2", "train.seed: expected a whole number, got the text '1=2'"),
        ("trian.seed=1", "trian: unknown key; did you mean train?"),
        ("train.learning_rate", "cannot read --set 'train.learning_rate'; write --set train.learning_rate=1e-4"),
        ("=1", "cannot read --set '=1'"),
        ("train.=1", "cannot read --set 'train.=1'"),
        ("train..x=1", "cannot read --set 'train..x=1'"),
        ("name.x=1", "name.x: cannot be set: name is not a section"),
        ("train.seed=[1", "train.seed: cannot read the value '[1': not valid YAML: a bracket that is not closed"),
        ("train.seed=\x00", "train.seed: cannot read the value"),
        ("train=3", "train: expected a mapping, got 3"),
    ],
)
def test_a_bad_override(project: Path, override: str, expected: str) -> None:
    message = refusal(write(HEAD), override)
    assert message.startswith(f"--set: {expected}")
    assert "\n" not in message


def test_an_override_does_not_hide_what_is_wrong_with_the_file(project: Path) -> None:
    assert refusal(write("a: [1"), "train.seed=1") == "spec.yaml:1: not valid YAML: a bracket that is not closed"


# ---- files that are no spec


def test_no_such_file(project: Path) -> None:
    assert refusal(Path("nothing.yaml")) == "no file 'nothing.yaml'"


def test_a_folder(project: Path) -> None:
    assert refusal(Path("folder")) == "folder is a folder"


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there are no devices here")
def test_a_device_is_not_read() -> None:
    assert refusal(Path("/dev/zero")) == "/dev/zero is not a regular file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_is_not_waited_for(project: Path) -> None:
    os.mkfifo("pipe")
    assert refusal(Path("pipe")) == "pipe is not a regular file"


def test_a_link_that_leads_to_itself(project: Path) -> None:
    Path("loop.yaml").symlink_to("loop.yaml")
    assert "loop.yaml" in refusal(Path("loop.yaml"))


def test_a_name_that_no_file_can_have(project: Path) -> None:
    assert "cannot read" in refusal(Path("x" * 5000))
    assert "no file" in refusal(Path("a\0b"))


def test_a_data_file_by_mistake(project: Path) -> None:
    assert refusal(write(b"x" * 300_000)) == "spec.yaml is larger than 256,000 bytes"


@pytest.mark.parametrize("text", ["名: 新闻".encode("gb18030"), "name: x".encode("utf-16"), b"\x80\x81"])
def test_another_encoding(project: Path, text: bytes) -> None:
    assert refusal(write(text)) == "spec.yaml:1: the text is not UTF-8"


def test_the_line_of_a_byte_that_is_not_utf8(project: Path) -> None:
    assert refusal(write(b"name: x\n# \xff\n")) == "spec.yaml:2: the text is not UTF-8"


# ---- values that are no file


def test_build_spec_of_plain_values(project: Path) -> None:
    values = {"name": "news", "data": {"train": "train.json", "eval": "eval.json"}, "train": {"seed": 3}}
    assert build_spec(values, project).train == {"seed": 3}
    with pytest.raises(InputError, match=r"^train.sede: unknown key; did you mean seed\?$"):
        build_spec({**values, "train": {"sede": 3}}, project)


# ---- whatever is typed


TOKENS = [
    "name", "data", "train", "eval", "model", "export", "gguf", "sweep", "parameters", "seed", "learning_rate", "bf16",
    "low", "high", "1e-4", "no", "~", "[", "]", "{", "}", ":", ": ", "- ", ",", "\n", "\n  ", "\t", "&a ", "*a", "'",
    '"', "|", "#", "!!str ", "train.json", "新闻", "\0", "\\", "-1", ".inf", "f16", "..", "~x", "<<: *a", "%", "@",
    "---\n",
]  # fmt: skip
WORDS = st.sampled_from(TOKENS)
FREE = st.text(max_size=60) | st.lists(WORDS, max_size=25).map("".join) | st.lists(WORDS, max_size=25).map(" ".join)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=FREE, head=st.booleans())
def test_any_text_is_a_spec_or_an_input_error(project: Path, body: str, head: bool) -> None:
    path = write(((HEAD if head else "") + body).encode("utf-8", "surrogatepass"))
    try:
        assert isinstance(load_project(path).spec, Spec)
    except InputError as error:
        assert 1 <= len(error.message.splitlines()) <= 9


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from([
    "name", "model.base", "model.template", "data.train", "data.eval", "data.eval_fraction", "data.weights",
    "train.learning_rate", "train.save_strategy", "train.lora_target", "train.eval_steps", "train.optim",
    "train.deepspeed", "train.save_steps", "train.load_best_model_at_end", "train.quantization_bit",
    "train.dataloader_prefetch_factor", "evaluate.labels", "export.gguf", "export.gate", "export.ollama.parameters",
    "sweep.parameters", "sweep.parallel", "llama_cpp", "execution",
])  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_values_are_a_spec_or_an_input_error(project: Path, changes: dict[str, object]) -> None:
    from orchestrator.spec.editing import with_value

    values: dict[str, object] = {"name": "news", "data": {"train": "train.json", "eval": "eval.json"}}
    for key, value in changes.items():
        values = with_value(values, key.split("."), value)
    try:
        assert isinstance(build_spec(values, project), Spec)
    except InputError as error:
        assert error.message


def test_loading_needs_neither_torch_nor_transformers(project: Path) -> None:
    path = write((SPECS / "good" / "everything.yaml").read_text())
    code = (
        "import sys, pathlib; from orchestrator.spec.load import load_project;"
        f"load_project(pathlib.Path({str(path)!r})); print(*sys.modules)"
    )
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"torch", "transformers", "llamafactory", "jinja2", "huggingface_hub", "modelscope", "datasets", "optuna"}
    assert not heavy & set(modules)
