"""A spec from somebody's LLaMA-Factory arguments, with comments that say what came from where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.chat_template.registry import TemplateName
from orchestrator.lib.files import read_json
from orchestrator.lib.llamafactory import Argument, arguments
from orchestrator.lib.render import yaml_scalar
from orchestrator.models.hub import REPOSITORY
from orchestrator.spec.training import ELSEWHERE, check_training

THEIR_DEFAULTS = {
    "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "learning_rate": 5.0e-5, "cutoff_len": 2048,
    "lr_scheduler_type": "linear",
}  # fmt: skip
"""Arguments that the result depends on and that we set otherwise → what LLaMA-Factory and transformers set them to."""
QUIET = frozenset({"output_dir", "overwrite_output_dir", "do_train", "do_eval", "do_predict", "predict_with_generate"})
"""What a spec decides by itself; not worth a line."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """Arguments, and where they were read."""

    arguments: Mapping[str, Any]
    source: str
    base: str = ""
    """Where the arguments name none."""


def spec_text(given: Foreign, name: str, beside: Path) -> str:
    """The text of a spec.yaml. `beside` is the folder that the arguments' own paths are relative to."""
    lines = [f"# from {given.source}; what could not be taken over stands below, commented out", f"name: {name}", ""]
    lines += _model(given)
    lines += _data(given, beside)
    kept, left = _training(given.arguments)
    lines += ["train:", *(f"  {key}: {yaml_scalar(value)}{remark}" for key, value, remark in kept)]
    lines += [f"  # {key}: {yaml_scalar(value)}  ({why})" for key, value, why in left]
    return "\n".join([*lines, "", "export:", "  gguf: [f16, q8_0, q4_k_m]", ""])


def _model(given: Foreign) -> list[str]:
    base = str(given.arguments.get("model_name_or_path") or given.base or "")
    found = f"hf:{base}" if REPOSITORY.match(f"hf:{base}") and not Path(base).is_dir() else base
    template = given.arguments.get("template")
    if template and (tool_format := given.arguments.get("tool_format")):
        template = TemplateName(str(template), str(tool_format))
    lines = ["model:", f"  base: {yaml_scalar(found)}  # model_name_or_path"]
    lines += (
        [f"  template: {yaml_scalar(str(template))}  # template"] if template else ["  template: auto  # not named"]
    )
    thinking = given.arguments.get("enable_thinking", True) is not False
    said = "enable_thinking" if "enable_thinking" in given.arguments else "LLaMA-Factory's default"
    lines += [f"  thinking: {str(thinking).lower()}  # {said}; only reasoning templates have it"]
    return [*lines, *(["  trust_remote_code: true"] if given.arguments.get("trust_remote_code") else []), ""]


def _data(given: Foreign, beside: Path) -> list[str]:
    own = given.arguments
    train, evaluated = (list(_files(own.get(key), own, beside)) for key in ("dataset", "eval_dataset"))
    lines = ["data:", f"  train: {_one_or_many(train or ['TRAIN.json'])}  # dataset: {own.get('dataset', 'not named')}"]
    if evaluated:
        lines += [f"  eval: {_one_or_many(evaluated)}  # eval_dataset"]
    else:
        share = own.get("val_size")
        fits = isinstance(share, float) and 0 < share < 1
        why = "val_size" if fits else "nothing was held out: a quarter is, so that there is something to measure on"
        lines += [f"  eval_fraction: {share if fits else 0.25}  # {why}"]
    if own.get("default_system"):
        lines += [f"  system: {yaml_scalar(str(own['default_system']))}  # default_system"]
    if own.get("max_samples"):
        lines += [f"  max_samples: {own['max_samples']}  # max_samples"]
    return [*lines, ""]


def _files(names: Any, own: Mapping[str, Any], beside: Path) -> Iterator[str]:
    """The files of datasets, by dataset_info.json; the name itself where that tells none."""
    folder = beside / str(own.get("dataset_dir") or "data")
    try:
        known = dict(read_json(folder / "dataset_info.json"))
    except (OSError, ValueError, TypeError):
        known = {}
    listed = names if isinstance(names, list) else str(names or "").split(",")
    for name in filter(None, (str(one).strip() for one in listed)):
        entry = known.get(name) or {}
        if "file_name" in entry:
            yield str((folder / entry["file_name"]).resolve())
        else:
            yield _of_hub(entry) if "hf_hub_url" in entry else name


def _of_hub(entry: Mapping[str, Any]) -> str:
    subset = f"/{entry['subset']}" if entry.get("subset") else ""
    return f"hf:{entry['hf_hub_url']}{subset}:{entry.get('split') or 'train'}"


def _one_or_many(files: list[str]) -> str:
    return yaml_scalar(files[0] if len(files) == 1 else files)


def _training(own: Mapping[str, Any]) -> tuple[list[tuple[str, Any, str]], list[tuple[str, Any, str]]]:
    """(key, value, remark) of what a spec takes, and (key, value, reason) of what it does not."""
    known = arguments()
    typed = {key: _typed(value, known[key]) if key in known else value for key, value in own.items()}
    mine = {key: value for key, value in typed.items() if key not in ELSEWHERE and value is not None}
    refused = dict(check_training(mine))
    kept = [(key, value, "") for key, value in mine.items() if key not in refused]
    kept += [(key, value, "  # LLaMA-Factory's default") for key, value in THEIR_DEFAULTS.items() if key not in own]
    left = [(key, mine[key], reason) for key, reason in refused.items()]
    taken = ("model_name_or_path", "template", "tool_format", "enable_thinking", "trust_remote_code", "dataset",
             "dataset_dir", "eval_dataset", "val_size", "default_system", "max_samples")  # fmt: skip
    left += [(k, v, ELSEWHERE[k]) for k, v in own.items() if k in ELSEWHERE and k not in QUIET and k not in taken]
    left = [(key, "…" if key.endswith("token") or key.endswith("key") else value, why) for key, value, why in left]
    return kept, left


def _typed(value: Any, argument: Argument) -> Any:
    """A number that YAML 1.1 takes for a text, as `1e-4` is."""
    if isinstance(value, str) and "text" not in argument.kinds:
        for kind in (int, float):
            if kind.__name__ in argument.kinds:
                try:
                    return kind(value)
                except ValueError:
                    continue
    return value
