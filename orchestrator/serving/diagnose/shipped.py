"""What is served: the prompts that an Ollama, a GGUF or another server makes of questions, and all it adds to them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from orchestrator.chat_template.jinja import Message
from orchestrator.lib.errors import InputError, OrchestratorError
from orchestrator.models.gguf import GgufModel
from orchestrator.serving import endpoint as asking
from orchestrator.serving.endpoint import Endpoint
from orchestrator.serving.http import get, try_post
from orchestrator.serving.prompts import render_all

Conversations = Sequence[Sequence[Message]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """What is served, and how. None, "" or nothing where the server does not tell."""

    kind: Literal["ollama", "gguf", "openai"]
    name: str
    maker: str
    """What makes the prompts."""
    texts: Sequence[str | None]
    """The prompt of each question, without the BOS that the engine adds."""
    first_count: int | None = None
    """The number of tokens of the first, all included, where the GGUF cannot be read to count them here."""
    adds_bos: bool | None = None
    stop: Sequence[str] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    system: str = ""
    """The text it puts in front of questions that bring none, where it is set apart from the template."""
    template: str = ""
    quantisation: str = ""
    source: str = ""
    """What a Modelfile's FROM names."""
    gguf: Path | None = None
    """The file, where this machine can read it."""
    adapter: str = ""
    """What a Modelfile's ADAPTER names."""
    capabilities: Sequence[str] = ()
    passed_over: bool = False
    """Whether a TEMPLATE is there that Ollama does not use."""
    endpoint: Endpoint | None = None
    """Whom to ask."""


def of_ollama(server: Endpoint, conversations: Conversations) -> Shipped:
    """What an Ollama makes of the model that `server` names. Raises InputError for a model that it has not."""
    shown = _show(server)
    own = str(shown.get("modelfile") or "")
    template, info = str(shown.get("template") or ""), shown.get("model_info") or {}
    source, adapter = _instruction(own, "FROM"), _instruction(own, "ADAPTER")
    gguf = Path(source) if source and Path(source).is_file() else None
    from_gguf = "{%" in template
    parameters = read_parameters(str(shown.get("parameters") or ""))
    return Shipped(
        kind="ollama",
        name=f"Ollama's {server.model}",
        maker="the chat template inside the GGUF" if from_gguf else "the Modelfile's TEMPLATE",
        texts=render_all(server, conversations),
        first_count=None if gguf else _count(server, conversations[0]),
        adds_bos=_adds_bos(gguf, info),
        stop=parameters.pop("stop", ()),
        parameters=parameters,
        system=str(shown.get("system") or ""),
        template=template,
        quantisation=str((shown.get("details") or {}).get("quantization_level") or ""),
        source=source if gguf else server.model,
        gguf=gguf,
        adapter=adapter,
        capabilities=shown.get("capabilities") or (),
        passed_over=from_gguf and "\nTEMPLATE " in own and "{{ .Prompt }}" not in own,
        endpoint=server,
    )


def of_gguf(file: Path, conversations: Conversations) -> Shipped:
    """What llama.cpp makes of a file by itself. Raises InputError for a file that is none."""
    if not file.is_file():
        raise InputError(f"no file {str(file)!r}", "Name a .gguf file.")
    try:
        with GgufModel(file, vocabulary_only=True) as model:
            template = model.metadata("tokenizer.chat_template") or ""
            texts = [_rendered(template, messages, model) for messages in conversations] if template else []
            return Shipped(
                kind="gguf",
                name=file.name,
                maker="the chat template inside the GGUF",
                texts=texts or [None] * len(conversations),
                adds_bos=model.adds_bos(),
                template=template,
                quantisation=_file_type(model.metadata("general.file_type")),
                source=str(file.resolve()),
                gguf=file,
            )
    except OrchestratorError as error:
        raise InputError(error.message, "Name a whole GGUF file; the copy may have ended early.") from None


def of_endpoint(server: Endpoint, conversations: Conversations) -> Shipped:
    """What a server makes of them: Ollama by its own API, llama.cpp's by what it tells, any other by its answers."""
    if server.protocol == "ollama":
        return of_ollama(server, conversations)
    props = _props(server)
    settings = props.get("default_generation_settings") or {}
    parameters = {**settings, **(settings.get("params") or {})}
    named = Path(str(props.get("model_path") or ""))
    file = named if named.is_file() else None
    known = ("temperature", "repeat_penalty", "presence_penalty", "frequency_penalty")
    return Shipped(
        kind="openai",
        name=f"{server.model} at {server.url}",
        maker="the server's chat template",
        texts=render_all(server, conversations),
        first_count=None if file else _count(server, conversations[0]),
        adds_bos=_adds_bos(file, {}),
        stop=tuple(parameters.get("stop") or ()),
        parameters={key: parameters[key] for key in known if key in parameters}
        | ({"num_ctx": settings["n_ctx"]} if settings.get("n_ctx") else {}),
        template=str(props.get("chat_template") or ""),
        source=str(file or ""),
        gguf=file,
        endpoint=server,
    )


def read_parameters(text: str) -> dict[str, Any]:
    """The parameters as Ollama shows them, a line each; `stop` is a list."""
    found: dict[str, Any] = {}
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        given = _value(value.strip())
        if key == "stop":
            found.setdefault("stop", []).append(str(given))
        elif key:
            found[key] = given
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _show(server: Endpoint) -> dict[str, Any]:
    shown = try_post(server, f"{server.url}/api/show", {"model": server.model})
    if shown is not None:
        return shown
    names = asking.models(server)  # says so where nobody answers
    there = f"It has {', '.join(names[:8])}." if names else "It has none."
    raise InputError(f"Ollama at {server.url} has no model {server.model!r}", there)


def _instruction(modelfile: str, name: str) -> str:
    found = re.search(rf"(?m)^{name} +(.+)$", modelfile)
    return found[1].strip().strip('"') if found else ""


def _adds_bos(gguf: Path | None, info: Mapping[str, Any]) -> bool | None:
    if gguf:
        with GgufModel(gguf, vocabulary_only=True) as model:
            return model.adds_bos()
    told = info.get("tokenizer.ggml.add_bos_token")
    return None if told is None else bool(told)


def _count(server: Endpoint, messages: Sequence[Message]) -> int | None:
    return asking.ask(server, messages, 1).prompt_tokens


def _rendered(template: str, messages: Sequence[Message], model: GgufModel) -> str | None:
    """As llama.cpp's server writes it: it leaves out the BOS that the tokeniser adds. None where Jinja refuses."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    words = {"bos_token": model.bos or "", "eos_token": model.eos or ""}
    try:
        texts, _ = render_jinja_template(
            conversations=[list(messages)], chat_template=template, add_generation_prompt=True, **words
        )
    except TemplateError:
        return None
    text = str(texts[0])
    return text.removeprefix(model.bos or "") if model.adds_bos() else text


def _file_type(number: str | None) -> str:
    """The name of a GGUF's `general.file_type`, such as Q4_K_M; "" for one that the gguf package does not know."""
    from gguf import LlamaFileType

    known = {kind.value: kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in LlamaFileType}
    return known.get(int(number), "") if number else ""


def _props(server: Endpoint) -> dict[str, Any]:
    """What llama.cpp's server tells of itself; nothing of any other."""
    try:
        return get(server, server.url.removesuffix("/v1") + "/props")
    except OrchestratorError:
        return {}
