"""To Ollama: upload, create, and ask the held-out rows through /api/chat, where the served prompt is made."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from orchestrator import layout
from orchestrator.errors import GateError, InputError, MissingError, StageError
from orchestrator.execute import locked
from orchestrator.fetch import Progress
from orchestrator.files import read_json, read_json_lines, sha256
from orchestrator.records import Run
from orchestrator.ship import artifacts, bundle, modelfile
from orchestrator.ship.endpoint import Endpoint, Reply, ask, ask_all

if TYPE_CHECKING:
    from ollama import Client

PORT = 11434
CHUNK = 1 << 20
MARKER = " probe" * 16
"""Ends the TEMPLATE of a throw-away model; a server that uses TEMPLATE then counts more tokens."""
MAKERS = {"GGUF": "the template inside the GGUF", "TEMPLATE": "TEMPLATE", "unknown": "an unknown template"}


@dataclass(frozen=True, slots=True)
class Ollama:
    """A running server."""

    url: str
    client: Client


@dataclass(frozen=True, slots=True)
class Served:
    """What asking the held-out rows through Ollama showed."""

    rows: int
    agreement: float
    """Share of rows answered as the same GGUF was when it was measured."""
    counted: int
    """Rows for which Ollama told how many tokens the prompt had."""
    equal_counts: int
    """Those of them with the number of tokens of training."""
    template: str
    """`TEMPLATE`, `GGUF` (its own template), or `unknown`: which one made the prompt."""
    example: str = ""
    """The first difference in token counts, in words."""


UNASKED = Served(rows=0, agreement=1.0, counted=0, equal_counts=0, template="unknown")
"""What a model that learnt no answers shows."""


def address(host: str | None = None) -> str:
    """Ollama's URL: the one given, else OLLAMA_HOST, else the default port of this machine."""
    text = host or os.environ.get("OLLAMA_HOST") or "127.0.0.1"
    parts = urlsplit(text if "://" in text else f"http://{text}")
    name = "127.0.0.1" if parts.hostname in (None, "0.0.0.0") else parts.hostname
    return f"{parts.scheme}://{name}:{parts.port or (443 if parts.scheme == 'https' else PORT)}"


def connect(host: str | None = None) -> Ollama:
    """A running Ollama. Raises MissingError when there is none."""
    import httpx
    from ollama import Client, ResponseError

    url = address(host)
    client = Client(url, trust_env=urlsplit(url).hostname not in ("127.0.0.1", "localhost"))
    try:
        client.list()
    except (ConnectionError, httpx.TransportError, ResponseError) as error:
        reason = str(error).splitlines()[0]
        raise MissingError(
            f"no Ollama at {url}: {reason}", "Start it with `ollama serve`, or set OLLAMA_HOST."
        ) from None
    return Ollama(url, client)


def ship(run: Run, kind: str, name: str, server: Ollama, progress: Progress) -> dict[str, Any]:
    """Push, ask the held-out rows, record; returns what to tell. Raises GateError for answers not as measured."""
    with locked(run.folder):
        digest = push(run, kind, name, server, progress)
        asks = read_json(run.folder / "configs/prepare.json")["kind"] != "pt"
        served = check(run, kind, name, server) if asks else UNASKED
        remember(run, kind, name, digest, served)
    if served is UNASKED:
        done = f"the rows of this run ask nothing: its perplexity was measured before\nollama run {name}"
        return {**asdict(served), "name": name, "digest": digest, "done": done}
    require_gate(served, name, read_json(run.folder / "configs/judge.json")["gate"]["min_agreement"])
    share = f"{100 * served.agreement:.0f} % of {served.rows} answers are those measured"
    counts = f"{served.equal_counts} of {served.counted} prompts have the tokens of training"
    counts += f", made by {MAKERS[served.template]}"
    return {**asdict(served), "name": name, "digest": digest, "done": f"{share}; {counts}\nollama run {name}"}


def is_current(run: Run, kind: str, name: str) -> bool:
    """Whether this very file was made the model `name` before, and answered as measured."""
    entry = run.record["lineage"].get("ollama", {}).get(name, {})
    gate = read_json(run.folder / "configs/judge.json")["gate"]["min_agreement"]
    return bool(entry) and entry["sha256"] == sha256(artifacts.ggufs(run)[kind]) and entry["agreement"] >= gate


def push(run: Run, kind: str, name: str, server: Ollama, progress: Progress) -> str:
    """Make the model `name` in Ollama from a GGUF; returns its digest. Raises StageError with Ollama's own words."""
    wanted = modelfile.read(run.folder / f"{layout.MODELFILE}.{kind}")
    files = bundle.files(run, kind)[1:]
    digests = {path.name: upload(path, server.url, progress) for path in files}
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
        found = {model.model: model.digest for model in server.client.list().models}
    return str(found.get(name) or found.get(f"{name}:latest") or "")


def upload(path: Path, url: str, progress: Progress) -> str:
    """Send a file unless Ollama has it already; returns its digest. The `ollama` client does this without progress."""
    import httpx

    digest, size = f"sha256:{sha256(path)}", path.stat().st_size
    own = urlsplit(url).hostname in ("127.0.0.1", "localhost")
    with httpx.Client(base_url=url, timeout=None, trust_env=not own) as client:  # gigabytes  # nosec B113
        if client.head(f"/api/blobs/{digest}").status_code == 200:
            return digest
        headers = {"Content-Length": str(size)}
        response = client.post(f"/api/blobs/{digest}", content=_chunks(path, size, progress), headers=headers)
    if response.status_code not in (200, 201):
        raise StageError(f"Ollama refused {path.name}: {response.text.strip()[:200]}", "Is its disk full?")
    return digest


def check(run: Run, kind: str, name: str, server: Ollama) -> Served:
    """Ask the held-out rows and compare with the answers and prompts that were measured."""
    rows = read_json_lines(run.folder / layout.PROMPTS)
    limit = read_json(run.folder / f"configs/ask-{kind}.json")["max_new_tokens"]
    measured = {row["id"]: row["prediction"] for row in _asked(artifacts.answers(run, kind))}
    endpoint = Endpoint(server.url, "ollama", name)
    replies = ask_all(endpoint, [row["messages"] for row in rows], limit, concurrency=1)
    agreeing = sum(reply.text.strip() == measured[row["id"]].strip() for row, reply in zip(rows, replies, strict=True))
    counts = [(row["id"], len(row["ids"]), reply.prompt_tokens) for row, reply in _counted(rows, replies)]
    different = [f"row {id_}: {got} tokens, {wanted} in training" for id_, wanted, got in counts if wanted != got]
    return Served(
        rows=len(rows),
        agreement=agreeing / len(rows),
        counted=len(counts),
        equal_counts=len(counts) - len(different),
        template=template_used(endpoint, server.client, rows[0]["messages"]),
        example=different[0] if different else "",
    )


def template_used(endpoint: Endpoint, client: Client, messages: Sequence[Mapping[str, str]]) -> str:
    """Which template makes the prompt, found out with a second model of a longer TEMPLATE, which is deleted again."""
    name = f"{endpoint.model.partition(':')[0]}-template-probe"
    with _own_words(name):
        template = client.show(endpoint.model).template or ""
        client.create(model=name, from_=endpoint.model, template=template + MARKER)
        try:
            probe = Endpoint(endpoint.url, endpoint.protocol, name)
            plain, longer = (ask(one, messages, 1).prompt_tokens for one in (endpoint, probe))
        finally:
            client.delete(name)
    if plain is None or longer is None:
        return "unknown"
    return "TEMPLATE" if longer > plain else "GGUF"


def require_gate(served: Served, name: str, min_agreement: float) -> None:
    """Raise GateError unless Ollama's prompts are those of training and its answers those that were measured."""
    complaints = []
    if served.equal_counts < served.counted:
        complaints.append(
            f"{name}: {served.counted - served.equal_counts} of {served.counted} prompts have another number of tokens "
            f"than in training ({served.example}); Ollama used {MAKERS[served.template]}"
        )
    if served.agreement < min_agreement:
        complaints.append(
            f"{name}: Ollama answers {100 * served.agreement:.0f} % of {served.rows} rows as the GGUF was measured to, "
            f"below {100 * min_agreement:.0f} %"
        )
    if complaints:
        raise GateError(
            "\n".join(complaints), f"Do not use {name}; `ollama rm {name}` removes it. Is Ollama up to date?"
        )


def remember(run: Run, kind: str, name: str, digest: str, served: Served) -> None:
    """Record what was made of which file in the run's lineage."""
    entry = {
        "digest": digest,
        "gguf": kind,
        "sha256": sha256(artifacts.ggufs(run)[kind]),
        "agreement": served.agreement,
        "template": served.template,
    }
    lineage = run.record["lineage"]
    run.set(lineage={**lineage, "ollama": {**lineage.get("ollama", {}), name: entry}})


def _counted(rows: Sequence[dict[str, Any]], replies: Sequence[Reply]) -> list[tuple[dict[str, Any], Reply]]:
    pairs = zip(rows, replies, strict=True)
    return [(row, reply) for row, reply in pairs if row["ids"] is not None and reply.prompt_tokens is not None]


def _asked(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise MissingError(f"no {path.name}: this GGUF was not asked yet", "Run `orchestrator export` first.")
    return read_json_lines(path)


def _chunks(path: Path, size: int, progress: Callable[[int, int], None]) -> Iterator[bytes]:
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
            done += len(chunk)
            progress(done, size)


@contextlib.contextmanager
def _own_words(name: str) -> Iterator[None]:
    from ollama import ResponseError

    try:
        yield
    except ResponseError as error:
        kind = InputError if error.status_code == 400 else StageError
        raise kind(f"Ollama refused {name!r}: {error.error}", "Read Ollama's log for more.") from None
