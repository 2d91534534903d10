"""What an engine has to do so that it can be served."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestrator.lib.files import read_json

KEY_VARIABLE = "ORCHESTRATOR_API_KEY"
"""Carries the key to our servers, so that neither a file nor the process list shows it."""
Message = Mapping[str, Any]
"""OpenAI's: role, content, and for tools tool_calls and tool_call_id."""
Tool = Mapping[str, Any]
"""In the canonical form of chat_template/tools.py."""


def configuration(arguments: Sequence[str]) -> dict[str, Any]:
    """What a server of ours is to do, from its command line: CONFIG.json HOST PORT CONTEXT.

    The file is the same for every server of an artifact; where each one listens is in no file that another may write.
    """
    file, host, port, context = arguments
    return {**read_json(Path(file)), "host": host, "port": int(port), "context": int(context)}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen; temperature 0 takes the likeliest one."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    """0 for all of them."""
    min_p: float = 0.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_penalty: float = 1.0
    """1 for none."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that came with some tokens: none while a character's bytes are incomplete."""

    text: str
    tokens: int = 1


class Engine(Protocol):
    """A loaded model. `prompt` and `encode` may be called while an answer is under way, `answer` one at a time."""

    context: int
    """Tokens that a prompt and its answer may have together."""
    lacks: frozenset[str]
    """Parameters that it cannot compute with."""

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        """The tokens of a conversation, special ones read as in training, up to where the answer begins."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a plain text."""

    def answer(self, prompt: Sequence[int], limit: int, sampling: Sampling) -> Generator[Piece, None, None]:
        """The answer as it comes, without the token that ends it; at most `limit` tokens.

        A generator, so that closing it ends the computation.
        """
