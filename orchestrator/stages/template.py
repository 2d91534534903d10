"""template: the merged model with the chat template it was trained with, as it is converted, served and pushed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.files import link, read_json, write_json, write_text
from orchestrator.lib.step import Step
from orchestrator.models.builtin import licence
from orchestrator.models.tokenizer import SENTENCEPIECE, json_object
from orchestrator.models.tokenizer_class import SAVED_AS
from orchestrator.stages.base import Context, Stage
from orchestrator.stages.convert import METADATA

if TYPE_CHECKING:
    from orchestrator.chat_template.registry import Definition

MERGED = Path(layout.MERGED)


@dataclass(frozen=True)
class Template(Stage):
    """export/merged/, and the metadata for the GGUF."""

    program = "template"
    phase = "export"
    optional = ("tokenizer",)
    name: str
    base: str
    licence: str | None
    dataset: str | tuple[str, ...]
    tokenizer: str | None = None
    """The base model's folder, where LLaMA-Factory's export leaves out what the converter needs of it."""

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step."""
        spec = context.spec
        stage = cls(spec.name, spec.model.base, licence(context.base_path), spec.data.train, _tokenizer(context))
        return [
            stage.step(
                "template",
                expects=(f"{layout.MERGED}/config.json", f"{layout.MERGED}/chat_template.jinja", METADATA),
                needs=("prepare", "merge"),
                folder=layout.MERGED,
            )
        ]

    def run(self) -> None:
        """Write the folder (weights linked, not copied) and the metadata."""
        from orchestrator.chat_template.jinja import jinja_template
        from orchestrator.chat_template.registry import definition
        from orchestrator.chat_template.spaces import spaced, spaced_tools, spacing_of
        from orchestrator.chat_template.turns import special_tokens

        trained = read_json(Path(layout.SERVING))
        shape = definition(trained["template"]).with_default_system(trained["system"])
        spacing = spacing_of(Path(layout.AS_MERGED))
        for path in Path(layout.AS_MERGED).iterdir():
            if path.name != "Modelfile":  # LLaMA-Factory's own, which leaves out thinking and may double BOS
                link(path, MERGED / path.name)
        if "left_out" in trained:
            _drop_tokens(trained["left_out"])
        if self.tokenizer:
            _bring_what_the_export_left_out(Path(self.tokenizer))
        _leave_bos_to_training(shape)
        if spacing.adds == "pieces":
            _leave_spaces_to_the_template()
        tokens = special_tokens(MERGED)
        tools = spaced_tools(shape.name, spacing) if trained.get("tools") else None
        text = jinja_template(spaced(shape, spacing), tokens, trained["thinking"], tools)
        write_text(MERGED / "chat_template.jinja", text)
        _drop_other_templates()
        write_json(Path(METADATA), self.metadata())

    def metadata(self) -> dict[str, Any]:
        """Overrides for the converter, in the names that the GGUF specification gives them."""
        datasets = [self.dataset] if isinstance(self.dataset, str) else self.dataset
        licensed = {"general.license.name": self.licence} if self.licence else {}
        return licensed | {
            "general.name": self.name,
            "general.base_models": [{"name": self.base}],
            "general.datasets": [{"name": name} for name in datasets],
            "general.tags": ["llama-factory", "fine-tuned"],
        }


def _drop_tokens(words: list[str]) -> None:
    """Take stop words out again that LLaMA-Factory added to the tokenizer; the model has no rows for them."""
    tokenizer, config = read_json(MERGED / "tokenizer.json"), read_json(MERGED / "tokenizer_config.json")
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["content"] not in words]
    for key in ("extra_special_tokens", "additional_special_tokens"):
        if isinstance(config.get(key), list):
            config[key] = [word for word in config[key] if word not in words]
    write_json(MERGED / "tokenizer.json", tokenizer)
    write_json(MERGED / "tokenizer_config.json", config)


def _bring_what_the_export_left_out(base: Path) -> None:
    """SentencePiece's own file, whose scores no tokenizer.json holds, and which pieces are markers and not text.

    transformers 5 writes neither, and the converter then guesses the scores, and takes `<start_of_turn>` for text.
    Tokens that training added are in the merged tokenizer.json only, which says what training used of the others.
    """
    for name in SENTENCEPIECE:
        if (base / name).is_file():
            shutil.copyfile(base / name, MERGED / name)
    added = read_json(MERGED / "tokenizer.json")["added_tokens"]
    marked = {str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in added}
    known = json_object(base / "tokenizer_config.json").get("added_tokens_decoder") or {}
    file = MERGED / "tokenizer_config.json"
    write_json(file, {**read_json(file), "added_tokens_decoder": known | marked})


def _leave_bos_to_training(shape: Definition) -> None:
    """Where training had no BOS, tell llama.cpp not to add one: a token more, and the model sees another prompt."""
    from orchestrator.chat_template.turns import converter_adds_bos, special_tokens, starts_with_bos

    tokens = special_tokens(MERGED)
    if starts_with_bos(shape, tokens):
        return
    if converter_adds_bos(MERGED):
        file = MERGED / "tokenizer_config.json"
        write_json(file, {**read_json(file), "add_bos_token": False})
    tokenizer = read_json(MERGED / "tokenizer.json")
    if tokens.bos and tokens.bos in str(tokenizer.get("post_processor")):  # which the converter believes more
        write_json(MERGED / "tokenizer.json", {**tokenizer, "post_processor": None})


def _leave_spaces_to_the_template() -> None:
    """llama.cpp would put a space behind every marker; training did so only where a new piece of text began."""
    file = MERGED / "tokenizer_config.json"
    write_json(file, {**read_json(file), "tokenizer_class": SAVED_AS, "add_prefix_space": False})


def _drop_other_templates() -> None:
    """The converter must find one template: ours."""
    file = MERGED / "tokenizer_config.json"
    config = read_json(file)
    if config.pop("chat_template", None) is not None:
        write_json(file, config)


def _tokenizer(context: Context) -> str | None:
    return str(context.base_path) if (context.base_path / SENTENCEPIECE[0]).is_file() else None
