"""From the bodies of requests to our nouns: Messages, ToolSpecs, Sampling and its Grammar."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from firsthand import grammar
from firsthand.errors import ConfigError
from firsthand.grammar import Grammar
from firsthand.message import Json, Message, Text, ToolCall, ToolResult
from firsthand.model import ModelFacts, Sampling, ToolSpec
from firsthand.serve.http.refusals import bad
from firsthand.serve.http.server_settings import Limits
from firsthand.serve.openai.request_schema import (
    ChatRequest,
    NamedTool,
    ResponseFormat,
    SamplingFields,
    StructuredOutputs,
    WireMessage,
    WireTool,
)
from firsthand.tokens.calls.call_grammar import tool_grammar


@dataclass(frozen=True)
class Tools:
    """The tools that a request allows, and what it demands of the answer."""

    specs: tuple[ToolSpec, ...] = ()
    """What the model is told of."""
    choice: str = "auto"
    """`auto`, `required`, or the name of the tool that must be called."""
    parallel: bool = True
    strict: bool = False
    """Whether a schema that no grammar can express is refused."""

    @property
    def must_call(self) -> bool:
        """Whether an answer without a call is wrong."""
        return bool(self.specs) and self.choice != "auto"


def messages(wire: Sequence[WireMessage], *, thinks: bool = False) -> list[Message]:
    """The conversation. Refused are turns that no template could show."""
    called: dict[str, str] = {}
    found: list[Message] = []
    for place, each in enumerate(wire):
        where = f"messages.{place}"
        text = _text(each)
        _check_fields(each, where)
        if each.role == "tool":
            if each.tool_call_id not in called:
                raise bad(
                    f"{where}.tool_call_id is {each.tool_call_id!r:.80}: no call of that id comes before it",
                    f"{where}.tool_call_id",
                )
            name = called[each.tool_call_id]
            if each.name not in (None, name):
                raise bad(f"{where}.name is {each.name!r:.80}: the call was of {name!r:.80}", f"{where}.name")
            found.append(Message("tool", (ToolResult(each.tool_call_id, name, text),)))
            continue
        calls = tuple(_call(call.id, call.function.name, call.function.arguments) for call in each.tool_calls or ())
        called |= {call.id: call.name for call in calls}
        if each.content is None and not calls:
            raise bad(f"{where}.content is missing: give a text", f"{where}.content")
        thought = each.reasoning_content or each.reasoning
        if thought and thinks:
            text = f"<think>\n{thought}\n</think>\n\n{text}"
        role = "system" if each.role == "developer" else each.role
        found.append(Message(role, ((Text(text),) if text or not calls else ()) + calls))
    return found


def _text(each: WireMessage) -> str:
    if each.content is None or isinstance(each.content, str):
        return each.content or ""
    return "".join(part.text for part in each.content)


def _check_fields(each: WireMessage, where: str) -> None:
    """Refuse fields that the role does not have, since nobody would see them."""
    is_tool, is_assistant = each.role == "tool", each.role == "assistant"
    checks = [
        ("name", each.name is None or is_tool, "templates show no names: put it into the content"),
        ("tool_call_id", (each.tool_call_id is None) != is_tool, "a tool's message, and no other, says whose result it is"),
        ("tool_calls", not each.tool_calls or is_assistant, "only an assistant calls tools"),
        ("reasoning_content", is_assistant or not (each.reasoning_content or each.reasoning), "only an assistant thinks"),
    ]  # fmt: skip
    for field, fine, why in checks:
        if not fine:
            raise bad(f"{where}.{field} does not belong to the role {each.role}: {why}", f"{where}.{field}")


def _call(id: str, name: str, arguments: str) -> ToolCall:
    try:
        body = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return ToolCall(id, name, {}, arguments)
    return ToolCall(id, name, body) if isinstance(body, dict) else ToolCall(id, name, {}, arguments)


def specs(wire: Sequence[WireTool] | None) -> tuple[ToolSpec, ...]:
    """What the model is told of the tools."""
    found = []
    for place, each in enumerate(wire or ()):
        parameters = each.function.parameters or {"type": "object", "properties": {}}
        if parameters.get("type", "object") != "object":
            raise bad(
                f"tools.{place}.function.parameters has type {parameters['type']!r:.60}: arguments are an object",
                f"tools.{place}.function.parameters",
            )
        found.append(ToolSpec(each.function.name, each.function.description or "", parameters))
    names = [spec.name for spec in found]
    if len(set(names)) < len(names):
        raise bad("two tools have the same name: give each its own", "tools")
    return tuple(found)


def tools(asked: ChatRequest) -> Tools:
    """The tools of a chat, and what it demands."""
    if not asked.tools:
        if asked.tool_choice not in (None, "none", "auto"):
            raise bad("tool_choice demands a call, and there are no tools", "tool_choice")
        return Tools()
    known = specs(asked.tools)
    parallel = asked.parallel_tool_calls is not False
    strict = any(each.function.strict for each in asked.tools)
    match asked.tool_choice:
        case "none":
            return Tools()
        case NamedTool(function=named):
            if named.name not in {spec.name for spec in known}:
                raise bad(f"tool_choice names {named.name!r:.80}, which is none of the tools", "tool_choice")
            return Tools(known, named.name, parallel, strict)
        case "required":
            return Tools(known, "required", parallel, strict)
        case _:
            return Tools(known, "auto", parallel, strict)


def calls_grammar(wanted: Tools, facts: ModelFacts | None) -> Grammar | None:
    """The grammar of the calls; None where the model's own habit (calls that fit their schemas) is all that is asked."""
    if not wanted.specs or facts is None or (wanted.choice == "auto" and wanted.parallel and not wanted.strict):
        return None
    if facts.markup is None:
        raise bad("how this model writes tool calls is not known, so that none can be demanded", "tool_choice")
    return tool_grammar(wanted.specs, choice=wanted.choice, parallel=wanted.parallel, markup=facts.markup)


def structure(asked: SamplingFields) -> Grammar | None:
    """The grammar that a request asks for in one of its fields."""
    found: dict[str, Grammar] = {}
    response_format = getattr(asked, "response_format", None)
    if response_format is not None and (form := _form(response_format)) is not None:
        found["response_format"] = form
    if asked.structured_outputs is not None:
        found["structured_outputs"] = _structured(asked.structured_outputs)
    named = {"guided_json": "json", "guided_regex": "regex", "guided_choice": "choice", "guided_grammar": "grammar"}
    for field, kind in named.items():
        value = getattr(asked, field)
        if value is not None:
            found[field] = _grammar(kind, value, field)
    if len(found) > 1:
        raise bad(f"{' and '.join(found)} both say what the answer must look like: give one", list(found)[1])
    return next(iter(found.values()), None)


def _form(wanted: ResponseFormat) -> Grammar | None:
    if wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return grammar.json_schema({"type": "object"})
    if wanted.json_schema is None or wanted.json_schema.schema_ is None:
        raise bad("response_format.json_schema.schema is missing", "response_format.json_schema")
    return _grammar("json", wanted.json_schema.schema_, "response_format")


def _structured(wanted: StructuredOutputs) -> Grammar:
    given = {
        "json": wanted.json_,
        "regex": wanted.regex,
        "choice": wanted.choice,
        "grammar": wanted.grammar,
        "json_object": wanted.json_object or None,
    }
    present = [(kind, value) for kind, value in given.items() if value is not None]
    if len(present) != 1:
        raise bad(
            "structured_outputs takes exactly one of json, regex, choice, grammar, json_object", "structured_outputs"
        )
    return _grammar(*present[0], "structured_outputs")


def _grammar(kind: str, value: object, field: str) -> Grammar:
    try:
        match kind, value:
            case "json_object", _:
                return grammar.json_schema({"type": "object"})
            case "json", str():
                return Grammar("json_schema", value)
            case "json", dict() | bool():
                return grammar.json_schema(value)
            case "choice", list():
                return grammar.choice(value)
            case "regex", str():
                return grammar.regex(value)
            case "grammar", str():
                return grammar.gbnf(value) if "::=" in value else grammar.lark(value)
    except ConfigError as error:
        raise bad(str(error), field) from None
    raise bad(f"{field} cannot be read as {kind}", field)


def sampling(
    asked: SamplingFields, limits: Limits, *, max_tokens: int | None, top_logprobs: int, form: Grammar | None
) -> Sampling:
    """How to choose tokens. Bounds that depend on who asks are checked here."""
    if max_tokens is not None and max_tokens > limits.max_tokens:
        field = "max_completion_tokens" if asked.max_tokens != max_tokens else "max_tokens"
        raise bad(f"{field} is {max_tokens}: at most {limits.max_tokens} are given", field, "invalid_value")
    if (asked.n or 1) > limits.max_answers:
        raise bad(f"n is {asked.n}: at most {limits.max_answers} answers are given", "n", "invalid_value")
    stop = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ())
    if any(len(each) > 1024 for each in stop):
        raise bad("a stop string has more than 1024 characters", "stop")
    if asked.stream_options is not None and not asked.stream:
        raise bad("stream_options is only for streams: set stream to true", "stream_options")
    return Sampling(
        max_tokens=limits.max_tokens if max_tokens is None else max(max_tokens, 1),
        temperature=1.0 if asked.temperature is None else asked.temperature,
        top_k=max(asked.top_k or 0, 0),
        top_p=1.0 if asked.top_p is None else asked.top_p,
        min_p=asked.min_p or 0.0,
        repetition_penalty=1.0 if asked.repetition_penalty is None else asked.repetition_penalty,
        presence_penalty=asked.presence_penalty or 0.0,
        frequency_penalty=asked.frequency_penalty or 0.0,
        seed=asked.seed,
        stop=tuple(each for each in stop if each),
        top_logprobs=top_logprobs,
        logit_bias=_bias(asked.logit_bias or {}),
        stop_ids=tuple(asked.stop_token_ids or ()),
        ignore_eos=bool(asked.ignore_eos),
        min_tokens=_min_tokens(asked, max_tokens or limits.max_tokens),
        allowed_token_ids=None if asked.allowed_token_ids is None else tuple(asked.allowed_token_ids),
        bad_words=tuple(asked.bad_words or ()),
        skip_special_tokens=asked.skip_special_tokens is not False,
        include_stop_str_in_output=bool(asked.include_stop_str_in_output),
        grammar=form,
    )


def _min_tokens(asked: SamplingFields, most: int) -> int:
    least = asked.min_tokens or 0
    if least > most:
        raise bad(f"min_tokens is {least}: the answer has at most {most}", "min_tokens", "invalid_value")
    return least


def _bias(given: dict[str, float]) -> tuple[tuple[int, float], ...]:
    pairs = []
    for token, bias in given.items():
        if not (token.isascii() and token.isdigit() and len(token) <= 9):
            raise bad(f"logit_bias names the token {token[:40]!r}: a token id was expected", "logit_bias")
        pairs.append((int(token), bias))
    return tuple(pairs)


def needs_tokens(asked: SamplingFields) -> str | None:
    """The first field that only a model can obey whose tokens are known here."""
    fields = (
        "logprobs", "top_logprobs", "prompt_logprobs", "logit_bias", "stop_token_ids", "ignore_eos",
        "return_token_ids", "priority", "cache_salt", "allowed_token_ids", "include_stop_str_in_output",
        *(name for name in ("min_tokens", "bad_words") if getattr(asked, name)),
        *(["chat_template_kwargs"] if getattr(asked, "chat_template_kwargs", None) else []),
    )  # fmt: skip
    if asked.skip_special_tokens is False:
        return "skip_special_tokens"
    return next(
        (name for name in fields if (value := getattr(asked, name, None)) is not None and value is not False), None
    )


def text_of(body: Json) -> str:
    """A JSON object on one line."""
    return json.dumps(body, ensure_ascii=False)
