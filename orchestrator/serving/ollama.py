"""To Ollama: upload, create, and prove what came of it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError, MissingError, OrchestratorError, StageError
from orchestrator.lib.fetch import Progress
from orchestrator.lib.files import read_json, sha256
from orchestrator.lib.training_kinds import TRAINING_KINDS
from orchestrator.runs import store
from orchestrator.runs.locks import locked
from orchestrator.runs.store import Run
from orchestrator.serving import artifacts, bundle
from orchestrator.serving.http import Endpoint, http_client, is_here, is_page, no_engine
from orchestrator.serving.served import UNASKED, Served, check, require_gate, summary

if TYPE_CHECKING:
    import httpx
    from ollama import Client

PORT = 11434
CHUNK = 1 << 20
NAME = re.compile(r"((\w[\w.:-]*/)?\w[\w-]{0,79}/)?\w[\w.-]{0,79}(:\w[\w.-]{0,79})?", re.ASCII)
"""[[host/]namespace/]model[:tag], as types/model/name.go in github.com/ollama/ollama reads it."""


@dataclass(frozen=True, slots=True)
class Ollama:
    """A running server."""

    url: str
    client: Client
    version: str
    key: str | None = None

    def endpoint(self, model: str) -> Endpoint:
        """One of its models, to ask."""
        return Endpoint(self.url, "ollama", model, self.key)


def address(host: str | None = None) -> str:
    """Ollama's URL: the one given, else OLLAMA_HOST, else the default port of this machine.

    Raises InputError for what is none.
    """
    text = host or os.environ.get("OLLAMA_HOST") or "127.0.0.1"
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port or (443 if parts.scheme == "https" else PORT)
    except ValueError as error:
        raise InputError(
            f"{text!r} is no address of an Ollama: {error}", "Write it like 127.0.0.1:11434 or https://example.org."
        ) from None
    name = "127.0.0.1" if parts.hostname in (None, "0.0.0.0", "::") else parts.hostname
    bracketed = f"[{name}]" if ":" in str(name) else name
    return f"{parts.scheme}://{bracketed}:{port}{parts.path.rstrip('/')}"


def connect(host: str | None = None) -> Ollama:
    """A running Ollama. Raises MissingError when there is none, or something else in its place."""
    url, key = address(host), os.environ.get("OLLAMA_API_KEY")
    address()  # the client reads OLLAMA_HOST as well, as soon as it is imported
    from ollama import Client

    version = _version(Endpoint(url, "ollama", "", key, timeout=30.0))
    return Ollama(url, Client(url, trust_env=not is_here(url)), version, key)


def ship(run: Run, kind: str, name: str, server: Ollama, progress: Progress) -> dict[str, Any]:
    """Push, ask the held-out rows, record; returns what to tell. Raises GateError for answers not as measured."""
    require_name(name)
    with locked(run.folder):
        replaced = make_room(run, name, server)
        digest = push(run, kind, name, server, progress)
        asks = not TRAINING_KINDS[read_json(run.folder / "configs/prepare.json")["kind"]].reads
        served = ask(run, kind, name, server) if asks else UNASKED
        remember(run, kind, name, digest, served, server.version)
    if served is not UNASKED:
        require_gate(served, name, read_json(run.folder / "configs/judge.json")["gate"]["min_agreement"])
    done = summary(served) if asks else "the rows of this run ask nothing: its perplexity was measured before"
    lines = [replaced, done, f"ollama run {name}"]
    return {**served.to_json(), "name": name, "digest": digest, "done": "\n".join(filter(None, lines))}


def is_current(run: Run, kind: str, name: str) -> bool:
    """Whether this very file was made the model `name` before, and answered as measured."""
    entry = run.record["lineage"].get("ollama", {}).get(name, {})
    gate = read_json(run.folder / "configs/judge.json")["gate"]["min_agreement"]
    return bool(entry) and entry["sha256"] == sha256(artifacts.ggufs(run)[kind]) and entry["agreement"] >= gate


def require_name(name: str) -> None:
    """Raise InputError for what Ollama takes for no model's name, before gigabytes are sent."""
    if not NAME.fullmatch(name):
        raise InputError(
            f"Ollama takes no model name like {name!r}",
            "Letters, digits, '-', '_' and '.': news, news:v2 or me/news.",
        )


def make_room(run: Run, name: str, server: Ollama) -> str:
    """Keep a model of that name that no run here made, under a name of its own; returns what to tell of either.

    Ollama replaces a model of the same name, in whatever case, without asking; a copy costs it no room.
    """
    digest = _models(server).get(_full(name))
    if digest is None:
        return ""
    maker = next((one.id for one in store.every(run.folder.parent) if digest in _pushed(one)), None)
    if maker:
        return f"replaced the {name} that run {maker} had made"
    kept = f"{_full(name).rpartition(':')[0]}:kept-{digest[:12]}"
    with _own_words(name):
        server.client.copy(name, kept)
    return f"Ollama had another {name}, which no run here made: it is now {kept}; `ollama rm {kept}` removes it"


def push(run: Run, kind: str, name: str, server: Ollama, progress: Progress) -> str:
    """Make the model `name` in Ollama from a GGUF; returns its digest. Raises StageError with Ollama's own words."""
    wanted = bundle.read(run.folder / f"{layout.MODELFILE}.{kind}")
    files = bundle.files(run, kind)[1:]
    digests = {path.name: upload(path, server, progress) for path in files}
    adapters = {Path(wanted.adapter).name} if wanted.adapter else set()
    with _own_words(name):
        for _ in server.client.create(
            model=name,
            files={path: digest for path, digest in digests.items() if path not in adapters},
            adapters={path: digest for path, digest in digests.items() if path in adapters} or None,
            template=wanted.template,
            system=wanted.system,
            parameters=wanted.parameters,
            stream=True,
        ):
            pass
        return _models(server).get(_full(name), "")


def upload(path: Path, server: Ollama, progress: Progress) -> str:
    """Send a file unless Ollama has it already; returns its digest. The `ollama` client does this without progress."""
    import httpx

    digest, size = f"sha256:{sha256(path)}", path.stat().st_size
    blob = f"{server.url}/api/blobs/{digest}"
    try:
        with http_client(server.endpoint(""), timeout=None) as client:  # gigabytes
            if client.head(blob).status_code == 200:
                return digest
            headers = {"Content-Length": str(size)}
            response = client.post(blob, content=_chunks(path, size, progress), headers=headers)
    except httpx.TransportError as error:
        raise StageError(
            f"Ollama broke off while {path.name} was sent: {str(error) or type(error).__name__}",
            "Is it still running, and has its disk room? The same command sends the file again.",
        ) from None
    if response.status_code not in (200, 201):
        raise _refused(path, response)
    return digest


def ask(run: Run, kind: str, name: str, server: Ollama) -> Served:
    """Ask the held-out rows of a model that was pushed, and compare with the run."""
    with _own_words(name):
        shown = server.client.show(name)
    return check(run, kind, server.endpoint(name), shown)


def remember(run: Run, kind: str, name: str, digest: str, served: Served, version: str) -> None:
    """Record what was made of which file in the run's lineage."""
    entry = {
        "digest": digest,
        "gguf": kind,
        "sha256": sha256(artifacts.ggufs(run)[kind]),
        "agreement": served.agreement,
        "template": served.template,
        "version": version,
    }
    lineage = run.record["lineage"]
    run.set(lineage={**lineage, "ollama": {**lineage.get("ollama", {}), name: entry}})


def _version(server: Endpoint) -> str:
    import httpx

    nobody = f"no Ollama at {server.url}"
    try:
        with http_client(server) as client:
            response = client.get(f"{server.url}/api/version")
    except httpx.TransportError as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        hint = "Start it with `ollama serve`, or set OLLAMA_HOST."
        if "certificate" in reason.lower():
            hint = "Name the authority that signed its certificate with SSL_CERT_FILE."
        raise MissingError(f"{nobody}: {reason}", hint) from None
    if response.is_redirect:
        raise MissingError(f"{nobody}: it sends on to {response.headers['Location']}", "Put that into OLLAMA_HOST.")
    if response.status_code in (401, 403):
        raise MissingError(f"{nobody} without a key: it answers {response.status_code}", "Set OLLAMA_API_KEY.")
    try:
        return str(response.json()["version"])
    except (ValueError, KeyError, TypeError):
        kind = response.headers.get("Content-Type", "").partition(";")[0] or "something else"
        raise MissingError(
            f"{nobody}: it answers {response.status_code} with {kind}, not with a version",
            "Is a proxy in front of it, or another server at that address? Set OLLAMA_HOST to Ollama itself.",
        ) from None


def _models(server: Ollama) -> Mapping[str, str]:
    """Full name in lower case → digest: Ollama tells names apart by their letters, not by their case."""
    return {_full(str(model.model)): str(model.digest) for model in server.client.list().models}


def _full(name: str) -> str:
    tagged = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
    return tagged.lower()


def _pushed(run: Run) -> set[str]:
    return {entry["digest"] for entry in run.record.get("lineage", {}).get("ollama", {}).values()}


def _refused(path: Path, response: httpx.Response) -> OrchestratorError:
    if response.status_code == 413:
        return InputError(
            f"a proxy before Ollama takes no file of {path.stat().st_size} bytes",
            "Raise its limit (nginx: client_max_body_size 0), or push with --bundle and create the model over there.",
        )
    said = "a web page" if is_page(response) else response.text.strip()[:200]
    return StageError(f"Ollama refused {path.name}: {response.status_code} {said}", "Is its disk full?")


def _chunks(path: Path, size: int, progress: Callable[[int, int], None]) -> Iterator[bytes]:
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
            done += len(chunk)
            progress(done, size)


@contextlib.contextmanager
def _own_words(name: str) -> Iterator[None]:
    """Ollama's errors, an error line inside a good answer's stream among them, in its own words."""
    import httpx
    from ollama import ResponseError

    try:
        yield
    except ResponseError as error:
        if missing := no_engine(error.error):
            raise missing from None
        kind = InputError if error.status_code == 400 or error.error.startswith("template error") else StageError
        raise kind(f"Ollama refused {name!r}: {error.error}", "Read Ollama's log for more.") from None
    except (ConnectionError, httpx.TransportError) as error:
        raise StageError(
            f"Ollama broke off while it made {name!r}: {str(error).splitlines()[0]}", "Read Ollama's log for more."
        ) from None
