"""What the doctor says of machines that are not this one."""

from __future__ import annotations

import json
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.cli import cli
from orchestrator.lib import process
from orchestrator.lib.errors import MissingError
from orchestrator.machine import environment
from orchestrator.models import llamacpp
from orchestrator.report import doctor_devices, doctor_packages
from orchestrator.report.doctor import examine
from orchestrator.report.doctor_packages import Check, Patient
from orchestrator.spec import load
from orchestrator.spec.sections import Spec
from tests.conftest import Result
from tests.serving import POLL_SECONDS

H100 = {"name": "NVIDIA H100", "memory_mib": 81559, "driver": "580.95"}
BUILTIN = "builtin:smollm2-135m-instruct"


def patient(project: Path, base: str = BUILTIN, online: bool = False) -> Patient:
    spec = {"name": "test", "model": {"base": base}, "data": {"train": "train.json"}}
    return Patient(project, Spec.model_validate(spec), online)


def states(checks: Iterator[Check] | list[Check]) -> dict[str, str]:
    return {check.name: check.state for check in checks}


@pytest.mark.parametrize(
    ("gpus", "build", "driver", "state", "words"),
    [
        ([], "13.0", None, "ok", "built for CUDA 13.0"),
        ([], None, None, "ok", "built for the CPU"),
        ([H100], "13.0", "13.0", "ok", "driver up to CUDA 13.0"),
        ([H100], "12.8", "13.0", "ok", "driver up to CUDA 13.0"),
        ([H100], "12.8", "12.2", "ok", "driver up to CUDA 12.2"),
        ([H100], "13.0", "12.2", "missing", "the driver stops at CUDA 12.2"),
        ([H100], None, "12.2", "missing", "cannot use the GPU"),
    ],
)
def test_torch_must_fit_the_driver(
    gpus: list[Any], build: str | None, driver: str | None, state: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "gpus", lambda: gpus)
    monkeypatch.setattr(doctor_devices, "torch_build", lambda: ("2.14.1", build))
    monkeypatch.setattr(doctor_devices, "driver_cuda", lambda: driver)
    check = doctor_devices.torch()
    assert (check.state, words in check.detail, bool(check.fix)) == (state, True, state == "missing")


def test_the_installed_torch_is_read_without_being_imported() -> None:
    version, cuda = doctor_devices.torch_build()
    assert version == metadata.version("torch")
    code = "import torch; print(torch.version.cuda)"
    assert str(cuda) == process.output([sys.executable, "-c", code], timeout=120).strip()


@pytest.mark.parametrize(
    ("table", "cuda"),
    [
        ("| NVIDIA-SMI 535.183  Driver Version: 535.183  CUDA Version: 12.2     |", "12.2"),
        ("| NVIDIA-SMI 590.10 KMD Version: 590.10  CUDA UMD Version: 13.1 |", "13.1"),
        ("no devices were found", None),
    ],
)
def test_the_driver_tells_its_cuda(table: str, cuda: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "output", lambda argv, timeout=0: table)
    assert doctor_devices.driver_cuda() == cuda


def test_a_gpu_is_told_with_its_number_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "gpus", lambda: [H100, {**H100, "name": "Tesla T4", "memory_mib": 15360}])
    monkeypatch.setattr(environment, "capabilities", lambda: [(9, 0), (7, 5)])
    first, second = doctor_devices.gpus()
    assert first.detail == "NVIDIA H100, 80 GiB, driver 580.95, bf16 (set train.bf16: true)"
    assert second.detail == "Tesla T4, 15 GiB, driver 580.95, no bf16 (set train.fp16: true)"


def test_every_requirement_that_does_not_hold_has_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    required = {
        "llamafactory": ["trl<=0.24.0,>=0.18.0", "jieba", "torch; extra == 'x'"],
        "llamafactory-orchestrator": ["nltk>=3"],
    }
    installed = {"trl": "0.30.0", "nltk": "3.9"}

    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "requires", required.__getitem__)
    monkeypatch.setattr(metadata, "version", version)
    assert [(check.name, check.fix) for check in doctor_packages.packages()] == [
        ("trl", "pip install 'trl<=0.24.0,>=0.18.0'"),
        ("jieba", "pip install 'jieba'"),
    ]


def test_a_torch_beyond_the_bounds_is_replaced_with_what_fits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "2.15.0" if name == "torch" else real(name))
    (check, *_) = doctor_packages.packages()
    assert (check.name, check.state, check.fix) == ("torch", "missing", "make setup")
    assert check.detail.startswith("2.15.0 does not fit; torch<2.15")


def test_this_installation_fits_and_has_its_program() -> None:
    assert states(doctor_packages.packages()) == {"packages": "ok"}
    assert doctor_packages.command().state == "ok"


def test_converter_and_runtime_of_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llamacpp, "checkout", lambda chosen: None)
    assert doctor_packages.converter(None).fix == "orchestrator model fetch"
    monkeypatch.setattr(llamacpp, "checkout", lambda chosen: tmp_path)
    assert doctor_packages.converter(None).state == "note"
    monkeypatch.setattr(llamacpp, "version", lambda folder: llamacpp.ARCHIVE.requirement)
    assert doctor_packages.converter(None).state == "ok"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, str], str]]:
    """A local server that gives one answer to everything; calling the fixture sets it and returns the address."""
    answer = {"status": 200, "body": ""}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(answer["status"]))
            self.end_headers()
            self.wfile.write(str(answer["body"]).encode())

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def set_answer(status: int, body: str) -> str:
        answer.update(status=status, body=body)
        return f"http://127.0.0.1:{http.server_port}"

    yield set_answer
    http.shutdown()
    http.server_close()


def test_a_running_ollama_tells_its_version(server: Callable[[int, str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", server(200, '{"version":"0.13.1"}'))
    check = doctor_devices.ollama()
    assert (check.state, check.detail.partition(" ")[0]) == ("ok", "0.13.1")


def test_no_ollama_is_only_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:9")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor_devices.ollama().state == "note"


@pytest.mark.parametrize("given", ["http://[::1:11434", "127.0.0.1:80OO", "http://user:secret@[x"])
def test_an_address_of_ollama_that_is_none_is_a_note(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", given)
    check = doctor_devices.ollama()
    assert (check.state, "is no address of an Ollama" in check.detail) == ("note", True)
    assert "secret" not in check.detail


@pytest.fixture
def ssh() -> Iterator[str]:
    """The address of what speaks another protocol, as the port of an SSH server does."""

    class Banner(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Banner) as server:
        threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_another_protocol_is_no_ollama_and_no_hub(ssh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", ssh)
    monkeypatch.setenv("HF_ENDPOINT", ssh)
    monkeypatch.setenv("MODELSCOPE_DOMAIN", "http://[::1")
    check = doctor_devices.ollama()
    assert (check.state, f"no Ollama at {ssh}" in check.detail) == ("note", True)
    hubs = list(doctor_devices.hubs(patient(tmp_path, "hf:org/name", online=True)))
    assert states(hubs) == {"hf hub": "missing", "modelscope hub": "note"}
    assert [word in check.detail for word, check in zip(("does not answer", "no address"), hubs, strict=True)] == [
        True, True,
    ]  # fmt: skip


def test_doctor_tells_of_ollama_without_httpx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    assert "httpx" in doctor_devices.ollama().detail


@pytest.mark.parametrize(
    ("base", "online", "status", "state"),
    [
        (BUILTIN, False, 200, "note"),
        ("hf:org/name", True, 200, "ok"),
        ("hf:org/name", True, 404, "ok"),
        ("hf:org/name", True, None, "missing"),
        (BUILTIN, True, None, "note"),
    ],
)
def test_a_mirror_is_asked_only_online_and_needed_only_by_its_models(
    base: str,
    online: bool,
    status: int | None,
    state: str,
    server: Callable[[int, str], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    url = "http://127.0.0.1:9" if status is None else server(status, "")
    monkeypatch.setenv("HF_ENDPOINT", url.replace("http://", "http://user:secret@") if not online else url)
    monkeypatch.setenv("MODELSCOPE_DOMAIN", url)
    checks = list(doctor_devices.hubs(patient(tmp_path, base, online)))
    assert states(checks)["hf hub"] == state
    assert "secret" not in str(checks)


def test_an_empty_cache_lacks_model_and_converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path))
    checks = examine(patient(tmp_path))
    missing = {check.name: check.fix for check in checks if check.state == "missing"}
    assert missing == {
        "converter": "orchestrator model fetch",
        "base model": f"orchestrator model fetch {BUILTIN}",
    }


def test_what_is_missing_makes_exit_code_3_and_one_json_document(
    orchestrator: Callable[..., Result], tmp_path: Path
) -> None:
    done = orchestrator("doctor", "--json", env={"ORCHESTRATOR_CACHE": str(tmp_path / "empty")})
    answer = json.loads(done.stdout)
    assert (done.code, answer["ok"]) == (3, False)
    assert "converter" in done.stderr
    assert {"name", "state", "detail", "fix"} == set(answer["checks"][0])


def test_without_llamafactory_a_spec_cannot_be_read_and_the_rest_is_still_told(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: Any) -> Any:
        raise MissingError("llamafactory is not installed")

    monkeypatch.chdir(project)
    monkeypatch.setattr(load, "load_project", absent)
    monkeypatch.setattr(environment, "version", lambda name: None)
    done = CliRunner().invoke(cli, ["doctor", "--json"])
    assert isinstance(done.exception, MissingError)
    answer = json.loads(done.stdout)
    fixes = {check["name"]: check["fix"] for check in answer["checks"]}
    assert fixes["llamafactory"].startswith("pip install 'llamafactory")


def test_a_good_machine_for_a_spec(orchestrator: Callable[..., Result], project: Path) -> None:
    done = orchestrator("doctor", cwd=project)
    assert done.code == 0, done.stderr
    assert "requirements fit each other" in done.stdout
