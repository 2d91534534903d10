"""What SECURITY.md promises: secrets stay secret, nothing is written elsewhere, nothing foreign is executed."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator.errors import InputError
from orchestrator.render import Renderer
from orchestrator.secrecy import HIDDEN, clean, redacted
from orchestrator.workflow import Request, plan
from tests.conftest import write_tree
from tests.faults import stand_in, tool
from tests.faults.tool import Call

SOURCES = sorted(Path(orchestrator.__file__).parent.rglob("*.py"))

SECRETS = {
    "HF_TOKEN": "hf_PlantedPlantedPlanted01",
    "HUGGING_FACE_HUB_TOKEN": "hf_PlantedPlantedPlanted02",
    "MODELSCOPE_API_TOKEN": "planted-03-modelscope",
    "OPENAI_API_KEY": "sk-planted0000000000000004",
    "ANTHROPIC_API_KEY": "planted-05-anthropic",
    "AWS_SECRET_ACCESS_KEY": "planted/06+aws/secret",
    "AWS_ACCESS_KEY_ID": "AKIAPLANTED000000007",
    "AZURE_CLIENT_SECRET": "planted-08-azure",
    "GITHUB_TOKEN": "ghp_PlantedPlantedPlanted09",
    "GITLAB_TOKEN": "glpat-PlantedPlanted10",
    "WANDB_API_KEY": "planted11wandb",
    "MLFLOW_TRACKING_PASSWORD": "planted-12-密码",
    "DATABASE_PASSWD": "planted-13-database",
    "GOOGLE_CREDENTIALS": "planted-14-google",
    "SSH_PRIVATE_KEY": "planted-15-ssh",
    "OLLAMA_AUTH_KEY": "planted-16-ollama",
    "MY_PAT": "planted-17-personal",
    "HF_ENDPOINT": "https://user:planted-18-mirror@hub.example.com",
    "PIP_INDEX_URL": "https://me:planted-19-index@pypi.example.com/simple",
    "HTTPS_PROXY": "http://proxy:planted-20-proxy@proxy.example.com:3128",
}
PLANTED = [value.rpartition("@")[0].rpartition(":")[2] if "://" in value else value for value in SECRETS.values()]


def leaks(folder: Path) -> list[str]:
    """Each planted secret that stands in a file below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [f"{path}: {secret}" for path in files for secret in PLANTED if secret.encode() in path.read_bytes()]


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
    assert [secret for secret in PLANTED if secret in said] == []


def plan_of(folder: Path) -> Any:
    os.environ.update(stand_in.environment(folder))
    try:
        return plan(Request(folder / "project/spec.yaml"))
    finally:
        for name in stand_in.environment(folder):
            del os.environ[name]


@pytest.mark.parametrize("text", ["loss 0.5", "token: 128", "https://example.com:8080/a@b", "体育: 键盘", "user@host"])
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


def test_nothing_that_runs_code_or_a_shell_is_called() -> None:
    calls = {"eval", "exec", "os.system", "pickle.load", "pickle.loads", "torch.load", "yaml.load", "yaml.unsafe_load"}
    found = []
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in calls:
                found.append(f"{file.name}: {ast.unparse(node)[:60]}")
            if isinstance(node, ast.keyword) and node.arg == "shell":
                found.append(f"{file.name}: shell=")
    assert [
        line for line in found if not line.startswith("editing.py: yaml.load(text)")
    ] == []  # ruamel's, which is safe


def test_code_of_a_model_is_refused_unless_asked_for_and_then_named(tmp_path: Path) -> None:
    from orchestrator.outcome import plan_lines

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
