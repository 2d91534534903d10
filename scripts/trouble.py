"""What set-up says: how far its programs have come, and in one line what went wrong. Pure; any Python from 3.8 on."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

AGAIN = "Then the same command goes on where it stopped."
CAUSES = {
    "full": r"no space left|os error 28|errno 28|disk quota",
    "hash": r"hash mismatch|do not match the hashes",
    "certificate": r"certificate|tls handshake|unknownissuer",
    "denied": r"read-only file system|permission denied|(?:os error|errno) (?:13|30)\b",
    "ensurepip": r"ensurepip is not available|no module named ensurepip",
    "offline": r"dns error|name resolution|error sending request|connection (?:refused|reset|error|broken)|timed? ?out"
    r"|network is unreachable|no route to host|newconnectionerror|proxyerror|tunnel error|max retries",
    "absent": r"could not find a version|no matching distribution|not found in the package registry|no solution found",
    "compile": r"^cmake error|:\d+: (?:fatal )?error: |ninja: build stopped",
}
"""What uv, pip, CMake and the system say → what it is; the first that is found counts."""
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy")
TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}
"""pip's options → uv's variables."""


class Problem(Exception):
    """Something is in the way: one line that says what, one with the next thing to try."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def full(folder: Path) -> str:
    """That there is no room in a folder."""
    free = shutil.disk_usage(str(folder)).free / 2**30
    return f"the disk is too full: {free:.1f} GiB are free at {folder}, a first set-up takes about 10"


def explained(log: str, folder: Path) -> tuple[str, str]:
    """Message and hint for a program that failed, from its output; the hint is '' where only the log can help."""
    cause = next((cause for cause, signs in CAUSES.items() if re.search(signs, log, re.IGNORECASE | re.MULTILINE)), "")
    line = reason(log, CAUSES.get(cause, "error"))
    answers = {
        "full": (full(named(line, folder)), f"Make room. {AGAIN}"),
        "hash": (f"a package is not what the lock says: {line}", "Check the index or mirror that pip and uv ask."),
        "certificate": (f"the package index is not trusted: {line}", "Try: export SSL_CERT_FILE=/your/ca.pem"),
        "denied": (f"a folder cannot be written: {line}", "Take one of your own, and XDG_CACHE_HOME=… for caches."),
        "ensurepip": ("this Python has no ensurepip, and so makes no .venv", "Install it: apt install python3-venv"),
        "offline": (f"{index(log)} does not answer{through()}: {line}", f"Fix the network or its proxy. {AGAIN}"),
        "absent": (f"the package index lacks a package{through()}: {line}", "Ask another: a mirror may lag behind."),
        "compile": (f"llama.cpp does not compile: {line}", ""),
    }
    return answers.get(cause, (line, ""))


def reason(log: str, signs: str) -> str:
    """The most telling line of a log: the last that holds one of the signs, else the last of all."""
    lines = [line for line in log.splitlines() if line.strip()] or ["no reason given"]
    telling = [line for line in lines if re.search(signs, line, re.IGNORECASE)] or lines
    said = re.sub(r"^[\s×╰─▶├│]*(?:(?:error|cause|warning): )*", "", telling[-1], flags=re.IGNORECASE)
    return without_secrets(said.strip())[:300]


def named(line: str, otherwise: Path) -> Path:
    """The folder that a line speaks of, or the nearest above it that is there."""
    found = re.search(r"[`'\s](/[^`'\n:]+)", line)
    path = Path(found[1]) if found else otherwise
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def index(log: str) -> str:
    """The server that a program last spoke of asking."""
    asked = re.findall(r"(?:fetch|download|url)[^\n]*?https?://(?:[^/\s@]*@)?([\w.:-]+)", log)
    return f"the package index {asked[-1]}" if asked else "the package index"


def without_secrets(text: str) -> str:
    """Text whose addresses name no user and no password."""
    return re.sub(r"(://)[^/\s@]*@", r"\1", text)


def through() -> str:
    """` through the proxy HOST:PORT of HTTPS_PROXY`, or ''."""
    for variable in PROXIES:
        if value := os.environ.get(variable):
            parts = urlsplit(value if "://" in value else f"//{value}")
            return f" through the proxy {parts.hostname}:{parts.port or 80} of {variable}"
    return ""


def progress(name: str, log: str) -> str:
    """How far a program has come, from its output: packages of uv, steps of a compile."""
    if steps := re.findall(r"^\s*\[(\d+)/(\d+)\] ", log, re.MULTILINE):
        return f"{name}: {steps[-1][0]} of {steps[-1][1]} steps compiled"
    if installed := re.search(r"^Installed (\d+) packages", log, re.MULTILINE):
        return f"{name}: {installed[1]} installed"
    if resolved := re.search(r"^Resolved (\d+) packages", log, re.MULTILINE):
        here = len(re.findall(r"^\s*Downloaded ", log, re.MULTILINE))
        large = len(re.findall(r"^\s*Downloading ", log, re.MULTILINE))
        return f"{name}: {here} of the {large} large ones among {resolved[1]} downloaded"
    return f"{name}: under way"


def indexes(config: str) -> dict[str, str]:
    """uv's variables for what `pip config list` says of where packages come from."""
    found: dict[str, str] = {}
    for option, value in re.findall(r"^[\w:]+\.([\w-]+)='(.*)'$", config, re.MULTILINE):
        if variable := TO_UV.get(option):
            found[variable] = (" " if variable == "UV_INDEX" else ",").join(value.replace("\\n", " ").split())
    return found
