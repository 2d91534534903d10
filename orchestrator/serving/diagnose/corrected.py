"""The Modelfile that serves a model as it was trained."""

from __future__ import annotations

from typing import Any

from orchestrator.chat_template.ollama import ollama_template
from orchestrator.chat_template.refusals import refusal
from orchestrator.chat_template.spaces import spaced, spacing_of
from orchestrator.lib.render import fits_modelfile, modelfile_text, modelfile_word
from orchestrator.serving.diagnose.finding import Finding
from orchestrator.serving.diagnose.shipped import Shipped
from orchestrator.serving.diagnose.trained import Trained

KEPT = ("top_k", "top_p", "min_p", "seed", "num_gpu", "num_thread", "num_predict", "num_ctx")
"""Parameters that stay as they were set."""


def modelfile(trained: Trained, shipped: Shipped, stop: list[str], findings: list[Finding]) -> str | None:
    """The text of the corrected Modelfile; None where no Modelfile can serve this template.

    Raises InputError where the runtime adds a BOS that training had not.
    """
    if refusal(trained.template.value, trained.thinking is not False):
        return None
    template = _template(trained, shipped)
    lines = [f"# As the model was trained: template {trained.template}, system text {trained.system.source}."]
    lines += [f"# was: {finding.sentence}".replace("\n", " ") for finding in findings if finding.wrong]
    lines += [f"FROM {shipped.source or 'MODEL.gguf'}"]
    lines += [f"ADAPTER {shipped.adapter}"] if shipped.adapter and shipped.gguf else []
    lines += [f"TEMPLATE {modelfile_text(template)}"]
    system = trained.system.value
    lines += [f"SYSTEM {modelfile_text(system)}"] if system and fits_modelfile(system) else []
    lines += [f"PARAMETER stop {modelfile_word(word)}" for word in stop]
    lines += [f"PARAMETER {key} {modelfile_word(value)}" for key, value in _parameters(shipped, findings).items()]
    return "\n".join(lines) + "\n"


def _template(trained: Trained, shipped: Shipped) -> str:
    shape = spaced(trained.shape, spacing_of(trained.folder))
    text = ollama_template(shape, trained.tokens, trained.thinking is not False, bool(shipped.adds_bos))
    return text + _words_that_ollama_looks_for(text, shipped)


def _words_that_ollama_looks_for(template: str, shipped: Shipped) -> str:
    """What never runs, but lets Ollama take TEMPLATE: it prefers the GGUF's Jinja where that knows more of tools and
    thinking, told by these words (server/images.go)."""
    words = ""
    if "tools" in shipped.capabilities and ".Tools" not in template:
        words += "{{ if false }}{{ .Tools }}{{ end }}"
    if "thinking" in shipped.capabilities and ".Thinking" not in template:
        words += "{{ range .Messages }}{{ if false }}<think>{{ .Thinking }}</think>{{ end }}{{ end }}"
    return words


def _parameters(shipped: Shipped, findings: list[Finding]) -> dict[str, Any]:
    kept = {key: value for key, value in shipped.parameters.items() if key in KEPT}
    cures = [finding.cure.split() for finding in findings if finding.cure.startswith("PARAMETER ")]
    cured = {name: _number(value) for _, name, value in (words[:3] for words in cures) if name != "stop"}
    return {"temperature": shipped.parameters.get("temperature", 0), "repeat_penalty": 1, **kept, **cured}


def _number(text: str) -> float | int:
    value = float(text)
    return int(value) if value.is_integer() else value
