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
from orchestrator.serving.diagnose.judge import bare, judge
from orchestrator.serving.diagnose.probes import Probe, Row, probes
from orchestrator.serving.diagnose.shipped import Shipped, of_endpoint, of_gguf
from orchestrator.serving.diagnose.trained import Prompt, Trained
from orchestrator.serving.http import Endpoint


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
    count, every = len(rows), [*(row.messages for row in rows), *(probe.messages for probe in probes(rows))]
    prompts, tokenizer = trained.prompts(every)
    shipped = of_gguf(target, every) if isinstance(target, Path) else of_endpoint(target, every[count:])
    seen = _seen(trained, shipped, rows, prompts[count:], tokenizer)
    found = _differences(trained, seen)
    given = asked.ask(rows, prompts[:count], shipped, seen.stop, seen.bos) if rows else None
    if given:
        found = asked.judged(found, given, shipped.quantisation)
    found = sorted(found, key=lambda one: (not one.wrong, list(TITLES).index(one.kind)))
    unseen = list(_unseen(trained, shipped, bool(rows)))
    return Diagnosis(trained, shipped, found, unseen, _modelfile(trained, shipped, list(seen.stop), found), given)


def _seen(trained: Trained, shipped: Shipped, rows: Sequence[Row], prompts: Sequence[Prompt], tokenizer: Any) -> Seen:
    """The questions that are compared, as they were trained (`prompts`) and as they are served."""
    questions = probes(rows)
    return Seen(
        shape=trained.shape,
        thinking=trained.thinking,
        system=trained.system.value,
        bos=trained.tokens.bos,
        stop=trained.stop(tokenizer),
        probes=questions,
        trained=prompts,
        shipped=replace(shipped, texts=shipped.texts[-len(questions) :]),
        encode=lambda text: tokenizer.encode(text, add_special_tokens=False),
        cutoff=_cutoff(trained),
        rows=rows,
        known=lambda texts: known_template(trained, questions, texts),
    )


def _differences(trained: Trained, seen: Seen) -> list[Finding]:
    """What differs in prompts and settings and, where the GGUF can be read, in tokens and weights."""
    with _vocabulary(seen.shipped) as vocabulary:
        if vocabulary:
            seen = replace(seen, served_tokens=vocabulary.tokenize, ends=vocabulary.ends_with)
        found = [*judge(seen), *_of_weights(trained, seen.shipped, vocabulary)]
    if any(one.kind == "base" for one in found):  # another vocabulary is a part of that
        return [one for one in found if one.kind not in ("tokenizer", "bos")]
    return found


def known_template(trained: Trained, questions: Sequence[Probe], texts: Sequence[str]) -> str:
    """LLaMA-Factory's name for the template that writes these prompts of plain questions, or ""."""
    wanted = [(probe.messages, text) for probe, text in zip(questions, texts, strict=False) if probe.shape != "turns"]
    tokens = trained.tokens
    for name in template_names():
        for thinking in (True, False):
            with contextlib.suppress(InputError, ValueError):
                jinja = jinja_template(definition(name), tokens, thinking)
                written = (render_messages(jinja, messages, tokens) for messages, _ in wanted)
                if all(bare(a, tokens.bos) == text for a, (_, text) in zip(written, wanted, strict=True)):
                    return name
    return ""


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
    found = weights.of_base(trained.saves, vocabulary.metadata, shipped.name)
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
