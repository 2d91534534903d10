"""Signatures of run records, made and checked by OpenSSH: `ssh-keygen -Y`.

The digest of a record tells accidents and edits. Whoever means to deceive writes a new one, but can sign nothing.
It covers run.json, and with that every file whose hash stands there.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from orchestrator.lib import layout, process
from orchestrator.lib.errors import GateError, InputError, MissingError
from orchestrator.runs.store import Run

NAMESPACE = "orchestrator-run"
"""What is signed, in OpenSSH's sense: a signature for a commit or a file of another kind counts for nothing here."""
SIGNER = "signer"


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
