"""What SECURITY.md promises: secrets stay secret, nothing is written elsewhere, nothing foreign is executed."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator.lib.errors import InputError
from orchestrator.lib.render import Renderer
from orchestrator.lib.secrecy import HIDDEN, clean, redacted
from orchestrator.pipeline import plan
from orchestrator.pipeline.plan import make_plan
from orchestrator.runs import reuse, store
from orchestrator.spec.load import load_project
from tests.conftest import write_tree
from tests.faults import stand_in, tool
from tests.faults.tool import Call
from tests.planted import PLANTED, SECRETS, leaks, shown

SOURCES = sorted(Path(orchestrator.__file__).parent.rglob("*.py"))


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in an environment with twenty secrets."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    stand_in.make(tmp_path)
    return tmp_path


def test_twenty_secrets_were_planted() -> None:
    assert len(set(PLANTED)) == 20 and all(PLANTED)


def test_no_secret_is_left_by_a_chain_whose_stages_print_them_all(planted: Path) -> None:
    answer = tool.run(planted, Call(("run", "-v"), scripts={"train": "env", "score": "env >&2"}))
    assert answer.code == 0, answer.stderr
    assert "train is done" in next(planted.glob("project/runs/*/logs/train.log")).read_text()
    assert leaks(planted) == []


@pytest.mark.parametrize("stage", ["prepare", "train", "ask-q8_0"])
def test_no_secret_is_in_what_a_failure_says(planted: Path, stage: str) -> None:
    line = f"HTTPError: 401 for {SECRETS['HF_ENDPOINT']}/model with Authorization: Bearer {SECRETS['OPENAI_API_KEY']}"
    answer = tool.run(planted, Call(scripts={stage: f"env; echo '{line}'; exit 1"}))
    assert answer.code in (4, 5)
    assert "HTTPError: 401 for https://[hidden]@hub.example.com/model" in answer.stderr
    assert (planted / "project/runs").is_dir()
    assert leaks(planted) == []


def test_no_secret_is_in_the_title_of_a_process(planted: Path) -> None:
    made = plan_of(planted)
    said = " ".join(argument for step in made.steps for argument in step.step.argv)
    assert shown(said) == []


def plan_of(folder: Path) -> Any:
    os.environ.update(stand_in.environment(folder))
    try:
        return make_plan(load_project(folder / "project/spec.yaml"))
    finally:
        for name in stand_in.environment(folder):
            del os.environ[name]


def test_the_traceback_of_a_bug_keeps_secrets_too(planted: Path) -> None:
    def fail() -> None:
        def broken(*_: object) -> None:
            raise RuntimeError(f"{dict(os.environ)} {SECRETS['HF_ENDPOINT']}")

        plan.make_plan = broken

    answer = tool.run(planted, Call(("plan",), prepare=fail))
    assert answer.code == 1
    assert "RuntimeError" in answer.stderr and "Traceback" in answer.stderr and "://[hidden]@hub" in answer.stderr
    assert leaks(planted) == []


HARMLESS = ["loss 0.5", "token: 128", "https://example.com:8080/a@b", "体育: 键盘", "user@host"]
HARMLESS += [
    "sk-learn-classification",
    "hf_transfer_is_not_installed",
    "a task-name-2026-that-is-long",
    "hf_PlantedShort",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_stays(text: str) -> None:
    assert redacted(text, {"HF_TOKEN": "x", "PATH": "loss", "TOKENIZERS_PARALLELISM": "0.5"}) == text


def test_a_log_without_secrets_is_not_touched_and_broken_utf8_survives(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_bytes(b"\xff\xfe loss\r\n")
    before = log.stat().st_mtime_ns
    clean(log, {"HF_TOKEN": "planted-secret"})
    assert log.stat().st_mtime_ns == before
    log.write_bytes(b"\xff planted-secret \xfe\r\n")
    clean(log, {"HF_TOKEN": "planted-secret"})
    assert log.read_bytes() == b"\xff " + HIDDEN.encode() + b" \xfe\r\n"


# ---- nothing elsewhere, nothing foreign


def test_a_chain_writes_in_project_and_cache_only_and_loads_no_pickle(tmp_path: Path) -> None:
    allowed = (str(tmp_path), os.devnull)

    def forbid(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[0], str) and arguments[2] & tool.WRITING
        if writes and not os.path.realpath(arguments[0]).startswith(allowed):
            raise PermissionError(f"writes {arguments[0]}")
        if event in ("pickle.find_class", "os.system"):
            raise PermissionError(event)

    stand_in.make(tmp_path)
    answer = tool.run(tmp_path, Call(prepare=lambda: sys.addaudithook(forbid)))
    assert answer.code == 0, answer.stderr


ALLOWED = {
    "editing.py: yaml.load(text)": "ruamel's, which is safe",
    "files.py: yaml.load(text, getattr(yaml, 'CSafeLoader'": "or SafeLoader",
    "tokenizer_class.py: exec(compile(_text(file), str(file), 'exec')": "of the installed transformers",
    "tokenizer_class.py: exec(f'from __future__": "the same",
    "slurm.py: pickle.loads(paths.result_pickle": "how submitit hands over results; our own job wrote it",
}


@pytest.mark.parametrize("part", ["logs", "train", "configs/train.yaml"])
def test_a_link_in_a_run_leads_no_stage_out_of_it(tmp_path: Path, part: str) -> None:
    stand_in.make(tmp_path)
    assert tool.run(tmp_path, Call()).code == 0
    inside = next((tmp_path / "project").glob(f"runs/*/{part}"))
    outside = inside.rename(tmp_path / "elsewhere")
    inside.symlink_to(outside)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in (outside, *outside.glob("*")))
    answer = tool.run(tmp_path, Call(("run", "-q", "--set", "evaluate.max_new_tokens=5")))
    assert (answer.code, f"leads out of it: {part}" in answer.stderr) == (2, True), answer.stderr
    assert sorted((path.name, path.stat().st_mtime_ns) for path in (outside, *outside.glob("*"))) == before


@pytest.mark.parametrize("path", ["../{}", "{}/../../secret", "train/../../secret", "link", "/{}"])
def test_a_record_gives_away_nothing_outside_its_run(tmp_path: Path, path: str) -> None:
    run = store.create(tmp_path, "news")
    secret = tmp_path / "secret"
    secret.write_text("mine")
    (run.folder / "link").symlink_to(secret)
    named = path.format(str(secret) if path.startswith("/") else "secret" if path.startswith("..") else "train")
    run.set(stages={"train": {"status": "completed", "fingerprint": "a", "outputs": [{"path": named, "bytes": 4}]}})
    assert not run.has("train", "a")
    assert reuse.holder(tmp_path, "train", "a") is None


def test_nothing_that_runs_code_or_a_shell_is_called() -> None:
    calls = {"eval", "exec", "os.system", "pickle.load", "pickle.loads", "torch.load", "yaml.load", "yaml.unsafe_load"}
    found = []
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in calls:
                found.append(f"{file.name}: {ast.unparse(node)[:60]}")
            if isinstance(node, ast.keyword) and node.arg == "shell":
                found.append(f"{file.name}: shell=")
    assert {line for line in found if not line.startswith(tuple(ALLOWED))} == set()
    assert {allowed for allowed in ALLOWED if not any(line.startswith(allowed) for line in found)} == set()


def test_code_of_a_model_is_refused_unless_asked_for_and_then_named(tmp_path: Path) -> None:
    from orchestrator.report.console import plan_lines

    stand_in.make(tmp_path)
    assert not any("trust_remote_code" in line for line in plan_lines(plan_of(tmp_path)))
    spec = tmp_path / "project/spec.yaml"
    spec.write_text(spec.read_text().replace("template: smollm2}", "template: smollm2, trust_remote_code: true}"))
    assert any(line.startswith("! model.trust_remote_code is on") for line in plan_lines(plan_of(tmp_path)))


HOSTILE = {
    "attribute": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "import": "{% import 'os' as os %}{{ os.system('touch hacked') }}",
    "globals": "{{ cycler.__init__.__globals__.os.popen('id') }}",
    "outside": "{% include '../../../etc/passwd' %}",
    "format": "{{ '{0.__class__.__base__}'.format(1) }}{{ ''.format.__globals__ }}",
    "a long text": "{{ 'x' * 10000000000 }}",
    "a list of lists": "{{ ([0] * 1000000000) | length }}",
    "a power": "{{ 9 ** 999999999 }}",
    "a range": "{% for a in range(10000000000) %}{{ a }}{% endfor %}",
    "endless output": "{% for a in range(9999) %}{% for b in range(9999) %}{{ 'xxxxxxxx' }}{% endfor %}{% endfor %}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_template_is_an_error(tmp_path: Path, text: str) -> None:
    write_tree(tmp_path, {"templates/evil.j2": text})
    with pytest.raises(InputError, match="template "):
        Renderer(tmp_path)("evil.j2")


def test_harmless_arithmetic_of_a_template_is_left_alone(tmp_path: Path) -> None:
    write_tree(tmp_path, {"templates/good.j2": "{{ 6 * 7 }}{{ 2 ** 10 }}{{ '-' * 3 }}{{ 1.5 * 2 }}"})
    assert Renderer(tmp_path)("good.j2") == "421024---3.0"
