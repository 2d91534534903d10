"""Servers: Ollama on this machine, and the hubs that models come from."""

from __future__ import annotations

import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

from orchestrator import process
from orchestrator.doctor.check import Check, Patient

HUBS = {
    "hf": ("HF_ENDPOINT", "https://huggingface.co"),
    "modelscope": ("MODELSCOPE_DOMAIN", "https://www.modelscope.cn"),
}
"""Source → the variable that names a mirror, and where it is without one."""
GET_OLLAMA = "see https://ollama.com/download"
ASK_SECONDS = 5.0


def ollama() -> Check:
    """Ollama's server, else its program; needed only to serve there."""
    from orchestrator.ship.ollama import address

    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{address()}/api/version", timeout=ASK_SECONDS) as answer:
            return Check("Ollama", "ok", f"{_quoted(answer.read())} answers at {address()}")
    except (OSError, ValueError):
        pass
    if shutil.which("ollama") is None:
        return Check("Ollama", "note", f"none at {address()}; needed only to serve with it", GET_OLLAMA)
    try:
        told = re.search(r"[\d.]{5,}", process.output(["ollama", "--version"], timeout=ASK_SECONDS))
    except (OSError, process.Failed):
        told = None
    return Check("Ollama", "note", f"{told[0] if told else 'installed'}, not running", "ollama serve")


def _quoted(answer: bytes) -> str:
    found = re.search(rb'"version"\s*:\s*"([^"]{1,40})"', answer)
    return found[1].decode(errors="replace") if found else "a server of unknown version"


def hubs(patient: Patient) -> Iterator[Check]:
    """Whether the hubs, or their mirrors, can be reached; needed is the one that the base model comes from."""
    source = patient.spec.model.base.partition(":")[0]
    for name, (variable, default) in HUBS.items():
        url = os.environ.get(variable) or default
        yield _reach(f"{name} hub", url if "://" in url else f"https://{url}", patient.online, needed=source == name)


def _reach(name: str, url: str, online: bool, needed: bool) -> Check:
    """Whether a server answers a HEAD request; any answer will do, since a hub may well refuse its front page."""
    host = urlsplit(url).hostname or url  # the rest may hold a password
    if not online:
        return Check(name, "note", f"{host}: not asked (--online asks)")
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=ASK_SECONDS).close()  # nosec B310
    except urllib.error.HTTPError:
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        mend = "export HF_ENDPOINT=https://MIRROR" if name.startswith("hf") else "check the network and its proxy"
        return Check(name, "missing" if needed else "note", f"{host} does not answer: {reason}", mend)
    return Check(name, "ok", f"{host} answers")
