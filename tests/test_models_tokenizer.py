"""Tokenizers that people bring: what transformers would make of them, what cures that, what is refused beforehand."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from orchestrator.chat_template.encode import decoded
from orchestrator.chat_template.registry import definition
from orchestrator.chat_template.spaces import Spacing, spaced, spacing_of
from orchestrator.chat_template.turns import SpecialTokens, turns
from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import HashCache, read_json, write_json, write_text
from orchestrator.models import cure, examine, sources, tokenizer_class
from orchestrator.models.examine import require_fit
from orchestrator.models.tokenizer import PROBES, ids_of, known_stop_words, load
from orchestrator.stages import template

END, FURTHER = "<|im_end|>", "<|eom_id|>"


def byte_level(folder: Path, tokenizer_class: str | None = "PreTrainedTokenizerFast", kind: str = "llama") -> Path:
    """A model folder with a byte-level BPE, as Llama 3, Qwen and the DeepSeek distills have it; no weights in it."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(PROBES, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet))
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in ("<|im_start|>", END)])
    return model(folder, tokenizer, tokenizer_class, kind)


def sentencepiece(folder: Path) -> Path:
    """A model folder with the tokenizer of a SentencePiece family, as Llama 2 has it, tokenizer.model included."""
    import sentencepiece
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers
    from tokenizers.models import BPE

    folder.mkdir(parents=True)
    write_text(folder / "corpus.txt", "\n".join(PROBES * 4))
    options = {"model_type": "bpe", "vocab_size": 380, "byte_fallback": True, "hard_vocab_limit": False}
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"), model_prefix=str(folder / "tokenizer"), minloglevel=2, **options
    )
    (folder / "tokenizer.vocab").unlink()
    read = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    vocabulary = {read.id_to_piece(number): number for number in range(read.get_piece_size())}
    merges = [
        (piece[:at], piece[at:])
        for piece in vocabulary
        for at in range(1, len(piece))
        if piece[:at] in vocabulary and piece[at:] in vocabulary and not piece.startswith("<")
    ]
    tokenizer = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in ("<s>", "</s>")])
    return model(folder, tokenizer, "PreTrainedTokenizerFast", "llama", bos="<s>", eos="</s>")


def model(folder: Path, tokenizer: Any, name: str | None, kind: str, bos: str | None = None, eos: str = END) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": bos, "eos_token": eos, "auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}}
    write_json(folder / "tokenizer_config.json", settings | ({"tokenizer_class": name} if name else {}))
    write_json(folder / "config.json", {"model_type": kind, "architectures": ["LlamaForCausalLM"]})
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {"byte-level": byte_level(folder / "b"), "sentencepiece": sentencepiece(folder / "s")}


@pytest.fixture
def mine(tmp_path: Path, made: dict[str, Path]) -> Callable[[str], Path]:
    def copy(kind: str) -> Path:
        return Path(shutil.copytree(made[kind], tmp_path / "mine"))

    return copy


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))


def renamed(folder: Path, name: str | None, kind: str = "llama") -> Path:
    settings = {**read_json(folder / "tokenizer_config.json"), "tokenizer_class": name}
    write_json(folder / "tokenizer_config.json", settings if name else {**settings, "tokenizer_class": None})
    write_json(folder / "config.json", {**read_json(folder / "config.json"), "model_type": kind})
    return folder


# ---- which class


@pytest.mark.parametrize(
    ("name", "kind", "wrong"),
    [
        ("LlamaTokenizerFast", "qwen2", "LlamaTokenizerFast"),
        ("LlamaTokenizer", "llama", "LlamaTokenizer"),
        ("GemmaTokenizer", "llama", "GemmaTokenizer"),
        (None, "code_llama", "CodeLlamaTokenizer"),
        (None, "llama", None),
        ("PreTrainedTokenizerFast", "llama", None),
        ("TokenizersBackend", "qwen2", None),
        ("GPT2Tokenizer", "llama", None),
        ("NobodyKnowsThisTokenizer", "llama", None),
    ],
)
def test_a_class_that_cuts_up_texts_otherwise_is_known_beforehand(
    mine: Callable[[str], Path], name: str | None, kind: str, wrong: str | None
) -> None:
    folder = renamed(mine("byte-level"), name, kind)
    assert cure.wrong_class(folder) == cure.wrong_class(folder) == wrong  # the second time from memory


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *product(["byte-level", "sentencepiece"], ["LlamaTokenizer", "Qwen2Tokenizer", "GPT2Tokenizer"]),
        ("sentencepiece", "GemmaTokenizer"),
    ],
)
def test_what_is_foreseen_is_what_transformers_does(mine: Callable[[str], Path], kind: str, name: str) -> None:
    from transformers import AutoTokenizer

    folder = renamed(mine(kind), name)
    settings = read_json(folder / "tokenizer_config.json")
    write_json(folder / "tokenizer_config.json", {k: v for k, v in settings.items() if k != "auto_map"})
    with tokenizer_class.rebuilt(load(folder), tokenizer_class.built_by(name, settings)):
        foreseen = ids_of(load(folder))
    real = AutoTokenizer.from_pretrained(str(folder)).backend_tokenizer
    assert foreseen == ids_of(real)
    assert ids_of(load(folder)) != foreseen or cure.wrong_class(folder) is None


# ---- the cure


def test_a_wrongly_loaded_model_is_used_through_links_and_stays_as_it_is(mine: Callable[[str], Path]) -> None:
    from transformers import AutoTokenizer

    folder = renamed(mine("byte-level"), "LlamaTokenizerFast")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    base = sources.locate("mine", folder.parent, HashCache(folder.parent / "hashes.json"))
    assert base == sources.locate("mine", folder.parent, HashCache(folder.parent / "hashes.json"))
    assert base.cure == "tokenizer_class PreTrainedTokenizerFast instead of LlamaTokenizerFast"
    assert base.identity.endswith("+tokenizer_class=PreTrainedTokenizerFast")
    assert base.path is not None and base.path.parent.name == "cured"
    assert (base.path / "model.safetensors").resolve() == folder / "model.safetensors"
    assert read_json(base.path / "tokenizer_config.json") == {
        "bos_token": None,
        "eos_token": END,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    assert ids_of(AutoTokenizer.from_pretrained(str(base.path)).backend_tokenizer) == ids_of(load(folder))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_needs_no_cure_is_used_as_it_is(mine: Callable[[str], Path]) -> None:
    folder = mine("byte-level")
    base = sources.locate("mine", folder.parent, HashCache(folder.parent / "hashes.json"))
    assert (base.path, base.cure, "+" in base.identity) == (folder, None, False)


# ---- what check says


def converter(folder: Path, known: Path) -> Path:
    """As much of llama.cpp's converter as is read, with the tokenizer of one model folder known to it."""
    text = "a \n 三 1000"
    ids = load(known).encode(text).ids
    write_text(folder / "conversion/__init__.py", 'TEXT_MODEL_MAP: dict = {\n    "LlamaForCausalLM": "llama",\n}\n')
    lines = [f"        chktxt = {text!r}", f'        if chkhsh == "{hashlib.sha256(str(ids).encode()).hexdigest()}":']
    write_text(folder / "conversion/base.py", "\n".join(lines) + "\n")
    return folder


def test_a_model_that_fits_is_told_nothing_of(mine: Callable[[str], Path], tmp_path: Path) -> None:
    folder = mine("byte-level")
    assert require_fit(folder, "qwen", converter(tmp_path / "llama.cpp", folder), "mine") == []


def test_cure_and_left_out_stop_words_take_a_line_each(
    mine: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = replace(definition("llama3"), stop_words=(END, FURTHER), replace_eos=True)
    monkeypatch.setattr(examine, "definition", {"stopping": stopping}.__getitem__)
    folder = renamed(mine("byte-level"), "LlamaTokenizerFast")
    cured, left_out = require_fit(folder, "stopping", None, "mine")
    assert cured.startswith("tokenizer: tokenizer_class PreTrainedTokenizerFast instead of LlamaTokenizerFast")
    assert left_out == "template: stopping also stops at <|eom_id|>, no token of mine: left out of what is served"


def spoil(folder: Path, name: str, text: str | None) -> None:
    (folder / name).unlink() if text is None else write_text(folder / name, text)


@pytest.mark.parametrize(
    ("kind", "name", "text", "said"),
    [
        ("byte-level", "tokenizer.json", None, "has no tokenizer"),
        ("byte-level", "tokenizer.json", '{"model": {', "tokenizer.json of mine is damaged"),
        ("byte-level", "tokenizer_config.json", None, "has no tokenizer_config.json"),
        ("byte-level", "tokenizer_config.json", "[]", "is no JSON object"),
        ("sentencepiece", "tokenizer.model", "not a model", "is no SentencePiece model"),
        ("sentencepiece", "tokenizer.model", None, "has no tokenizer.model"),
        ("byte-level", "config.json", "{", "config.json of mine is damaged"),
        ("byte-level", "config.json", '{"model_type": "llama"}', "names no architectures"),
        (
            "byte-level",
            "config.json",
            '{"model_type": "zzz", "architectures": ["LlamaForCausalLM"]}',
            "model_type 'zzz'",
        ),
        ("byte-level", "config.json", '{"model_type": "llama", "architectures": ["X"]}', "the architecture 'X'"),
    ],
)
def test_what_cannot_go_through_is_refused_in_one_line(
    mine: Callable[[str], Path], tmp_path: Path, kind: str, name: str, text: str | None, said: str
) -> None:
    folder = mine(kind)
    made_for = converter(tmp_path / "llama.cpp", folder)
    load.cache_clear()
    spoil(folder, name, text)
    with pytest.raises(InputError, match=said) as caught:
        require_fit(folder, "qwen" if kind == "byte-level" else "llama2", made_for, "mine")
    assert "\n" not in caught.value.message and caught.value.hint


def test_a_way_of_splitting_that_llamacpp_does_not_know_is_refused(
    made: dict[str, Path], mine: Callable[[str], Path], tmp_path: Path
) -> None:
    known = converter(tmp_path / "llama.cpp", made["sentencepiece"])
    load.cache_clear()
    with pytest.raises(InputError, match="does not know how the tokenizer of 'mine' splits texts"):
        require_fit(mine("byte-level"), "qwen", known, "mine")


def test_a_template_fits_if_its_end_is_a_token() -> None:
    assert known_stop_words([END, FURTHER, "<a>"], {END, "<a>"}.__contains__, "m") == ([END, "<a>"], [FURTHER])
    with pytest.raises(InputError, match="ends answers with '<|eom_id|>', which is no token of m".replace("|", r"\|")):
        known_stop_words([FURTHER, END], {END}.__contains__, "m")


# ---- what travels into the merged folder


@pytest.fixture
def merged(made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """What the template stage leaves of an export that wrote no tokenizer.model and added a stop word."""

    def run(kind: str, name: str, **serving: Any) -> dict[str, Any]:
        run = tmp_path / "run"
        exported = run / layout.AS_MERGED
        shutil.copytree(made[kind], exported)
        (exported / "tokenizer.model").unlink(missing_ok=True)
        tokenizer = read_json(exported / "tokenizer.json")
        added = {**tokenizer["added_tokens"][-1], "id": 5000, "content": FURTHER}
        write_json(exported / "tokenizer.json", {**tokenizer, "added_tokens": [*tokenizer["added_tokens"], added]})
        monkeypatch.chdir(run)
        given = {"template": name, "thinking": False, "system": None, "stop": [END], **serving}
        write_json(Path(layout.SERVING), given)
        config = {"name": "n", "base": "b", "licence": None, "dataset": "d", "tokenizer": str(made[kind])}
        template.Template(**config).run()
        return {path.name: path for path in Path(layout.MERGED).iterdir()}

    return run


def test_sentencepiece_travels_with_its_markers(made: dict[str, Path], merged: Callable[..., dict[str, Any]]) -> None:
    files = merged("sentencepiece", "llama2")
    assert files["tokenizer.model"].read_bytes() == (made["sentencepiece"] / "tokenizer.model").read_bytes()
    marked = read_json(files["tokenizer_config.json"])["added_tokens_decoder"]
    assert {entry["content"]: entry["special"] for entry in marked.values()} == dict.fromkeys(
        ("<s>", "</s>", FURTHER), True
    )


def test_a_stop_word_that_the_model_lacks_is_taken_out_again(merged: Callable[..., dict[str, Any]]) -> None:
    files = merged("byte-level", "qwen", left_out=[FURTHER])
    assert FURTHER not in files["tokenizer.json"].read_text(encoding="utf-8")
    assert END in files["tokenizer.json"].read_text(encoding="utf-8")


# ---- white space


MARKERS = frozenset({"<s>", "</s>", "[INST]", "[/INST]", "<|user|>", "<|assistant|>", "<|end|>"})


@pytest.mark.parametrize(
    ("name", "spacing", "question", "answer"),
    [
        ("llama2", Spacing(), "<s>[INST] Q [/INST]", "A</s>"),
        ("llama2", Spacing("stretches", frozenset({"<s>", "</s>"})), "<s>[INST] Q [/INST]", " A</s>"),
        ("vicuna", Spacing("stretches", frozenset({"</s>"})), "USER: Q ASSISTANT:", " A</s>"),
        ("mistral", Spacing("pieces", MARKERS), "[INST] Q[/INST]", " A</s>"),
        (
            "phi",
            Spacing("stretches", MARKERS, frozenset({"<|user|>"})),
            "<|user|>Q<|end|>\n<|assistant|>\n",
            " A<|end|>\n",
        ),
    ],
)
def test_the_spaces_of_training_are_part_of_the_template(
    name: str, spacing: Spacing, question: str, answer: str
) -> None:
    eos = "<|end|>" if name == "phi" else "</s>"
    written = turns(spaced(definition(name), spacing), SpecialTokens("<s>", eos), thinking=False)
    assert (written.user.around("Q"), written.assistant.around("A")) == (question, answer)


def test_spaces_are_read_off_the_tokenizer(made: dict[str, Path], tmp_path: Path) -> None:
    assert spacing_of(made["byte-level"]).adds is None
    assert spacing_of(made["sentencepiece"]).adds == "stretches"
    newer = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Metaspace", "prepend_scheme": "first"}]}}
    write_json(tmp_path / "tokenizer.json", newer)
    assert spacing_of(tmp_path).adds == "pieces"


def test_the_text_of_a_prompt_leads_back_to_its_tokens(made: dict[str, Path]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(made["sentencepiece"]))
    asked = "<s>The capital</s><s>of France"
    ids = tokenizer.encode(asked, add_special_tokens=False)
    assert tokenizer.decode(ids) != asked
    assert decoded(tokenizer, ids, lambda: asked) == asked
    assert decoded(tokenizer, ids, lambda: "another") == tokenizer.decode(ids)
