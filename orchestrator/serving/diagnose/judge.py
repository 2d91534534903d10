"""Training and serving side by side: which part differs, and at which character and token. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from orchestrator.lib.sequences import first_difference
from orchestrator.lib.words import counted
from orchestrator.serving.diagnose.finding import Finding, Seen
from orchestrator.serving.diagnose.probes import Probe
from orchestrator.serving.diagnose.settings import number, settings
from orchestrator.serving.diagnose.trained import Prompt

SHOWN = 24
"""Characters of either text that a difference quotes."""
OPEN_THOUGHT = re.compile(r"<think>\s*(</think>\s*)?\Z")


def judge(seen: Seen) -> list[Finding]:
    """Everything that differs."""
    return [*_prompts(seen), *_tokens(seen), *settings(seen)]


# ---- prompts


@dataclass(frozen=True, slots=True)
class _Pair:
    """One prompt as trained and as served, BOS at the start left out of both."""

    probe: Probe
    trained: str
    served: str
    ids: Sequence[int]

    @property
    def equal(self) -> bool:
        return self.trained == self.served


def _prompts(seen: Seen) -> Iterator[Finding]:
    yield from _bos(seen)
    pairs = [pair for pair in _pairs(seen) if not _same_tokens(seen, pair)]
    if not pairs and not any(text is not None for text in seen.shipped.texts):
        if seen.shipped.kind == "gguf":
            yield Finding("template", *_no_template(seen))
        yield from _counted(seen)
        return
    thought = [pair for pair in pairs if _other_thought(pair)]
    if thought:
        yield _thinking(seen, thought[0])
    rest = [pair for pair in map(_evened, pairs) if not pair.equal]
    by_shape = {
        shape: [pair for pair in rest if pair.probe.shape == shape] for shape in ("question", "system", "turns")
    }
    if by_shape["question"] and not by_shape["system"]:
        yield _system(seen, by_shape["question"][0])
    elif rest:
        yield _template(seen, rest[0], only_later=not by_shape["question"] and not by_shape["system"])


def _counted(seen: Seen) -> Iterator[Finding]:
    """Of a server that tells no prompt, only how many tokens the first one has."""
    given, wanted = seen.shipped.first_count, len(seen.trained[0].ids)
    if given is None or given == wanted:
        return
    sentence = f"the prompt of {seen.probes[0].title} has {given} tokens there, {wanted} in training"
    cure = "compare template, system text and BOS: the file itself, with --gguf, tells which"
    # one token is the BOS, which some servers do not count
    yield Finding("template", sentence, cure, wrong=not (seen.bos and abs(given - wanted) == 1))


def _pairs(seen: Seen) -> Iterator[_Pair]:
    for probe, prompt, text in zip(seen.probes, seen.trained, seen.shipped.texts, strict=True):
        if text is not None and not _cut_short(seen, probe, prompt):
            yield _Pair(probe, bare(prompt.text, seen.bos), bare(text, seen.bos), _bare_ids(prompt.ids, seen))


def _cut_short(seen: Seen, probe: Probe, prompt: Prompt) -> bool:
    """Whether earlier turns do not fit num_ctx: Ollama leaves them out, whatever its template is."""
    window = number(seen.shipped.parameters.get("num_ctx"))
    return probe.shape == "turns" and 0 < window <= len(prompt.ids)


def bare(text: str, bos: str | None) -> str:
    """A prompt without the BOS that it begins with, however often."""
    while bos and text.startswith(bos):
        text = text.removeprefix(bos)
    return text


def _bare_ids(ids: Sequence[int], seen: Seen) -> list[int]:
    (bos,) = seen.encode(seen.bos) if seen.bos and len(seen.encode(seen.bos)) == 1 else (None,)
    kept = list(ids)
    while kept and kept[0] == bos:
        kept.pop(0)
    return kept


def _same_tokens(seen: Seen, pair: _Pair) -> bool:
    """Equal texts, and texts that become the tokens of training all the same, as SentencePiece's spaces may."""
    return pair.equal or list(seen.encode(pair.served)) == list(pair.ids)


def _bos(seen: Seen) -> Iterator[Finding]:
    adds_bos = _adds_bos(seen)
    if not seen.bos or adds_bos is None:
        return
    for prompt, text in zip(seen.trained, seen.shipped.texts, strict=True):
        if text is None:
            continue
        wanted, written = _count(prompt.text, seen.bos), _count(text, seen.bos)
        given, other = written + adds_bos, bare(text, seen.bos) != bare(prompt.text, seen.bos)
        if given == wanted or (given < wanted and other):  # another template says that already
            continue
        times, trained = counted(given, "time"), counted(wanted, "time")
        begin = f"prompts have {seen.bos!r} at their start {times}, in training {trained}"
        yield Finding("bos", f"{begin}: they differ from token 1 on", _bos_cure(seen, adds_bos, written, wanted))
        return


def _adds_bos(seen: Seen) -> bool | None:
    """As the GGUF says, or else the number of tokens that the server counts in the first prompt."""
    text, count = seen.shipped.texts[0], seen.shipped.first_count
    if seen.shipped.adds_bos is not None or text is None or count is None:
        return seen.shipped.adds_bos
    return {0: False, 1: True}.get(count - len(seen.encode(text)))


def _bos_cure(seen: Seen, adds: bool, written: int, wanted: int) -> str:
    if adds and written:
        return f"{seen.shipped.maker} writes {seen.bos!r}, and llama.cpp adds it too: take it out of the template"
    if adds and not wanted:
        return (
            "no Modelfile can stop llama.cpp from adding it: convert again with `add_bos_token: false` in "
            "tokenizer_config.json, or run `gguf-set-metadata FILE tokenizer.ggml.add_bos_token false`"
        )
    return f"write {seen.bos!r} at the start of the template" if wanted else f"take {seen.bos!r} out of the template"


def _count(text: str, word: str) -> int:
    count = 0
    while text.startswith(word):
        text, count = text.removeprefix(word), count + 1
    return count


def _other_thought(pair: _Pair) -> bool:
    """Whether one prompt ends with an open or empty thought and the other does not, or with another."""
    trained, served = (OPEN_THOUGHT.search(text) for text in (pair.trained, pair.served))
    return (trained[0] if trained else "") != (served[0] if served else "")


def _evened(pair: _Pair) -> _Pair:
    """The pair with what its prompts end with in training, as far as thoughts go."""
    trained, text = OPEN_THOUGHT.search(pair.trained), OPEN_THOUGHT.sub("", pair.served)
    return replace(pair, served=text + (trained[0] if trained else "")) if _other_thought(pair) else pair


def _thinking(seen: Seen, pair: _Pair) -> Finding:
    said = {True: "to think", False: "not to think", None: "with a template that knows no thoughts"}[seen.thinking]
    ends = [OPEN_THOUGHT.search(text) for text in (pair.trained, pair.served)]
    trained, served = (repr(found[0]) if found else "nothing" for found in ends)
    sentence = f"trained {said}: {_place(seen, pair)}; what prompts end with: {served}, in training {trained}"
    cure = f"the template is to end prompts with {trained}" if ends[0] else "the template is to leave the thought out"
    return Finding("thinking", sentence, cure)


def _system(seen: Seen, pair: _Pair) -> Finding:
    given = seen.shipped.system
    wanted = f"{seen.system[:60]!r}" if seen.system else "no system text"
    has = f"puts {given[:60]!r} in front" if given else "has another one, or none"
    sentence = f"questions that bring none: {seen.shipped.name} {has}, training had {wanted} ({_place(seen, pair)})"
    return Finding("system", sentence, f"SYSTEM is to be {wanted}" if seen.system else "take the SYSTEM line out")


def _template(seen: Seen, pair: _Pair, only_later: bool) -> Finding:
    texts = [bare(text, seen.bos) for text in seen.shipped.texts if text is not None]
    name = seen.known(texts)
    is_of = f"; it is {name}" if name and name != seen.shape.name else ""
    over = (
        ", which Ollama takes instead of TEMPLATE because it knows more of tools or thinking,"
        if (seen.shipped.passed_over)
        else ""
    )
    later = " only after an earlier answer" if only_later else ""
    sentence = (
        f"{seen.shipped.maker}{over} is not {seen.shape.name}, as trained with{later}: {_place(seen, pair)}{is_of}"
    )
    return Finding("template", sentence, f"serve the prompts of template {seen.shape.name}")


def _no_template(seen: Seen) -> tuple[str, str]:
    if seen.shipped.template:
        sentence = "the chat template inside the GGUF fails on a plain question"
    else:
        sentence = "the GGUF carries no chat template, so every program guesses one"
    return sentence, f"serve the prompts of template {seen.shape.name}"


def _place(seen: Seen, pair: _Pair) -> str:
    """Character and token, counted from 1, BOS left out, with what either has there."""
    at = first_difference(pair.trained, pair.served)
    token = first_difference(list(pair.ids), list(seen.encode(pair.served)))
    here, there = (repr(text[at : at + SHOWN]) if at < len(text) else "its end" for text in (pair.served, pair.trained))
    return f"{pair.probe.title}, character {at + 1}, token {token + 1}: {here}, in training {there}"


# ---- tokens


def _tokens(seen: Seen) -> Iterator[Finding]:
    """The GGUF's own tokenizer on the very texts of training."""
    if seen.served_tokens is None:
        return
    for probe, prompt in zip(seen.probes, seen.trained, strict=True):
        wanted, text = _bare_ids(prompt.ids, seen), bare(prompt.text, seen.bos)
        made = list(seen.served_tokens(text))
        if made != wanted and list(seen.encode(text)) == wanted:
            at = first_difference(wanted, made)
            sentence = (
                f"the GGUF cuts the same text into other tokens: {probe.title}, token {at + 1}: "
                f"{made[at : at + 4]}, in training {wanted[at : at + 4]}"
            )
            cure = "convert again with the base model's tokenizer files (tokenizer.model, tokenizer_config.json) beside"
            yield Finding("tokenizer", sentence, f"{cure} the merged weights")
            return
