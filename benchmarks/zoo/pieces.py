"""SentencePiece models (tokenizer.model) and the tokenizer.json of the same vocabulary, one made from the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BPE = 2  # sentencepiece_model.proto: TrainerSpec.ModelType
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # ModelProto.SentencePiece.Type


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a vocabulary has its control pieces. `first` is the id of the first piece that was merged from others."""

    unk: int
    bos: int
    eos: int
    first: int
    pad: int = -1
    dummy_prefix: bool = False
    """Whether a space is put in front of a text."""


def model_of(tokenizer: Mapping[str, Any], layout: Layout, scores: Sequence[float] | None = None) -> bytes:
    """tokenizer.model from tokenizer.json; where scores are not known, minus the rank of a piece, as in a BPE's."""
    vocab: Mapping[str, int] = tokenizer["model"]["vocab"]
    special = {token["id"] for token in tokenizer["added_tokens"]}
    model = _empty(len(vocab), layout)
    for text, number in sorted(vocab.items(), key=lambda item: item[1]):
        kind = _kind(text, number, layout, special)
        score = scores[number] if scores else float(layout.first - number)
        model.pieces.add(piece=text, type=kind, score=score if kind == NORMAL else 0.0)
    return bytes(model.SerializeToString())


def _proto() -> Any:
    """The class of the message, which exists at run time only."""
    from sentencepiece import sentencepiece_model_pb2

    return getattr(sentencepiece_model_pb2, "ModelProto")  # noqa: B009


def _empty(size: int, layout: Layout) -> Any:
    model = _proto()()
    model.trainer_spec.model_type, model.trainer_spec.byte_fallback, model.trainer_spec.vocab_size = BPE, True, size
    for name in ("unk", "bos", "eos", "pad"):
        setattr(model.trainer_spec, f"{name}_id", getattr(layout, name))
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = layout.dummy_prefix
    model.normalizer_spec.remove_extra_whitespaces = False
    return model


def _kind(text: str, number: int, layout: Layout, special: set[int]) -> int:
    if number == layout.unk:
        return UNKNOWN
    if number in (layout.bos, layout.eos, layout.pad):
        return CONTROL
    if len(text) == 6 and text.startswith("<0x"):
        return BYTE
    return USER_DEFINED if number in special else NORMAL


def read_model(data: bytes) -> Any:
    """The ModelProto in a tokenizer.model."""
    return _proto().FromString(data)


def bpe_of(model: Any) -> dict[str, Any]:
    """The `model` of a tokenizer.json for a SentencePiece BPE model, its merges found from the scores of the pieces."""
    vocab = {piece.piece: number for number, piece in enumerate(model.pieces)}
    scores = {piece.piece: piece.score for piece in model.pieces}
    merges = sorted(_merges(vocab), key=lambda pair: (-scores["".join(pair)], vocab[pair[0]], vocab[pair[1]]))
    unknown = next(piece.piece for piece in model.pieces if piece.type == UNKNOWN)
    more = {"byte_fallback": True, "fuse_unk": True, "ignore_merges": False, "dropout": None}
    return {"type": "BPE", "unk_token": unknown, **more, "vocab": vocab, "merges": [list(pair) for pair in merges]}


def _merges(vocab: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    for text in vocab:
        for cut in range(1, len(text)):
            if text[:cut] in vocab and text[cut:] in vocab:
                yield text[:cut], text[cut:]


def control_pieces(model: Any) -> list[dict[str, Any]]:
    """The `added_tokens` of a tokenizer.json: the pieces that no text is split into."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    kinds = (UNKNOWN, CONTROL)
    return [
        {"id": number, "content": piece.piece, **flags}
        for number, piece in enumerate(model.pieces)
        if piece.type in kinds
    ]
