"""read-tuned, diverge-…: how likely tuned model and GGUFs find the tuned model's own answers, token by token.

What the converter wrote is held against the tuned model, so that conversion is seen by itself; what was quantised is
held against what it was quantised from, so that quantisation is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.lib import layout
from orchestrator.lib.errors import StageError
from orchestrator.lib.files import read_json
from orchestrator.lib.step import Step
from orchestrator.stages import adapter
from orchestrator.stages.asked import files_of, identity, kinds_read, made_by
from orchestrator.stages.base import TRAINING_PACKAGES, Context, Stage
from orchestrator.stages.convert import source_type
from orchestrator.stages.given import Given, Place, Places, save
from orchestrator.stages.predict import KEPT

READ = "read-tuned"
ENDING = ".divergence.jsonl"


@dataclass(frozen=True)
class ReadTuned(Stage):
    """The tuned model's answers as tokens, and what it expects at each of them."""

    program = READ
    phase = "verify"
    arguments: Mapping[str, Any]
    """What makes LLaMA-Factory load it."""
    prompts: str
    generated: str
    """Its answers, as LLaMA-Factory left them."""
    max_new_tokens: int
    answers: str
    expectations: str

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step where there are GGUFs to prove by their answers."""
        if not kinds_read(context):
            return []
        stage = cls(
            arguments=reading(context, context.tuned()),
            prompts=layout.PROMPTS,
            generated=f"{layout.generated('tuned')}/generated_predictions.jsonl",
            max_new_tokens=context.spec.evaluate.max_new_tokens,
            answers=layout.GIVEN,
            expectations=layout.expectations("tuned"),
        )
        return [
            stage.step(
                READ,
                expects=(stage.answers, stage.expectations),
                needs=("prepare", context.trained_by, "predict-tuned"),
                inputs={"base": context.base_identity, **context.picked(*TRAINING_PACKAGES)},
                exclusive=context.gpus > 0,
            )
        ]

    def run(self) -> None:
        """Write both. Raises StageError where no row can be read."""
        from orchestrator.evaluation.divergence import expectation, expectations, kept, own_places, tokens_read
        from orchestrator.evaluation.rows import read_objects, write_records
        from orchestrator.models.reader import load, read_answers

        rows = read_objects(Path(self.prompts))
        said = [record["predict"] for record in read_objects(Path(self.generated))]
        model, tokenizer, size = load(self.arguments)
        stop = _stop(tokenizer)
        given = [
            {"id": row["id"], "prompt": row["ids"], "answer": _tokens(tokenizer, text, stop, self.max_new_tokens)}
            for row, text in zip(rows, said, strict=True)
            if row["ids"]
        ]
        if not given:
            raise StageError("no held-out row can be read: all have tools", "Hold out rows without tools.")
        keep = kept(sum(len(row["answer"]) for row in given))
        pairs = [(row["prompt"], row["answer"]) for row in given]
        own = own_places([prompt for prompt, _ in pairs])
        given = [{**row, "own": of} for row, of in zip(given, own, strict=True)]
        tokens = [tokens_read(row) for row in given]

        def look(logits: Any, row: int, number: int) -> tuple[Any, ...]:
            return expectation(logits, tokens[row][number], keep)

        read = read_answers(model, pairs, look, size, own)
        write_records(Path(self.answers), given)
        save(Path(self.expectations), expectations(place for places in read for place in places))


@dataclass(frozen=True)
class Diverge(Stage):
    """Each row's divergence of one GGUF from its reference; of one that others are held against, what it expects."""

    program = "diverge"
    phase = "verify"
    optional = ("adapter", "expectations")
    gguf: str
    answers: str
    reference: str
    rows: str
    adapter: str | None = None
    expectations: str | None = None

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One process for each GGUF that is proven, and for the one that these were quantised from."""
        asked, source = kinds_read(context), source_type(context.spec.export.kinds)
        first = [source] if source in asked or _quantised(context) else ()
        return [step(context, kind) for kind in (*first, *(kind for kind in asked if kind != source))]

    @property
    def given(self) -> Given:
        """What is read."""
        return Given(Path(self.answers), Path(self.reference), bool(self.expectations))

    def run(self) -> None:
        """Write them. What was read while the GGUF was asked is not read again."""
        from orchestrator.evaluation.divergence import expectations, row
        from orchestrator.evaluation.rows import write_records

        given, asked = self.given, Path(layout.places(Path(self.rows).name.removesuffix(ENDING)))
        stop_words = read_json(Path(layout.SERVING))["stop"]
        seen = given.kept(asked, given.key(identity(filter(None, (self.gguf, self.adapter)), stop_words)))
        if missing := [number for number in range(len(given.rows)) if number not in seen]:
            self._read(given, missing, seen)
        starts, chosen = given.starts, given.expectations.chosen
        found = [
            row(one["id"], [place[:2] for place in seen[at]], chosen[starts[at] : starts[at + 1]], one.get("own"))
            for at, one in enumerate(given.rows)
        ]
        write_records(Path(self.rows), found)
        if self.expectations:
            own = (place[2] for number in range(len(found)) for place in seen[number])
            save(Path(self.expectations), expectations(of for of in own if of is not None))
        asked.unlink(missing_ok=True)

    def _read(self, given: Given, missing: Sequence[int], seen: Places) -> None:
        """Fill in what llama.cpp makes of the answers that are missing."""
        from orchestrator.models.gguf import GgufModel

        def look(logits: Any, at: int, place: int) -> Place:
            return given.look(logits, missing[at], place)

        rows = [given.rows[number] for number in missing]
        print(f"llama.cpp loads {self.gguf}", flush=True)  # the last line, should a damaged file end this process
        with GgufModel(Path(self.gguf), Path(self.adapter) if self.adapter else None) as model:
            prompts, answers = ([one[name] for one in rows] for name in ("prompt", "answer"))
            places = model.read_answers(prompts, answers, look, [one.get("own", ()) for one in rows])
            for count, (number, of) in enumerate(zip(missing, places, strict=True), 1):
                seen[number] = of
                print(f"{count}/{len(missing)}", flush=True)


def given_to(artifact: str) -> Given | None:
    """What an artifact is going to be given to read; None where that is not there yet, or not wanted."""
    config = Path(layout.stage_config(f"diverge-{artifact.removeprefix('gguf-')}"))
    given = Diverge(**read_json(config)).given if config.is_file() else None
    return given if given and given.is_whole else None


def reference_of(kind: str, source: str) -> str:
    """The artifact that a GGUF is held against."""
    return "tuned" if kind in (source, adapter.NAME) else f"gguf-{source}"


def step(context: Context, kind: str) -> Step:
    """The step that compares a GGUF with its reference."""
    source = source_type(context.spec.export.kinds)
    (gguf, over), reference = files_of(context, kind), reference_of(kind, source)
    own = layout.expectations(f"gguf-{kind}") if kind == source and _quantised(context) else None
    stage = Diverge(
        gguf=gguf,
        answers=layout.GIVEN,
        reference=layout.expectations(reference),
        rows=layout.divergence(f"gguf-{kind}"),
        adapter=over,
        expectations=own,
    )
    return stage.step(
        f"diverge-{kind}",
        expects=(stage.rows, *((own,) if own else ())),
        needs=(READ, made_by(context, kind), *(() if reference == "tuned" else (f"diverge-{source}",))),
        after=(f"ask-{kind}",),
        inputs=context.picked("llama-cpp-python"),
        judges=True,
    )


def _quantised(context: Context) -> list[str]:
    """The GGUFs that are held against what they were quantised from."""
    source = source_type(context.spec.export.kinds)
    return [kind for kind in kinds_read(context) if kind not in (source, adapter.NAME)]


def reading(context: Context, loads: Mapping[str, Any]) -> dict[str, Any]:
    """What makes LLaMA-Factory load a model as it answers, without a trainer: `loads` says which."""
    kept = {key: context.training[key] for key in KEPT if key in context.training}
    return {
        **loads,
        "trust_remote_code": context.spec.model.trust_remote_code,
        **context.template_arguments,
        "enable_thinking": context.spec.model.thinking,
        "do_eval": True,
        "dataset_dir": layout.DATA,
        "eval_dataset": "eval",
        "output_dir": "evaluation",
        "report_to": "none",
        "per_device_eval_batch_size": 8,
        **kept,
    }


def _stop(tokenizer: Any) -> int:
    """The token that ends an answer."""
    word = read_json(Path(layout.SERVING))["stop"][0]
    known = tokenizer.convert_tokens_to_ids(word)
    return int(tokenizer.eos_token_id if known is None or known == tokenizer.unk_token_id else known)


def _tokens(tokenizer: Any, text: str, stop: int, limit: int) -> list[int]:
    """An answer's tokens, with the one that ends it unless it was cut off."""
    ids = list(tokenizer.encode(text, add_special_tokens=False))
    return ids if len(ids) >= limit else [*ids, stop]
