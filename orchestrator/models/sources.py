"""Base models: where one comes from, where it lies on this machine, and what exactly it is."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.lib.errors import InputError, MissingError
from orchestrator.lib.fetch import Progress
from orchestrator.lib.files import HashCache, read_json, sha256_of
from orchestrator.models import builtin, cure, earlier, hub
from orchestrator.models.tokenizer import json_object
from orchestrator.models.weights import damaged

SOURCES = ("builtin:", "hf:", "modelscope:", "run:")
CONTENT = (".safetensors", ".json", ".jinja", ".model", ".txt")
"""Files of a model folder that decide what it computes; pickled weights are refused, not hashed."""
CODE = (".py", ".tiktoken")
"""Those that do so, too, where the model's own code runs."""
DEQUANTISED = ("mxfp4", "fp8")
"""Kinds of quantised weights that LLaMA-Factory turns back as it loads them (model_utils/quantization.py)."""


@dataclass(frozen=True, slots=True)
class Base:
    """A base model on this machine."""

    name: str
    """As the spec names it."""
    path: Path | None
    """The folder it is used through, or None while it has not been fetched."""
    identity: str
    """What it is: a hash of its content or a hub revision; changes when the model does."""
    adapter: Path | None = None
    """The folder of an earlier run's adapter over it, to go on with."""
    cure: str | None = None
    """What was done that its tokenizer is loaded as its own files mean it, in a few words; None where nothing was."""


def locate(base: str, project: Path, hashes: HashCache, runs_dir: Path | None = None, with_code: bool = False) -> Base:
    """Find a base model without the network; `run:ID` is looked for in `runs_dir`, by default the project's runs/.

    One whose tokenizer transformers would load wrongly is used through a folder of links in the cache. `with_code`:
    its own code is part of what it is. Raises InputError for a name or folder that cannot be one.
    """
    if earlier.keeps_adapter(base):
        return _under_adapter(base, project, hashes, runs_dir, with_code)
    found = _find(base, project, hashes, runs_dir, with_code)
    own = with_code and found.path and _own_classes(found.path, "tokenizer_config.json")
    return found if own else _cured(found, hashes)


def _cured(base: Base, hashes: HashCache) -> Base:
    wrong = cure.wrong_class(base.path, hashes.sha256) if base.path else None
    if base.path is None or wrong is None:
        return base
    identity = base.identity + cure.MARK
    return replace(base, path=cure.cured(base.path, base.identity), identity=identity, cure=cure.described(wrong))


def _find(base: str, project: Path, hashes: HashCache, runs_dir: Path | None, with_code: bool) -> Base:
    folder = find_folder(base, project, runs_dir)
    source, _, name = base.partition(":")
    if source == "builtin":
        return Base(base, folder, builtin.folder(name).name)
    if folder is None:
        return Base(base, folder, base)
    if source == "hf":
        return Base(base, folder, f"{base}@{folder.name}")
    return Base(base, folder, content_hash(folder, hashes, with_code))  # ModelScope's client names no commit


def _under_adapter(base: str, project: Path, hashes: HashCache, runs_dir: Path | None, with_code: bool) -> Base:
    """The model under an earlier run's adapter. Raises InputError when it is no longer the one of that training."""
    name, runs_dir = base.removeprefix("run:"), runs_dir or project / "runs"
    adapter = earlier.adapter(name, runs_dir)
    origin, identity = earlier.origin(name, runs_dir)
    under = locate(origin, project, hashes, runs_dir, with_code)
    either = {
        locate(origin, project, hashes, runs_dir, code).identity.removesuffix(cure.MARK) for code in (True, False)
    }
    if under.path and identity.removesuffix(cure.MARK) not in either:
        raise InputError(
            f"model.base: {origin!r} has changed since {base!r} was trained over it", "Put back what it was."
        )
    weights = hashes.sha256(adapter / "adapter_model.safetensors")
    return Base(base, under.path, f"{under.identity}+{weights}", adapter, under.cure)


def find_folder(base: str, project: Path, runs_dir: Path | None = None) -> Path | None:
    """Where a base model lies, or None while it is not here; unlike `locate`, hashes nothing.

    Raises InputError for a name or folder that cannot be one.
    """
    source, _, name = base.partition(":")
    if source == "builtin":
        folder = builtin.folder(name)
        return folder if folder.is_dir() else None
    if source in ("hf", "modelscope"):
        return hub.cached(base)
    if earlier.keeps_adapter(base):
        return find_folder(_without_adapter(base, project, runs_dir), project, runs_dir)
    folder = (project / Path(base).expanduser()).resolve()
    if source == earlier.SOURCE:
        folder = earlier.folder(name, runs_dir or project / "runs")
    require_model_folder(folder, base)
    return folder


def here(base: str, project: Path, runs_dir: Path | None = None) -> Path | None:
    """`find_folder` where it does not matter why there is none: the run to continue may be kept elsewhere."""
    with contextlib.suppress(InputError, MissingError):
        return find_folder(base, project, runs_dir)
    return None


def fetch(
    base: str,
    project: Path,
    hashes: HashCache,
    progress: Progress = lambda done, total: None,
    runs_dir: Path | None = None,
    with_code: bool = False,
) -> Base:
    """`locate`, after downloading or building what is not there yet. Raises MissingError when it cannot be had."""
    located = locate(base, project, hashes, runs_dir, with_code)
    name = _without_adapter(base, project, runs_dir)
    if located.path is None or (with_code and hub.REPOSITORY.match(name) and _lacks_code(located.path)):
        _download(name, progress, with_code)
        located = locate(base, project, hashes, runs_dir, with_code)
    if located.path is None:
        raise MissingError(f"{base} was downloaded and cannot be found", "Run `orchestrator doctor`.")
    require_whole_weights(located.path, base)
    return located


def _without_adapter(base: str, project: Path, runs_dir: Path | None) -> str:
    """The name of the model under an adapter; any other name as it is."""
    if not earlier.keeps_adapter(base):
        return base
    return earlier.origin(base.removeprefix("run:"), runs_dir or project / "runs")[0]


def template_of(base: str, runs_dir: Path | None = None) -> str | None:
    """The LLaMA-Factory template that is known for a base model, or None."""
    from orchestrator.chat_template.source import template_for_model

    source, _, name = base.partition(":")
    if source == "builtin":
        return builtin.TEMPLATES.get(name)
    if source == earlier.SOURCE:
        return earlier.template(name, runs_dir)
    repository = hub.parse(base)[1] if source in ("hf", "modelscope") else base
    return template_for_model(repository)


def template_origin(base: str, chosen: str) -> str:
    """What a template was chosen by, in a few words; `chosen` is model.template."""
    source, _, name = base.partition(":")
    if chosen != "auto":
        return "by model.template"
    if source == "builtin":
        return "by the built-in model"
    if source == earlier.SOURCE:
        return f"as run {name.partition('@')[0]} was trained"
    if source in ("hf", "modelscope"):
        return f"as LLaMA-Factory names it for {hub.parse(base)[1]}"
    return "by the folder's name"


def resolve(base: str, project: Path | None = None, with_code: bool = False) -> Path:
    """The folder of a base model, fetched if need be."""
    located = fetch(base, project or Path.cwd(), HashCache(), with_code=with_code)
    assert located.path is not None
    return located.path


def require_model_folder(folder: Path, quoted: str) -> None:
    """Raise InputError unless `folder` holds a model whose weights are safetensors."""
    if not folder.is_dir():
        raise InputError(
            f"model.base: no folder {quoted!r}", f"Name a folder, or a model with {', '.join(SOURCES)[:-1]}: in front."
        )
    if not (folder / "config.json").is_file():
        raise InputError(f"model.base: {quoted!r} has no config.json", "Name the folder that holds the model itself.")
    if not any(folder.glob("*.safetensors")):
        raise InputError(
            f"model.base: {quoted!r} has no .safetensors weights",
            "Pickled weights (.bin, .pt) can run code when loaded; convert them to safetensors first.",
        )


def require_mergeable(folder: Path, quoted: str) -> None:
    """Raise InputError for weights that are quantised already, which no adapter can be merged into."""
    try:
        about = dict(dict(read_json(folder / "config.json")).get("quantization_config") or {})
    except (OSError, ValueError, TypeError):
        raise InputError(
            f"model.base: config.json of {quoted!r} is damaged",
            "Remove the model's folder, then copy or download it again.",
        ) from None
    method = str(about.get("quant_method", "")).lower()
    if method and method not in DEQUANTISED:
        raise InputError(
            f"model.base: the weights of {quoted!r} are quantised already ({method}): no adapter can be merged there",
            "Name the model it was made from; `train.quantization_bit: 4` trains over it in as little memory.",
        )


def require_whole_weights(folder: Path, quoted: str) -> None:
    """Raise InputError unless every safetensors file is as long as its header says; no weight is read."""
    if found := next(damaged(folder), None):
        raise InputError(
            f"model.base: {found[0]} of {quoted!r} is damaged: {found[1]}",
            "Remove the model's folder, then copy or download it again.",
        )


def _lacks_code(folder: Path) -> bool:
    """Whether modules that a model's configurations name are not there, as after a download without them."""
    named = [*_own_classes(folder, "config.json"), *_own_classes(folder, "tokenizer_config.json")]
    here = [name.partition(".")[0] for name in named if "--" not in name]  # ORG/NAME--module.Class lies elsewhere
    return not all((folder / f"{module}.py").is_file() for module in here)


def _own_classes(folder: Path, settings: str) -> list[str]:
    """The classes of the model's own code that a configuration names, as `module.Class`."""
    named = json_object(folder / settings).get("auto_map") or {}
    found = named.values() if isinstance(named, dict) else [named]
    return [name for value in found for name in (value if isinstance(value, list) else [value]) if name]


def _download(base: str, progress: Progress, with_code: bool) -> None:
    source, _, name = base.partition(":")
    if source == "builtin":
        builtin.fetch(name, progress)
    else:
        require_model_folder(hub.fetch(base, with_code), base)


def content_hash(folder: Path, hashes: HashCache, with_code: bool = False) -> str:
    """The sha256 over the names and hashes of a model's files."""
    kinds = (*CONTENT, *(CODE if with_code else ()))
    files = sorted(path for path in folder.iterdir() if path.suffix in kinds and path.is_file())
    lines = [f"{path.name} {hashes.sha256(path)}" for path in files]
    return sha256_of("\n".join(lines))
