"""An artifact behind an OpenAI-compatible server on this machine: started, waited for, stopped."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.chat_template.thoughts import thought_words
from orchestrator.lib import layout, process
from orchestrator.lib.errors import InputError, MissingError, StageError
from orchestrator.lib.files import write_text
from orchestrator.runs.store import Run
from orchestrator.serving import artifacts, confidence, thoughts
from orchestrator.serving.http import Endpoint, in_url
from orchestrator.serving.openai_server.engine import KEY_VARIABLE
from orchestrator.spec.sections import LORA
from orchestrator.stages.predict import KEPT as PREDICTS

if TYPE_CHECKING:
    import httpx

START_SECONDS = 600.0
"""How long a model may take to load."""
FIRST_PORT = 8080
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""All addresses of this machine → the one of them that only itself can reach."""
LOADED = ("model_name_or_path", "trust_remote_code", "template", "tool_format", "enable_thinking")
"""Training arguments that say which model and template answer."""
NO_INFERENCE = ("bf16", "fp16", "per_device_eval_batch_size", "seed", "use_cpu")
"""Arguments of `predict` that LLaMA-Factory's inference does not know: the first two and the last are said otherwise,
and one greedy answer needs neither batch nor seed."""
DTYPES = {"bf16": "bfloat16", "fp16": "float16"}
MIDDLEWARE = ("orchestrator.serving.thoughts.Thoughts", "orchestrator.serving.guard.Guard")
"""What vLLM is told to put around its answers, the outermost last; our own servers do so by themselves."""


@dataclass(frozen=True, slots=True)
class Where:
    """Address and key of a server, and how many tokens a conversation may have."""

    host: str = "127.0.0.1"
    port: int = 0
    key: str | None = field(default=None, repr=False)
    context: int = 4096

    @property
    def url(self) -> str:
        """Where this machine reaches it: what listens at every address does so at the loopback, too."""
        return f"http://{in_url(LOOPBACK.get(self.host, self.host))}:{self.port}"


@dataclass(frozen=True, slots=True)
class Server:
    """How a server is started: the command, its environment, and the configuration it reads from the run's folder."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Mapping[str, str] = field(default_factory=dict)


def where(host: str = "127.0.0.1", port: int | None = None, key: str | None = None, context: int = 4096) -> Where:
    """The address to serve at: the port asked for, 0 for any, else the first free one from 8080 on; a random key.

    Raises InputError when the port asked for is taken, and for a host that is not this machine.
    """
    wanted = [*range(FIRST_PORT, FIRST_PORT + 100), 0] if port is None else [port]
    free = next(filter(None, (_free(host, one) for one in wanted)), None)
    if free is None:
        raise InputError(f"port {port} of {host} is taken", "Leave --port out for one that is free, or stop the other.")
    return Where(host, free, secrets.token_urlsafe(24) if key is None else key or None, context)


def _free(host: str, port: int) -> int | None:
    """The port, any for 0; None where it is taken."""
    try:
        return _bound(host, port)
    except PermissionError:
        raise InputError(f"port {port} needs more rights than you have", "Choose one above 1023.") from None
    except (OSError, UnicodeError) as error:  # UnicodeError: longer than a name may be
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            return None
        hint = "Name an address of this machine: 127.0.0.1 for itself alone, 0.0.0.0 for others as well."
        raise InputError(f"cannot listen on {host!r}: {getattr(error, 'strerror', None) or error}", hint) from None


def _bound(host: str, port: int) -> int:
    """The port that was listened at for a moment."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, kind, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)  # localhost is of both families
    with socket.socket(family, kind) as probe:
        if os.name == "posix":  # a port that a stopped server has just left is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        return int(probe.getsockname()[1])


def server(run: Run, artifact: str, at: Where) -> Server:
    """The command: llama.cpp for GGUFs, vLLM for the merged model where installed, else LLaMA-Factory."""
    if artifact not in artifacts.LLAMA_FACTORY:
        return llama_cpp_server(run, artifact, at)
    merged = artifact == "tuned" and (run.folder / layout.MERGED).is_dir()
    if merged and not artifacts.serving(run).get("tools") and importlib.util.find_spec("vllm"):
        return vllm_server(run, artifact, at)
    return llama_factory_server(run, artifact, at)


def llama_cpp_server(run: Run, kind: str, at: Where) -> Server:
    """llama.cpp with the template inside the GGUF."""
    trained, name = artifacts.serving(run), run.record["name"]
    adapter = artifacts.ggufs(run)[kind].relative_to(run.folder) if kind == artifacts.ADAPTER else None
    values = {
        "gguf": layout.gguf(name, "base" if adapter else kind),
        "adapter": str(adapter) if adapter else None,
        "stop": trained["stop"],
        "system": trained["system"],
    }
    if found := confidence.measured(run, kind):
        values["confidence"] = found
    return _own_server("serve_gguf", values, run, kind, at)


def llama_factory_server(run: Run, artifact: str, at: Where) -> Server:
    """The model as LLaMA-Factory loads it, computing as it did when it predicted."""
    trained = run.arguments
    values = inference_arguments(trained)
    if artifact == "tuned" and trained["finetuning_type"] not in (LORA, "oft"):
        values["model_name_or_path"] = layout.TRAINED
    elif adapters := _adapters(trained, layout.trained(run.folder), artifact):
        values |= {"adapter_name_or_path": ",".join(adapters), "finetuning_type": LORA}
    if system := artifacts.serving(run)["system"]:
        values["default_system"] = system
    if not (run.folder / values["model_name_or_path"]).is_dir():
        raise MissingError(
            f"no model at {values['model_name_or_path']}", "Fetch the base model again, or serve a GGUF."
        )
    # As `use_cpu` does in training; for inference LLaMA-Factory takes any GPU that it sees.
    env = {"CUDA_VISIBLE_DEVICES": ""} if trained.get("use_cpu") else {}
    return _own_server("serve_llamafactory", {"arguments": values}, run, artifact, at, env)


def inference_arguments(trained: Mapping[str, Any]) -> dict[str, Any]:
    """The training arguments that decide an answer, as LLaMA-Factory's inference takes them.

    What bf16 and fp16 are to training, `infer_dtype` is to inference; use_cpu is up to the environment there.
    """
    kept = (*LOADED, *(key for key in PREDICTS if key not in NO_INFERENCE))
    dtype = next((name for key, name in DTYPES.items() if trained.get(key)), None)
    return {key: trained[key] for key in kept if key in trained} | ({"infer_dtype": dtype} if dtype else {})


def _own_server(
    worker: str, values: Mapping[str, Any], run: Run, artifact: str, at: Where, env: Mapping[str, str] | None = None
) -> Server:
    config, trained = layout.stage_config(f"serve-{artifact}"), artifacts.serving(run)
    words = thought_words(trained["template"], trained["thinking"])
    asked: dict[str, Any] = {"name": f"{run.record['name']}-{artifact}", "thoughts": words}
    asked |= {"calls_of": trained["template"]} if trained.get("tools") else {}
    return Server(
        argv=(sys.executable, "-m", f"orchestrator.serving.{worker}", config, at.host, str(at.port), str(at.context)),
        env={KEY_VARIABLE: at.key or "", **(env or {})},
        files={config: json.dumps({**values, **asked}, ensure_ascii=False, indent=2) + "\n"},
    )


def _adapters(trained: Mapping[str, Any], own: str, artifact: str) -> list[str]:
    """The adapters to load: an earlier run's where training started from it, and the run's own."""
    earlier = trained.get("adapter_name_or_path")
    if artifact == "base":
        return [earlier] if earlier else []
    return [earlier, own] if earlier and trained.get("create_new_adapter") else [own]


def vllm_server(run: Run, artifact: str, at: Where) -> Server:
    """`vllm serve` of the merged model, which holds the template of training; vLLM's own sampling defaults."""
    options = {"--host": at.host, "--port": str(at.port), "--generation-config": "vllm"}
    options["--served-model-name"] = f"{run.record['name']}-{artifact}"
    flags = [word for pair in options.items() for word in pair]
    flags += [word for name in MIDDLEWARE for word in ("--middleware", name)]
    trained, env = artifacts.serving(run), {"VLLM_API_KEY": at.key} if at.key else {}
    if words := thought_words(trained["template"], trained["thinking"]):
        env[thoughts.VARIABLE] = json.dumps(words, ensure_ascii=False)
    return Server(("vllm", "serve", layout.MERGED, *flags), env)


@contextmanager
def running(run: Run, artifact: str, at: Where) -> Iterator[tuple[Endpoint, process.Child]]:
    """An artifact's server that answers, ended when the block ends. Raises StageError when it does not start."""
    made = server(run, artifact, at)
    for path, text in made.files.items():
        write_text(run.folder / path, text)
    command = process.Command(made.argv, run.folder, run.folder / layout.log(f"serve-{artifact}"), made.env)
    url = f"{at.url}/v1"
    with answering(command, f"{url}/models", at.key) as (listed, child):
        yield Endpoint(url, "openai", listed.json()["data"][0]["id"], at.key), child


@contextmanager
def answering(
    command: process.Command, url: str, key: str | None = None
) -> Iterator[tuple[httpx.Response, process.Child]]:
    """A server that was started, and its first answer at a URL; ended when the block ends.

    Raises StageError, quoting its log, when it does not start.
    """
    command.log.unlink(missing_ok=True)
    child = process.start(command)
    try:
        yield _first_answer(child, url, command.log, key), child
    finally:
        if child.poll() is None:
            child.stop()


def _first_answer(child: process.Child, url: str, log: Path, key: str | None) -> httpx.Response:
    """The first good one. Raises StageError when the server ends or takes too long."""
    import httpx

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(headers=headers, trust_env=False, timeout=5.0) as client:
        while child.poll() is None and time.monotonic() < deadline:
            try:
                response = client.get(url)
                if response.status_code == 200:
                    return response
            except httpx.TransportError:
                pass
            time.sleep(0.1)
    last = (process.said(log) or ["it printed nothing"])[-1].strip()
    raise StageError(f"the server did not start: {last}", f"The whole log: {log}")
