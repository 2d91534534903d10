"""How likely a GGUF finds each of some answers, from its own logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.lib.errors import StageError
from orchestrator.models.gguf import BATCH_TOKENS, GgufModel, _common_prefix


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
    shared = _common_prefix(prompts)
    room = max(map(len, prompts)) + len(nodes)
    context = model._context(room, len(choices) + 1)
    reader = _Reader(model, context, len(choices))
    try:
        reader.prefix(shared)
        for prompt in prompts:
            yield reader.read(prompt, len(shared), nodes, paths)
    finally:
        model._api.llama_free(context)


class _Reader:
    """Sequence 0 keeps the prompts' common beginning, one sequence each follows a choice."""

    def __init__(self, model: GgufModel, context: Any, choices: int) -> None:
        self._api, self._context = model._api, context
        self._memory = self._api.llama_get_memory(context)
        self._size = self._api.llama_vocab_n_tokens(model._vocab)
        self._all = list(range(1, choices + 1))

    def prefix(self, tokens: Sequence[int]) -> None:
        for start in range(0, len(tokens), BATCH_TOKENS):
            part = tokens[start : start + BATCH_TOKENS]
            self._decode([(token, start + at, [0], False) for at, token in enumerate(part)])

    def read(
        self, prompt: Sequence[int], shared: int, nodes: Sequence[_Node], paths: Sequence[Sequence[int]]
    ) -> list[float]:
        for sequence in self._all:
            self._api.llama_memory_seq_cp(self._memory, 0, sequence, -1, -1)
        found = [self._prompt(prompt, shared)]
        inner = [place for place, node in enumerate(nodes) if node.inner]
        by_place: dict[int, Any] = {-1: found[0]}
        for start in range(0, len(inner), BATCH_TOKENS):
            part = inner[start : start + BATCH_TOKENS]
            entries = [
                (nodes[at].token, len(prompt) + nodes[at].depth, [1 + choice for choice in nodes[at].choices], True)
                for at in part
            ]
            self._decode(entries)
            by_place |= {place: self._log_probabilities(at) for at, place in enumerate(part)}
        for sequence in self._all:
            self._api.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return [sum(float(by_place[nodes[at].parent][nodes[at].token]) for at in path) for path in paths]

    def _prompt(self, prompt: Sequence[int], shared: int) -> Any:
        """What may follow the prompt."""
        for start in range(shared, len(prompt), BATCH_TOKENS):
            part = prompt[start : start + BATCH_TOKENS]
            last = len(prompt) - 1 - start
            self._decode([(token, start + at, self._all, at == last) for at, token in enumerate(part)])
        return self._log_probabilities(len(part) - 1)

    def _log_probabilities(self, index: int) -> Any:
        import numpy as np
        from scipy.special import log_softmax

        logits = self._api.llama_get_logits_ith(self._context, index)
        return log_softmax(np.ctypeslib.as_array(logits, shape=(self._size,)))

    def _decode(self, entries: Sequence[tuple[int, int, list[int], bool]]) -> None:
        batch = self._api.llama_batch_init(len(entries), 0, len(self._all) + 1)
        try:
            batch.n_tokens = len(entries)
            for index, (token, position, sequences, wanted) in enumerate(entries):
                batch.token[index], batch.pos[index] = token, position
                batch.n_seq_id[index], batch.logits[index] = len(sequences), wanted
                for at, sequence in enumerate(sequences):
                    batch.seq_id[index][at] = sequence
            if (code := self._api.llama_decode(self._context, batch)) != 0:
                raise StageError(f"llama.cpp failed to decode (code {code})", "The GGUF or the runtime is broken.")
        finally:
            self._api.llama_batch_free(batch)
