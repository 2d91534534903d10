"""Two families that need no network: SmolLM2 under a class it is not of, and a small SentencePiece vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.zoo import vocabularies
from benchmarks.zoo.families import Family, shaped
from benchmarks.zoo.pieces import bpe_of, control_pieces, read_model
from benchmarks.zoo.rows import SETS
from orchestrator.lib.files import read_json, write_json

ROOT = Path(__file__).parent.parent
PIECES = 2000


def misnamed(folder: Path) -> None:
    """SmolLM2's byte-level vocabulary under the class that DeepSeek's repositories name."""
    vocabularies.builtin(folder)
    config = read_json(folder / "tokenizer_config.json")
    (folder / "tokenizer_config.json").unlink()  # a hard link: the builtin model's own stays as it is
    write_json(folder / "tokenizer_config.json", config | {"tokenizer_class": "LlamaTokenizerFast"})


def llama2_like(folder: Path) -> None:
    """A vocabulary as Llama 2's, learnt from the shipped headlines."""
    (folder / "tokenizer.model").write_bytes(learnt())
    model = read_model((folder / "tokenizer.model").read_bytes())
    space = {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    undo = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]  # fmt: skip
    write_json(
        folder / "tokenizer.json",
        {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": control_pieces(model),
            "normalizer": {"type": "Sequence", "normalizers": list(space)}, "pre_tokenizer": None,
            "post_processor": vocabularies.begins_with("<s>", 1), "decoder": {"type": "Sequence", "decoders": undo},
            "model": bpe_of(model),
        },
    )  # fmt: skip
    write_json(folder / "tokenizer_config.json", CONFIG)


CONFIG: dict[str, Any] = {
    "tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": True, "add_eos_token": False,
    "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": None,
    "clean_up_tokenization_spaces": False, "model_max_length": 4096, "sp_model_kwargs": {},
}  # fmt: skip


def learnt() -> bytes:
    """A SentencePiece BPE model with byte fallback, trained on the headlines of both languages."""
    import io

    from sentencepiece import SentencePieceTrainer

    files = [ROOT / f"datasets/{name}/{part}.json" for name in SETS for part in ("train", "eval")]
    texts = [turn["value"] for file in files for row in read_json(file) for turn in row["conversations"]]
    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=written, model_type="bpe", vocab_size=PIECES, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    return written.getvalue()


SMALL = {
    "misnamed": Family(
        "SmolLM2-135M-Instruct", misnamed, shaped("llama", 49152, 1, 2), "the builtin model", "Apache-2.0"
    ),
    "llama2-like": Family("Llama-2-7b-chat-hf", llama2_like, shaped("llama", PIECES, 1, 2), "none", "Apache-2.0"),
}
