"""Two artifacts of a run, asked the same. What was said travels with the page; only the servers are kept here."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from orchestrator.lib.errors import InputError
from orchestrator.lib.process import Child
from orchestrator.runs.store import Run
from orchestrator.serving.chat import Conversation
from orchestrator.serving.endpoint import Endpoint

Json = dict[str, Any]
AT_ONCE = 2
"""Models that are loaded at a time."""
Serve = Callable[[ExitStack, Run, str], tuple[Endpoint, Child]]
"""Starts the server of an artifact, which ends with the stack."""
LONGEST = 512
"""Tokens of an answer, as with `orchestrator chat`."""


class Servers:
    """The servers of the artifacts that are talked to; the one that was asked longest ago makes room.

    They are started in a thread that lasts: Linux ends a child with the *thread* that started it.
    """

    def __init__(self, serve: Serve | None = None) -> None:
        self._serve = serve or _serve
        self._thread = ThreadPoolExecutor(1)
        self._running: dict[tuple[str, str], tuple[ExitStack, Endpoint, Child]] = {}

    def endpoints(self, run: Run, artifacts: Sequence[str]) -> list[Endpoint]:
        """Where each artifact answers, started when it is not. Raises what `artifacts.choose` and `running` raise."""
        return self._thread.submit(lambda: [self._endpoint(run, artifact) for artifact in artifacts]).result()

    def close(self) -> None:
        """End them all."""
        self._thread.submit(self._drop_all).result()
        self._thread.shutdown()

    def _endpoint(self, run: Run, artifact: str) -> Endpoint:
        from orchestrator.serving.artifacts import choose

        key = (run.id, choose(run, artifact))
        if key in self._running and self._running[key][2].poll() is not None:  # killed, or out of memory
            self._drop(key)
        if key not in self._running:
            while len(self._running) >= AT_ONCE:
                self._drop(next(iter(self._running)))
            stack = ExitStack()
            self._running[key] = stack, *self._serve(stack, run, key[1])
        self._running[key] = self._running.pop(key)
        return self._running[key][1]

    def _drop_all(self) -> None:
        for key in list(self._running):
            self._drop(key)

    def _drop(self, key: tuple[str, str]) -> None:
        self._running.pop(key)[0].close()


def _serve(stack: ExitStack, run: Run, artifact: str) -> tuple[Endpoint, Child]:
    from orchestrator.serving.serve import running, where

    return stack.enter_context(running(run, artifact, where(port=0)))


def offered(run: Run) -> list[str]:
    """The artifacts that can be talked to."""
    from orchestrator.serving.artifacts import LLAMA_FACTORY, ggufs

    trained = LLAMA_FACTORY if run.stage("train").get("status") == "completed" else ()
    return [*trained, *ggufs(run)]


def say(servers: Servers, run: Run, artifacts: Sequence[str], text: str, before: str) -> list[Json]:
    """The turns of each artifact once it has answered a text: {artifact, turns}. `before` is what was said, as JSON."""
    from orchestrator.serving.artifacts import thinking

    if not text.strip():
        raise InputError("nothing was asked", "Write a question.")
    said, words = _turns(before), thinking(run)[1]
    talks = []
    for artifact, endpoint in zip(artifacts, servers.endpoints(run, artifacts), strict=True):
        conversation = Conversation(endpoint, LONGEST, words=words, turns=list(said.get(artifact, [])))
        conversation.answer(text)
        talks.append({"artifact": artifact, "turns": conversation.turns})
    return talks


def _turns(before: str) -> dict[str, list[dict[str, str]]]:
    """Artifact → its turns, out of what a browser sends back. Raises InputError for anything else."""
    try:
        given = json.loads(before or "{}")
        return {
            str(artifact): [{"role": str(turn["role"]), "content": str(turn["content"])} for turn in turns]
            for artifact, turns in given.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InputError("what was said before cannot be read", "Begin a new conversation.") from None
