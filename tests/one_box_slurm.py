"""A whole Slurm on this machine: controller, node daemon and munge, in a folder of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
CONFIG = """\
ClusterName=onebox
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MailProg=/bin/true
KillWait=10
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
"""A job that is queued again has to wait until its credential is worthless, hence `cred_expire`: two minutes else."""


def missing() -> str:
    """Why it cannot be started here, or ''."""
    if os.geteuid() != 0:
        return "a Slurm of one's own is started by root"
    programs = [name for name in PROGRAMS if not find(name)]
    return f"not installed: {', '.join(programs)} (apt-get install slurm-wlm munge)" if programs else ""


def find(name: str) -> str | None:
    """A program's path; Debian keeps the daemons where not everybody looks."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Path]:
    """The configuration of a Slurm that is up; it ends with the block. Raises RuntimeError where it does not start."""
    host, port = os.uname().nodename.partition(".")[0], free_port()
    config = folder / "slurm.conf"
    for name in ("state", "spool"):
        (folder / name).mkdir()
    values = {"host": host, "folder": folder, "port": port, "node_port": free_port(), "cores": os.cpu_count()}
    config.write_text(CONFIG.format(**values))
    environment = {**os.environ, "SLURM_CONF": str(config)}
    started_munge = start_munge(folder)
    try:
        for daemon in ("slurmctld", "slurmd"):
            subprocess.run([str(find(daemon)), "-f", str(config)], env=environment, check=True, timeout=60)
        wait_until_idle(environment, folder)
        yield config
    finally:
        for daemon in ("slurmd", "slurmctld"):
            end(folder / f"{daemon}.pid")
        if started_munge:
            end(Path("/run/munge/munged.pid"))


def start_munge(folder: Path) -> bool:
    """Start the authentication service, unless it runs; whether it was started."""
    if any(process.name() == "munged" for process in psutil.process_iter()):
        return False
    Path("/run/munge").mkdir(exist_ok=True)
    shutil.chown("/run/munge", "munge", "munge")
    subprocess.run(["runuser", "-u", "munge", "--", str(find("munged"))], check=True, timeout=60)
    return True


def wait_until_idle(environment: dict[str, str], folder: Path, seconds: float = 90) -> None:
    """Wait until the node takes jobs."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        asked = subprocess.run(
            [str(find("sinfo")), "-h", "-o", "%T"], env=environment, capture_output=True, text=True, timeout=60
        )
        if "idle" in asked.stdout:
            return
        time.sleep(0.5)
    raise RuntimeError(f"Slurm does not come up:\n{(folder / 'slurmctld.log').read_text()[-2000:]}")


def end(pid_file: Path) -> None:
    """End a daemon by its pid file."""
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        process = psutil.Process(int(pid_file.read_text()))
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def free_port() -> int:
    """A port that nobody listens on."""
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
