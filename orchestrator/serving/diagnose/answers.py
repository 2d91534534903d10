"""The rows of the user's own, asked as the model is served and as it was trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.evaluation.overlap import extract_label
from orchestrator.evaluation.rows import strip_thinking
from orchestrator.lib.errors import OrchestratorError
from orchestrator.models.gguf import GgufModel
from orchestrator.serving.diagnose.finding import Finding
from orchestrator.serving.diagnose.probes import Row, labels
from orchestrator.serving.diagnose.shipped import Shipped
from orchestrator.serving.diagnose.trained import Prompt
from orchestrator.serving.http import Endpoint, post, reading

ROOM = 16
"""Tokens that an answer may have beyond the longest right one."""


@dataclass(frozen=True, slots=True)
class Answers:
    """How many rows are answered right."""

    rows: int
    served: int
    """As a client asks: the server's own prompt and parameters."""
    trained: int | None
    """With the prompts of training, greedily; None where the server takes no prompt as it is."""
    example: str = ""
    """A wrong answer, and what the prompts of training make of it."""

    def sentence(self) -> str:
        """In words."""
        with_trained = "" if self.trained is None else f"; with the prompts of training {self.trained}"
        return f"{self.served} of {self.rows} rows are answered right as it is served{with_trained}{self.example}"


def ask(
    rows: Sequence[Row], prompts: Sequence[Prompt], shipped: Shipped, stop: Sequence[str], bos: str | None
) -> Answers:
    """Ask both ways. `prompts` are those of training, in the order of the rows."""
    if shipped.endpoint is None:
        served, trained = _of_file(rows, prompts, shipped, stop)
    else:
        limit = max(len(row.answer.encode()) for row in rows) + ROOM  # bytes: no token has less than one
        served = [_chat(shipped.endpoint, row, limit) for row in rows]
        trained = [_complete(shipped, prompt.text, stop, limit, bos) for prompt in prompts]
    return compare(rows, served, trained)


def compare(rows: Sequence[Row], served: Sequence[str], trained: Sequence[str | None]) -> Answers:
    """Count the right ones: answers that name the row's label, or where they are no labels, that read as the row's
    does, thoughts and white space aside."""
    known = tuple(sorted({row.answer.strip() for row in rows})) if labels(rows) else None

    def right(row: Row, text: str) -> bool:
        plain = strip_thinking(text)
        return (extract_label(plain, known) if known else plain) == strip_thinking(row.answer)

    good = [right(row, text) for row, text in zip(rows, served, strict=True)]
    told = None if None in trained else [right(row, str(text)) for row, text in zip(rows, trained, strict=True)]
    righted = [n for n, fine in enumerate(good) if told and told[n] and not fine]
    example = f" (row {righted[0] + 1}: {served[righted[0]][:40]!r}, then {trained[righted[0]]!r})" if righted else ""
    return Answers(len(rows), sum(good), None if told is None else sum(told), example)


def judged(found: list[Finding], answers: Answers, quantisation: str) -> list[Finding]:
    """The findings in the light of the answers: a file that answers right is not cut too far, and one that answers
    wrong though nothing else differs may be."""
    good = answers.trained is not None and answers.trained >= 0.9 * answers.rows
    bad = answers.trained is not None and answers.trained < 0.5 * answers.rows
    few = [one for one in found if one.kind == "quantisation"]
    if good:
        return [replace(one, wrong=False) if one in few else one for one in found]
    if bad and few and not any(one.wrong for one in found if one not in few):
        return [replace(one, wrong=True) if one in few else one for one in found]
    return found


def _chat(server: Endpoint, row: Row, limit: int) -> str:
    """As a client asks that sets nothing, but for an end: who runs on is wrong already."""
    body = {"model": server.model, "messages": list(row.messages), "stream": False}
    if server.protocol == "ollama":
        answer = post(server, server.url + "/api/chat", {**body, "options": {"seed": 0, "num_predict": limit}})
    else:
        answer = post(server, server.url + "/chat/completions", {**body, "max_tokens": limit})
    with reading(server, answer):
        message = answer["message"] if server.protocol == "ollama" else answer["choices"][0]["message"]
        return str(message["content"] or "")


def _complete(shipped: Shipped, text: str, stop: Sequence[str], limit: int, bos: str | None) -> str | None:
    """The answer to a prompt as it is; None from a server that takes none."""
    server = shipped.endpoint
    assert server is not None
    prompt = text.removeprefix(bos) if bos and shipped.adds_bos else text
    try:
        if server.protocol == "ollama":
            options = {"temperature": 0, "seed": 0, "repeat_penalty": 1, "num_predict": limit, "stop": list(stop)}
            body = {"model": server.model, "prompt": prompt, "raw": True, "stream": False, "options": options}
            return str(post(server, server.url + "/api/generate", body)["response"] or "")
        body = {"model": server.model, "prompt": prompt, "temperature": 0, "max_tokens": limit, "stop": list(stop)}
        return str(post(server, server.url + "/completions", body)["choices"][0]["text"] or "")
    except (OrchestratorError, KeyError, IndexError, TypeError):
        return None


def _of_file(
    rows: Sequence[Row], prompts: Sequence[Prompt], shipped: Shipped, stop: Sequence[str]
) -> tuple[list[str], list[str | None]]:
    assert shipped.gguf is not None
    with GgufModel(shipped.gguf) as model:
        bos = model.tokenize(model.bos or "") if shipped.adds_bos else []
        own = [[*bos, *model.tokenize(text or "")] for text in shipped.texts[: len(prompts)]]
        ends, limit = model.stops(stop), max(len(model.tokenize(row.answer)) for row in rows) + ROOM

        def said(asked: Sequence[Sequence[int]]) -> list[str]:
            given = dict(model.answers(asked, limit, ends))
            return [model.detokenize(given[n]) for n in range(len(asked))]

        return said(own), list(said([prompt.ids for prompt in prompts]))
