"""Which GGUFs are asked, what files they are, what makes them, and how a conversation is put to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.errors import StageError
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
    return kinds_asked(context) if context.answers and wanted else ()


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
