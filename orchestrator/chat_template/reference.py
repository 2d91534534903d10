"""A tokenizer to compare any template on: a real vocabulary, in which the template's own words are single tokens."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING

from orchestrator.chat_template.registry import Definition, Word

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3's tokenizer.json splits text, and Qwen's but for digits. GPT-2's way, which SmolLM2 follows, would tear
apart line ends that most models behind these templates keep together."""

_SPECIAL = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]|\]~!?b[\[\]]|\[e~\[|◁[^▷]+▷|reserved_\d")


def reference_tokenizer(tokenizer: PreTrainedTokenizerBase, definition: Definition) -> PreTrainedTokenizerBase:
    """A copy of a byte-level BPE tokenizer that knows the special words of a template and splits like Llama 3's."""
    from tokenizers import Regex, pre_tokenizers

    extended = copy.deepcopy(tokenizer)
    extended.add_tokens(special_words(definition), special_tokens=True)
    extended.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return extended


def special_words(definition: Definition) -> list[str]:
    """The words of a template that are single tokens in the vocabularies it was written for, by their look."""
    slots = [*definition.prefix, *definition.system, *definition.user, *definition.assistant]
    texts = [slot for slot in slots if isinstance(slot, str)]
    thoughts = list(definition.thought_words) if definition.reasons else []
    found = {word for text in [*texts, *thoughts] for word in _SPECIAL.findall(text)}
    return sorted(found | {text for text in texts if isinstance(text, Word)} | set(definition.stop_words))
