"""Grammars of tool calls: every call is well-formed, names a known tool, and has arguments that fit its schema.

`tool_grammar` is for a model's own markup, which `call_parser.py` reads; `action_grammar` for ReAct's lines of text.
Both depend on the tools alone. Schema keywords that a grammar cannot express (`uniqueItems`, `not` ...) are checked by
the tool.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from firsthand.errors import ConfigError
from firsthand.grammar import Grammar, lark
from firsthand.message import Json
from firsthand.model import ToolSpec
from firsthand.tokens.llguidance_grammar import lark_json, lark_text

Markup = Literal["hermes", "llama3", "mistral", "harmony"]
"""A model's tool-call markup. `hermes`: `<tool_call>` tags, as in Qwen and SmolLM2; `llama3`: a bare object, or one
after `<|python_tag|>`; `mistral`: a list after `[TOOL_CALLS]`; `harmony`: a message to `functions.NAME`, as in gpt-oss."""
_MARKS: dict[Markup, str] = {"hermes": "<tool_call>", "llama3": "<|python_tag|>", "mistral": "[TOOL_CALLS]"}
_MAX_LINE = 400


def markup_of(template: str) -> Markup | None:
    """Returns the markup of a chat template; Hermes's tags if the template has no tools (see `template_messages.py`)."""
    if "<|channel|>" in template:
        return "harmony" if "tools" in template else None
    if "tools" not in template:
        return "hermes"
    if _MARKS["hermes"] in template:
        return "hermes"
    if _MARKS["mistral"] in template:
        return "mistral"
    return "llama3" if "python_tag" in template or '"parameters": ' in template else None


def tool_grammar(
    specs: Sequence[ToolSpec], *, choice: str = "auto", parallel: bool = True, markup: Markup = "hermes"
) -> Grammar:
    """Returns the grammar of an answer that may call tools.

    `auto`: text, calls, or both; `required`: calls only; a tool's name: calls of that tool only. Without `parallel` an
    answer ends with its first call, which very small models need: they do not stop calling. Raises ConfigError for an
    unknown choice or no tools.
    """
    if choice not in ("auto", "required"):
        named = [spec for spec in specs if spec.name == choice]
        if not named:
            known = ", ".join(spec.name for spec in specs) or "none"
            raise ConfigError(f"choice is {choice!r}: give auto, required, or the name of a tool ({known})")
        specs = named
    if not specs:
        raise ConfigError("a grammar of tool calls needs a tool: give one or more")
    if markup == "harmony":
        return lark("\n".join(_channels(specs, with_words=choice == "auto")))
    return lark("\n".join([*_frame(markup, choice == "auto", parallel), *_calls(specs, markup)]))


def action_grammar(specs: Sequence[ToolSpec], *, final: bool = True, thought: bool = True) -> Grammar:
    """Returns the grammar of one ReAct step: a Thought line, then `Action: tool[input]`, or `Final Answer: ...` if
    allowed.

    A tool with one argument gets it bare, as text without brackets or a number; others get a JSON object.
    """
    ends = [f"action_{place}" for place in range(len(specs))] + (["final"] if final else [])
    if not ends:
        raise ConfigError("there is no tool and no final answer to choose from: give one of them")
    lines = [f"start: {'thought ' if thought else ''}({' | '.join(ends)})"]
    if thought:
        lines.append(f'thought: "Thought: " LINE "\\n"\nLINE: /[^\\n]{{1,{_MAX_LINE}}}/')
    if final:
        lines.append(f'final: "Final Answer: " ANSWER\nANSWER: /[^\\n]{{1,{_MAX_LINE}}}/')
    for place, spec in enumerate(specs):
        lines.append(f'action_{place}: {lark_text(f"Action: {spec.name}[")} {_input(spec.parameters)} "]"')
    return lark("\n".join(lines))


def bare_argument(parameters: Json) -> str | None:
    """Returns the name of a tool's only argument, if it is a text, a number or one of several texts; else None."""
    properties = parameters.get("properties", {})
    needed = parameters.get("required", []) or list(properties)[:1]
    if len(needed) != 1 or not isinstance(properties.get(needed[0]), dict):
        return None
    schema = properties[needed[0]]
    is_plain = schema.get("type") in ("string", "integer", "number") and not {"pattern", "format"} & schema.keys()
    return str(needed[0]) if is_plain else None


def _input(parameters: Json) -> str:
    """Returns the rule for the input between an action's brackets."""
    name = bare_argument(parameters)
    if name is None:
        return lark_json(parameters) if parameters.get("properties") else '""'
    schema = parameters["properties"][name]
    if all(isinstance(option, str) for option in schema.get("enum", [0])):
        return f"({' | '.join(map(lark_text, schema['enum']))})"
    if schema["type"] == "string":
        return f"/[^\\n\\[\\]{{}}]{{1,{_MAX_LINE}}}/"
    return lark_json(schema)


def _frame(markup: Literal["hermes", "llama3", "mistral"], with_words: bool, parallel: bool) -> list[str]:
    """Returns the rules around the calls: where text may stand, and what marks a call."""
    mark = lark_text(_MARKS[markup])
    words = r"WORDS: /(.|\n)*/"
    match markup:
        case "hermes":
            body = '"\\n" call "\\n</tool_call>"'
            if with_words:
                start = f"start: (begun {body})* WORDS" if parallel else f"start: begun {body} | WORDS"
                return [start, r"begun[lazy]: /(.|\n)*<tool_call>/", words]
            return [f"start: {mark} {body}" + (f' ("\\n" {mark} {body})*' if parallel else "")]
        case "mistral":
            more = '(", " call)* ' if parallel else ""
            listed = f'" "? "[" call {more}"]"'
            if with_words:
                return [f"start: WORDS | begun {listed}", r"begun[lazy]: /(.|\n)*\[TOOL_CALLS\]/", words]
            return [f"start: {mark} {listed}"]
        case "llama3":
            bare = f"{mark}? call" + (' ("; " call)*' if parallel else "")
            if with_words:
                begun = r"begun[lazy]: /[^{\s](.|\n)*<\|python_tag\|>/"
                return ["start: bare | WORDS | begun call", f"bare: {bare}", begun, r"WORDS: /([^{\s](.|\n)*)?/"]
            return [f"start: {bare}"]


def _channels(specs: Sequence[ToolSpec], with_words: bool) -> list[str]:
    """Returns the rules of an answer in Harmony's channels: thoughts and preambles, then one call or the final text."""
    calls = [f"call_{place}" for place in range(len(specs))]
    rules = [
        f"start: before* ({' | '.join([*calls, 'final'] if with_words else calls)})",
        'before: <|channel|> where <|message|> words <|end|> <|start|> "assistant"',
        'where: "analysis" | "commentary"',
        'final: <|channel|> "final" <|message|> words',
        'form: " json" | " code" | " "? <|constrain|> "json"',
        r"words: /(.|\n)*/",
    ]
    for place, spec in enumerate(specs):
        to = lark_text(f" to=functions.{spec.name}")
        head = f"({to} <|channel|> where | <|channel|> where {to}) form? <|message|>"
        rules.append(f"call_{place}: {head} {lark_json({'type': 'object', **spec.parameters})}")
    return rules


def _calls(specs: Sequence[ToolSpec], markup: Markup) -> list[str]:
    key = "parameters" if markup == "llama3" else "arguments"
    names = " | ".join(f"call_{place}" for place in range(len(specs)))
    rules = [f"call: {names}"]
    for place, spec in enumerate(specs):
        head = f'{{"name": {json.dumps(spec.name, ensure_ascii=False)}, "{key}": '
        rules.append(f'call_{place}: {lark_text(head)} {lark_json({"type": "object", **spec.parameters})} "}}"')
    return rules
