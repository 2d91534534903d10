"""Give the merged model the chat template it was trained with: `template CONFIG.json`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from orchestrator.chat_template.jinja import jinja_template
from orchestrator.chat_template.registry import Definition, definition
from orchestrator.chat_template.spaces import spaced, spacing_of
from orchestrator.chat_template.turns import converter_adds_bos, special_tokens, starts_with_bos
from orchestrator.lib import layout
from orchestrator.lib.files import link, read_json, write_json, write_text
from orchestrator.models.cure import FAITHFUL
from orchestrator.models.tokenizer_files import SENTENCEPIECE, json_object
from orchestrator.stages import entry
from orchestrator.stages.export import METADATA

MERGED = Path(layout.MERGED)


def main(config: Path) -> None:
    """Write export/merged/ (weights linked, not copied) and the metadata for the GGUF."""
    wanted, trained = read_json(config), read_json(Path(layout.SERVING))
    shape = definition(trained["template"]).with_default_system(trained["system"])
    spacing = spacing_of(Path(layout.AS_MERGED))
    for path in Path(layout.AS_MERGED).iterdir():
        if path.name != "Modelfile":  # LLaMA-Factory's own, which leaves out thinking and may double BOS
            link(path, MERGED / path.name)
    if "left_out" in trained:
        _drop_tokens(trained["left_out"])
    if "tokenizer" in wanted:
        _bring_what_the_export_left_out(Path(wanted["tokenizer"]))
    _leave_bos_to_training(shape)
    if spacing.adds == "pieces":
        _leave_spaces_to_the_template()
    tokens = special_tokens(MERGED)
    shape = spaced(shape, spacing)
    write_text(MERGED / "chat_template.jinja", jinja_template(shape, tokens, trained["thinking"]))
    _drop_other_templates()
    write_json(Path(METADATA), _metadata(wanted))


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
    if converter_adds_bos(MERGED) and not starts_with_bos(shape, special_tokens(MERGED)):
        file = MERGED / "tokenizer_config.json"
        write_json(file, {**read_json(file), "add_bos_token": False})


def _leave_spaces_to_the_template() -> None:
    """llama.cpp would put a space behind every marker; training did so only where a new piece of text began."""
    file = MERGED / "tokenizer_config.json"
    write_json(file, {**read_json(file), "tokenizer_class": FAITHFUL, "add_prefix_space": False})


def _drop_other_templates() -> None:
    """The converter must find one template: ours."""
    file = MERGED / "tokenizer_config.json"
    config = read_json(file)
    if config.pop("chat_template", None) is not None:
        write_json(file, config)


def _metadata(wanted: dict[str, Any]) -> dict[str, Any]:
    """Overrides for the converter, in the names that the GGUF specification gives them."""
    datasets = [wanted["dataset"]] if isinstance(wanted["dataset"], str) else wanted["dataset"]
    licence = {"general.license.name": wanted["licence"]} if wanted["licence"] else {}
    return licence | {
        "general.name": wanted["name"],
        "general.base_models": [{"name": wanted["base"]}],
        "general.datasets": [{"name": name} for name in datasets],
        "general.tags": ["llama-factory", "fine-tuned"],
    }


if __name__ == "__main__":
    entry.run(main)
