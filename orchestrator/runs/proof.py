"""What a run's record proves of its files, which of them are no longer so, and how that is put right.

Three things stand for the bytes of a run: the outputs of its stages; `files`, what else it was made from or would go on
from; and the digest of the record that names both. Logs, pages and whatever somebody put there are proven by nothing.

The digest tells accidents and edits. Whoever means to deceive writes a new one, but can sign nothing: a signature, made
and checked by OpenSSH (`ssh-keygen -Y`), covers run.json, and with that every file whose hash stands there.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePath

from orchestrator.lib import layout, process
from orchestrator.lib.errors import GateError, InputError, MissingError
from orchestrator.lib.files import HashCache, sha256, temporary_beside, write_text
from orchestrator.runs import schema, store
from orchestrator.runs.outputs import damage, entries
from orchestrator.runs.store import Json, Run

KEPT = (layout.SPEC, "configs/*", f"{layout.TRAINED}/checkpoint-*/**/*", "export/bundle-*/*")
"""Files that no stage promises and the record holds all the same, once the run is complete."""
OF_SERVERS = "serve-"
"""Begins the names of configurations that each start of a server writes anew."""
NAMESPACE = "orchestrator-run"
"""What is signed, in OpenSSH's sense: a signature for a commit or a file of another kind counts for nothing here."""
SIGNER = "signer"


def recorded(run: Run) -> dict[str, Json]:
    """Path → {path, bytes, sha256} of every file that the record proves; the last stage to write a file counts."""
    stages = [entry for entry in run.record["stages"].values() if entry.get("status") == "completed"]
    outputs = [output for entry in stages for output in entry.get("outputs", ())]
    return {output["path"]: output for output in (*outputs, *run.record.get("files", ()))}


def broken(run: Run, hashes: HashCache) -> dict[str, str]:
    """Path → what is wrong, of the recorded files that are gone or differ."""
    found = {path: damage(run.folder, entry, hashes) for path, entry in recorded(run).items()}
    return {path: why for path, why in found.items() if why}


def damaged(run: Run) -> list[str]:
    """All that is not as it was recorded, the record itself included, each with the reason; reads all bytes."""
    hashes = HashCache(paranoid=True)  # never saved: nothing is taken on trust here
    record = store.doubt(run)
    return [*([record] if record else []), *(f"{path}: {why}" for path, why in broken(run, hashes).items())]


def standing(run: Run) -> str:
    """How far the record itself can be relied upon."""
    if store.doubt(run):
        return "damaged"
    old = "not proven: written by an earlier version"
    return "as it was written" if schema.is_digested(run.record) else old


def unproven(run: Run) -> list[str]:
    """The files of a run that its record says nothing of."""
    known = {*recorded(run), layout.RECORD, layout.RECORD_COPY, layout.SIGNATURE, layout.LOCK}
    there = (path.relative_to(run.folder) for path in run.folder.rglob("*") if not path.is_dir())
    return sorted(str(path) for path in there if str(path) not in known)


def kept(run: Run, hashes: HashCache) -> list[Json]:
    """The entries of `files` for a run that is complete."""
    outputs = {output["path"] for entry in run.record["stages"].values() for output in entry.get("outputs", ())}
    found = (path for pattern in KEPT for path in run.folder.glob(pattern) if path.is_file() and not path.is_symlink())
    names = {str(path.relative_to(run.folder)) for path in found if not path.name.startswith((OF_SERVERS, "."))}
    return entries(run.folder, names - outputs, hashes)


def add(run: Run, paths: Collection[Path], hashes: HashCache) -> None:
    """Let the record prove files that were made after the run was complete."""
    names = [str(path.relative_to(run.folder)) for path in paths]
    others = [entry for entry in run.record.get("files", ()) if entry["path"] not in names]
    run.set(files=[*others, *entries(run.folder, names, hashes)])


# ---- putting right


def repair(run: Run, texts: Mapping[str, str], stages: Collection[str], hashes: HashCache) -> list[str]:
    """Put right what no stage has to be repeated for; returns a line for each thing that was done.

    A record is written again from its copy, a configuration from its text, and a file from another of the run that has
    its bytes, such as the last checkpoint's. Of what nobody can make again, a checkpoint or a stage that the spec no
    longer asks for, the damaged part is removed.
    """
    wrong, done = broken(run, hashes), []
    whole = {entry["sha256"]: path for path, entry in recorded(run).items() if path not in wrong}
    for path in wrong:
        twin = whole.get(recorded(run)[path]["sha256"])
        if twin and _copy(run.folder / twin, run.folder / path, recorded(run)[path]["sha256"]):
            done.append(f"{path} is a copy of {twin} again")
        elif path in texts:
            write_text(run.folder / path, texts[path], durable=False)
            done.append(f"{path} was written again")
    left = [path for path in broken(run, hashes) if path not in texts]
    done += [*_drop_files(run, left), *_drop_stages(run, left, stages)]
    _record_again(run, [path for path in wrong if path in texts], hashes)
    if problem := store.doubt(run):
        done.append(f"{problem}; it was written again")
    run.save()
    return done


def _copy(source: Path, target: Path, digest: str) -> bool:
    temporary = temporary_beside(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, temporary)
    if sha256(temporary) != digest:
        temporary.unlink()
        return False
    temporary.replace(target)
    return True


def _drop_files(run: Run, left: Collection[str]) -> Iterator[str]:
    """Remove what was kept beside the outputs; of a checkpoint all, since a part of one is of no use."""
    for entry in list(run.record.get("files", ())):
        path = PurePath(entry["path"])
        if entry["path"] not in left:
            continue
        whole = PurePath(*path.parts[:2]) if len(path.parts) > 2 else path
        target = run.folder / whole
        shutil.rmtree(target) if target.is_dir() and not target.is_symlink() else target.unlink(missing_ok=True)
        run.record["files"] = [one for one in run.record["files"] if not PurePath(one["path"]).is_relative_to(whole)]
        yield f"{whole} was removed: it is not as recorded, and nothing makes it again"


def _drop_stages(run: Run, left: Collection[str], stages: Collection[str]) -> Iterator[str]:
    for name, entry in list(run.record["stages"].items()):
        outputs = [output["path"] for output in entry.get("outputs", ()) if output["path"] in left]
        if name in stages or not outputs:
            continue
        for path in outputs:
            (run.folder / path).unlink(missing_ok=True)
        del run.record["stages"][name]
        yield f"stage {name} was removed: the spec does not ask for it, and {outputs[0]} is not as recorded"


def _record_again(run: Run, paths: Collection[str], hashes: HashCache) -> None:
    """A text that is written again may name other folders of the machine than it did."""
    again = {entry["path"]: entry for entry in entries(run.folder, paths, hashes)}
    if "files" in run.record:
        run.record["files"] = [again.get(entry["path"], entry) for entry in run.record["files"]]
    if layout.SPEC in again:
        run.record["lineage"]["spec"] = again[layout.SPEC]["sha256"]


# ---- signatures


def sign(run: Run, key: Path) -> Path:
    """Sign the record of a run with a private key, or its public half where an agent holds it; returns the signature.

    Raises InputError when ssh-keygen refuses the key, and MissingError without ssh-keygen.
    """
    record, file = run.folder / layout.RECORD, run.folder / layout.SIGNATURE
    file.unlink(missing_ok=True)  # ssh-keygen asks before it replaces one
    try:
        _ssh_keygen("sign", "-f", str(key), str(record))
    except process.Failed as error:
        raise InputError(f"{key} cannot sign: {_said(error)}", "Make a key with `ssh-keygen -t ed25519`.") from None
    return file


def require_signed(run: Run, public_key: Path) -> None:
    """Raise GateError unless the record as it is was signed with the private half of a key (`….pub`)."""
    signature = run.folder / layout.SIGNATURE
    if not signature.is_file():
        raise GateError(f"{run.id} is not signed", "`orchestrator verify --sign KEY` signs it.")
    if not public_key.is_file():
        raise InputError(f"no public key {str(public_key)!r}", "Name the .pub file of whoever signed.")
    with tempfile.TemporaryDirectory() as folder:
        allowed = Path(folder) / "allowed_signers"
        allowed.write_text(
            f'{SIGNER} namespaces="{NAMESPACE}" {public_key.read_text(encoding="utf-8")}', encoding="utf-8"
        )
        record = (run.folder / layout.RECORD).read_text(encoding="utf-8")
        try:
            _ssh_keygen("verify", "-f", str(allowed), "-I", SIGNER, "-s", str(signature), given=record)
        except process.Failed as error:
            what = f"the signature of {run.id} is not by {public_key.name}, or of another record: {_said(error)}"
            raise GateError(what, "Trust nothing in this run that you have not checked yourself.") from None


def _ssh_keygen(action: str, *arguments: str, given: str = "") -> None:
    try:
        process.output(["ssh-keygen", "-Y", action, "-n", NAMESPACE, *arguments], given=given)
    except FileNotFoundError:
        raise MissingError("there is no ssh-keygen on this machine", "Install OpenSSH's client.") from None


def _said(error: process.Failed) -> str:
    lines = str(getattr(error, "stderr", "") or error).strip().splitlines()
    return lines[-1] if lines else "no reason given"
