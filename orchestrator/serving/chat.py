"""A conversation in the terminal with one artifact, or with two side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.serving.endpoint import THOUGHT_WORDS, Endpoint, Message, ask, stream

QUIT = ("/quit", "/exit", "/q")
FORGET = "/new"


@dataclass(slots=True)
class Conversation:
    """What was said to one model so far. Without `system` the model gets the system text of its training."""

    endpoint: Endpoint
    max_new_tokens: int
    system: str | None = None
    words: tuple[str, str] = THOUGHT_WORDS
    """Around a thought, which the model is to find in earlier answers as training had it."""
    turns: list[Message] = field(default_factory=list)

    def say(self, text: str) -> Iterator[str]:
        """The answer to a text, piece by piece; remembered once it is whole."""
        question = {"role": "user", "content": text}
        pieces: list[str] = []
        for piece in stream(self.endpoint, self._messages(question), self.max_new_tokens, self.words):
            pieces.append(piece)
            yield piece
        self._remember(question, "".join(pieces))

    def answer(self, text: str) -> str:
        """The whole answer at once."""
        question = {"role": "user", "content": text}
        answer = ask(self.endpoint, self._messages(question), self.max_new_tokens).whole(self.words)
        self._remember(question, answer)
        return answer

    def _messages(self, question: Message) -> list[Message]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *self.turns, question]

    def _remember(self, question: Message, answer: str) -> None:
        self.turns += [question, {"role": "assistant", "content": answer}]


def talk(
    conversations: Mapping[str, Conversation],
    read: Callable[[], str | None],
    show: Callable[[Mapping[str, Conversation], str], None],
) -> None:
    """Read questions and show the answers until `read` returns None or the user quits; /new forgets what was said."""
    while (line := read()) is not None and line.strip() not in QUIT:
        if line.strip() == FORGET:
            for conversation in conversations.values():
                conversation.turns.clear()
        elif line.strip():
            show(conversations, line)
