"""How likely a GGUF finds each of some answers, from its own logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.models.decoder import Decoder, Entry, common_prefix
from orchestrator.models.gguf import GgufModel


@dataclass(slots=True)
class _Node:
    """A token of some choices, behind the same tokens in all of them."""

    token: int
    parent: int
    """Its place in the list of nodes, −1 for the prompt."""
    depth: int
    choices: list[int]
    inner: bool = False
    """Whether some token follows it, so that its logits are wanted."""


def tree(choices: Sequence[Sequence[int]]) -> tuple[list[_Node], list[list[int]]]:
    """The nodes, and for each choice the places of its tokens; what choices begin with alike is one node."""
    nodes: list[_Node] = []
    known: dict[tuple[int, int], int] = {}
    paths: list[list[int]] = []
    for number, choice in enumerate(choices):
        at, path = -1, []
        for depth, token in enumerate(choice):
            if at >= 0:
                nodes[at].inner = True
            if (place := known.get((at, token))) is None:
                place = known[at, token] = len(nodes)
                nodes.append(_Node(token, at, depth, []))
            nodes[place].choices.append(number)
            path.append(place)
            at = place
        paths.append(path)
    return nodes, paths


def log_likelihoods(
    model: GgufModel, prompts: Sequence[Sequence[int]], choices: Sequence[Sequence[int]]
) -> Iterator[list[float]]:
    """For each prompt the log-probability in nats of each choice, as the product over its tokens.

    What prompts begin with alike is computed once, and so is what choices begin with alike: each token of the tree
    belongs to the sequences of all choices that go through it. Raises StageError when llama.cpp fails.
    """
    nodes, paths = tree(choices)
    shared = common_prefix(prompts)
    with model.decoder(max(map(len, prompts)) + len(nodes), len(choices) + 1) as decoder:
        decoder.prefix(shared)
        for prompt in prompts:
            yield _read(decoder, prompt, len(shared), nodes, paths)


def _read(
    decoder: Decoder, prompt: Sequence[int], shared: int, nodes: Sequence[_Node], paths: Sequence[Sequence[int]]
) -> list[float]:
    """One prompt's choices, each in a sequence of its own from 1 on."""
    every = range(1, 1 + len(paths))
    for sequence in every:
        decoder.fork(sequence)
    last = len(prompt) - 1
    asked = [Entry(prompt[at], at, every, at == last) for at in range(shared, len(prompt))]
    inner = [place for place, node in enumerate(nodes) if node.inner]
    chosen = [_entry(nodes[place], len(prompt)) for place in inner]
    seen = [*decoder.read(asked, _log_probabilities), *decoder.read(chosen, _log_probabilities)]
    by_place = dict(zip((-1, *inner), seen, strict=True))
    for sequence in every:
        decoder.drop(sequence)
    return [sum(float(by_place[nodes[at].parent][nodes[at].token]) for at in path) for path in paths]


def _entry(node: _Node, start: int) -> Entry:
    return Entry(node.token, start + node.depth, [1 + choice for choice in node.choices], wanted=True)


def _log_probabilities(logits: Any, number: int) -> Any:
    from scipy.special import log_softmax

    return log_softmax(logits)
