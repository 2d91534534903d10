"""From a training's folder and a name to a diagnosis: the effects around `judge`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.chat_template.jinja import jinja_template, render_messages
from orchestrator.chat_template.registry import definition, template_names
from orchestrator.lib.errors import InputError
from orchestrator.models.gguf import GgufModel
from orchestrator.serving.diagnose import answers as asked
from orchestrator.serving.diagnose import corrected, weights
from orchestrator.serving.diagnose.answers import Answers
from orchestrator.serving.diagnose.finding import TITLES, Finding, Seen
from orchestrator.serving.diagnose.judge import judge
from orchestrator.serving.diagnose.probes import Probe, Row, probes
from orchestrator.serving.diagnose.shipped import Shipped, of_endpoint, of_gguf
from orchestrator.serving.diagnose.trained import Trained
from orchestrator.serving.http import Endpoint

SHAPE = ("general.architecture",)
FACTS = ("block_count", "embedding_length")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found."""

    trained: Trained
    shipped: Shipped
    findings: Sequence[Finding]
    unseen: Sequence[str]
    """What could not be looked at, and why."""
    modelfile: str | None
    answers: Answers | None = None

    @property
    def sound(self) -> bool:
        """Whether nothing was found that spoils answers."""
        return not any(finding.wrong for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """As scripts read it."""
        answers = self.answers
        return {
            "sound": self.sound,
            "template": self.trained.template.value,
            "base": self.trained.saves.base,
            "served": self.shipped.name,
            "findings": [
                {"kind": one.kind, "wrong": one.wrong, "sentence": one.sentence, "cure": one.cure}
                for one in self.findings
            ],
            "not_looked_at": list(self.unseen),
            "answers": answers and {"rows": answers.rows, "served": answers.served, "trained": answers.trained},
            "modelfile": self.modelfile,
        }


def diagnose(trained: Trained, target: Endpoint | Path, rows: Sequence[Row] = ()) -> Diagnosis:
    """Compare a training with what is served of it; `rows` are the user's own, to be asked as well.

    Raises InputError or MissingError for a target that is not there, and StageError for one that fails.
    """
    questions = probes(rows)
    every = [*(row.messages for row in rows), *(probe.messages for probe in questions)]
    prompts, tokenizer = trained.prompts(every)
    compared, count = [probe.messages for probe in questions], len(rows)
    shipped = _ship(target, [*(row.messages for row in rows), *compared] if isinstance(target, Path) else compared)
    stop = trained.stop(tokenizer)
    base = Seen(
        shape=trained.shape,
        thinking=trained.thinking,
        system=trained.system.value,
        bos=trained.tokens.bos,
        stop=stop,
        probes=questions,
        trained=prompts[count:],
        shipped=replace(shipped, texts=shipped.texts[-len(questions) :]),
        encode=lambda text: tokenizer.encode(text, add_special_tokens=False),
        cutoff=_cutoff(trained),
        rows=rows,
        known=lambda texts: known_template(trained, questions, texts),
    )
    with _vocabulary(shipped) as vocabulary:
        seen = (
            base if vocabulary is None else replace(base, served_tokens=vocabulary.tokenize, ends=vocabulary.ends_with)
        )
        found = [*judge(seen), *_of_weights(trained, shipped, vocabulary)]
    if any(one.kind == "base" for one in found):  # another vocabulary is a part of that
        found = [one for one in found if one.kind not in ("tokenizer", "bos")]
    given = asked.ask(rows, prompts[:count], shipped, stop, trained.tokens.bos) if rows else None
    if given:
        found = asked.judged(found, given, shipped.quantisation)
    ordered = sorted(found, key=lambda one: (not one.wrong, list(TITLES).index(one.kind)))
    unseen = list(_unseen(trained, shipped, bool(rows)))
    return Diagnosis(trained, shipped, ordered, unseen, _modelfile(trained, shipped, stop, ordered), given)


def known_template(trained: Trained, questions: Sequence[Probe], texts: Sequence[str]) -> str:
    """LLaMA-Factory's name for the template that writes these prompts of plain questions, or ""."""
    wanted = [(probe.messages, text) for probe, text in zip(questions, texts, strict=False) if probe.shape != "turns"]
    tokens = trained.tokens
    for name in template_names():
        for thinking in (True, False):
            with contextlib.suppress(InputError, ValueError):
                jinja = jinja_template(definition(name), tokens, thinking)
                written = (render_messages(jinja, messages, tokens) for messages, _ in wanted)
                if all(_bare(a, tokens.bos) == text for a, (_, text) in zip(written, wanted, strict=True)):
                    return name
    return ""


def _bare(text: str, bos: str | None) -> str:
    return text.removeprefix(bos) if bos else text


def _ship(target: Endpoint | Path, conversations: Sequence[Any]) -> Shipped:
    return of_gguf(target, conversations) if isinstance(target, Path) else of_endpoint(target, conversations)


@contextlib.contextmanager
def _vocabulary(shipped: Shipped) -> Iterator[GgufModel | None]:
    if shipped.gguf is None:
        yield None
        return
    with GgufModel(shipped.gguf, vocabulary_only=True) as model:
        yield model


def _of_weights(trained: Trained, shipped: Shipped, vocabulary: GgufModel | None) -> list[Finding]:
    if vocabulary is None or shipped.gguf is None:
        return []
    architecture = vocabulary.metadata("general.architecture")
    metadata = {"general.architecture": architecture}
    metadata |= {f"{architecture}.{key}": vocabulary.metadata(f"{architecture}.{key}") for key in FACTS}
    found = weights.of_base(trained.saves, metadata, shipped.name)
    if found or shipped.adapter:
        return found
    share = weights.share_learnt(trained.saves, shipped.gguf)
    return weights.of_adapter(trained.saves, *share, shipped.name) if share else []


def _cutoff(trained: Trained) -> int | None:
    value = trained.saves.arguments.get("cutoff_len")
    return int(value) if isinstance(value, int | str) and str(value).isdecimal() else None


def _unseen(trained: Trained, shipped: Shipped, rows: bool) -> Iterator[str]:
    if all(text is None for text in shipped.texts) and shipped.kind != "gguf":
        yield "the text of the prompts: this server does not tell it"
    if shipped.gguf is None:
        yield "tokens, end tokens and weights: the GGUF is not readable from here (name it with --gguf)"
    elif trained.saves.adapter and trained.saves.base_folder() is None:
        yield f"whether the adapter is in the file: the base model {trained.saves.base} is not on this machine"
    if shipped.kind == "gguf":
        yield "system text, stop words and parameters: they are set where the file is served (--ollama, --endpoint)"
    if not rows:
        yield "answers: name rows with --data FILE"


def _modelfile(trained: Trained, shipped: Shipped, stop: list[str], findings: list[Finding]) -> str | None:
    try:
        return corrected.modelfile(trained, shipped, stop, findings)
    except InputError:  # a BOS that no Modelfile can take away, which a finding says
        return None
