"""What is said of a model before it is downloaded: which trainings fit a card, how long, how much disk, which template.

The hub is a stand-in that answers as the Hugging Face hub does (tests/fake_model_hub.py); its client is the real one.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.models import hub
from orchestrator.models.shape import Tensor, measured, read_model
from orchestrator.models.sizing import Fit, Work, fits, gguf_bytes, gpu_bytes, run_bytes, seven_b
from orchestrator.models.sources import template_origin
from orchestrator.report.checked import Disk, disk_lines, fit_lines, time_line
from orchestrator.report.doctor import seven_b_fits
from orchestrator.spec.sections import Data, Spec
from tests.conftest import Result, run_tool
from tests.fake_model_hub import FakeModelHub, fake_model_hub

GIB = 2**30
TRAINING = Spec(name="x", data=Data(train="x")).training
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.mark.parametrize(("text", "gib"), [("24GB", 24), ("24", 24), ("80 GiB", 80), ("11.5g", 11.5)])
def test_a_card_is_named_as_vendors_do(text: str, gib: float) -> None:
    assert gpu_bytes(text) == gib * GIB


@pytest.mark.parametrize("text", ["", "much", "0GB", "-1", "24TB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 24GB"):
        gpu_bytes(text)


CONFIG: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944,
    "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "vocab_size": 152064,
    "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip
"""From the config.json of Qwen2.5-7B-Instruct."""


def tensors() -> Iterator[Tensor]:
    """The weights of Qwen2.5-7B in bf16: 7,615,616,512 of them."""
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    cached = hidden // CONFIG["num_attention_heads"] * CONFIG["num_key_value_heads"]
    sizes = {"q": hidden, "k": cached, "v": cached}
    for layer in range(CONFIG["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        for name, outputs in sizes.items():
            yield _tensor(f"{at}.self_attn.{name}_proj.weight", outputs, hidden)
            yield _tensor(f"{at}.self_attn.{name}_proj.bias", outputs)
        yield _tensor(f"{at}.self_attn.o_proj.weight", hidden, hidden)
        yield _tensor(f"{at}.mlp.gate_proj.weight", inner, hidden)
        yield _tensor(f"{at}.mlp.up_proj.weight", inner, hidden)
        yield _tensor(f"{at}.mlp.down_proj.weight", hidden, inner)
        yield _tensor(f"{at}.input_layernorm.weight", hidden)
        yield _tensor(f"{at}.post_attention_layernorm.weight", hidden)
    yield _tensor("model.norm.weight", hidden)
    for name in ("model.embed_tokens", "lm_head"):
        yield _tensor(f"{name}.weight", CONFIG["vocab_size"], hidden)


def _tensor(name: str, *shape: int) -> Tensor:
    return Tensor(name, list(shape), 2 * math.prod(shape))


def test_seven_billion_parameters_are_what_the_model_has() -> None:
    assert measured(CONFIG, list(tensors())) == seven_b()


def test_seven_billion_parameters_fit_a_card_as_they_are_known_to() -> None:
    lora, four_bits, full = fits(seven_b(), TRAINING, 1024, 24 * GIB)
    assert (lora.batch > 0, four_bits.batch > lora.batch, full.batch) == (True, True, 0)
    assert all(fit.needed <= 24 * GIB for fit in (lora, four_bits)) and full.needed > 40 * GIB
    assert [fit.batch > 0 for fit in fits(seven_b(), TRAINING, 1024, 12 * GIB)] == [False, True, False]
    assert all(fit.batch for fit in fits(seven_b(), TRAINING, 1024, 80 * GIB))


def test_longer_rows_leave_room_for_fewer() -> None:
    batches = [fits(seven_b(), TRAINING, tokens, 48 * GIB)[0].batch for tokens in (256, 1024, 4096)]
    assert batches == sorted(batches, reverse=True) and batches[0] > batches[-1] > 0


def test_hours_are_of_a_stated_speed() -> None:
    assert Work(3600, 1000, 2).hours(1000) == 2.0
    said = time_line(Work(300, 512, 3), 2000)
    assert said == "time: 300 rows of 512 tokens, 3 epochs: 0.5 M tokens, 0.1 h at 2,000 tokens a second"


def test_disk_is_near_what_llama_cpp_writes(builtin_model: Path) -> None:
    """q8_0 and q4_k_m of SmolLM2 135M have 145.0 and 105.5 MB; 576 is no multiple of a K-quant's block."""
    small = read_model(builtin_model)
    assert small is not None
    assert [gguf_bytes(small, kind) / 1e6 for kind in ("q8_0", "q4_k_m")] == [
        pytest.approx(145.0, rel=0.03), pytest.approx(105.5, rel=0.03),
    ]  # fmt: skip
    assert list(run_bytes(seven_b(), ("q4_k_m",))) == ["merged", "GGUF q4_k_m", "GGUF f16"]
    assert gguf_bytes(seven_b(), "q4_k_m") == pytest.approx(4.66e9, rel=0.01)


def test_a_disk_without_room_is_warned_of() -> None:
    room = Disk({"merged": 10**9, "GGUF f16": 10**9}, 3 * 10**9)
    assert list(disk_lines(room)) == ["disk: merged 1.0 GB, GGUF f16 1.0 GB; 2.0 GB in all, 3.0 GB free"]
    both = list(disk_lines(Disk({"merged": 10**9}, 3 * 10**9, 2500 * 10**6, 3 * 10**9, shared=True)))
    assert both[1].startswith("warning: ") and "3.5 GB of 3.0 GB free" in both[1]
    full = list(disk_lines(Disk({"merged": 10**9}, 10**8, 5 * 10**9, 10**9)))
    assert [line.split(":")[0] for line in full] == ["disk", "warning", "download", "warning"]


def test_what_does_not_fit_is_said_so() -> None:
    lines = list(fit_lines([Fit("LoRA", 0, 30 * GIB)], 24 * GIB, 1024))
    assert lines[1] == "  LoRA: does not fit, 30.0 GiB with 1 row at a time"
    assert "nothing fits" in lines[2]


@pytest.mark.parametrize(
    ("base", "chosen", "origin"),
    [
        ("models/gemma-2b-it", "auto", "by the folder's name"),
        ("hf:Qwen/Qwen2.5-7B-Instruct@v1", "auto", "as LLaMA-Factory names it for Qwen/Qwen2.5-7B-Instruct"),
        ("builtin:smollm2-135m-instruct", "auto", "by the built-in model"),
        ("run:20261128@adapter", "auto", "as run 20261128 was trained"),
        ("models/gemma-2b-it", "qwen", "by model.template"),
    ],
)
def test_a_template_says_what_it_was_chosen_by(base: str, chosen: str, origin: str) -> None:
    assert template_origin(base, chosen) == origin


def test_doctor_says_whether_seven_billion_parameters_fit() -> None:
    none, small, large = (seven_b_fits(TRAINING, size * GIB, 100 * GIB) for size in (0, 12, 80))
    assert (none.state, "needs a GPU with" in none.detail) == ("note", True)
    assert "QLoRA" in small.detail and small.state == "ok"
    assert large.detail.startswith("LoRA fits the GPU") and seven_b_fits(TRAINING, 80 * GIB, GIB).state == "note"


# ---- a model that is not here


def header(tensors: list[Tensor]) -> bytes:
    """The first bytes of a safetensors file that holds these."""
    entries, at = {}, 0
    for tensor in tensors:
        entries[tensor.name] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": [at, at + tensor.bytes]}
        at += tensor.bytes
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.fixture
def served(tmp_path: Path, builtin_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeModelHub]:
    """Seven billion parameters in two shards, of which the headers alone are there, with a small model's tokenizer."""
    weights = list(tensors())
    parts = dict(zip(SHARDS, (weights[:100], weights[100:]), strict=True))
    index = {"weight_map": {tensor.name: name for name, part in parts.items() for tensor in part}}
    tokenizer = {name: (builtin_model / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")}
    files = {
        "config.json": json.dumps(CONFIG).encode(), "model.safetensors.index.json": json.dumps(index).encode(),
        **tokenizer, **{name: header(part) for name, part in parts.items()},
    }  # fmt: skip
    sizes = {name: sum(tensor.bytes for tensor in part) for name, part in parts.items()}
    with fake_model_hub(files, sizes) as server:
        for name, value in {
            "HF_ENDPOINT": server.url,
            "HF_HOME": str(tmp_path / "hf"),
            "NO_PROXY": "127.0.0.1",
        }.items():
            monkeypatch.setenv(name, value)
        for name in ("HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        yield server


def checked(folder: Path, *arguments: str) -> Result:
    return run_tool(("check", *arguments), folder)


def test_a_model_is_sized_up_before_a_card_is_rented(served: FakeModelHub, tmp_path: Path) -> None:
    done = checked(tmp_path, "hf:org/model", "--gpu", "24GB", "--rows", "3000", "--set", "model.template=qwen")
    assert done.code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1] == "template: qwen, by model.template"
    assert "  QLoRA (quantization_bit: 4): fits, " in done.stdout
    assert "  full: does not fit, " in done.stdout
    assert lines[-1].startswith("time: 3000 rows of 1024 tokens, 3 epochs: 9.2 M tokens, 2.6 h at 1,000")
    assert "download: 15.2 GB, " in done.stdout and "GGUF q4_k_m 4.7 GB" in done.stdout
    assert sum(served.sent.get(name, 0) for name in SHARDS) < math.prod((2, 200_000))


def test_a_spec_may_be_called_none(project: Path) -> None:
    rows = len(json.loads((project / "data/train.json").read_text(encoding="utf-8")))
    assert f"time: {rows} rows of " in checked(project, "--set", "name=none", "--gpu", "24GB").stdout


def test_check_says_of_a_base_that_is_not_here_what_it_says_of_a_local_one(served: FakeModelHub, project: Path) -> None:
    arguments = ("--set", "model.base=hf:org/model", "--set", "model.template=qwen")
    said = checked(project, *arguments).stdout
    assert all(word in said for word in ("prompts end with: ", "memory: train ", "disk: merged 15.2 GB", "download: "))
    answer = checked(project, *arguments, "--gpu", "24GB", "--json").json
    assert answer["disk"]["download"] > 15e9 and [fit["batch"] > 0 for fit in answer["gpu"]][1:] == [True, False]
    assert not list(Path(hub.cached("hf:org/model") or "/nowhere").glob("*"))


def test_a_hub_that_does_not_answer_is_no_fault_of_the_spec(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = checked(project, "--set", "model.base=hf:Qwen/Qwen2.5-7B-Instruct")
    assert done.code == 0, done.stderr
    assert "HF_ENDPOINT=https://hf-mirror.com" in done.stdout and "modelscope:Qwen/Qwen2.5-7B-Instruct" in done.stdout
    alone = checked(project, "hf:Qwen/Qwen2.5-7B-Instruct", "--gpu", "24GB")
    assert (alone.code, "cannot download hf:Qwen" in alone.stderr) == (3, True)
