"""Which GGUFs are asked, what files they are, how a conversation is put to one, and what each has answered already."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.errors import StageError
from orchestrator.lib.files import read_json_lines, sha256, sha256_of
from orchestrator.stages import adapter
from orchestrator.stages.base import Context
from orchestrator.stages.convert import source_type

if TYPE_CHECKING:
    from orchestrator.models.gguf import GgufModel


def kinds_asked(context: Context) -> tuple[str, ...]:
    """Every GGUF to prove, the adapter over its base model among them."""
    export = context.spec.export
    made = (*export.kinds, *((adapter.NAME,) if export.adapter else ()))
    return tuple(kind for kind in made if context.spec.evaluate.asks(f"gguf-{kind}"))


def kinds_read(context: Context) -> tuple[str, ...]:
    """Every GGUF whose divergence is measured, as it is told or since the gate limits it."""
    spec = context.spec
    wanted = spec.evaluate.divergence or spec.export.gate.max_divergence is not None
    return kinds_asked(context) if context.kind.answers and wanted else ()


def files_of(context: Context, kind: str) -> tuple[str, str | None]:
    """The GGUF that llama.cpp loads, and the adapter over it."""
    name = context.spec.name
    if kind == adapter.NAME:
        return layout.gguf(name, adapter.BASE), layout.gguf(name, adapter.NAME)
    return layout.gguf(name, kind), None


def made_by(context: Context, kind: str) -> str:
    """The stage that a GGUF comes from."""
    if kind == adapter.NAME:
        return adapter.NAME
    return "convert" if kind == source_type(context.spec.export.kinds) else f"quantise-{kind}"


def prompt_text(
    model: GgufModel, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
) -> str:
    """The text of a conversation by the template inside the GGUF. Raises StageError when there is none.

    `tools` are in the canonical form.
    """
    from orchestrator.chat_template.jinja import render_messages
    from orchestrator.chat_template.turns import SpecialTokens

    template = model.metadata("tokenizer.chat_template")
    if template is None:
        raise StageError("the GGUF has no chat template", "Export again; the merged model lost chat_template.jinja.")
    tokens = SpecialTokens(bos=model.bos, eos=model.eos)
    return render_messages(template, messages, tokens, tools=tools)


def identity(files: Iterable[str], stop_words: Sequence[str]) -> str:
    """What an answer depends on besides its prompt: the bytes of GGUF and adapter, the stop words, llama.cpp."""
    facts = [*(sha256(Path(file)) for file in files), sorted(stop_words), metadata.version("llama-cpp-python")]
    return sha256_of(json.dumps(facts))


class Kept:
    """What is known of prompts, one JSON object {key, …} a line, each written as soon as it is known.

    A run that has no such file yet begins with those of the runs beside it, whose key is the same where the bytes of
    the GGUF and the tokens of the prompt are; what is found there is written down here. An empty file says that
    everything is to be asked.
    """

    def __init__(self, file: str, identity: str) -> None:
        self._file, self._identity = Path(file), identity
        beside = [] if self._file.exists() else sorted(Path().resolve().parent.glob(f"*/{self._file}"))
        self._own = {line["key"]: line for line in _lines(self._file)}
        self._others = {line["key"]: line for file in beside for line in _lines(file)}

    def find(self, prompt: Sequence[int]) -> dict[str, Any] | None:
        """What is known of a prompt, or None."""
        key = self._key(prompt)
        if key not in self._own and key in self._others:
            self._write(self._others[key])
        return self._own.get(key)

    def add(self, prompt: Sequence[int], known: Mapping[str, Any]) -> None:
        """Write down what became known of a prompt."""
        self._write({"key": self._key(prompt), **known})

    def _write(self, line: dict[str, Any]) -> None:
        self._own[line["key"]] = line
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _key(self, prompt: Sequence[int]) -> str:
        return sha256_of(json.dumps([self._identity, list(prompt)]))


class Answered:
    """The answers of one artifact."""

    def __init__(self, artifact: str, identity: str) -> None:
        self._kept = Kept(layout.answered(artifact), identity)

    def of(self, prompt: Sequence[int], limit: int) -> list[int] | None:
        """The answer to a prompt, at most `limit` tokens of it; None where it is not known, or not so far."""
        known = self._kept.find(prompt)
        if known is None or not (known["ended"] or limit <= len(known["answer"])):
            return None
        return list(known["answer"][:limit])

    def keep(self, prompt: Sequence[int], answer: Sequence[int], limit: int) -> None:
        """Write down an answer; one of `limit` tokens may have been cut off."""
        self._kept.add(prompt, {"answer": list(answer), "ended": len(answer) < limit})


class Likelihoods:
    """The log-likelihoods that one artifact gives each of some choices, in nats."""

    def __init__(self, artifact: str, identity: str, choices: Sequence[Sequence[int]]) -> None:
        self._kept = Kept(layout.likelihoods(artifact), sha256_of(json.dumps([identity, *choices])))

    def of(self, prompt: Sequence[int]) -> list[float] | None:
        """Those behind a prompt; None where they are not known."""
        known = self._kept.find(prompt)
        return None if known is None else list(known["likelihoods"])

    def keep(self, prompt: Sequence[int], likelihoods: Sequence[float]) -> None:
        """Write them down."""
        self._kept.add(prompt, {"likelihoods": list(likelihoods)})


def _lines(file: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; one that was cut when its stage was killed counts for nothing."""
    try:
        return [line for line in read_json_lines(file, growing=True) if isinstance(line, dict) and "key" in line]
    except (OSError, UnicodeDecodeError):
        return []
