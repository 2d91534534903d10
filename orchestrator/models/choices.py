"""How likely a GGUF finds each of some answers, from its own logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.models.decoder import Decoder, Entry, batches, common_prefix
from orchestrator.models.gguf import GgufModel

TOGETHER = 8
"""Prompts read at once."""


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
    most = max(1, min(TOGETHER, len(prompts), (model.sequences_at_most - 1) // len(choices)))
    together = list(batches([prompt[len(shared) :] for prompt in prompts], most))
    room = len(shared) + max(sum(map(len, batch)) + len(batch) * len(nodes) for batch in together)
    with model.decoder(room, 1 + most * len(choices)) as decoder:
        decoder.prefix(shared)
        for batch in together:
            yield from _read(decoder, batch, len(shared), nodes, paths)


def _read(
    decoder: Decoder, prompts: Sequence[Sequence[int]], shared: int, nodes: Sequence[_Node], paths: Sequence[list[int]]
) -> Iterator[list[float]]:
    """Some prompts' choices, each in a sequence of its own from 1 on."""
    first = [1 + number * len(paths) for number in range(len(prompts))]
    every = range(1, 1 + len(prompts) * len(paths))
    for sequence in every:
        decoder.fork(sequence)
    prompt_ends = [
        Entry(token, shared + at, range(start, start + len(paths)), at == len(prompt) - 1)
        for prompt, start in zip(prompts, first, strict=True)
        for at, token in enumerate(prompt)
    ]
    inner = [place for place, node in enumerate(nodes) if node.inner]
    inner_nodes = [
        Entry(nodes[at].token, shared + len(prompt) + nodes[at].depth, [start + of for of in nodes[at].choices], True)
        for prompt, start in zip(prompts, first, strict=True)
        for at in inner
    ]
    ends = decoder.read(prompt_ends, _log_probabilities)
    insides = iter(decoder.read(inner_nodes, _log_probabilities))
    for sequence in every:
        decoder.drop(sequence)
    for end in ends:
        by_place = {-1: end, **{place: next(insides) for place in inner}}
        yield [sum(float(by_place[nodes[at].parent][nodes[at].token]) for at in path) for path in paths]


def _log_probabilities(logits: Any, number: int) -> Any:
    from scipy.special import log_softmax

    return log_softmax(logits)
