"""What a served model is set to, beside its prompts: what ends an answer, sampling, room, bits. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from orchestrator.serving.diagnose.finding import Finding, Seen
from orchestrator.serving.diagnose.probes import labels


def settings(seen: Seen) -> Iterator[Finding]:
    """What of it spoils answers, or may."""
    for look in (_stop, _parameters, _context, _quantisation):
        yield from look(seen)


# ---- what ends an answer


def _stop(seen: Seen) -> Iterator[Finding]:
    if seen.shipped.kind == "openai" and seen.ends is None:
        return
    ends = seen.ends or (lambda word: False)
    end, given = seen.stop[0] if seen.stop else "", seen.shipped.stop
    if end and end not in given and not ends(end) and (seen.ends or seen.shipped.kind == "ollama"):
        sentence = f"answers were trained to end with {end!r}, which {seen.shipped.name} does not stop at: they run on"
        yield Finding("stop", sentence, f"PARAMETER stop {end}")
    for word in given:
        cut = next((row.answer for row in seen.rows if word.strip(" ") and word in row.answer), None)
        if word not in seen.stop and cut is not None:
            sentence = f"stop word {word!r} stands inside right answers, such as {cut[:40]!r}: they are cut off there"
            yield Finding("stop", sentence, f"take PARAMETER stop {word} out")


# ---- parameters


def _parameters(seen: Seen) -> Iterator[Finding]:
    given = seen.shipped.parameters
    for name, neutral in (("repeat_penalty", 1), ("presence_penalty", 0), ("frequency_penalty", 0)):
        if number(given.get(name, neutral)) != neutral:
            sentence = f"{name} is {given[name]}: tokens that occurred before are made less likely, labels among them"
            yield Finding("parameters", sentence, f"PARAMETER {name} {neutral}")
    yield from _temperature(seen)


def _temperature(seen: Seen) -> Iterator[Finding]:
    given = seen.shipped.parameters.get("temperature")
    if seen.shipped.kind == "gguf" or (given is None and seen.shipped.kind != "ollama"):
        return
    value = 0.8 if given is None else number(given)
    said = "temperature is not set, and Ollama takes 0.8" if given is None else f"temperature is {given}"
    if value > 1 or (value > 0 and labels(seen.rows)):
        yield Finding("parameters", f"{said}: answers are drawn at random, not chosen", "PARAMETER temperature 0")
    elif value > 0:
        sentence = f"{said}: the same question may get several answers; labels want 0"
        yield Finding("parameters", sentence, "PARAMETER temperature 0", wrong=False)


def number(value: Any) -> float:
    """A parameter's value; 0 for what is no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


def _context(seen: Seen) -> Iterator[Finding]:
    window, answer = (number(seen.shipped.parameters.get(name)) for name in ("num_ctx", "num_predict"))
    longest = max(len(prompt.ids) for prompt in seen.trained)
    answers = [len(seen.encode(row.answer)) for row in seen.rows]
    if window and window < longest + max(answers, default=1):
        sentence = f"num_ctx is {window:.0f}, and a prompt has {longest} tokens: what does not fit is silently cut off"
        yield Finding("context", sentence, f"PARAMETER num_ctx {seen.cutoff or _rounded(2 * longest)}")
    elif window and seen.cutoff and window < seen.cutoff:
        sentence = f"num_ctx is {window:.0f}, rows of training may have had {seen.cutoff} tokens (cutoff_len)"
        yield Finding("context", sentence, f"PARAMETER num_ctx {seen.cutoff}", wrong=False)
    if answer > 0 and answers and answer < max(answers):
        sentence = f"num_predict is {answer:.0f}, and a right answer has {max(answers)} tokens: it is cut off"
        yield Finding("context", sentence, f"PARAMETER num_predict {_rounded(2 * max(answers))}")


def _rounded(tokens: int) -> int:
    return -(-tokens // 512) * 512


def _quantisation(seen: Seen) -> Iterator[Finding]:
    kind = seen.shipped.quantisation.upper()
    if bits := re.match(r"I?T?Q([123])", kind):
        sentence = f"the weights were cut to {bits[1]} bits ({kind}), where small models lose what they learnt"
        cure = "quantise again, to Q4_K_M or above, from f16"
        yield Finding("quantisation", sentence, cure, wrong=bits[1] < "3")
