"""What a failed stage is told to be, from its exit code and the end of its log."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.lib import process
from orchestrator.lib.errors import GateError, MissingError, OrchestratorError, StageError
from orchestrator.lib.step import Step
from orchestrator.machine import environment
from orchestrator.pipeline.failure import explain, out_of_memory, tail

STEP = Step("train", "train", ("llamafactory-cli",))
NO_MEMORY = {
    "Python": "MemoryError",
    "numpy": "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 74.5 GiB for an array",
    "torch": "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12 (Cannot allocate memory)",  # noqa: E501
    "CUDA": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
    "C++": "terminate called after throwing an instance of 'std::bad_alloc'",
    "Rust": "memory allocation of 4096 bytes failed",
    "llama.cpp": "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 99",
}
"""As each of them says it."""


def told(log: Path, text: str, code: int, step: Step = STEP) -> OrchestratorError:
    log.write_text(text, encoding="utf-8")
    return explain(step, log, code)


@pytest.mark.parametrize("line", NO_MEMORY.values(), ids=NO_MEMORY)
def test_out_of_memory_is_recognised_and_says_what_to_lower(tmp_path: Path, line: str) -> None:
    error = told(tmp_path / "log", f"Traceback …\n{line}\n", 1)
    assert isinstance(error, StageError)
    assert error.hint.startswith("It ran out of memory: lower train.per_device_train_batch_size")


@pytest.mark.parametrize(
    ("phase", "lower"), [("evaluate", "train.per_device_eval_batch_size"), ("quantise", "a smaller model.base")]
)
def test_what_to_lower_is_what_the_stage_takes(tmp_path: Path, phase: str, lower: str) -> None:
    assert lower in told(tmp_path / "log", "MemoryError\n", 1, replace(STEP, phase=phase)).hint


def test_a_killed_process_ran_out_of_memory_most_likely(tmp_path: Path) -> None:
    error = told(tmp_path / "log", "loading\n", -9)
    assert error.message == "train was killed by signal 9: loading" and "out of memory" in error.hint


def test_a_crash_of_llamacpp_says_how_to_compile_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = replace(STEP, stage="ask-q8_0", inputs={"llama-cpp-python": "0.3.36"})
    error = told(tmp_path / "log", "llama.cpp loads toy-q8_0.gguf\n", -11, step)
    assert error.message == "ask-q8_0 was killed by signal 11: llama.cpp loads toy-q8_0.gguf"
    assert error.hint.endswith("compiled for another CPU: CMAKE_ARGS=-DGGML_NATIVE=OFF make setup")
    assert "The whole log" in told(tmp_path / "log", "loading\n", -11).hint  # of no llama.cpp
    monkeypatch.setattr(environment, "CHECKOUT", Path("/nowhere"))
    hint = told(tmp_path / "log", "", -4, step).hint
    assert "CMAKE_ARGS=-DGGML_NATIVE=OFF pip install --force-reinstall --no-cache-dir 'llama-cpp-python" in hint


def test_other_failures_name_the_last_error_and_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    error = told(log, "ValueError: 第三行是空的\nexiting\n", 1)
    assert error.message == "train ended with exit code 1: ValueError: 第三行是空的"
    assert error.hint == f"The whole log: {log}"
    assert isinstance(told(log, "", 1, Step("ask-f16", "verify", (), judges=True)), GateError)


@pytest.mark.nightly
def test_torch_without_memory_says_so_as_we_expect(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "import resource, torch; resource.setrlimit(resource.RLIMIT_AS, (1 << 34,) * 2); torch.ones(1 << 34)"
    ended = process.wait(process.start(process.Command((sys.executable, "-c", code), tmp_path, log)))
    assert ended == 1 and out_of_memory(STEP.phase, tail(log), ended) != ""


UNFIT = {
    "torchaudio": "RuntimeError: Detected that PyTorch and TorchAudio were compiled with different CUDA versions. "
    "PyTorch has CUDA version 13.2 whereas TorchAudio has CUDA version 13.0.",
    "torchvision": "RuntimeError: operator torchvision::nms does not exist",
    "library": "ImportError: libcudart.so.13: cannot open shared object file: No such file or directory",
    "symbol": "OSError: /site-packages/torchaudio/lib/libtorchaudio.so: undefined symbol: _ZNK3c105Error4whatEv",
    "LLaMA-Factory": "ImportError: transformers>=4.55.0,<=5.6.0 is required for a normal functioning of this module, "
    "but found transformers==5.7.0.",
    "absent": "ModuleNotFoundError: No module named 'torchvision'",
}
"""As each of them says it: the first, the fifth and the last were run."""


@pytest.mark.parametrize("line", UNFIT.values(), ids=UNFIT)
def test_packages_that_do_not_fit_are_recognised_and_named_with_the_cure(tmp_path: Path, line: str) -> None:
    error = told(tmp_path / "log", f"Traceback …\n{line}\n", 1)
    assert isinstance(error, MissingError)
    assert error.message.startswith(f"train ended with exit code 1: {line[:60]}")
    assert error.hint == "The installed packages do not fit each other: make setup"


@pytest.mark.parametrize(
    "line",
    [
        "RuntimeError: the checkpoint does not exist",
        "ValueError: undefined symbol x",
        "ModuleNotFoundError: No module named 'mine'",
    ],
)
def test_other_errors_are_not_taken_for_that(tmp_path: Path, line: str) -> None:
    assert isinstance(told(tmp_path / "log", f"{line}\n", 1), StageError)


def test_without_a_checkout_the_cure_has_the_bounds_of_our_own_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "CHECKOUT", Path("/nowhere"))
    cure = environment.install_again()
    assert cure.startswith("pip install --force-reinstall 'torch")
    assert "<2.15" in cure and "'torchvision<0.30'" in cure and "'torchaudio<2.12'" in cure
