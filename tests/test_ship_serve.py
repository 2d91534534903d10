"""serve and chat: the real server, asked with the real openai client, gives the answers that were measured."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.evaluation.rows import split_thinking
from orchestrator.lib import layout, process
from orchestrator.lib.errors import InputError, MissingError, StageError
from orchestrator.lib.files import read_json_lines, write_json, write_text
from orchestrator.runs import store
from orchestrator.runs.store import Run
from orchestrator.serving import artifacts, serve
from orchestrator.serving.chat import Conversation, talk
from orchestrator.serving.endpoint import Endpoint, ask, ask_all
from orchestrator.serving.openai_server.engine import KEY_VARIABLE, configuration
from orchestrator.serving.serve import (  # fmt: skip
    NO_INFERENCE,
    Where,
    inference_arguments,
    llama_cpp_server,
    llama_factory_server,
    vllm_server,
)
from orchestrator.serving.serve_llamafactory import load
from orchestrator.stages.predict import KEPT as PREDICTS
from tests import fake_vllm
from tests.shipped_run import RECORDED
from tests.warm_tool import run_tool_warm


def rows(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / layout.PROMPTS).read_text(encoding="utf-8").splitlines()]


def measured(run: Run, kind: str) -> list[str]:
    lines = artifacts.answers(run, kind).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["prediction"] for line in lines]


@pytest.fixture(scope="module")
def served(served_once: Callable[[str], Endpoint]) -> Endpoint:
    """The f16 GGUF behind its server."""
    return served_once("f16")


@functools.cache
def client(endpoint: Endpoint, key: str | None = None) -> Any:
    import openai

    return openai.OpenAI(base_url=endpoint.url, api_key=key or endpoint.key, max_retries=0)


def test_the_openai_client_gets_the_answers_that_were_measured(shipped_run: Run, served: Endpoint) -> None:
    answers = []
    for row in rows(shipped_run):
        reply = client(served).chat.completions.create(model="tiny-f16", messages=row["messages"], max_tokens=4)
        assert reply.usage.prompt_tokens == len(row["ids"])
        answers.append(reply.choices[0].message.content)
    assert answers == measured(shipped_run, "f16")


def test_a_stream_is_the_same_answer(shipped_run: Run, served: Endpoint) -> None:
    messages = rows(shipped_run)[0]["messages"]
    chunks = client(served).chat.completions.create(model="tiny-f16", messages=messages, max_tokens=4, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == measured(shipped_run, "f16")[0]


def test_a_wrong_key_is_refused(served: Endpoint) -> None:
    import openai

    with pytest.raises(openai.AuthenticationError):
        client(served, "wrong").chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])


def test_the_adapter_over_its_base_answers_as_measured(shipped_run: Run) -> None:
    with serve.running(shipped_run, "adapter", serve.where(port=0, context=512)) as (endpoint, _):
        replies = ask_all(endpoint, [row["messages"] for row in rows(shipped_run)], 4, concurrency=2)
    assert [reply.text for reply in replies] == measured(shipped_run, "adapter")


def test_evaluate_asks_a_server_the_held_out_rows(shipped_run: Run, served: Endpoint, tmp_path: Path) -> None:
    options = ["--runs-dir", str(shipped_run.folder.parent), "--api-key-env", "KEY", "--max-new-tokens", "4", "--json"]
    asked = ("evaluate", "--endpoint", served.url, *options)
    answer = run_tool_warm(asked, tmp_path, {"KEY": str(served.key)})
    assert answer.code == 0, answer.stderr
    expected = shipped_run.record["metrics"]["gguf-f16"]
    assert {key: answer.json["metrics"][key] for key in ("accuracy", "rougeL")} == {
        key: expected[key] for key in ("accuracy", "rougeL")
    }
    answers = read_json_lines(shipped_run.folder / store.load(shipped_run.folder).record["endpoints"][-1]["path"])
    assert [answer["prediction"] for answer in answers] == measured(shipped_run, "f16")
    refused = run_tool_warm(asked, tmp_path, {"KEY": "wrong"})
    assert (refused.code, "401" in refused.stderr) == (2, True)


def test_chat_answers_once_side_by_side(shipped_run: Run, orchestrator: Any) -> None:
    question = rows(shipped_run)[0]["prompt"]
    options = ["--runs-dir", str(shipped_run.folder.parent), "--max-new-tokens", "4", "--once", question]
    answer = orchestrator("chat", "--artifact", "f16", *options)
    assert (answer.code, answer.stdout) == (0, measured(shipped_run, "f16")[0] + "\n")
    both = orchestrator("chat", "--artifact", "f16", "--against", "adapter", *options)
    assert both.code == 0
    assert both.stdout.count(measured(shipped_run, "f16")[0].strip()) == 2
    (told,) = json.loads(orchestrator("chat", "--artifact", "f16", "--json", *options).stdout)["answers"]
    assert told == {"artifact": "f16", "question": question, "answer": measured(shipped_run, "f16")[0]}


def test_chat_remembers_and_forgets(served: Endpoint) -> None:
    conversations = {"f16": Conversation(served, 4, "答一个词")}
    questions = iter(["今天？", "/new", "  ", "明天？", "后天？", "/quit", "never"])
    shown: list[tuple[int, str]] = []

    def show(all_: Any, text: str) -> None:
        shown.append((len(all_["f16"].turns), "".join(all_["f16"].say(text))))

    talk(conversations, lambda: next(questions), show)
    assert [before for before, _ in shown] == [0, 0, 2]
    assert [turn["role"] for turn in conversations["f16"].turns] == ["user", "assistant"] * 2
    assert conversations["f16"].turns[0]["content"] == "明天？"


def test_serve_ends_cleanly_and_frees_its_port(shipped_run: Run) -> None:
    runs_dir, port = shipped_run.folder.parent, free_port()
    arguments = ["serve", "--runs-dir", str(runs_dir), "--artifact", "f16", "--port", str(port), "--context", "256"]
    command = [sys.executable, "-m", "orchestrator", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=process.child_environment({})) as tool:
        assert tool.stdout is not None
        told = dict(tool.stdout.readline().strip().split("=", 1) for _ in range(3))
        assert told["OPENAI_BASE_URL"] == f"http://127.0.0.1:{port}/v1"
        assert len(told["OPENAI_API_KEY"]) >= 24
        assert told["OPENAI_API_KEY"] not in everything(shipped_run.folder)
        with pytest.raises(InputError, match=f"port {port}"):
            serve.where(port=port)
        tool.send_signal(signal.SIGINT)
        assert tool.wait(timeout=30) == 0
    assert serve.where(port=port).port == port


def test_a_server_that_cannot_start_shows_its_last_line(shipped_run: Run, tmp_path: Path) -> None:
    run = store.Run(tmp_path, shipped_run.record)
    for path in (layout.SERVING, layout.gguf("tiny", "f16")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / layout.SERVING).write_bytes((shipped_run.folder / layout.SERVING).read_bytes())
    (tmp_path / layout.gguf("tiny", "f16")).write_bytes(b"GGUF, not really")
    started = time.monotonic()
    with pytest.raises(StageError, match="the server did not start: "), serve.running(run, "f16", serve.where(port=0)):
        pass
    assert time.monotonic() - started < serve.START_SECONDS


AT = ("127.0.0.1", "8080", "2048")
"""Host, port and context, as a server of ours is told them."""


def test_two_servers_of_an_artifact_listen_each_at_its_own_port(shipped_run: Run, tmp_path: Path) -> None:
    """The second is started before the first has read its configuration."""
    made = [llama_cpp_server(shipped_run, "f16", Where(port=port)) for port in (8080, 8081)]
    for one in made:
        for path, text in one.files.items():
            write_text(tmp_path / path, text)
    arguments = [[str(tmp_path / one.argv[3]), *one.argv[4:]] for one in made]
    assert [configuration(given)["port"] for given in arguments] == [8080, 8081]


@pytest.mark.parametrize("host", ["10.9.9.9", "no.such.host.invalid", "127.0.0.1.5", "a" * 70])
def test_a_host_of_another_machine_is_said_so(host: str) -> None:
    with pytest.raises(InputError, match=f"cannot listen on '{host}'"):
        serve.where(host, 8080)
    with pytest.raises(InputError, match=f"cannot listen on '{host}'"):
        serve.where(host)


def test_an_ipv6_address_is_served_at(shipped_run: Run) -> None:
    with serve.running(shipped_run, "f16", serve.where("::1", 0, context=256)) as (endpoint, _):
        assert endpoint.url.startswith("http://[::1]:")
        assert ask(endpoint, [{"role": "user", "content": "今天？"}], 2).prompt_tokens
    assert Where("::", 8080).url == "http://[::1]:8080"


def test_the_command_of_each_engine(shipped_run: Run) -> None:
    at = Where("127.0.0.1", 8080, "k", 2048)
    own = llama_cpp_server(shipped_run, "adapter", at)
    assert own.argv == (sys.executable, "-m", "orchestrator.serving.serve_gguf", "configs/serve-adapter.json", *AT)
    assert json.loads(own.files["configs/serve-adapter.json"]) == {
        "gguf": "export/tiny-base.gguf", "adapter": "export/tiny-adapter.gguf", "name": "tiny-adapter",
        "stop": ["<|im_end|>"], "system": None, "thoughts": None,
    }  # fmt: skip
    assert own.env == {KEY_VARIABLE: "k"}
    theirs = llama_factory_server(shipped_run, "tuned", at)
    worker = "orchestrator.serving.serve_llamafactory"
    assert theirs.argv == (sys.executable, "-m", worker, "configs/serve-tuned.json", *AT)
    assert theirs.env == {KEY_VARIABLE: "k"}
    wanted = json.loads(theirs.files["configs/serve-tuned.json"])
    arguments = wanted.pop("arguments")
    assert wanted == {"name": "tiny-tuned", "thoughts": None}
    assert Path(arguments.pop("model_name_or_path")).is_dir()
    assert arguments == {
        "trust_remote_code": False, "template": "smollm2", "enable_thinking": False, "cutoff_len": 128,
        "adapter_name_or_path": "train", "finetuning_type": "lora",
    }  # fmt: skip
    assert vllm_server(shipped_run, "tuned", at).argv == (
        "vllm", "serve", layout.MERGED, "--host", "127.0.0.1", "--port", "8080", "--generation-config", "vllm",
        "--served-model-name", "tiny-tuned", "--middleware", "orchestrator.serving.thoughts.Thoughts",
        "--middleware", "orchestrator.serving.guard.Guard",
    )  # fmt: skip


def test_a_model_that_thinks_is_served_in_two_parts(thinking_run: Run) -> None:
    with serve.running(thinking_run, "f16", serve.where(port=0, context=512)) as (endpoint, _):
        question = [{"role": "user", "content": RECORDED[0]}]
        reply = ask(endpoint, question, 19)
        options: dict[str, Any] = {"model": endpoint.model, "messages": question, "max_tokens": 19, "stream": True}
        deltas = [chunk.choices[0].delta for chunk in client(endpoint).chat.completions.create(**options)]
        said = "".join(Conversation(endpoint, 19).say(RECORDED[0]))
    assert ((reply.thought or "").strip(), reply.text) == ("The title is about money or companies.", "Business")
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == reply.thought
    assert "".join(delta.content or "" for delta in deltas) == reply.text
    assert split_thinking(said) == ("The title is about money or companies.", "Business")


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with vLLM's interface, installed."""
    programs = fake_vllm.install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(Path(fake_vllm.__file__).parents[1]))


@pytest.mark.usefixtures("vllm")
def test_vllm_is_started_asked_and_stopped(shipped_run: Run) -> None:
    import httpx
    import openai

    at = serve.where(port=0)
    with serve.running(shipped_run, "tuned", at) as (endpoint, child):
        assert endpoint.model == "tiny-tuned"
        assert httpx.get(f"http://127.0.0.1:{at.port}/health", trust_env=False).status_code == 200
        question = [{"role": "user", "content": "今天的新闻？"}]
        reply = client(endpoint).chat.completions.create(model="tiny-tuned", messages=question)
        assert reply.choices[0].message.content == "今天的新闻？"
        chunks = client(endpoint).chat.completions.create(model="tiny-tuned", messages=question, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "今天的新闻？"
        with pytest.raises(openai.AuthenticationError):
            client(endpoint, "wrong").models.list()
    assert child.poll() is not None
    assert serve.where(port=at.port).port == at.port


@pytest.mark.usefixtures("vllm")
def test_vllm_that_cannot_load_the_model_says_why(shipped_run: Run, tmp_path: Path) -> None:
    run = store.Run(tmp_path / "run", shipped_run.record)
    (run.folder / layout.MERGED).mkdir(parents=True)
    write_json(run.folder / layout.SERVING, artifacts.serving(shipped_run))
    with pytest.raises(StageError, match="OSError: export/merged is not"), serve.running(run, "tuned", serve.where()):
        pass


def test_an_artifact_that_was_not_made_yet(shipped_run: Run) -> None:
    run = store.load(shipped_run.folder)  # what was asked of it meanwhile stands in its record
    assert artifacts.choose(run, "gguf-F16") == "f16"
    planned = store.Run(run.folder, {**run.record, "stages": {"ask-q8_0": {}, "train": {}}})
    with pytest.raises(MissingError, match="no 'q8_0' yet"):
        artifacts.choose(planned, "q8_0")
    with pytest.raises(MissingError, match="no 'tuned' yet"):
        artifacts.choose(planned, "tuned")


def test_without_a_recommendation_the_largest_file_that_passed_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.create(tmp_path, "tiny")
    for kind, size in (("f16", 9), ("q4_k_m", 3), ("q8_0", 5), ("adapter", 10)):
        write_text(run.folder / layout.gguf("tiny", kind), "x" * size)
    refused: list[str] = []
    monkeypatch.setattr(artifacts, "violations", lambda run, kind: [kind] if kind in refused else [])
    assert artifacts.choose(run, None, force=True) == "f16"
    refused += ["f16", "adapter"]
    assert artifacts.choose(run, None, force=True) == "q8_0"
    refused += ["q8_0", "q4_k_m"]
    assert artifacts.choose(run, None, force=True) == "tuned"


def test_serving_computes_with_every_argument_that_predict_computes_with() -> None:
    """By the names that LLaMA-Factory's own parser of inference takes."""
    from llamafactory.hparams import DataArguments, ModelArguments

    known = {field for kind in (ModelArguments, DataArguments) for field in kind.__dataclass_fields__}
    trained = {key: f"{key}!" for key in PREDICTS}
    passed = inference_arguments(trained)
    assert set(passed) - {"infer_dtype"} == set(PREDICTS) - set(NO_INFERENCE)
    assert set(passed) <= known
    assert not set(NO_INFERENCE) & known


@pytest.mark.parametrize(
    ("trained", "dtype"),
    [({"bf16": True}, "bfloat16"), ({"fp16": True}, "float16"), ({"bf16": False}, None), ({}, None)],
)
def test_half_precision_is_served_as_it_was_measured(trained: dict[str, Any], dtype: str | None) -> None:
    assert inference_arguments(trained).get("infer_dtype") == dtype


def test_positions_are_stretched_as_far_as_in_training(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LLaMA-Factory's inference stretches them by 2; its training by what cutoff_len needs, which is nothing here."""
    import llamafactory.chat.hf_engine
    from llamafactory.model.model_utils.rope import configure_rope
    from transformers import AutoConfig

    monkeypatch.setattr(llamafactory.chat.hf_engine, "HuggingfaceEngine", lambda model, *_: model)
    trained = {"model_name_or_path": str(tiny_model), "template": "smollm2", "cutoff_len": 128, "bf16": True}
    loaded = load(inference_arguments(trained | {"rope_scaling": "linear"}))
    config = AutoConfig.from_pretrained(str(tiny_model))
    before = config.to_dict()
    configure_rope(config, loaded)
    assert config.to_dict() == before
    assert loaded.infer_dtype == "bfloat16"


def test_a_model_that_computes_on_the_cpu_is_served_there(shipped_run: Run, tmp_path: Path) -> None:
    run = store.Run(tmp_path, shipped_run.record)
    for name in (layout.SERVING, layout.config("train")):
        write_text(tmp_path / name, (shipped_run.folder / name).read_text(encoding="utf-8"))
    with (tmp_path / layout.config("train")).open("a", encoding="utf-8") as config:
        config.write("use_cpu: true\nbf16: true\nquantization_type: nf4\ndouble_quantization: true\n")
    made = llama_factory_server(run, "tuned", Where("127.0.0.1", 8080, None, 2048))
    assert made.env == {KEY_VARIABLE: "", "CUDA_VISIBLE_DEVICES": ""}
    arguments = json.loads(made.files["configs/serve-tuned.json"])["arguments"]
    assert arguments["infer_dtype"] == "bfloat16"
    assert (arguments["quantization_type"], arguments["double_quantization"]) == ("nf4", True)


def test_thoughts_are_told_apart_where_a_model_was_trained_to_think(shipped_run: Run, tmp_path: Path) -> None:
    run = store.Run(tmp_path, shipped_run.record)
    trained = json.loads((shipped_run.folder / layout.SERVING).read_text(encoding="utf-8"))
    for thinking, words in ((True, ["<think>\n", "\n</think>\n\n"]), (False, None)):
        wanted = trained | {"template": "qwen3", "thinking": thinking}
        write_text(tmp_path / layout.SERVING, json.dumps(wanted))
        made = llama_cpp_server(run, "f16", Where("127.0.0.1", 8080, "k", 2048))
        assert json.loads(made.files["configs/serve-f16.json"])["thoughts"] == words


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def everything(folder: Path) -> str:
    """The text of all small files of a run."""
    files = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    return "".join(
        file.read_text(encoding="utf-8", errors="replace") for file in files if file.stat().st_size < 1 << 20
    )
