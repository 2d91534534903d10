"""One message of a conversation as clients send it, checked field by field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from orchestrator.chat_template.tools import ToolError, canonical_call

NEUTRAL: tuple[Any, ...] = (None, False, 0, 0.0, "none", "auto", {"type": "text"}, ["text"], [], {})


@dataclass(eq=False)
class Refused(Exception):
    """A request that is not answered: the status, and the fields of OpenAI's error object."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None


def _asks_for_nothing(value: Any) -> Any:
    if value not in NEUTRAL:
        raise PydanticCustomError("not_done", "this server does not do that")
    return None


NotDone = Annotated[Any, AfterValidator(_asks_for_nothing)]
"""What OpenAI's protocol knows and this server does not do."""
Ignored = Annotated[Any, Field(default=None)]
"""What changes no answer."""


class Body(BaseModel):
    """An object that is read strictly: a name that nobody knows is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class TextPart(Body):
    """A piece of a text. Pictures and sounds are no text."""

    type: Literal["text"]
    text: str


class Function(Body):
    """What is called, with arguments as JSON text."""

    name: str
    arguments: str


class ToolCall(Body):
    """A call of an earlier answer."""

    id: Ignored
    index: Ignored
    type: Literal["function"] = "function"
    function: Function


class Turn(Body):
    """One message. An answer of ours may come back as it was given; training takes its thoughts out, and so do we."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: Ignored
    tool_call_id: Ignored
    reasoning_content: str | None = None
    annotations: Ignored
    refusal: NotDone = None
    audio: NotDone = None
    function_call: NotDone = None
    tool_calls: list[ToolCall] | None = None

    @property
    def text(self) -> str:
        """The parts joined as LLaMA-Factory joins them: with nothing in between."""
        if self.content is None:
            return ""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)

    def said(self) -> dict[str, Any]:
        """The text and the calls, as templates take them. Raises Refused for arguments that are no JSON object."""
        if not self.tool_calls:
            return {"content": self.text}
        try:
            calls = [canonical_call(call.model_dump(exclude_none=True))[0] for call in self.tool_calls]
        except ToolError as error:
            raise Refused(400, str(error), "messages", "invalid_value") from None
        made = [{"type": "function", "function": call} for call in calls]
        return {"content": self.text, "tool_calls": made}
