"""Converts request bodies to Messages, ToolSpecs, Sampling and its Grammar."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from firsthand import grammar
from firsthand.errors import ConfigError
from firsthand.grammar import Grammar
from firsthand.message import Message, Text, ToolCall, ToolResult
from firsthand.model import ModelFacts, Sampling, ToolSpec
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.http.refusals import bad
from firsthand.serve.openai.request_schema import (
    MAX_SCHEMA_VALUES,
    NO_EFFORT,
    ChatRequest,
    NamedTool,
    ResponseFormat,
    SamplingFields,
    StructuredOutputs,
    WireMessage,
    WireTool,
)
from firsthand.system.json_values import values_in_text
from firsthand.tokens.calls.call_grammar import tool_grammar


@dataclass(frozen=True)
class Tools:
    """The tools that a request offers, and the calls that it requires."""

    specs: tuple[ToolSpec, ...] = ()
    """The tools that the model is shown."""
    choice: str = "auto"
    """`auto`, `required`, or the name of the tool that must be called."""
    parallel: bool = True
    strict: tuple[str, ...] = ()
    """The tools whose calls must fit their schemas: a schema that no grammar can express is refused."""
    is_single: bool = False
    """True if a model that runs here makes one call: of a named tool, as at OpenAI, unless several are asked for."""

    @property
    def must_call(self) -> bool:
        """True if an answer without a call is wrong."""
        return bool(self.specs) and self.choice != "auto"


def messages(wire: Sequence[WireMessage], *, thinks: bool = False) -> list[Message]:
    """The conversation; a Refusal of turns that no template could show."""
    _check_arguments(wire)
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


def _check_arguments(wire: Sequence[WireMessage]) -> None:
    """Refuse calls whose arguments, which are JSON within a text, hold more values than tools may have."""
    texts = "\n".join(call.function.arguments for each in wire for call in each.tool_calls or ())
    if values_in_text(texts, MAX_SCHEMA_VALUES) > MAX_SCHEMA_VALUES:
        raise bad(
            f"the arguments of all calls hold more than {MAX_SCHEMA_VALUES:,} JSON values together: leave out old turns",
            "messages",
        )


def _text(each: WireMessage) -> str:
    if each.content is None or isinstance(each.content, str):
        return each.content or ""
    return "".join(part.text for part in each.content)


def _check_fields(each: WireMessage, where: str) -> None:
    """Refuse fields that the role does not have: the template would drop them."""
    is_tool, is_assistant = each.role == "tool", each.role == "assistant"
    checks = [
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
    """The tools as the model is shown them."""
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


def tools(body: ChatRequest) -> Tools:
    """The tools of a chat, and the calls that it requires."""
    if not body.tools:
        if body.tool_choice not in (None, "none", "auto"):
            raise bad("tool_choice demands a call, and there are no tools", "tool_choice")
        return Tools()
    known = specs(body.tools)
    parallel = body.parallel_tool_calls is not False
    strict = tuple(each.function.name for each in body.tools if each.function.strict)
    match body.tool_choice:
        case "none":
            return Tools()
        case NamedTool(function=named):
            if named.name not in {spec.name for spec in known}:
                raise bad(f"tool_choice names {named.name!r:.80}, which is none of the tools", "tool_choice")
            return Tools(known, named.name, parallel, strict, is_single=body.parallel_tool_calls is None)
        case "required":
            return Tools(known, "required", parallel, strict)
        case _:
            return Tools(known, "auto", parallel, strict)


def calls_grammar(tools: Tools, facts: ModelFacts | None) -> Grammar | None:
    """The grammar of the calls; None where the model's own habit (calls that fit their schemas) is all that is body."""
    if not tools.specs or facts is None or (tools.choice == "auto" and tools.parallel and not tools.strict):
        return None
    if facts.markup is None:
        raise bad("how this model writes tool calls is not known, so that none can be demanded", "tool_choice")
    parallel = tools.parallel and not tools.is_single
    return tool_grammar(tools.specs, choice=tools.choice, parallel=parallel, markup=facts.markup)


def structure(body: SamplingFields, response_format: ResponseFormat | None = None) -> Grammar | None:
    """The grammar that a request asks for in one of its fields; a Refusal if several ask for one."""
    found: dict[str, Grammar] = {}
    if response_format is not None and (form := _form(response_format)) is not None:
        found["response_format"] = form
    if body.structured_outputs is not None:
        found["structured_outputs"] = _structured(body.structured_outputs)
    guided = {
        "json": body.guided_json,
        "regex": body.guided_regex,
        "choice": body.guided_choice,
        "grammar": body.guided_grammar,
    }
    for kind, value in guided.items():
        if value is not None:
            found[f"guided_{kind}"] = _grammar(kind, value, f"guided_{kind}")
    if len(found) > 1:
        raise bad(f"{' and '.join(found)} both say what the answer must look like: give one", list(found)[1])
    return next(iter(found.values()), None)


def _form(response_format: ResponseFormat) -> Grammar | None:
    if response_format.type == "text":
        return None
    if response_format.type == "json_object":
        return grammar.json_schema({"type": "object"})
    if response_format.json_schema is None or response_format.json_schema.schema_ is None:
        raise bad("response_format.json_schema.schema is missing", "response_format.json_schema")
    return _grammar("json", response_format.json_schema.schema_, "response_format")


def _structured(outputs: StructuredOutputs) -> Grammar:
    fields = {
        "json": outputs.json_,
        "regex": outputs.regex,
        "choice": outputs.choice,
        "grammar": outputs.grammar,
        "json_object": outputs.json_object or None,
    }
    present = [(kind, value) for kind, value in fields.items() if value is not None]
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


EFFORTS = ("low", "medium", "high")
OPENAI_DEFAULTS = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
"""The settings of a request that states none of them, or some, unless the model's authors recommend others."""


def sampling(
    body: SamplingFields,
    limits: ClientLimits,
    *,
    max_tokens: int | None,
    top_logprobs: int,
    grammar: Grammar | None,
    facts: ModelFacts | None = None,
) -> Sampling:
    """The sampling settings of a request, checked against the client's limits.

    A request that states nothing about sampling gets what the model's authors recommend. One that states something gets
    OpenAI's defaults for the rest, so that greedy stays greedy. `max_tokens` has a recommendation of its own.
    """
    recommended = dict(facts.recommended) if facts is not None else {}
    most = int(min(recommended.pop("max_tokens", limits.max_tokens), limits.max_tokens))
    is_bare = all(getattr(body, name) is None for name in OPENAI_DEFAULTS)
    default = OPENAI_DEFAULTS | (recommended if is_bare else {})
    if max_tokens is not None and max_tokens > limits.max_tokens:
        field = "max_completion_tokens" if body.max_tokens != max_tokens else "max_tokens"
        raise bad(f"{field} is {max_tokens}: at most {limits.max_tokens} are given", field, "invalid_value")
    if (body.n or 1) > limits.max_answers:
        raise bad(f"n is {body.n}: at most {limits.max_answers} answers are given", "n", "invalid_value")
    if (body.priority or 0) < limits.min_priority:
        raise bad(f"priority is {body.priority}: at least {limits.min_priority} is taken with this key", "priority")
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    if any(len(each) > 1024 for each in stop):
        raise bad("a stop string has more than 1024 characters", "stop")
    if body.stream_options is not None and not body.stream:
        raise bad("stream_options is only for streams: set stream to true", "stream_options")
    return Sampling(
        max_tokens=most if max_tokens is None else max(max_tokens, 1),
        temperature=default["temperature"] if body.temperature is None else body.temperature,
        top_k=int(default["top_k"]) if body.top_k is None else max(body.top_k, 0),
        top_p=default["top_p"] if body.top_p is None else body.top_p,
        min_p=default["min_p"] if body.min_p is None else body.min_p,
        repetition_penalty=default["repetition_penalty"]
        if body.repetition_penalty is None
        else body.repetition_penalty,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        seed=body.seed,
        stop=tuple(each for each in stop if each),
        top_logprobs=top_logprobs,
        logit_bias=_bias(body.logit_bias or {}),
        stop_ids=tuple(body.stop_token_ids or ()),
        ignore_eos=bool(body.ignore_eos),
        min_tokens=_min_tokens(body, max_tokens or most),
        allowed_token_ids=None if body.allowed_token_ids is None else tuple(body.allowed_token_ids),
        bad_words=tuple(body.bad_words or ()),
        skip_special_tokens=body.skip_special_tokens is not False,
        include_stop_str_in_output=bool(body.include_stop_str_in_output),
        grammar=grammar,
    )


def _min_tokens(body: SamplingFields, most: int) -> int:
    least = body.min_tokens or 0
    if least > most:
        raise bad(f"min_tokens is {least}: the answer has at most {most}", "min_tokens", "invalid_value")
    return least


def _bias(biases: dict[str, float]) -> tuple[tuple[int, float], ...]:
    pairs = []
    for token, bias in biases.items():
        if not (token.isascii() and token.isdigit() and len(token) <= 9):
            raise bad(f"logit_bias names the token {token[:40]!r}: a token id was expected", "logit_bias")
        pairs.append((int(token), bias))
    return tuple(pairs)


def needs_tokens(body: SamplingFields) -> str | None:
    """The first field with a value that only a model can obey that runs here."""
    if body.skip_special_tokens is False:
        return "skip_special_tokens"
    values = dict(body)
    for name in _TOKEN_FIELDS:
        value = values.get(name)
        if value is not None and value is not False and (value or name not in _EMPTY_ASKS_NOTHING):
            return name
    return None


_TOKEN_FIELDS = (
    "logprobs", "top_logprobs", "prompt_logprobs", "logit_bias", "stop_token_ids", "ignore_eos", "return_token_ids",
    "priority", "cache_salt", "allowed_token_ids", "include_stop_str_in_output", "min_tokens", "bad_words",
    "chat_template_kwargs",
)  # fmt: skip
_EMPTY_ASKS_NOTHING = ("min_tokens", "bad_words", "chat_template_kwargs")


def with_effort(body: ChatRequest, facts: ModelFacts | None) -> ChatRequest:
    """The request with its `reasoning_effort` as a variable of the chat template; a Refusal if that has no such variable."""
    effort = body.reasoning_effort
    if effort is None:
        return body
    if facts is None or not facts.takes_effort:
        raise bad(f"reasoning_effort is not supported: {NO_EFFORT}", "reasoning_effort", "unsupported_parameter")
    if effort not in EFFORTS:
        raise bad(
            f"reasoning_effort is {effort!r}: give one of {', '.join(EFFORTS)}", "reasoning_effort", "invalid_value"
        )
    variables = body.chat_template_kwargs or {}
    if variables.get("reasoning_effort", effort) != effort:
        raise bad("reasoning_effort and chat_template_kwargs differ: give one of them", "reasoning_effort")
    return body.model_copy(update={"chat_template_kwargs": {**variables, "reasoning_effort": effort}})


def template_options(kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """The template's variables as an option of `TokenModel.tokenize`; empty if there are none."""
    return {"template": kwargs} if kwargs else {}
