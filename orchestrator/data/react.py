"""ReAct texts (Yao et al., 2022) → turns that call tools: Thought, Action, Action Input, Observation, Final Answer.

A whole trajectory may stand in one answer, or each step in a turn of its own. Thoughts become `<think>` blocks, since
that is what servers show apart from an answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.data.conversation import Conversation, Message
from orchestrator.data.tools import calls_of

_THOUGHT, _ACTION, _INPUT = "Thought:", "Action:", "Action Input:"
_SEEN, _FINAL = "Observation:", "Final Answer:"
_STEPS = (_THOUGHT, _INPUT, _ACTION, _SEEN, _FINAL)
_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def is_react(turns: Iterable[Message]) -> bool:
    """Whether some answer takes an action."""
    answers = [turn.content for turn in turns if turn.role == "assistant"]
    return any({_ACTION, _INPUT} <= {step for step, _ in _steps(text)} for text in answers)


def to_calls(turns: Sequence[Message]) -> list[Message]:
    """The turns with actions as calls and observations as results; those of other conversations as they are."""
    if not is_react(turns):
        return list(turns)
    made: list[Message] = []
    for turn in turns:
        if turn.role == "assistant":
            made += _turns(turn.content)
        elif made and made[-1].role == "function_call":
            made.append(Message("observation", turn.content.strip().removeprefix(_SEEN).strip()))
        else:
            made.append(turn)
    return made


def tools_called(rows: Iterable[Conversation]) -> list[dict[str, Any]]:
    """Tools whose parameters are the arguments that the rows call them with: required where every call has them."""
    seen: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        for calls in calls_of(row):
            for call in calls:
                seen.setdefault(call.name, []).append(call.arguments)
    return [_tool(name, arguments) for name, arguments in sorted(seen.items())]


def _tool(name: str, calls: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    keys = dict.fromkeys(key for call in calls for key in call)
    required = [key for key in keys if all(key in call for call in calls)]
    properties = {key: _type([call[key] for call in calls if key in call]) for key in keys}
    parameters = {"type": "object", **({"required": required} if required else {}), "properties": properties}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


def _type(values: Sequence[Any]) -> dict[str, Any]:
    """The one JSON type of all values; no type where they differ."""
    types = {_TYPES.get(type(value), "") for value in values}
    if types == {"integer", "number"}:
        types = {"number"}
    return {"type": types.pop()} if len(types) == 1 and types != {""} else {}


def _turns(text: str) -> Iterator[Message]:
    """One answer, or a trajectory, as turns: thoughts and names of tools belong to the turn that follows them."""
    thought = action = ""
    for step, said in _steps(text):
        if step == _THOUGHT:
            thought = f"<think>\n{said}\n</think>\n\n" if said else ""
        elif step == _ACTION:
            action = said
        elif step == _SEEN:
            yield Message("observation", said)
        else:
            call = {"name": action, "arguments": _arguments(said)} if step == _INPUT else None
            spoken = json.dumps(call, ensure_ascii=False) if call else said
            yield Message("function_call" if call else "assistant", thought + spoken)
            thought = ""


def _arguments(said: str) -> Any:
    """JSON as it is; any other text is the one argument `input`, as ReAct's own tools take it."""
    try:
        found = json.loads(said.strip("`").removeprefix("json"))
    except (ValueError, RecursionError):
        found = said
    return found if isinstance(found, dict) else {"input": found}


def _steps(text: str) -> Iterator[tuple[str, str]]:
    """(step, what it says) in order; a step begins a line. What stands before the first one is an answer."""
    step, said = _FINAL, list[str]()
    for line in text.split("\n"):
        begun = next((word for word in _STEPS if line.startswith(word)), None)
        if begun:
            if any(part.strip() for part in said):
                yield step, "\n".join(said).strip()
            step, said = begun, [line.removeprefix(begun)]
        else:
            said.append(line)
    if any(part.strip() for part in said) or step == _INPUT:
        yield step, "\n".join(said).strip()
