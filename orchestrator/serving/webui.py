"""LLaMA-Factory's own web board, with a run's data registered and finished runs to load.

The board reads everything relative to the folder that it is started in: data/dataset_info.json, the trainings under
saves/MODEL/METHOD/, the arguments that its "Load arguments" button offers, and what it remembers of its user. This
module is also the program that it runs in: the board with one more model in its list, guarded.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.chat_template.registry import TemplateName
from orchestrator.lib import layout, process
from orchestrator.lib.files import link, read_json, write_json, write_text
from orchestrator.lib.language import language
from orchestrator.lib.render import yaml_scalar
from orchestrator.runs import store
from orchestrator.runs.store import Run
from orchestrator.serving.http import in_url
from orchestrator.serving.serve import Where, answering
from orchestrator.spec.sections import Spec

FOLDER = "webui"
CONFIG = "board.json"
LOG = "board.log"
TEXTS = ("learning_rate", "num_train_epochs", "max_grad_norm", "lora_target", "additional_target")
FIELDS = {
    **{key: f"train.{key}" for key in (*TEXTS, "cutoff_len", "gradient_accumulation_steps", "lr_scheduler_type",
       "logging_steps", "warmup_steps", "packing", "neat_packing", "lora_rank", "lora_alpha", "lora_dropout",
       "loraplus_lr_ratio", "use_rslora", "use_dora", "pref_beta", "pref_loss")},
    "per_device_train_batch_size": "train.batch_size",
    "neftune_noise_alpha": "train.neftune_alpha",
    "pissa_init": "train.use_pissa",
    "finetuning_type": "top.finetuning_type",
}  # fmt: skip
"""Training argument → the field of the board that holds it; all others go into its field for extra arguments."""
OF_THE_BOARD = ("stage", "bf16", "fp16", "save_strategy", "plot_loss", "report_to", "pissa_convert")
"""Arguments that the board sets by itself from other fields."""
FILES = ("adapter_config.json", "adapter_model.safetensors", "config.json", "model.safetensors*", "model-*.safetensors",
         "tokenizer*", "special_tokens_map.json", "generation_config.json", "chat_template.jinja", "vocab.json",
         "merges.txt")  # fmt: skip
"""What loading a trained model takes."""


def lay_out(run: Run, spec: Spec, folder: Path) -> None:
    """Write the board's folder for a run whose data is prepared; what other specs have there stays."""
    prepared = read_json(run.folder / layout.stage_config("prepare"))
    template = TemplateName.of(prepared["template"]).template
    model = {"name": spec.name, "base": prepared["base"], "template": template}
    write_json(folder / CONFIG, model)
    _register_data(run, spec.name, folder / "data")
    for earlier in finished(run.folder.parent, spec.model.base):
        _offer(earlier, folder / "saves" / spec.name)
    write_text(folder / f"llamaboard_config/{spec.name}.yaml", _yaml(arguments(spec, prepared["template"])))
    remembered = {"lang": "zh" if language(os.environ) == "zh" else "en", "last_model": spec.name}
    write_text(folder / "llamaboard_cache/user_config.yaml", _yaml({**remembered, "path_dict": {}, "cache_dir": None}))


def finished(runs_dir: Path, base: str) -> Iterator[Run]:
    """The runs that were trained to the end over a base model."""
    for run in store.every(runs_dir):
        known = run.record["lineage"].get("base_model") or {}
        if run.stage("train").get("status") == "completed" and known.get("name") == base:
            yield run


def arguments(spec: Spec, template: str) -> dict[str, Any]:
    """Field of the board → what the spec says: what "Load arguments" fills in."""
    training, name = spec.training, TemplateName.of(template)
    number = "bf16" if training.get("bf16") else "fp16" if training.get("fp16") else "fp32"
    fields = {
        "top.template": name.template,
        "train.training_stage": spec.kind.title,
        "train.dataset_dir": "data",
        "train.dataset": [f"{spec.name}-train"],
        "train.compute_type": number,
        "train.enable_thinking": spec.model.thinking,
    }
    for key, field in FIELDS.items():
        if training.get(key) is not None:
            fields[field] = str(training[key]) if key in TEXTS else training[key]
    rest = {key: value for key, value in training.items() if key not in FIELDS and key not in OF_THE_BOARD}
    rest |= {"tool_format": name.tool_format} if name.tool_format else {}
    return {**fields, "train.extra_args": json.dumps(rest, ensure_ascii=False)}


@contextmanager
def running(folder: Path, at: Where) -> Iterator[tuple[str, process.Child]]:
    """The board's address and process, ended when the block ends. Raises StageError when it does not start."""
    env = {"GRADIO_SERVER_NAME": in_url(at.host), "GRADIO_SERVER_PORT": str(at.port)}
    argv = (sys.executable, "-m", "orchestrator.serving.webui", CONFIG)
    command = process.Command(argv, folder, folder / LOG, {**env, "GRADIO_ANALYTICS_ENABLED": "False"})
    with answering(command, f"{at.url}/") as (_, child):
        yield at.url, child


def _register_data(run: Run, name: str, folder: Path) -> None:
    """The run's rows under names of their own, beside those of other specs."""
    register = folder / "dataset_info.json"
    known: dict[str, Any] = read_json(register) if register.is_file() else {}
    for key, entry in read_json(run.folder / layout.DATASET_INFO).items():
        file = f"{name}-{key}.json"
        link(run.folder / layout.DATA / entry["file_name"], folder / file)
        known[f"{name}-{key}"] = {**entry, "file_name": file}
    write_json(register, known)


def _offer(run: Run, folder: Path) -> None:
    """A finished training as one of the board's own: without its checkpoints, which would be taken for unfinished."""
    for pattern in FILES:
        for file in (run.folder / layout.trained(run.folder)).glob(pattern):
            link(file, folder / run.arguments["finetuning_type"] / run.id / file.name)


def _yaml(values: Mapping[str, Any]) -> str:
    return "".join(f"{key}: {yaml_scalar(value)}\n" for key, value in values.items())


def main(config: Path) -> None:
    """Serve the board in this folder until it is ended; where it listens is in the environment."""
    from llamafactory.extras.constants import DEFAULT_TEMPLATE, SUPPORTED_MODELS, DownloadSource

    wanted = read_json(config)
    SUPPORTED_MODELS[wanted["name"]] = {DownloadSource.DEFAULT: wanted["base"]}
    DEFAULT_TEMPLATE[wanted["name"]] = wanted["template"]
    from llamafactory.extras.misc import fix_proxy
    from llamafactory.webui.interface import create_ui
    from starlette.middleware import Middleware

    from orchestrator.serving.guard import Guard

    fix_proxy()  # as llamafactory.webui.interface.run_web_ui does
    create_ui().queue().launch(inbrowser=True, app_kwargs={"middleware": [Middleware(Guard)]})


if __name__ == "__main__":
    process.run_program(lambda: main(Path(sys.argv[1])))
