"""A Tool is a typed function that an agent may call, with its JSON schema and its declared effect.

The schema comes from the signature and the docstring, so a tool is written once:

    @tool(effect="read")
    def weather(city: str, days: int = 1) -> str:
        '''Return the forecast for a city.

        Args:
            city: The city's name, in English.
            days: How many days ahead.
        '''
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import re
import threading
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Container, Iterator
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from typing import Annotated, Any, Literal, NoReturn

from firsthand.declaration import Declaration
from firsthand.errors import (
    AnswerPending,
    ConfigError,
    OutcomeUnknown,
    SandboxError,
    StoreError,
    ToolError,
    WorldFailed,
    nearest,
)
from firsthand.loop.concurrency import in_thread
from firsthand.message import Json
from firsthand.model import ToolSpec
from firsthand.system.forged_marks import openings
from firsthand.tool_arguments import as_json_data, field_of, kinds_of, plain, repaired, repaired_within

Effect = Literal["read", "write", "external", "irreversible"]
"""The side effect of a tool. `read`: none. `write`: on the attempt's own environment alone, which a resumed attempt rebuilds
by running the call again. `external`: on something outside that outlives the attempt. `irreversible`: the same, and it
cannot be undone. A call of the last two kinds is never run twice."""

LASTING: tuple[Effect, ...] = ("external", "irreversible")
"""The effects that outlive an attempt."""

MAX_HUNG = 16
"""The number of calls that never returned after which a tool is not called again: each still holds a thread."""

_NOT_OF_TOOL = (ToolError, StoreError, SandboxError, AnswerPending, WorldFailed)
"""The errors of a call that are no failure of the tool's own code."""
MAX_NESTED = 100
"""Dicts and lists within each other whose keys are looked at; deeper ones need keys that JSON takes."""
MAX_ITEMS = 100_000
"""The most items that a generator may give as a result."""
CLOSING_S = 0.5
"""Seconds that a cancelled async function has to close what it has open."""


@dataclass(frozen=True)
class Tool:
    """A function an agent may call. `await tool(arguments)` validates the arguments, runs it and returns its result as text.

    A sync function runs in a thread of its own: after `timeout_s` it is abandoned, for a thread cannot be killed.
    """

    spec: ToolSpec
    effect: Effect
    function: Callable[..., Any]
    validate: Callable[[Json], Json]
    """Converts the model's arguments to keyword arguments of the right types; raises ToolError."""
    timeout_s: float = 30.0
    max_chars: int = 16_000
    """Longer results are truncated here, with a note."""
    origin: str | None = None
    """The source of results from outside (the web, somebody's files), which are marked as untrusted."""
    ready: Callable[[], object] | None = field(default=None, compare=False, repr=False)
    """Asked before a run; raises a FirsthandError if the tool cannot work on this machine."""
    declares: Declaration | None = field(default=None, compare=False, repr=False)
    """The facts that guards decide from; without them a guarded agent refuses the tool."""
    defaults: Json = field(default_factory=dict, compare=False, repr=False)
    """Values that arguments have where they are left out, besides the defaults that the spec tells models of."""
    over: str = field(default="", compare=False, repr=False)
    """The folder, database or account that it acts on: shown in a question, and an `always` is for it alone."""
    repair: Callable[[Json], Json] = field(default=dict, compare=False, repr=False)
    """Repairs common mistakes in a model's arguments, as `validate` does too, and leaves their types as they are."""
    request: Literal["", "sampling", "elicitation"] = ""
    """The request that a tool's server makes during a call, put as a Tool to rules and questions; "" for a tool."""
    hung: set[object] = field(default_factory=set, init=False, compare=False, repr=False)
    """The calls that timed out and still run."""

    @property
    def name(self) -> str:
        """The name a model calls it by."""
        return self.spec.name

    def read(self, arguments: Json) -> Json:
        """The arguments as JSON data that says what the tool gets, without its defaults. ToolError if it refuses them.

        Where the data would not give the tool the same values again (base64, types of your own), only mistakes are repaired.
        """
        given = self.repair(arguments)
        checked = self.validate(given)
        try:
            data = as_json_data({name: checked[name] for name in given if name in checked})
            return data if self.validate(data) == checked else given
        except Exception:  # a checker of your own may not take what it gave
            return given

    async def __call__(self, arguments: Json) -> str:
        """The result as text: a string as it is, anything else as JSON, of a generator the list of its items.

        Every failure is a ToolError.
        """
        return await self.run(self.validate(arguments))

    async def run(self, checked: Json) -> str:
        """The result for arguments that `validate` gave.

        A ToolError of the tool's own says that nothing was done; OutcomeUnknown where it was late or raised anything else.
        """
        if len(self.hung) >= MAX_HUNG:
            raise ToolError(f"{self.name} has {len(self.hung)} calls that never came back: do without it")
        call = self._awaited if inspect.iscoroutinefunction(self.function) else self._in_thread
        try:
            return await call(checked)
        except TimeoutError:
            raise OutcomeUnknown(f"{self.name} did not finish within {self.timeout_s:g} s") from None
        except _NOT_OF_TOOL:  # a missing sandbox is nothing that a model can mend
            raise
        except Exception as error:
            self._failed(error)

    async def _in_thread(self, checked: Json) -> str:
        ended, mark = threading.Event(), object()

        def work() -> str | Awaitable[Any]:
            try:
                result = self.function(**checked)
                if isinstance(result, AsyncIterator):
                    return _collected(result)
                return result if inspect.isawaitable(result) else as_text(_items(result), self.max_chars)
            except (ToolError, SandboxError, AnswerPending, WorldFailed):
                raise
            except BaseException as error:
                self._failed(error)
            finally:
                ended.set()
                self.hung.discard(mark)

        try:
            async with asyncio.timeout(self.timeout_s):
                result = await in_thread(work)
        except (TimeoutError, asyncio.CancelledError):
            self.hung.add(mark)
            if ended.is_set():  # it came back after all, perhaps before it was counted
                self.hung.discard(mark)
            raise
        return result if isinstance(result, str) else await self._finish(result)

    async def _awaited(self, checked: Json) -> str:
        return await self._finish(self.function(**checked))

    async def _finish(self, result: Awaitable[Any]) -> str:
        """The result of an async function as text. One that ignores its cancellation is abandoned."""
        running = asyncio.ensure_future(self._settled(result))
        try:
            done, _ = await asyncio.wait({running}, timeout=self.timeout_s)
            if not done:
                raise TimeoutError
            return running.result()
        finally:
            if running.cancel():
                await asyncio.wait({running}, timeout=CLOSING_S)

    async def _settled(self, result: Awaitable[Any]) -> str:
        try:
            found = await result
            if isinstance(found, AsyncIterator):
                found = await _collected(found)
            if isinstance(found, Iterator):
                found = await in_thread(lambda: _items(found))
            return as_text(found, self.max_chars)
        except (*_NOT_OF_TOOL, KeyboardInterrupt):
            raise
        except BaseException as error:
            here = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and here is not None and here.cancelling():
                raise
            self._failed(error)

    def _failed(self, error: BaseException) -> NoReturn:
        try:
            said = str(error)
        except BaseException:
            said = "an error without a message"
        raise OutcomeUnknown(f"{self.name} failed: {type(error).__name__}: {said}"[: self.max_chars]) from error


def _items(result: Any) -> Any:
    """The items of a generator, which runs to its end; any other result as it is."""
    if not isinstance(result, Iterator):
        return result
    items = []
    for item in result:
        items.append(item)
        if len(items) > MAX_ITEMS:
            raise ValueError(_TOO_MANY)
    return items


async def _collected(result: AsyncIterator[Any]) -> list[Any]:
    """The items of an async generator, which runs to its end."""
    items = []
    closable: Any = result
    async with aclosing(closable) if hasattr(result, "aclose") else nullcontext():
        async for item in result:
            items.append(item)
            if len(items) > MAX_ITEMS:
                raise ValueError(_TOO_MANY)
    return items


_TOO_MANY = f"it gives more than {MAX_ITEMS:,} items"


def as_text(result: Any, max_chars: int) -> str:
    """The result as a model reads it: a string as it is, anything else as JSON, cut after `max_chars`."""

    def as_json(value: Any) -> Any:
        found = list(islice(value, max_chars)) if isinstance(value, Iterator) else plain(value)
        return _with_text_keys(found)

    if isinstance(result, Enum):
        result = result.value
    if isinstance(result, bytes | bytearray | memoryview):
        result = bytes(result[: 4 * max_chars + 4]).decode("utf-8", "replace")
    if isinstance(result, str):
        if len(result) <= max_chars:
            return result
        return f"{result[:max_chars]}\n[cut after {max_chars} of {len(result)} characters]"
    pieces, size = [], 0
    for piece in json.JSONEncoder(ensure_ascii=False, default=as_json).iterencode(_with_text_keys(result)):
        pieces.append(piece)
        size += len(piece)
        if size > max_chars:
            return f"{''.join(pieces)[:max_chars]}\n[cut after {max_chars} characters]"
    return "".join(pieces)


def _with_text_keys(value: Any, above: tuple[int, ...] = ()) -> Any:
    """The value, whose dicts have keys that JSON takes: any other is its text. What holds itself is left to the encoder."""
    if not isinstance(value, dict | list | tuple) or id(value) in above or len(above) > MAX_NESTED:
        return value
    above = (*above, id(value))
    if not isinstance(value, dict):
        return [_with_text_keys(each, above) for each in value]
    return {
        key if isinstance(key, str | int | float | bool | None) else str(plain(key)): _with_text_keys(each, above)
        for key, each in value.items()
    }


def marked(text: str, origin: str) -> str:
    """The text between marks that say it is data from `origin` and not an instruction. Neither can close the mark."""
    begin, pieces = 0, []
    for at in openings(text, "<untrusted"):
        pieces.append(text[begin:at])
        begin = at
    inside = "\\".join([*pieces, text[begin:]])
    return f"{mark_of(origin)}{inside}{MARK_END}"


MARK_END = "\n</untrusted>"
MAX_ORIGIN = 300
"""The most characters of an origin in its mark."""
_UNSAFE = re.compile(r'[<>"\x00-\x1f\x7f-\x9f\u2028\u2029]')


def mark_of(origin: str) -> str:
    """The mark before a text from `origin`, whose unsafe characters are blanks in it."""
    return f'<untrusted from="{_UNSAFE.sub(" ", origin[:MAX_ORIGIN])}">\n'


def tool(
    *,
    effect: Effect,
    name: str | None = None,
    timeout_s: float = 30.0,
    origin: str | None = None,
    ready: Callable[[], object] | None = None,
    declares: Declaration | None = None,
) -> Callable[[Callable[..., Any]], Tool]:
    """Decorator: makes a Tool from a typed function, sync or async."""

    def make(function: Callable[..., Any]) -> Tool:
        return tool_from_function(
            function, effect=effect, name=name, timeout_s=timeout_s, origin=origin, ready=ready, declares=declares
        )

    return make


def tool_from_function(
    function: Callable[..., Any],
    *,
    effect: Effect,
    name: str | None = None,
    timeout_s: float = 30.0,
    origin: str | None = None,
    ready: Callable[[], object] | None = None,
    declares: Declaration | None = None,
) -> Tool:
    """Makes the Tool of a function: schema from annotations, descriptions from the docstring (Google style `Args:`)."""
    from pydantic import ConfigDict, Field, PydanticUserError, ValidationError, create_model
    from pydantic.fields import FieldInfo
    from pydantic_core import SchemaError

    bound: Collection[str] = function.keywords if isinstance(function, functools.partial) else ()
    inner: Any = function.func if isinstance(function, functools.partial) else function
    annotated = inner if hasattr(inner, "__name__") else type(inner).__call__
    tool_name = name or str(getattr(inner, "__name__", type(inner).__name__))
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", tool_name):
        raise ConfigError(f"a tool is named {tool_name!r}: 1 to 64 letters, digits, _ or - were expected")
    summary, described = parse_docstring(inspect.getdoc(inner) or "", inspect.signature(inner).parameters)
    try:
        hints = typing.get_type_hints(annotated, include_extras=True)
    except NameError as error:
        raise ConfigError(f"tool {tool_name!r}: an annotation names what is not there: {error}") from None
    fields: dict[str, Any] = {}
    named: dict[str, str] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in bound:  # a model neither sees nor changes what a partial binds
            continue
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(f"tool {tool_name!r} takes *args, **kwargs or positional-only arguments: name each one")
        if parameter.name not in hints:
            raise ConfigError(f"tool {tool_name!r}: annotate the argument {parameter.name!r} with its type")
        default = ... if parameter.default is parameter.empty else parameter.default
        hint = hints[parameter.name]
        told = described.get(parameter.name) or next(
            (x for x in getattr(hint, "__metadata__", ()) if isinstance(x, str)), None
        )
        known, hint = field_of(parameter.name, hint)
        named[parameter.name] = known
        if isinstance(default, FieldInfo):  # its limits hold, and its description goes before the docstring's
            fields[known] = (Annotated[hint, Field(description=told)] if told else hint, default)
        else:
            fields[known] = (hint, Field(default, description=told) if told else Field(default))
    try:
        arguments_model = create_model(
            tool_name, __config__=ConfigDict(extra="forbid", coerce_numbers_to_str=True), **fields
        )
        parameters = _without_titles(arguments_model.model_json_schema())
        if missing := fields.keys() - arguments_model.model_fields:
            raise NameError(f"an argument cannot be named {min(missing)!r}")
    except (
        PydanticUserError,
        SchemaError,
        NameError,
        ValueError,
    ) as error:  # such as of an argument `_a` or `model_config`
        reason = " ".join(str(error).split("\n")[0].split())
        raise ConfigError(f"tool {tool_name!r}: its arguments make no schema: {reason}"[:400]) from None
    parameters.setdefault("properties", {})

    def repair(arguments: Json) -> Json:
        try:
            return _read(arguments_model, arguments, parameters)[0]
        except ValidationError:
            return repaired(arguments, parameters)

    def validate(arguments: Json) -> Json:
        try:
            _, checked = _read(arguments_model, arguments, parameters)
        except ValidationError as error:
            problems = "; ".join(_problem(each, parameters) for each in error.errors()[:8])
            given = as_text(arguments, 200)
            expected = ", ".join(_describe(n, p, parameters) for n, p in parameters["properties"].items()) or "nothing"
            raise ToolError(f"{tool_name} was called with {given} ({problems}): it takes {expected}") from None
        return {argument: getattr(checked, known) for argument, known in named.items()}

    if declares is not None:
        check_declaration(tool_name, declares, parameters["properties"])
    spec = ToolSpec(tool_name, summary, parameters)
    return Tool(
        spec,
        effect,
        function,
        validate,
        timeout_s,
        origin=origin,
        ready=ready,
        declares=declares,
        repair=repair,
    )


def _read(model: Any, arguments: Json, parameters: Json) -> tuple[Json, Any]:
    """The arguments repaired, and checked by a pydantic model; what they hold is repaired too where it refuses them."""
    from pydantic import ValidationError

    given = repaired(arguments, parameters)
    try:
        return given, model.model_validate(given)
    except ValidationError as error:
        further = repaired_within(given, parameters)
        try:
            return further, model.model_validate(further)
        except ValidationError:
            raise error from None


def check_declaration(tool_name: str, declares: Declaration, arguments: Collection[str]) -> None:
    """Raises ConfigError if a declaration names an argument that the tool does not have: it would protect nothing."""
    for path in (*declares.powers, *declares.paths, *declares.spends):
        if (name := path.partition(".")[0]) not in arguments:
            close = nearest(name, arguments)
            hint = f" did you mean {close!r}?" if close else ""
            raise ConfigError(
                f"tool {tool_name!r} declares {name!r}, no argument of it;{hint} there are {', '.join(arguments) or 'none'}"
            )


def _problem(error: Any, parameters: Json) -> str:
    """The problem with one argument, with the nearest known name."""
    place = ".".join(map(str, error["loc"])) or "arguments"
    close = nearest(place, parameters["properties"]) if error["type"] == "extra_forbidden" else None
    return f"{place}: {error['msg']}" + (f"; did you mean {close!r}?" if close else "")


def parse_docstring(docstring: str, names: Container[str]) -> tuple[str, dict[str, str]]:
    """The text before `Args:` (or `Arguments:`), and the descriptions under it of the arguments that have these names."""
    head = re.search(r"^(?:Args|Arguments):[ ]*$", docstring, re.MULTILINE)
    if head is None:
        return " ".join(docstring.split()), {}
    described: dict[str, str] = {}
    current, indent = None, 0
    for line in docstring[head.end() :].splitlines():
        if line and not line[0].isspace():
            break
        depth = len(line) - len(line.lstrip())
        entry = re.match(r" {1,8}\*{0,2}(\w+)(?: ?\(.*?\))?:(?: +(.*))?$", line)
        if entry and entry.group(1) in names and (current is None or depth <= indent):
            current, indent = entry.group(1), depth
            described[current] = (entry.group(2) or "").strip()
        elif current and line.strip():
            described[current] = f"{described[current]} {line.strip()}".strip()
    return " ".join(docstring[: head.start()].split()), described


def usage(tool: Tool) -> str:
    """A template of the arguments of a call, for a model that got them wrong."""
    parameters = tool.spec.parameters
    return json.dumps({name: f"<{_kind(schema, parameters)}>" for name, schema in parameters["properties"].items()})


def _describe(name: str, schema: Json, parameters: Json) -> str:
    required = name in parameters.get("required", ())
    return f"{name}: {_kind(schema, parameters)}{'' if required else ' (optional)'}"


def _kind(schema: Any, parameters: Json) -> str:
    return "/".join(kinds_of(schema, parameters)) or "value"


_VALUES = ("default", "const", "enum", "examples")
"""Keys of a schema whose values are data."""


def _without_titles(schema: Any) -> Any:
    """The schema without pydantic's generated titles, which cost prompt tokens."""
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
    if "properties" in kept:
        kept["properties"] = {name: _without_titles(value) for name, value in schema["properties"].items()}
    return {key: value if key in ("properties", *_VALUES) else _without_titles(value) for key, value in kept.items()}
