"""What is read of a prompt: its own tokens, and several answers that may follow it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

from orchestrator.models.decoder import Entry


@dataclass(slots=True)
class Node:
    """A token of some answers, behind the same tokens in all of them."""

    token: int
    parent: int
    """Its place in the list of nodes, −1 for the prompt."""
    depth: int
    answers: list[int]
    inner: bool = False
    """Whether some token follows it, so that its logits are wanted."""


@dataclass(frozen=True)
class Reading:
    """A prompt, and answers that are given, not chosen. What answers begin with alike is read once.

    Logits are looked at in order: for each of the prompt's `own` tokens, behind the prompt, then behind each inner node
    of the answers. So the tokens of a first answer have the first places behind the prompt's, one after the other.
    """

    prompt: Sequence[int]
    answers: Sequence[Sequence[int]]
    own: Sequence[int] = ()
    """Tokens of the prompt that are looked at, counted from its end (−1 is its last)."""

    @property
    def before(self) -> Sequence[int]:
        """The prompt up to the first token that is looked at."""
        return self.prompt[: self.own[0]] if self.own else self.prompt

    @cached_property
    def tree(self) -> tuple[list[Node], list[list[int]]]:
        """The nodes, and for each answer the places of its tokens among them."""
        return tree(self.answers)

    def entries(self, start: int) -> list[Entry]:
        """What is decoded from a place of the prompt on, each answer in a sequence of its own, counted from 0."""
        last, every = len(self.prompt) - 1, range(len(self.answers))
        wanted = {last + place for place in self.own} | ({last} if any(self.answers) else set())
        own = [Entry(self.prompt[at], at, every, at in wanted) for at in range(start, len(self.prompt))]
        inner = (node for node in self.tree[0] if node.inner)
        return own + [Entry(node.token, len(self.prompt) + node.depth, node.answers, True) for node in inner]

    def followers(self, answers: Sequence[int]) -> list[list[int]]:
        """For each place that is looked at, the tokens with which some of the answers, by number, go on there."""
        nodes, paths = self.tree
        found: dict[int, list[int]] = {}
        for node in sorted({place for number in answers for place in paths[number]}):
            found.setdefault(nodes[node].parent, []).append(nodes[node].token)
        return [*([] for _ in self.own), *(found.get(node, []) for node in self._places)]

    def likelihoods(self, answers: Sequence[int], logs: Sequence[Mapping[int, float]]) -> list[float]:
        """The log-probability of each of the answers, by number, as the sum over its tokens.

        `logs` has that of each token in `followers`, by place.
        """
        nodes, paths = self.tree
        return [
            sum(logs[self._places[nodes[node].parent]][nodes[node].token] for node in paths[number])
            for number in answers
        ]

    @cached_property
    def _places(self) -> dict[int, int]:
        """Inner node, −1 for the prompt → the place where its logits are looked at."""
        inner = (at for at, node in enumerate(self.tree[0]) if node.inner)
        return dict(zip([-1, *inner], count(len(self.own)), strict=False))


def tree(answers: Sequence[Sequence[int]]) -> tuple[list[Node], list[list[int]]]:
    """The nodes, and for each answer the places of its tokens; what answers begin with alike is one node."""
    nodes: list[Node] = []
    known: dict[tuple[int, int], int] = {}
    paths: list[list[int]] = []
    for number, answer in enumerate(answers):
        at, path = -1, []
        for depth, token in enumerate(answer):
            if at >= 0:
                nodes[at].inner = True
            if (place := known.get((at, token))) is None:
                place = known[at, token] = len(nodes)
                nodes.append(Node(token, at, depth, []))
            nodes[place].answers.append(number)
            path.append(place)
            at = place
        paths.append(path)
    return nodes, paths


def log_probabilities(logits: Any, tokens: Sequence[int]) -> dict[int, float]:
    """Those of some tokens, in nats, where these are the logits (float32, vocabulary)."""
    from scipy.special import log_softmax

    return dict(zip(tokens, log_softmax(logits)[list(tokens)].tolist(), strict=True)) if tokens else {}
