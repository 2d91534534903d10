"""push hf: what would be sent, what is sent, and the card that goes with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError, MissingError, StageError
from orchestrator.models.builtin import licence
from orchestrator.runs.store import Run
from orchestrator.serving.hub import Target, collect, model_card, push
from tests.fake_hub import FakeHub, fake_hub

FOUND = {
    "f16": ["README.md", "Modelfile", "tiny-f16.gguf"],
    "adapter": ["README.md", "Modelfile", "tiny-base.gguf", "tiny-adapter.gguf"],
    "lora": ["README.md", "adapter_config.json", "adapter_model.safetensors"],
    "tuned": [
        "README.md", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json",
    ],
}  # fmt: skip


@pytest.mark.parametrize("artifact", FOUND)
def test_which_files_belong_to_an_artifact(shipped_run: Run, tmp_path: Path, artifact: str) -> None:
    assert [one.name for one in collect(shipped_run, artifact, tmp_path, force=False)] == FOUND[artifact]


def test_the_base_model_is_not_ours(shipped_run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not ours"):
        collect(shipped_run, "base", tmp_path, force=False)


def test_the_adapter_names_its_base_model_and_no_folder(shipped_run: Run, tmp_path: Path) -> None:
    uploads = {one.name: one.source for one in collect(shipped_run, "lora", tmp_path, force=False)}
    text = uploads["adapter_config.json"].read_text(encoding="utf-8")
    assert str(Path.home()) not in text
    assert '"base_model_name_or_path": "tiny-llama-' in text


@pytest.mark.parametrize(("public", "private"), [(False, True), (True, False)])
def test_a_push_is_one_commit_in_a_private_repository(
    shipped_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, public: bool, private: bool
) -> None:
    uploads = collect(shipped_run, "f16", tmp_path, force=False)
    with fake_hub() as server:
        connect(server, monkeypatch)
        for _ in range(2):  # again, as after new training: the repository is there
            push(Target("hf", "me/tiny", public), uploads, "f16 of a run")
    assert server.private == {"me/tiny": private}
    assert server.messages == ["f16 of a run"] * 2
    assert server.files == {one.name: one.source.read_bytes() for one in uploads}


def test_modelscope_takes_the_same_files(shipped_run: Run, orchestrator: Any) -> None:
    arguments = ["push", "modelscope:me/tiny", "--artifact", "lora", "--runs-dir", str(shipped_run.folder.parent)]
    with fake_hub() as server:
        variables = {"MODELSCOPE_ENDPOINT": server.url, "MODELSCOPE_API_TOKEN": server.token}
        answers = [orchestrator(*arguments, env=variables) for _ in range(2)]
    assert [(answer.code, answer.stdout) for answer in answers] == [(0, "modelscope:me/tiny\n")] * 2
    assert server.private == {"me/tiny": True}
    assert sorted(server.files) == sorted(FOUND["lora"])
    weights = shipped_run.folder / "train/adapter_model.safetensors"
    assert server.files["adapter_model.safetensors"] == weights.read_bytes()


def test_a_wrong_token_is_said(shipped_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads = collect(shipped_run, "f16", tmp_path, force=False)
    with fake_hub() as server:
        connect(server, monkeypatch, "wrong")
        with pytest.raises(StageError, match="the hub refused"):
            push(Target("hf", "me/tiny"), uploads, "m")
    assert server.files == {}


@pytest.mark.parametrize(("source", "variable"), [("hf", "HF_TOKEN"), ("modelscope", "MODELSCOPE_API_TOKEN")])
def test_without_a_token_nothing_is_sent(monkeypatch: pytest.MonkeyPatch, source: str, variable: str) -> None:
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(MissingError, match=variable):
        push(Target(source, "me/tiny"), [], "m")


def test_a_dry_run_lists_every_file_and_size(shipped_run: Run, orchestrator: Any) -> None:
    runs_dir = str(shipped_run.folder.parent)
    answer = orchestrator("push", "hf:me/tiny", "--artifact", "f16", "--dry-run", "--runs-dir", runs_dir, "--json")
    assert answer.code == 0
    sizes = {file["path"]: file["bytes"] for file in answer.json["files"]}
    assert list(sizes) == FOUND["f16"]
    assert sizes["tiny-f16.gguf"] == (shipped_run.folder / layout.gguf("tiny", "f16")).stat().st_size


@pytest.mark.parametrize("target", ["hf:", "s3:bucket/x", "tiny", "hf:no-slash"])
def test_a_target_that_is_none(shipped_run: Run, orchestrator: Any, target: str) -> None:
    answer = orchestrator("push", target, "--dry-run", "--runs-dir", str(shipped_run.folder.parent))
    assert answer.code == 2
    assert "Traceback" not in answer.stderr


def test_the_card_says_what_was_measured(shipped_run: Run, tmp_path: Path) -> None:
    card = model_card(shipped_run, "f16", tmp_path)
    head = yaml.safe_load(card.split("---")[1])
    assert head == {"license": "other", "tags": ["llama-factory", "gguf"]}
    figure = shipped_run.record["metrics"]["gguf-f16"]["accuracy"]
    shown = f"{figure['value']:.1f} ({figure['low']:.1f}–{figure['high']:.1f})"
    assert next(line for line in card.splitlines() if line.startswith("| gguf-f16 | 12 |")).split(" | ")[2] == shown
    assert "- `f16`: 12 of 12 prompts have the tokens of training; 100 % of the answers are the same" in card
    assert shipped_run.record["lineage"]["gguf"][layout.gguf("tiny", "f16")] in card
    assert str(Path.home()) not in card


@pytest.mark.parametrize(
    ("card", "found"),
    [
        ("---\nlicense: apache-2.0\n---\n# Qwen", "apache-2.0"),
        ("---\ntags: [a]\n---\n", None),
        ("# no head", None),
        ("---\n: : :\n---\n", None),
    ],
)
def test_the_licence_is_the_base_models(tmp_path: Path, card: str, found: str | None) -> None:
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert licence(tmp_path) == found
    assert licence(tmp_path / "nowhere") is None


def connect(server: FakeHub, monkeypatch: pytest.MonkeyPatch, token: str | None = None) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", token or server.token)
    # Xet's storage is no published protocol; its client falls back to Git LFS, as it does where hf_xet is missing.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
