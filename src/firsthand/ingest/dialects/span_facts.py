"""The columns of a span, as a dialect reads them, and the helpers by which dialects read attributes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, cast

from firsthand.ingest.incoming_span import SpanKind
from firsthand.message import Json, Message, Part, Reasoning, Role, Text, ToolCall, ToolResult
from firsthand.system.json_values import values_in_text

MAX_MESSAGES = 4000
MAX_DEPTH = 64
MAX_VALUES = 200_000
"""JSON values that the texts of one span may hold together to be decoded; as objects they take some 30 MB."""
MAX_VALUES_OF_TRACE = 4_000_000
"""JSON values that the texts of all spans of a trace may hold together to be decoded, some ten seconds of a core."""
MAX_HELD_OF_TRACE = 1_000_000
"""JSON values that stay in memory with the trace, some 100 MB."""
ROLES: dict[str, Role] = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant", "ai": "assistant",
    "model": "assistant", "tool": "tool", "function": "tool",
}  # fmt: skip

MOST_TOKENS = 10**15
_PLAIN_COUNT = 1 << 40
_FEW_VALUES = 2000
_values_left: ContextVar[int | None] = ContextVar("values left", default=None)
_of_trace: ContextVar[TraceValues | None] = ContextVar("values of the trace", default=None)
_SAID_IN = ("message", "input", "question", "query", "prompt", "output", "answer", "response", "result", "text")
_CONVERSATION = {
    "session", "sessionid", "threadid", "conversationid", "chatid", "requestid", "traceid", "runid", "userid", "messageid",
    "correlationid", "timestamp", "createdat",
}  # fmt: skip
"""Arguments, in small letters without underscores, that say where, when and by whom something is asked."""
_WORKINGS = {"callbacks", "config", "runmanager", "agentscratchpad", "intermediatesteps"}
"""Arguments of frameworks that say how it is answered, and what was done for it so far."""
_SETTINGS = {
    "k", "topk", "topp", "temperature", "maxtokens", "maxcompletiontokens", "maxoutputtokens", "presencepenalty",
    "frequencypenalty", "seed", "stream", "verbose", "debug", "usecache", "timeout", "timeouts", "maxretries", "maxsteps",
    "maxiterations", "maxturns", "scorethreshold", "similaritytopk",
}  # fmt: skip
"""Arguments whose numbers say how it is answered, and are no part of it."""
_OF_REQUEST = {
    "instructions", "tools", "toolchoice", "responseformat", "n", "stop", "user", "store", "metadata", "paralleltoolcalls",
    "reasoning", "servicetier", "previousresponseid", "include", "truncation", "background", "logprobs", "suffix", "echo",
}  # fmt: skip
"""Fields of a request to a model besides `model` and its words."""
_STOOD_BEFORE = ("chat_history", "history", "chatHistory")
_SYSTEM = ("system", "system_prompt", "systemPrompt")
_CONTENT = {"content", "parts", "blocks"}
_BESIDE_CONTENT = {"index", "finish_reason", "refusal", "tool_calls"}
"""Fields of a message without a role; one of a role may have a name and ids too."""
_BESIDE_ROLE = _CONTENT | _BESIDE_CONTENT | {
    "role", "type", "name", "id", "tool_call_id", "kind", "messageId", "contextId", "taskId", "metadata", "timestamp",
    "created_at",
}  # fmt: skip
_OF_LANGCHAIN = {"additional_kwargs", "response_metadata"}
_LANGCHAIN = {"HumanMessage": "user", "AIMessage": "assistant", "SystemMessage": "system", "ToolMessage": "tool"}


@dataclass(slots=True)
class SpanFacts:
    """The facts that the attributes of one span state. Empty and 0 are unknown."""

    what: SpanKind = "span"
    model: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    session: str = ""
    user: str = ""
    label: str = ""
    """The name of the tool or the agent."""
    input: str | Callable[[], str] = ""
    """The beginning of what it was asked, or a function that finds it: most spans are never asked."""
    output: str | Callable[[], str] = ""
    """The beginning of what came back, or a function that finds it."""
    tags: tuple[str, ...] = ()
    error: str | None = None
    """An error that the attributes tell, where the span's own status does not."""

    def filled_from(self, other: SpanFacts) -> None:
        """Take from another dialect what this one does not say."""
        for name in self.__slots__:
            held = getattr(self, name)
            if name == "error" and held is not None and not getattr(other, name):
                continue  # an error without words is one
            if not held or (name == "what" and self.what == "span"):
                setattr(self, name, getattr(other, name))


@dataclass
class SpanContent:
    """The messages and the tool call of one span, read when it is looked at."""

    asked: list[Message] = field(default_factory=list)
    answered: list[Message] = field(default_factory=list)
    tool: str = ""
    arguments: Any = None
    result: Any = None
    call_id: str = ""


def first_of(one: str | Callable[[], str], other: str | Callable[[], str]) -> str | Callable[[], str]:
    """The first of two texts that is not empty, found when it is asked for."""
    if not one or not other:
        return one or other
    return one if isinstance(one, str) else lambda: said(one) or said(other)


def said(text: str | Callable[[], str]) -> str:
    """The text, or an empty one if what should find it fails."""
    if isinstance(text, str):
        return text
    try:
        with values_of_one_span():
            return text()
    except Exception:  # an attribute of an unexpected type
        return ""


def text_of(attributes: Json, *names: str) -> str:
    """The first of these attributes that is a text and not empty, or a number as text."""
    for name in names:
        value = attributes.get(name)
        if value is None:
            continue
        if isinstance(value, str) and value:
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
    return ""


def count_of_tokens(attributes: Json, *names: str) -> int:
    """The first of these attributes that is a number of 0 or more, however it is written."""
    for name in names:
        value = attributes.get(name)
        if type(value) is int and 0 <= value <= _PLAIN_COUNT:
            return value
        if value is not None and (number := number_of(value)) is not None:
            return int(min(number, MOST_TOKENS))
    return 0


def cost_in(attributes: Json, *names: str) -> float:
    """The first of these attributes that is an amount of money."""
    for name in names:
        value = attributes.get(name)
        if value is not None and (number := number_of(value)) is not None:
            return min(number, 1e12)
    return 0.0


def number_of(value: Any) -> float | None:
    """A number of 0 or more; None for anything else."""
    if isinstance(value, str) and len(value) < 40:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max:
        return float(value)
    return None


@contextmanager
def values_of_one_span() -> Iterator[None]:
    """Within it, `parsed` decodes texts of at most MAX_VALUES values together."""
    before = _values_left.set(MAX_VALUES)
    try:
        yield
    finally:
        _values_left.reset(before)


class TraceValues:
    """Budget of JSON values to decode in the spans of one trace; texts beyond it are kept undecoded."""

    def __init__(self) -> None:
        self.left = MAX_VALUES_OF_TRACE
        self._may_hold = MAX_HELD_OF_TRACE

    def hold(self, number: int) -> None:
        """Counts values that stay in memory; nothing more is decoded once they are too many."""
        self._may_hold -= number
        if self._may_hold < 0:
            self.left = 0


@contextmanager
def values_of_one_trace() -> Iterator[TraceValues]:
    """Within it, `parsed` also decodes no more than a trace may hold."""
    values = TraceValues()
    before = _of_trace.set(values)
    try:
        yield values
    finally:
        _of_trace.reset(before)


def parsed(value: Any) -> Any:
    """The JSON in a text that begins like an object or a list; any other value, or one of too many values, as it is."""
    if isinstance(value, str) and value[:1] in "[{" and value:
        if not _may_be_decoded(value):
            return value
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return value
        return found if value.count("[") + value.count("{") <= MAX_DEPTH or _is_flat(found) else value
    return value


def _may_be_decoded(text: str) -> bool:
    """True if the text holds no more values than are left to its span and its trace, from which they are then taken."""
    of_span = _values_left.get()
    of_trace = _of_trace.get()
    left = MAX_VALUES if of_span is None else of_span
    left = left if of_trace is None else min(left, of_trace.left)
    number = values_in_text(text, left, _FEW_VALUES if left > MAX_VALUES // 2 else 0)
    if number > left:
        return False
    if of_span is not None:
        _values_left.set(of_span - number)
    if of_trace is not None:
        of_trace.left -= number
    return True


def _is_flat(value: Any) -> bool:
    """True if lists and objects are nested at most MAX_DEPTH deep: what is deeper cannot be written again."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return True
    return False


def words_of(value: Any) -> tuple[str, ...]:
    """Tags: a list of texts, or one text, which may be a list in JSON."""
    value = parsed(value)
    if isinstance(value, list):
        return tuple(str(each)[:200] for each in value[:50])
    return (value[:200],) if isinstance(value, str) and value else ()


def shown(value: Any) -> str:
    """A value as text: JSON for what is no text."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, default=str)


def message(role: object, parts: Iterable[Part]) -> Message:
    """A message of a role as any provider calls it; without parts it says nothing."""
    named = str(role).lower().removeprefix("role_").removesuffix("chunk").removesuffix("message")
    known = ROLES.get(named, "user" if role else "assistant")
    held = tuple(parts)
    return Message(known, held or (Text(""),))


def messages_in(value: Any) -> list[Message]:
    """The messages of a list as OpenAI, Anthropic, the GenAI conventions or LangChain lay them out; a text is a user's."""
    value = parsed(value)
    if isinstance(value, dict):
        for name in ("messages", "input", "output", "choices", "generations"):
            if isinstance(value.get(name), list) and value[name]:
                return messages_in(value[name])
        if _is_one_message(value):
            value = [value]
        else:
            return _asked_in(value)
    if not isinstance(value, list):
        return [Message("user", (Text(shown(value)),))] if value not in (None, "") else []
    if value and isinstance(value[0], list):  # LangChain: a list of conversations
        value = value[0]
    return [one_message(each) for each in value[-MAX_MESSAGES:]]


def _is_one_message(value: Json) -> bool:
    """True for an object that is a message; arguments of which one is called `content` or `role` are none."""
    if isinstance(value.get("message"), dict) or "lc" in value:
        return True
    if isinstance(data := value.get("data"), dict) and "content" in data:
        return True
    kind = str(value.get("role") or value.get("type") or "").lower()
    if kind.removesuffix("chunk").removesuffix("message") in ROLES and value.keys() & (_CONTENT | {"tool_calls"}):
        return True
    if "content" in value and (value.keys() & _OF_LANGCHAIN or str(value.get("type")).endswith("Message")):
        return True
    if "role" in value:
        return value.keys() <= _BESIDE_ROLE
    return bool(value.keys() & _CONTENT) and value.keys() <= _CONTENT | _BESIDE_CONTENT


def _asked_in(value: Json) -> list[Message]:
    """The question in the arguments of a function: its one text where nothing else was given, and otherwise the JSON of
    all of them, without which the same words would ask for other answers. What a conversation and a system message said
    before the text are messages before it.
    """
    given, named = value.get("args"), value.get("kwargs")  # a decorated function
    if given == [] and isinstance(named, dict) and named and value.keys() == {"args", "kwargs"}:
        return _asked_in(named)
    if isinstance(given, list) and len(given) == 1 and isinstance(given[0], str):
        others = value | {"kwargs": None} | (named if isinstance(named, dict) else {"kwargs": named})
        if not _left_in(others, "args"):
            return [Message("user", (Text(given[0]),))]
    before, left = _stood_before(value)
    for name in _SAID_IN:
        if isinstance(text := value.get(name), str) and not _left_in(left, name):
            return [*before, Message("user", (Text(text),))] if text.strip() else before
    return [Message("user", (Text(shown(value)),))]


def _stood_before(value: Json) -> tuple[list[Message], Json]:
    """The system message and the conversation among arguments, and the arguments without them."""
    left, before = dict(value), list[Message]()
    is_request = isinstance(value.get("model"), str) and any(
        isinstance(value.get(key), str) for key in ("input", "prompt")
    )
    for name in (*_SYSTEM, "instructions") if is_request else _SYSTEM:
        if isinstance(text := value.get(name), str):
            before += [Message("system", (Text(text),))] if text.strip() else []
            del left[name]
    for name in _STOOD_BEFORE:
        said = value.get(name)
        if isinstance(said, list) and said and all(isinstance(each, dict) and _is_one_message(each) for each in said):
            before += [one_message(each) for each in said[-MAX_MESSAGES:]]
            del left[name]
    if is_request:
        left = {name: each for name, each in left.items() if name != "model" and _plain_name(name) not in _OF_REQUEST}
    return before, left


def _left_in(value: Json, name: str) -> bool:
    """True if arguments besides this one are part of what was asked."""
    return any(key != name and _is_asked(key, each) for key, each in value.items())


def _is_asked(name: str, value: Any) -> bool:
    plain = _plain_name(name)
    if value is None or value in ("", [], {}) or plain in _CONVERSATION or plain in _WORKINGS:
        return False
    if name == "type" and value in ("text", "input_text"):  # a part of a message
        return False
    return not (plain in _SETTINGS and isinstance(value, int | float))


def _plain_name(name: str) -> str:
    return name.replace("_", "").lower()


def one_message(body: Any) -> Message:
    """A message in the layout of any of the providers."""
    if not isinstance(body, dict):
        return Message("user", (Text(shown(body)),))
    body = cast(Json, body.get("message") if isinstance(body.get("message"), dict) else body)
    if "lc" in body and isinstance(body.get("kwargs"), dict):  # LangChain's way to write an object
        kinds = body.get("id")
        kind = str(kinds[-1]) if isinstance(kinds, list) and kinds else ""
        inner = cast(Json, body["kwargs"])
        body = inner | {"role": inner.get("role") or _LANGCHAIN.get(kind.removesuffix("Chunk"), "user")}
    if isinstance(body.get("data"), dict) and "content" in body["data"]:  # and another one
        body = cast(Json, body["data"]) | {"role": body.get("type")}
    role = body.get("role") or body.get("type") or "user"
    parts: list[Part] = []
    for each in _listed(body.get("parts", body.get("content", body.get("blocks")))):
        parts += _part(each, role, body)
    for each in body.get("tool_calls") or () if isinstance(body.get("tool_calls"), list) else ():
        parts += [_tool_call(each)] if isinstance(each, dict) else []
    if str(role).lower() in ("tool", "function") and parts and all(isinstance(part, Text) for part in parts):
        content = "".join(part.text for part in parts if isinstance(part, Text))
        parts = [ToolResult(str(body.get("tool_call_id") or ""), str(body.get("name") or ""), content)]
    return message(role, parts)


def _listed(content: Any) -> list[Any]:
    if content is None or content == "":
        return []
    return content if isinstance(content, list) else [content]


def _part(part: Any, role: Any, body: Json) -> list[Part]:
    if not isinstance(part, dict):
        return [Text(shown(part))]
    match part.get("type"):
        case "text" | "input_text" | "output_text":
            return [Text(shown(part.get("text", part.get("content"))))]
        case "reasoning" | "thinking":
            said = shown(part.get("content", part.get("thinking", part.get("text", part.get("summary")))))
            return [Reasoning(said, {})]
        case "tool_call" | "tool_use" | "function_call":
            return [_tool_call(part)]
        case "tool_call_response" | "tool_result" | "function_call_output":
            result = part.get("response", part.get("result", part.get("content", part.get("output"))))
            id = part.get("id") or part.get("tool_use_id") or part.get("call_id") or body.get("tool_call_id") or ""
            return [ToolResult(str(id), str(part.get("name") or ""), shown(result), bool(part.get("is_error")))]
        case None if isinstance(part.get("text"), str):
            return [Text(part["text"])]
        case _:
            return [Text(shown(part))]


def _tool_call(body: Json) -> ToolCall:
    inner = cast(Json, body.get("function") if isinstance(body.get("function"), dict) else body)
    name, id = str(inner.get("name") or ""), str(body.get("id") or body.get("call_id") or "")
    arguments = parsed(inner.get("arguments", inner.get("args", inner.get("input"))))
    if isinstance(arguments, dict):
        return ToolCall(id, name, arguments)
    return ToolCall(id, name, {}, None if arguments in (None, "") else shown(arguments))


def preview(messages: list[Message], most: int = 300) -> str:
    """The beginning of the last message that says something."""
    for each in reversed(messages):
        if said := each.text.strip():
            return said[:most]
        if each.tool_calls:
            call = each.tool_calls[0]
            return f"{call.name}({shown(call.arguments)})"[:most]
    return ""
