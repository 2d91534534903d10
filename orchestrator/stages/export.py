"""merge, template, convert, modelfile, quantise: the tuned model becomes GGUFs with the template of its training."""

from __future__ import annotations

import json
import sys
from typing import Any

from orchestrator.lib import layout
from orchestrator.lib.step import Step
from orchestrator.models.builtin import licence
from orchestrator.models.tokenizer_files import SENTENCEPIECE
from orchestrator.stages.base import TRAINING_PACKAGES, Context, worker

CONVERTED = ("f32", "f16", "bf16", "q8_0")
"""Types that llama.cpp's converter writes itself; all others are quantised from one of these."""

METADATA = "export/metadata.json"


def build_merge(context: Context) -> list[Step]:
    """The adapter merged into the base model by LLaMA-Factory."""
    config = layout.config("merge")
    text = context.render(
        "export.yaml.j2", loads=context.tuned(), template=context.template, model=context.spec.model, layout=layout
    )
    return [
        Step(
            stage="merge",
            phase="export",
            argv=("llamafactory-cli", "export", config),
            files={config: text},
            expects=(f"{layout.AS_MERGED}/config.json", f"{layout.AS_MERGED}/tokenizer_config.json"),
            needs=("train",),
            inputs={"base": context.base_identity, **context.picked(*TRAINING_PACKAGES)},
            folder=layout.AS_MERGED,
        )
    ]


def build_template(context: Context) -> list[Step]:
    """The merged model with the template of training, as it is converted, served and pushed."""
    values = {
        "name": context.spec.name,
        "base": context.spec.model.base,
        "licence": licence(context.base_path),
        "dataset": context.spec.data.train,
        **_tokenizer(context),
    }
    return [
        Step(
            stage="template",
            phase="export",
            argv=worker("template", "configs/template.json"),
            files={"configs/template.json": _json(values)},
            expects=(f"{layout.MERGED}/config.json", f"{layout.MERGED}/chat_template.jinja", METADATA),
            needs=("prepare", "merge"),
            folder=layout.MERGED,
        )
    ]


def _tokenizer(context: Context) -> dict[str, str]:
    """The base model's folder, where LLaMA-Factory's export leaves out what the converter needs of it."""
    brought = (context.base_path / SENTENCEPIECE[0]).is_file()
    return {"tokenizer": str(context.base_path)} if brought else {}


def build_convert(context: Context) -> list[Step]:
    """One pass of llama.cpp's converter, which all quantisations are made from."""
    kind = source_type(context.spec.export.gguf)
    target = layout.gguf(context.spec.name, kind)
    growing = layout.partial(target)
    argv = (sys.executable, str(context.converter / "convert_hf_to_gguf.py"), layout.MERGED, "--outfile", growing)
    return [
        Step(
            stage="convert",
            phase="export",
            argv=(*argv, "--outtype", kind, "--model-name", context.spec.name, "--metadata", METADATA),
            expects=(target,),
            needs=("template",),
            inputs={"llama.cpp": context.versions["llama.cpp"]},
            partials={growing: target},
        )
    ]


def build_modelfile(context: Context) -> list[Step]:
    """A Modelfile for each GGUF, after the conversion, since only the GGUF knows whether llama.cpp will add BOS."""
    ollama, kinds = context.spec.export.ollama, context.spec.export.gguf
    values = {
        "project": str(context.project),
        "name": context.spec.name,
        "files": {kind: layout.gguf(context.spec.name, kind) for kind in kinds},
        "converted": layout.gguf(context.spec.name, source_type(kinds)),
        "system": ollama.system,
        "parameters": ollama.parameters,
    }
    return [
        Step(
            stage="modelfile",
            phase="export",
            argv=worker("modelfile", "configs/modelfile.json"),
            files={"configs/modelfile.json": _json(values)},
            expects=(layout.MODELFILE, *(f"{layout.MODELFILE}.{kind}" for kind in kinds)),
            needs=("prepare", "convert"),
            inputs={"Modelfile.j2": context.render.source_hash("Modelfile.j2")},
        )
    ]


def build_quantise(context: Context) -> list[Step]:
    """One step for each type that the converter did not write."""
    kinds = context.spec.export.gguf
    source = source_type(kinds)
    return [_quantise(context, source, kind) for kind in kinds if kind != source]


def source_type(kinds: tuple[str, ...]) -> str:
    """The type to convert to: the only one asked for where the converter can write it, else the most exact of them."""
    if len(kinds) == 1 and kinds[0] in CONVERTED:
        return kinds[0]
    return next((kind for kind in ("f32", "bf16") if kind in kinds and "f16" not in kinds), "f16")


def _quantise(context: Context, source: str, kind: str) -> Step:
    config, target = f"configs/quantise-{kind}.json", layout.gguf(context.spec.name, kind)
    values = {"source": layout.gguf(context.spec.name, source), "target": layout.partial(target), "type": kind}
    return Step(
        stage=f"quantise-{kind}",
        phase="quantise",
        argv=worker("quantise", config),
        files={config: _json(values)},
        expects=(target,),
        needs=("convert",),
        inputs=context.picked("llama-cpp-python"),
        partials={layout.partial(target): target},
    )


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, indent=2) + "\n"
