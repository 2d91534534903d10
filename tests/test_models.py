"""Base models: found without the network, fetched through the hubs' own clients, refused where not to be trusted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.chat_template.encode import load_tokenizer
from orchestrator.chat_template.engines import reference_tokenizer
from orchestrator.lib import process
from orchestrator.lib.errors import InputError, MissingError
from orchestrator.lib.files import HashCache, read_json, write_json
from orchestrator.machine import environment
from orchestrator.models import builtin, hub, llamacpp, sources
from orchestrator.models.builtin import licence
from orchestrator.models.sources import require_mergeable
from orchestrator.models.tokenizer import require_sound
from tests.test_prepare_tools import configured

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NO_WEIGHTS = (2).to_bytes(8, "little") + b"{}"
"""A safetensors file without a tensor."""


@pytest.fixture
def hashes(tmp_path: Path) -> HashCache:
    return HashCache(tmp_path / "hashes.json")


def model_folder(folder: Path, weights: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / weights).write_bytes(NO_WEIGHTS)
    return folder


def fake_hub(monkeypatch: pytest.MonkeyPatch, home: Path) -> list[dict[str, Any]]:
    """huggingface_hub's snapshot_download, writing the cache as its documentation lays it out."""
    import huggingface_hub

    calls: list[dict[str, Any]] = []

    def download(repository: str, revision: str | None = None, **options: Any) -> str:
        calls.append({"repository": repository, "revision": revision, **options})
        root = home / "hub" / f"models--{repository.replace('/', '--')}"
        (root / "refs").mkdir(parents=True, exist_ok=True)
        (root / "refs" / (revision or "main")).write_text(COMMIT)
        return str(model_folder(root / "snapshots" / COMMIT))

    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return calls


@pytest.mark.parametrize(
    ("base", "parts"),
    [
        ("hf:Qwen/Qwen2.5-0.5B-Instruct", ("hf", "Qwen/Qwen2.5-0.5B-Instruct", None)),
        ("hf:org/name@v1.0", ("hf", "org/name", "v1.0")),
        ("modelscope:org/name", ("modelscope", "org/name", None)),
    ],
)
def test_hub_names(base: str, parts: tuple[str, str, str | None]) -> None:
    assert hub.parse(base) == parts


@pytest.mark.parametrize("base", ["hf:name", "hf:a/b/c", "hf:a/b@", "hf:../b", "hf:a/b\n", "hf:a b/c", "hf:"])
def test_names_that_are_none(base: str) -> None:
    with pytest.raises(InputError, match="cannot read"):
        hub.parse(base)


def test_a_hub_model_is_fetched_once_and_known_by_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashes: HashCache
) -> None:
    calls = fake_hub(monkeypatch, tmp_path / "hf")
    assert sources.locate("hf:org/name", tmp_path, hashes).path is None
    first = sources.fetch("hf:org/name", tmp_path, hashes)
    assert first == sources.fetch("hf:org/name", tmp_path, hashes)
    assert first.identity == f"hf:org/name@{COMMIT}" and first.path is not None
    assert len(calls) == 1 and calls[0]["revision"] is None
    assert "*.bin" not in calls[0]["allow_patterns"] and "*.py" not in calls[0]["allow_patterns"]


def test_a_revision_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashes: HashCache) -> None:
    calls = fake_hub(monkeypatch, tmp_path / "hf")
    sources.fetch("hf:org/name@v1", tmp_path, hashes)
    assert calls[0]["revision"] == "v1"
    assert sources.locate("hf:org/name", tmp_path, hashes).path is None  # another revision is another model


def test_a_download_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashes: HashCache) -> None:
    import huggingface_hub

    def fail(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route to host\nand a long story")

    fake_hub(monkeypatch, tmp_path / "hf")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(MissingError, match=r"no route to host$") as caught:
        sources.fetch("hf:org/name", tmp_path, hashes)
    assert "HF_ENDPOINT" in caught.value.hint


def test_a_folder_is_known_by_its_content(tmp_path: Path, hashes: HashCache) -> None:
    folder = model_folder(tmp_path / "mine")
    first = sources.locate("mine", tmp_path, hashes)
    (folder / "model.safetensors").write_text("others!")
    assert first.path == folder and sources.locate("mine", tmp_path, hashes).identity != first.identity


@pytest.mark.parametrize(("method", "taken"), [("gptq", False), ("awq", False), ("mxfp4", True), (None, True)])
def test_weights_that_are_quantised_already_are_refused(tmp_path: Path, method: str | None, taken: bool) -> None:
    config: dict[str, Any] = {"model_type": "qwen2"}
    write_json(tmp_path / "config.json", config | ({"quantization_config": {"quant_method": method}} if method else {}))
    if taken:
        return require_mergeable(tmp_path, "hf:some/model")
    with pytest.raises(InputError, match=rf"'hf:some/model' are quantised already \({method}\)"):
        require_mergeable(tmp_path, "hf:some/model")


def test_pickled_weights_are_refused(tmp_path: Path, hashes: HashCache) -> None:
    model_folder(tmp_path / "mine", "pytorch_model.bin")
    with pytest.raises(InputError, match="safetensors") as caught:
        sources.locate("mine", tmp_path, hashes)
    assert "run code" in caught.value.hint


@pytest.mark.parametrize("base", ["builtin:nobody", "missing-folder"])
def test_unknown_models_are_bad_input(base: str, tmp_path: Path, hashes: HashCache) -> None:
    with pytest.raises(InputError, match=base.rpartition(":")[2]):
        sources.locate(base, tmp_path, hashes)


@pytest.mark.parametrize(
    ("base", "template"),
    [
        ("builtin:smollm2-135m-instruct", "smollm2"),
        ("hf:deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "deepseekr1"),
        ("hf:Qwen/Qwen2.5-0.5B-Instruct@main", "qwen"),
        ("hf:nobody/knows-this", None),
    ],
)
def test_the_template_that_is_known_for_a_model(base: str, template: str | None) -> None:
    assert sources.template_of(base) == template


def test_the_licence_of_the_builtin_model_is_known() -> None:
    assert licence(builtin.folder("smollm2-135m-instruct")) == "apache-2.0"


def with_own_tokenizer(source: Path, folder: Path) -> Path:
    """A model whose tokenizer is a class of its own code."""
    shutil.copytree(source, folder)
    settings = read_json(folder / "tokenizer_config.json")
    settings |= {"auto_map": {"AutoTokenizer": [None, "tokenization_own.OwnTokenizer"]}, "tokenizer_class": "Own"}
    write_json(folder / "tokenizer_config.json", settings)
    (folder / "tokenization_own.py").write_text(
        "from transformers import PreTrainedTokenizerFast\nclass OwnTokenizer(PreTrainedTokenizerFast):\n    pass\n"
    )
    return folder


def test_a_models_own_tokenizer_is_loaded_where_its_code_is_trusted(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.chdir(tmp_path)
    model = with_own_tokenizer(tiny_model, tmp_path / "model")
    assert type(load_tokenizer(model, trust_remote_code=True)).__name__ == "OwnTokenizer"
    loaded: list[str] = []

    def seen(folder: Path, tokenizer: Any, words: Any) -> Any:
        loaded.append(type(tokenizer).__name__)
        return require_sound(folder, tokenizer, words)

    monkeypatch.setattr("orchestrator.models.tokenizer.require_sound", seen)
    configured(tmp_path, model, trust_remote_code=True).run()
    assert loaded == ["OwnTokenizer"]


def test_template_check_loads_a_models_own_tokenizer_where_its_code_is_trusted(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import dynamic_module_utils

    from orchestrator.chat_template import check

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    model, loaded = with_own_tokenizer(tiny_model, tmp_path / "model"), []

    def seen(tokenizer: Any, words: Any) -> Any:
        loaded.append(type(tokenizer).__name__)
        return reference_tokenizer(tokenizer, words)

    monkeypatch.setattr(check, "reference_tokenizer", seen)
    [result] = check.check(["smollm2"], model, check.Engines(), reference=True, trusted=True)
    assert result.passed and loaded == ["OwnTokenizer"]


def test_a_models_own_code_is_part_of_what_it_is_where_it_runs(
    tiny_model: Path, tmp_path: Path, hashes: HashCache
) -> None:
    model = with_own_tokenizer(tiny_model, tmp_path / "model")

    def identities() -> list[str]:
        found = (sources.locate("model", tmp_path, hashes, with_code=trusted) for trusted in (False, True))
        return [base.identity for base in found]

    plain, trusted = identities()
    (model / "tokenization_own.py").write_text("# edited\n")
    assert identities() == [plain, identities()[1]] and identities()[1] != trusted


def test_a_models_own_code_is_fetched_where_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashes: HashCache
) -> None:
    calls = fake_hub(monkeypatch, tmp_path / "hf")
    folder = sources.fetch("hf:org/name", tmp_path, hashes).path
    assert folder is not None
    write_json(folder / "config.json", {"auto_map": {"AutoConfig": "own.Config", "AutoModel": "org/other--x.Model"}})
    sources.fetch("hf:org/name", tmp_path, hashes, with_code=True)
    assert len(calls) == 2 and {"*.py", "*.tiktoken"} <= set(calls[1]["allow_patterns"])
    (folder / "own.py").touch()
    write_json(folder / "config.json", {"auto_map": {"AutoConfig": "own.Config", "AutoModel": "org/other--x.Model"}})
    sources.fetch("hf:org/name", tmp_path, hashes, with_code=True)
    assert len(calls) == 2


@pytest.mark.parametrize("worktree", [False, True])
def test_a_checkout_of_llama_cpp_is_known_by_its_commit(tmp_path: Path, worktree: bool) -> None:
    def git(*words: str, folder: Path = tmp_path / "llama.cpp") -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        return process.output(["git", "-C", str(folder), *who, *words]).strip()

    (folder := tmp_path / "llama.cpp").mkdir()
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "one")
    if worktree:
        git("worktree", "add", "-q", "--detach", str(folder := tmp_path / "beside"))
    first = llamacpp.version(folder)
    assert first == git("rev-parse", "HEAD", folder=folder)
    git("commit", "-q", "--allow-empty", "-m", "two", folder=folder)
    environment.git_state.cache_clear()  # as in the next process
    assert llamacpp.version(folder) == git("rev-parse", "HEAD", folder=folder) != first


def test_a_folder_of_llama_cpp_that_is_no_checkout_is_known_by_its_name(tmp_path: Path) -> None:
    assert llamacpp.version(tmp_path) == str(tmp_path)


class Tokenizer:
    """Encodes characters; `loses` are characters that it forgets, as broken tokenizers do."""

    def __init__(self, loses: str = "") -> None:
        self._loses = loses

    def encode(self, text: str, **_: Any) -> list[int]:
        return [0] if text == "<end>" else [ord(c) for c in text if c not in self._loses]

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(map(chr, ids))


def test_a_sound_tokenizer_passes(tmp_path: Path) -> None:
    require_sound(tmp_path, Tokenizer(), ["<end>"])


@pytest.mark.parametrize("loses", [" ", "闻", "4"], ids=["spaces", "Chinese", "digits"])
def test_a_tokenizer_that_loses_text_is_refused(tmp_path: Path, loses: str) -> None:
    with pytest.raises(InputError, match="turns"):
        require_sound(tmp_path, Tokenizer(loses), [])


def test_a_template_whose_stop_word_is_no_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no token"):
        require_sound(tmp_path, Tokenizer(), ["<|im_end|>"])


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({}, "home/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "$ROOT/xdg"}, "xdg/huggingface/hub"),
        ({"XDG_CACHE_HOME": "$ROOT/xdg", "HF_HOME": "~/hf"}, "home/hf/hub"),
        ({"HF_HOME": "~/hf", "HUGGINGFACE_HUB_CACHE": "$ROOT/old"}, "old"),
        ({"HUGGINGFACE_HUB_CACHE": "$ROOT/old", "HF_HUB_CACHE": "$ROOT/new"}, "new"),
    ],
)
def test_the_cache_of_the_hugging_face_hub_is_where_its_client_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], place: str
) -> None:
    for name in ("XDG_CACHE_HOME", "HF_HOME", "HUGGINGFACE_HUB_CACHE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": f"{tmp_path}/home", "ROOT": str(tmp_path), **settings}.items():
        monkeypatch.setenv(name, value)
    snapshot = model_folder(tmp_path / place / "models--org--name/snapshots" / COMMIT)
    assert hub.cached(f"hf:org/name@{COMMIT}") == snapshot
    asked = [sys.executable, "-c", "from huggingface_hub.constants import HF_HUB_CACHE; print(HF_HUB_CACHE)"]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip() == str(tmp_path / place)


@pytest.mark.parametrize(
    "place",
    [
        "models/org--name-1.5/snapshots/master",
        "models/org/name-1___5",
        "hub/models/org/name-1___5",
        "models/org/name-1.5",
        "org/name-1.5",
        "hub/org/name-1___5",
    ],
)
def test_a_modelscope_model_is_found_where_its_client_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    from modelscope import snapshot_download

    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "scope"))
    folder = model_folder(tmp_path / "scope" / place)
    assert hub.cached("modelscope:org/name-1.5") == folder
    assert snapshot_download("org/name-1.5", cache_dir=tmp_path / "scope", local_files_only=True) == str(folder)


def test_a_modelscope_model_is_known_by_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashes: HashCache
) -> None:
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path))
    folder = model_folder(tmp_path / "models/org--name/snapshots/v1")
    assert sources.locate("modelscope:org/name", tmp_path, hashes).path is None
    first = sources.locate("modelscope:org/name@v1", tmp_path, hashes)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    assert first.path == folder
    assert sources.locate("modelscope:org/name@v1", tmp_path, hashes).identity != first.identity


def test_a_modelscope_download_that_broke_off_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import modelscope

    attempts = iter((ConnectionError("gone"), None))

    def download(repository: str, **_: Any) -> str:
        folder = model_folder(tmp_path / "scope/models" / repository.replace("/", "--") / "snapshots/master")
        if error := next(attempts):
            raise error
        return str(folder)

    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "scope"))
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(modelscope, "snapshot_download", download)
    with pytest.raises(MissingError, match="gone"):
        hub.fetch("modelscope:org/name")
    assert hub.cached("modelscope:org/name") is None
    assert hub.fetch("modelscope:org/name") == hub.cached("modelscope:org/name")
