"""To Ollama: upload, create, and prove what came of it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError, MissingError, OrchestratorError, StageError, reason
from orchestrator.lib.fetch import Progress
from orchestrator.lib.files import read_json, sha256
from orchestrator.lib.training_kinds import TRAINING_KINDS
from orchestrator.runs import store
from orchestrator.runs.locks import locked
from orchestrator.runs.store import Run
from orchestrator.serving import artifacts, bundle
from orchestrator.serving.http import http_client, is_page, no_engine
from orchestrator.serving.ollama_server import Ollama
from orchestrator.serving.served import UNASKED, Served, check, require_gate, summary

if TYPE_CHECKING:
    import httpx

CHUNK = 1 << 20
NAME = re.compile(r"((\w[\w.:-]*/)?\w[\w-]{0,79}/)?\w[\w.-]{0,79}(:\w[\w.-]{0,79})?", re.ASCII)
"""[[host/]namespace/]model[:tag], as types/model/name.go in github.com/ollama/ollama reads it."""


def ship(run: Run, kind: str, name: str, server: Ollama, progress: Progress) -> dict[str, Any]:
    """Push, ask the held-out rows, record; returns what to tell.

    Raises GateError for answers not as measured, and MissingError before anything is sent where none were measured.
    """
    require_name(name)
    least = _required(run, kind)
    with locked(run.folder):
        replaced = make_room(run, name, server)
        digest = push(run, kind, name, server, progress)
        served = UNASKED if least is None else ask(run, kind, name, server)
        remember(run, kind, name, digest, served, server.version)
    if least is not None:
        require_gate(served, name, least)
    nothing = "the rows of this run ask nothing: its perplexity was measured before"
    done = nothing if least is None else summary(served)
    lines = [replaced, done, f"ollama run {name}"]
    return {**served.to_json(), "name": name, "digest": digest, "done": "\n".join(filter(None, lines))}


def is_current(run: Run, kind: str, name: str) -> bool:
    """Whether this very file was made the model `name` before, and answered as measured."""
    entry = run.record["lineage"].get("ollama", {}).get(name, {})
    if not entry or entry["sha256"] != sha256(artifacts.ggufs(run)[kind]):
        return False
    return bool(entry["agreement"] >= _min_agreement(run))


def _required(run: Run, kind: str) -> float | None:
    """The share of answers that are to be as measured; None where the rows of the run ask nothing.

    Raises MissingError for a GGUF that was not asked, or not judged, yet.
    """
    if TRAINING_KINDS[read_json(run.folder / layout.stage_config("prepare"))["kind"]].reads:
        return None
    artifacts.answers(run, kind)
    return _min_agreement(run)


def _min_agreement(run: Run) -> float:
    """Raises MissingError for a run that was not judged yet."""
    config = run.folder / layout.stage_config("judge")
    if not config.is_file():
        raise MissingError(f"run {run.id} was not judged yet", "Run `orchestrator export` first.")
    return float(read_json(config)["gate"]["min_agreement"])


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
            f"Ollama broke off while {path.name} was sent: {reason(error)}",
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
            f"Ollama broke off while it made {name!r}: {reason(error)}", "Read Ollama's log for more."
        ) from None
