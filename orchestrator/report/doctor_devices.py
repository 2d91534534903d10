"""What `doctor` looks at: GPUs and their driver, Ollama, and the hubs that models come from."""

from __future__ import annotations

import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from importlib import util
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.lib import process
from orchestrator.lib.errors import InputError, OrchestratorError
from orchestrator.lib.secrecy import redacted
from orchestrator.machine import environment
from orchestrator.report.doctor_packages import Check, Patient, State

BF16_SINCE = (8, 0)
"""CUDA compute capability from which bfloat16 is computed in hardware (Ampere)."""


def gpus() -> Iterator[Check]:
    """One check for each GPU, or one note that there is none."""
    found = environment.gpus()
    capabilities = environment.capabilities()
    for number, gpu in enumerate(found):
        capability = capabilities[number] if number < len(capabilities) else None
        able = capability is not None and capability >= BF16_SINCE
        bf16 = "bf16 (set train.bf16: true)" if able else "no bf16 (set train.fp16: true)"
        size = f"{gpu['memory_mib'] / 1024:.0f} GiB" if gpu["memory_mib"] else "shares the main memory"
        yield Check(f"GPU {number}", "ok", f"{gpu['name']}, {size}, driver {gpu['driver']}, {bf16}")
    if not found:
        why = "nvidia-smi answers nothing" if shutil.which("nvidia-smi") else "no NVIDIA driver"
        yield Check("GPU", "note", f"none ({why}); the CPU trains small models")


def memory() -> int:
    """Bytes of the largest GPU here, main memory where it has none of its own; 0 without one."""
    import psutil

    shared = psutil.virtual_memory().total
    return max((gpu["memory_mib"] * 2**20 or shared for gpu in environment.gpus()), default=0)


def torch() -> Check:
    """Whether torch was built for the GPUs that are here, or fits a machine without one."""
    version, built_for = torch_build()
    if version is None:
        return Check("torch", "missing", "not installed", environment.install_again())
    able = driver_cuda()
    has_gpu = bool(environment.gpus())
    detail = f"{version}, {'built for CUDA ' + built_for if built_for else 'built for the CPU'}"
    if not has_gpu:
        return Check("torch", "ok", detail)
    if built_for is None:
        return Check("torch", "missing", f"{detail}: it cannot use the GPU", environment.install_again("auto"))
    if able and int(built_for.split(".")[0]) > int(able.split(".")[0]):  # CUDA runs across minor versions
        fix = f"update the NVIDIA driver, or: {environment.install_again('auto')}"
        return Check("torch", "missing", f"{detail}: the driver stops at CUDA {able}", fix)
    return Check("torch", "ok", f"{detail}, driver up to CUDA {able or 'unknown'}")


def torch_build() -> tuple[str | None, str | None]:
    """torch's version and the CUDA it was built for, as its version.py says."""
    found = util.find_spec("torch")
    file = Path(found.origin).with_name("version.py") if found and found.origin else None
    text = file.read_text(encoding="utf-8") if file and file.is_file() else ""
    cuda = re.search(r"^cuda\b[^=]*= *'([\d.]+)'", text, re.MULTILINE)
    return environment.version("torch"), cuda[1] if cuda else None


def driver_cuda() -> str | None:
    """The newest CUDA that the NVIDIA driver runs, from the head of nvidia-smi's table."""
    try:
        table = process.output(["nvidia-smi"], timeout=10)
    except (OSError, process.Failed):
        return None
    found = re.search(r"CUDA(?: UMD)? Version:\s*([\d.]+)", table)
    return found[1] if found else None


HUBS = {
    "hf": ("HF_ENDPOINT", "https://huggingface.co"),
    "modelscope": ("MODELSCOPE_DOMAIN", "https://www.modelscope.cn"),
}
"""Source → the variable that names a mirror, and where it is without one."""
GET_OLLAMA = "see https://ollama.com/download"
ASK_SECONDS = 5.0


def ollama() -> Check:
    """Ollama's server, else its program; needed only to serve there."""
    try:
        from orchestrator.serving.http import Endpoint
        from orchestrator.serving.ollama_server import KEY, address, version

        url = address()
        server = Endpoint(url, "ollama", "", os.environ.get(KEY), ASK_SECONDS)
        return Check("Ollama", "ok", f"{version(server)} answers at {url}")
    except InputError as error:
        return Check("Ollama", "note", redacted(error.message), error.hint)
    except (OrchestratorError, ImportError) as error:  # an installation may be broken
        problem, fix = redacted(str(error)), getattr(error, "hint", environment.install_again())
    if shutil.which("ollama") is None:
        return Check("Ollama", "note", f"needed only to serve with it; {problem}", GET_OLLAMA)
    try:
        told = re.search(r"[\d.]{5,}", process.output(["ollama", "--version"], timeout=ASK_SECONDS))
    except (OSError, process.Failed):
        told = None
    return Check("Ollama", "note", f"{told[0] if told else 'the program'} is installed; {problem}", fix)


def hubs(patient: Patient) -> Iterator[Check]:
    """Whether the hubs, or their mirrors, can be reached; needed is the one that the base model comes from."""
    source = patient.spec.model.base.partition(":")[0]
    for name, (variable, default) in HUBS.items():
        url = os.environ.get(variable) or default
        yield _reach(f"{name} hub", url if "://" in url else f"https://{url}", patient.online, needed=source == name)


def _reach(name: str, url: str, online: bool, needed: bool) -> Check:
    """Whether a server answers a HEAD request; any answer will do, since a hub may well refuse its front page."""
    fix = "export HF_ENDPOINT=https://MIRROR" if name.startswith("hf") else "check the network and its proxy"
    state: State = "missing" if needed else "note"
    try:
        host = urlsplit(url).hostname or redacted(url)  # the rest may hold a password
        if not online:
            return Check(name, "note", f"{host}: not asked (--online asks)")
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=ASK_SECONDS).close()  # nosec B310
    except urllib.error.HTTPError:
        pass
    except (OSError, HTTPException) as error:
        return Check(name, state, f"{host} does not answer: {getattr(error, 'reason', error)}", fix)
    except ValueError as error:
        return Check(name, state, f"{redacted(url)!r} is no address: {error}", fix)
    return Check(name, "ok", f"{host} answers")
