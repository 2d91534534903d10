"""What is shipped, served or talked to must be what was measured: the files of an artifact against the run's record."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from orchestrator.lib import layout
from orchestrator.lib.errors import GateError, OrchestratorError, some
from orchestrator.lib.files import HashCache, cache_folder, read_json
from orchestrator.runs import proof, store
from orchestrator.runs.outputs import damage
from orchestrator.runs.store import Run
from orchestrator.serving import bundle

MODEL_FILES = re.compile(r"(adapter_|model|config|generation_|tokenizer|special_|added_|vocab|merges|chat_).*")
"""What a loader reads of a folder; not optimizer states, pickles, logs, or another card than ours."""
EVIDENCE = ("data/", "configs/", "evaluation/", layout.SPEC)
"""Where it is said what an artifact was made from, and how it did: files that decide whether it may be shipped."""


def require_proven(run: Run, artifact: str | None, force: bool = False) -> None:
    """Raise GateError where an artifact of a run, or the evidence for it, is not as it was recorded, unless forced.

    `artifact` is `base`, `tuned` (the training and the merged model), `lora` (the training), a kind of GGUF, or None
    for the evidence alone. A file that nobody has touched since it was hashed is not read again.
    """
    if force or artifact == "base":
        return
    if found := list(changes(run, artifact)):
        what = f"{artifact or 'the evidence'} of {run.id} is not what was proven:\n{some(found)}"
        raise GateError(what, f"`orchestrator verify {run.id}` names the cure; --force ships it as it is.")


def changes(run: Run, artifact: str | None) -> Iterator[str]:
    """A line for each file that differs from the record, or that the record does not know."""
    if problem := store.doubt(run):
        yield problem
    hashes = HashCache(cache_folder() / "hashes.json", trusting=False)
    known, own = proof.recorded(run), set(files(run, artifact) if artifact else ())
    for path in sorted(own - known.keys()):
        yield f"{path}: nothing was recorded of it"
    for path in sorted(path for path in known if path in own or path.startswith(EVIDENCE)):
        if why := damage(run.folder, known[path], hashes):
            yield f"{path}: {why}{_edits(run, path)}"
    hashes.save()


def files(run: Run, artifact: str) -> Collection[str]:
    """The files of the run that an artifact consists of: the recorded ones, and those that would go with them."""
    if artifact in ("tuned", "lora"):
        trained = layout.trained(run.folder)
        folders = (trained, layout.MERGED) if artifact == "tuned" else (trained,)
        there = {f"{folder}/{path.name}" for folder in folders for path in _files_in(run.folder / folder)}
        return there | {path for path in proof.recorded(run) if str(Path(path).parent) in folders}
    found = {layout.gguf(run.record["name"], artifact), f"{layout.MODELFILE}.{artifact}"}
    return found | ({layout.gguf(run.record["name"], "base")} if artifact == "adapter" else set())


def _files_in(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if path.is_file() and MODEL_FILES.fullmatch(path.name))


def _edits(run: Run, path: str) -> str:
    """What somebody changed in a Modelfile, as far as its parameters tell."""
    config = run.folder / layout.stage_config("modelfile")
    if not path.startswith(layout.MODELFILE) or not (run.folder / path).is_file() or not config.is_file():
        return ""
    try:
        wanted, now = read_json(config)["parameters"], bundle.read(run.folder / path).parameters
    except (ValueError, KeyError, OSError, OrchestratorError):  # that it was changed is told all the same
        return ""
    keys = [key for key in {**wanted, **now} if key != "stop" and wanted.get(key) != now.get(key)]
    edits = "; ".join(f"{key} {now.get(key, 'unset')} instead of {wanted.get(key, 'unset')}" for key in keys)
    return f" ({edits}; what is to be served belongs in export.ollama.parameters)" if edits else ""
