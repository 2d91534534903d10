"""ask-…: every GGUF answers the held-out rows in llama.cpp, from prompts whose tokens must equal those of training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.files import read_json, sha256_of, write_json, write_text
from orchestrator.lib.step import Step
from orchestrator.stages import confidence, diverge
from orchestrator.stages.asked import (
    Answered,
    Likelihoods,
    files_of,
    identity,
    kinds_asked,
    kinds_read,
    made_by,
    prompt_text,
)
from orchestrator.stages.base import Context, Stage
from orchestrator.stages.given import Places
from orchestrator.stages.labels import choices_of

if TYPE_CHECKING:
    from orchestrator.models.draft import Draft
    from orchestrator.models.gguf import GgufModel


@dataclass(frozen=True)
class Ask(Stage):
    """The answers of one GGUF, and whether its prompts were those of training."""

    program = "ask"
    phase = "verify"
    optional = ("adapter",)
    gguf: str
    prompts: str
    answers: str
    parity: str
    max_new_tokens: int
    adapter: str | None = None
    """An adapter GGUF to lay over it."""

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One process for each GGUF, since a broken file may take llama.cpp down with it."""
        return [_step(context, kind) for kind in kinds_asked(context)] if context.kind.answers else []

    def run(self) -> None:
        """Write both."""
        from orchestrator.evaluation.parity import Asked, parity
        from orchestrator.evaluation.rows import read_objects
        from orchestrator.models.gguf import GgufModel

        rows = read_objects(Path(self.prompts))
        print(f"llama.cpp loads {self.gguf}", flush=True)  # the last line, should a damaged file end this process
        with GgufModel(Path(self.gguf), Path(self.adapter) if self.adapter else None) as model:
            texts = [prompt_text(model, row["messages"], row.get("tools", ())) for row in rows]
            prompts = [model.tokenize(text) for text in texts]
            answers = self._answered(model, _Asked(rows, texts, prompts))
            asked = [
                Asked(row["id"], row["ids"], ids, text == row["text"], answer, len(answer) >= self.max_new_tokens)
                for row, text, ids, answer in zip(rows, texts, prompts, answers, strict=True)
            ]
            predictions = [model.detokenize(answer) for answer in answers]
            served = _by_llama_server(model, rows)
        lines = [
            {"id": row["id"], "prompt": row["prompt"], "label": row["label"], "prediction": prediction}
            for row, prediction in zip(rows, predictions, strict=True)
        ]
        write_text(Path(self.answers), "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        write_json(Path(self.parity), parity(asked) | ({"llama_server": served} if served else {}))

    def _answered(self, model: GgufModel, asked: _Asked) -> list[list[int]]:
        """The answers, from the tuned model's as drafts; what is made of these is kept, if it is going to be wanted."""
        artifact, stop_words = Path(self.answers).stem, read_json(Path(layout.SERVING))["stop"]
        itself = identity(filter(None, (self.gguf, self.adapter)), stop_words)
        given, seen = diverge.given_to(artifact), Places()
        drafts = given.drafts(asked.rows, asked.prompts, seen) if given else {}
        drafts = self._weighed(model, asked, drafts, itself)
        ask = partial(model.answers, max_new_tokens=self.max_new_tokens, stops=model.stops(stop_words))
        answers = _answers(ask, asked.prompts, drafts, self.max_new_tokens, Answered(artifact, itself))
        if given and seen:
            given.keep(Path(layout.places(artifact)), given.key(itself), seen)
        return answers

    def _weighed(self, model: GgufModel, asked: _Asked, drafts: dict[int, Draft], itself: str) -> dict[int, Draft]:
        """The drafts, each label beside them where it is going to be asked how likely that is."""
        from orchestrator.models.draft import until_end

        artifact, stop_words = Path(self.answers).stem, read_json(Path(layout.SERVING))["stop"]
        labels = confidence.labels_weighed(artifact, asked.rows) if drafts and model.branches else []
        if not labels:
            return drafts
        ends = partial(model.is_end, model.stops(stop_words))
        said = [until_end(draft.tokens, ends, self.max_new_tokens)[0] for draft in drafts.values()]
        choices = choices_of(model, labels, asked.texts[0], said, stop_words)
        kept = Likelihoods(artifact, itself, choices)
        for prompt in asked.prompts:  # what runs beside this one know, before it has a file of its own
            kept.of(prompt)
        return {
            index: replace(draft, choices=choices, weigh=partial(kept.keep, asked.prompts[index]))
            for index, draft in drafts.items()
        }


@dataclass(frozen=True, slots=True)
class _Asked:
    """The held-out rows as a GGUF is asked them."""

    rows: Sequence[Mapping[str, Any]]
    texts: Sequence[str]
    prompts: Sequence[list[int]]


def _step(context: Context, kind: str) -> Step:
    artifact, (gguf, over) = f"gguf-{kind}", files_of(context, kind)
    answers, parity = layout.predictions(artifact), layout.parity(artifact)
    limit, needs = context.spec.evaluate.max_new_tokens, ("prepare", made_by(context, kind))
    reading = diverge.step(context, kind) if kind in kinds_read(context) else None
    wanted = [reading, *confidence.Confidence.plan(context)] if reading else []
    return Ask(gguf, layout.PROMPTS, answers, parity, limit, over).step(
        f"ask-{kind}",
        expects=(answers, parity),
        needs=needs,
        after=tuple(stage for stage in reading.needs if stage not in needs) if reading else (),
        hints={name: text for step in wanted for name, text in step.files.items()},
        inputs=context.picked("llama-cpp-python"),
        keeps=(layout.answered(artifact), layout.places(artifact), layout.likelihoods(artifact)),
        judges=True,
    )


def _by_llama_server(model: GgufModel, rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """What llama.cpp's own server makes of the template inside the GGUF; None where that server is not installed.

    All GGUFs of a run have one template, so what was found for another of them is taken over.
    """
    from orchestrator.chat_template import llama_server
    from orchestrator.chat_template.turns import SpecialTokens
    from orchestrator.evaluation.parity import same_texts

    server, trained = llama_server.find(), [row for row in rows if row["text"] is not None]
    template = model.metadata("tokenizer.chat_template")
    if server is None or template is None or not trained:
        return None
    tokens = SpecialTokens(bos=model.bos, eos=model.eos)
    key = sha256_of(json.dumps([template, model.bos, model.eos, [row["text"] for row in trained]]))
    for file in sorted(Path(layout.parity("x")).parent.glob(Path(layout.parity("*")).name)):
        if (known := read_json(file).get("llama_server", {})).get("key") == key:
            return dict(known)
    thinking = read_json(Path(layout.SERVING))["thinking"] or None
    cases = [llama_server.Rendering(template, row["messages"], thinking, row.get("tools", ())) for row in trained]
    return {"key": key, **same_texts(trained, llama_server.render(server, cases, tokens), tokens.bos or "")}


def _answers(
    ask: Callable[..., Iterable[tuple[int, list[int]]]],
    prompts: Sequence[list[int]],
    drafts: Mapping[int, Draft],
    limit: int,
    before: Answered,
) -> list[list[int]]:
    """The answers of all prompts; only those are asked that were not answered before."""
    known = [before.of(prompt, limit) for prompt in prompts]
    answers = [answer or [] for answer in known]
    open_ = [index for index, answer in enumerate(known) if answer is None]
    if len(open_) < len(prompts):
        print(f"{len(prompts) - len(open_)} of {len(prompts)} rows were answered before", flush=True)
    drafted = {at: drafts[index] for at, index in enumerate(open_) if index in drafts}
    done = ask([prompts[index] for index in open_], drafts=drafted) if open_ else ()
    for count, (index, answer) in enumerate(done, 1 + len(prompts) - len(open_)):
        answers[open_[index]] = answer
        before.keep(prompts[open_[index]], answer, limit)
        print(f"{count}/{len(prompts)}", flush=True)
    return answers
