"""What a chat template of the installed LLaMA-Factory is: its texts, its tools, its name with another tool format."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from functools import cache

from orchestrator.chat_template import source
from orchestrator.chat_template.source import Mark, Slots, literal, slots

_WITH_TOOLS_OF = "+"


@dataclass(frozen=True, slots=True)
class Definition:
    """One `register_template(…)` call, its defaults filled in as that function does."""

    name: str
    user: Slots
    assistant: Slots
    system: Slots
    prefix: Slots
    default_system: str
    stop_words: tuple[str, ...]
    thought_words: tuple[str, str]
    kind: str
    """The class of the template: Template, Llama2Template, ReasoningTemplate or Glm47ReasoningTemplate."""
    efficient_eos: bool
    replace_eos: bool

    @property
    def reasons(self) -> bool:
        """Whether LLaMA-Factory adds an empty thought to answers that have none."""
        return self.kind.endswith("ReasoningTemplate")

    @property
    def system_in_first_user_turn(self) -> bool:
        """Whether the system text is put in front of the first question, inside its turn."""
        return self.kind == "Llama2Template"

    @property
    def empty_thought(self) -> str:
        """`add_thought("")` of the template's class; GLM-4.7 writes the closing word only."""
        opening, closing = self.thought_words
        return closing if self.kind == "Glm47ReasoningTemplate" else opening + closing

    def with_default_system(self, text: str | None) -> Definition:
        """The same template with another system text for conversations that bring none; None keeps its own."""
        return self if text is None else replace(self, default_system=text)


def template_names() -> list[str]:
    """The names of all templates, sorted."""
    return sorted(source.templates())


@dataclass(frozen=True, slots=True)
class TemplateName:
    """A template, and the tool format it is trained with where that is not its own: `gemma`, `gemma+qwen`.

    LLaMA-Factory takes the two as arguments of these names.
    """

    template: str
    tool_format: str | None = None

    @classmethod
    def of(cls, name: str) -> TemplateName:
        """The two of a name."""
        template, _, tool_format = name.partition(_WITH_TOOLS_OF)
        return cls(template, tool_format or None)

    def __str__(self) -> str:
        return f"{self.template}{_WITH_TOOLS_OF}{self.tool_format}" if self.tool_format else self.template

    def registered(self) -> source.Arguments:
        """What LLaMA-Factory registers the template with. Raises InputError for an unknown one."""
        return source.template(self.template)

    def arguments(self) -> dict[str, str]:
        """As arguments of LLaMA-Factory."""
        own = {"template": self.template}
        return own | {"tool_format": self.tool_format} if self.tool_format else own


@cache
def definition(name: str) -> Definition:
    """The definition of a template. Raises InputError for an unknown name."""
    arguments = TemplateName.of(name).registered()
    efficient_eos = bool(literal(arguments, "efficient_eos", False))
    bare = (Mark.CONTENT,)
    return Definition(
        name=name,
        user=slots(arguments, "format_user", bare),
        assistant=slots(arguments, "format_assistant", bare if efficient_eos else (Mark.CONTENT, Mark.EOS)),
        system=slots(arguments, "format_system", bare),
        prefix=slots(arguments, "format_prefix", ()),
        default_system=literal(arguments, "default_system", ""),
        stop_words=tuple(literal(arguments, "stop_words", None) or ()),
        thought_words=literal(arguments, "thought_words", None) or ("<think>\n", "\n</think>\n\n"),
        kind=ast.unparse(arguments["template_class"]) if "template_class" in arguments else "Template",
        efficient_eos=efficient_eos,
        replace_eos=bool(literal(arguments, "replace_eos", False)),
    )


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """What a `register_template(…)` call says of tools, its defaults filled in as that function does."""

    format: str
    """How tools are told to the model, a key of TOOLS in llamafactory/data/tool_utils.py; "" for their bare JSON."""
    declared: Slots
    """What stands around them, behind the system text."""
    call_format: str
    """How calls are written, of the same keys."""
    call: Slots
    result: Slots
    """A tool's answer; LLaMA-Factory calls it an observation."""
    call_words: tuple[str, str]
    """What stands around the JSON of a call in a row that has text beside it."""
    text_beside_calls: bool
    """Whether a call's turn may have a text or a thought in front of it: Llama2Template takes bare JSON only."""


@cache
def tool_definition(name: str) -> ToolDefinition:
    """What a template says of tools. Raises InputError for an unknown name."""
    shape, arguments = definition(name), TemplateName.of(name).registered()
    told = arguments.get("format_tools")
    raw = isinstance(told, ast.Call) and ast.unparse(told.func) == "StringFormatter"
    own = ToolDefinition(
        format="" if raw else _tool_format(told),
        declared=slots(arguments, "format_tools", (Mark.CONTENT,)),
        call_format=_tool_format(arguments.get("format_function")),
        call=slots(arguments, "format_function", shape.assistant),
        result=slots(arguments, "format_observation", shape.user),
        call_words=literal(arguments, "tool_call_words", None) or ("<tool_call>", "</tool_call>"),
        text_beside_calls=shape.kind != "Llama2Template",
    )
    other = TemplateName.of(name).tool_format
    if other is None:
        return own
    # get_template_and_fix_tokenizer of llamafactory/data/template.py
    ended = (Mark.CONTENT,) if shape.efficient_eos else (Mark.CONTENT, Mark.EOS)
    return replace(own, format=other, declared=(Mark.CONTENT,), call_format=other, call=ended)


def _tool_format(formatter: ast.expr | None) -> str:
    keywords = formatter.keywords if isinstance(formatter, ast.Call) else []
    return next((str(ast.literal_eval(each.value)) for each in keywords if each.arg == "tool_format"), "default")
