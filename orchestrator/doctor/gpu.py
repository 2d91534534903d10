"""GPUs, their driver, and whether torch was built for them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from importlib import util
from pathlib import Path

from orchestrator import environment, process
from orchestrator.doctor.check import Check
from orchestrator.doctor.software import version

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
        size = f"{gpu['memory_mib'] / 1024:.0f} GiB"
        yield Check(f"GPU {number}", "ok", f"{gpu['name']}, {size}, driver {gpu['driver']}, {bf16}")
    if not found:
        why = "nvidia-smi answers nothing" if shutil.which("nvidia-smi") else "no NVIDIA driver"
        yield Check("GPU", "note", f"none ({why}); the CPU trains small models")


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
        mend = f"update the NVIDIA driver, or: {environment.install_again('auto')}"
        return Check("torch", "missing", f"{detail}: the driver stops at CUDA {able}", mend)
    return Check("torch", "ok", f"{detail}, driver up to CUDA {able or 'unknown'}")


def torch_build() -> tuple[str | None, str | None]:
    """torch's version and the CUDA it was built for, as its version.py says."""
    found = util.find_spec("torch")
    file = Path(found.origin).with_name("version.py") if found and found.origin else None
    text = file.read_text(encoding="utf-8") if file and file.is_file() else ""
    cuda = re.search(r"^cuda\b[^=]*= *'([\d.]+)'", text, re.MULTILINE)
    return version("torch"), cuda[1] if cuda else None


def driver_cuda() -> str | None:
    """The newest CUDA that the NVIDIA driver runs, from the head of nvidia-smi's table."""
    try:
        table = process.output(["nvidia-smi"], timeout=10)
    except (OSError, process.Failed):
        return None
    found = re.search(r"CUDA(?: UMD)? Version:\s*([\d.]+)", table)
    return found[1] if found else None
