"""general: base and tuned model read the answers to general prompts, and it is said what training cost the rest."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.files import sha256, write_json
from orchestrator.lib.step import Step
from orchestrator.stages.base import TRAINING_PACKAGES, Context, Stage
from orchestrator.stages.diverge import reading

if TYPE_CHECKING:
    from orchestrator.evaluation.general import Prompt

NAME = "general"
PROMPTS = Path(__file__).parent.parent / "evaluation" / "general.jsonl"
"""As `orchestrator.evaluation.general.FILE`, whose module takes long to import for a plan."""


@dataclass(frozen=True)
class General(Stage):
    """What each prompt's reference answer gains or loses, and the verdict."""

    program = NAME
    phase = "verify"
    optional = ("adapter", "tuned")
    base: Mapping[str, Any]
    """What makes LLaMA-Factory load the model that training starts from."""
    template: str
    thinking: bool
    rows: str
    summary: str
    adapter: str | None = None
    """What training laid over that model, where the two are all of the tuned one: then it is loaded once."""
    tuned: Mapping[str, Any] | None = None
    """Else what makes LLaMA-Factory load the tuned model."""

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step, unless the spec switches it off."""
        if not context.spec.evaluate.general:
            return []
        over = context.adapts and (context.adapter is None or context.over_adapter)
        stage = cls(
            base=reading(context, context.base()),
            template=context.template,
            thinking=context.spec.model.thinking,
            rows=layout.GENERAL_ROWS,
            summary=layout.summary(NAME),
            adapter=context.trained if over else None,
            tuned=None if over else reading(context, context.tuned()),
        )
        prompts = {"prompts": sha256(PROMPTS)}
        return [
            stage.step(
                NAME,
                expects=(stage.rows, stage.summary),
                needs=(context.trained_by,),
                inputs={"base": context.base_identity, **prompts, **context.picked(*TRAINING_PACKAGES)},
                exclusive=context.gpus > 0,
            )
        ]

    def run(self) -> None:
        """Write both."""
        from orchestrator.evaluation import divergence, general
        from orchestrator.evaluation.rows import write_records
        from orchestrator.models.reader import load, read_answers

        model, tokenizer, size = load(self.base)
        asked = general.prompts()
        pairs = list(self._tokens(tokenizer, asked))
        starts = [0, *accumulate(len(answer) for _, answer in pairs)]
        keep = divergence.kept(starts[-1])

        def expected(logits: Any, row: int, number: int) -> tuple[Any, ...]:
            return divergence.expectation(logits, pairs[row][1][number], keep)

        def look(logits: Any, row: int, number: int) -> general.Read:
            token = pairs[row][1][number]
            nats, log = divergence.at_place(base, starts[row] + number, logits, token)
            return general.Read(nats, log, int(logits.argmax()) == token)

        read = read_answers(model, pairs, expected, size)
        base = divergence.expectations(place for places in read for place in places)
        if self.adapter:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, self.adapter).eval()
        else:
            del model, read  # two models would take twice the memory
            gc.collect()
            model, _, _ = load(self.tuned or {})
        found = list(general.rows(asked, pairs, base, read_answers(model, pairs, look, size)))
        figures, told = general.summarise(found)
        write_records(Path(self.rows), found)
        metrics = {"tuned": {name: figure.to_json() for name, figure in figures.items()}} if figures else {}
        write_json(Path(self.summary), {"metrics": metrics, NAME: told})

    def _tokens(self, tokenizer: Any, asked: Sequence[Prompt]) -> Iterator[tuple[list[int], list[int]]]:
        """Each prompt as training would ask it, without a system text of its own, and the tokens of its answer."""
        from orchestrator.chat_template.encode import Encoder

        encoder = Encoder(self.template, tokenizer, self.thinking)
        for one in asked:
            ids = encoder.prompt_ids([{"role": "user", "content": one.prompt}])
            yield ids, list(tokenizer.encode(one.answer, add_special_tokens=False))
