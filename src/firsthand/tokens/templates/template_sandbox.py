"""Renders chat templates in a sandbox, with limits on steps, sizes and time.

Jinja's immutable sandbox blocks access to Python objects. In addition each loop turn, call, filter and operator takes a
step, every new string or list is charged to a budget, and only listed functions can be called. A template that exceeds
a limit raises TemplateError. Templates get what transformers gives them (`raise_exception`, `strftime_now`, `tojson`,
break and continue, generation blocks). Not included: includes, and filters that no chat template needs (lipsum, random,
HTML).
"""

from __future__ import annotations

import functools
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import BlockReference, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from firsthand._moved import old_names
from firsthand.errors import FirsthandError, TemplateError
from firsthand.tokens.templates.meters import add_meters, inside

MAX_SOURCE = 1 << 18
MAX_STEPS = 1 << 19
MAX_LENGTH = 1 << 23
"""Most characters of one string, or values in one list."""
MAX_TOTAL = 1 << 26
"""Most characters and values made during one rendering, together."""
MAX_WEIGHT = 1 << 18
"""Most values in a nested list or dict, each counted as often as it is reached."""
TIME_S = 5.0

# fmt: off
_FILTERS = frozenset((
    "abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "groupby", "int", "items", "last",
    "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "select", "selectattr", "sort",
    "title", "trim", "unique", "upper",
))
_LIGHT = frozenset((
    "abs", "capitalize", "count", "d", "default", "first", "items", "last", "length", "lower", "title", "trim", "upper",
))
"""Filters whose cost does not grow with the size of their input."""
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset((
        "capitalize", "casefold", "count", "endswith", "find", "format", "index", "isalnum", "isalpha", "isascii",
        "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "lower", "lstrip",
        "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip",
        "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper",
    )),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
    dict: frozenset({"get", "items", "keys", "values"}),
}
# fmt: on
_MAX_BITS = 4096


class SandboxedTemplate:
    """A compiled chat template. `now` is the time that `strftime_now` returns; without it there is no clock."""

    def __init__(self, source: str, *, now: datetime | None = None) -> None:
        if len(source) > MAX_SOURCE:
            raise TemplateError(f"the chat template has {len(source)} characters; at most {MAX_SOURCE} are rendered")
        self._environment = _Environment(now)
        self._lock = threading.Lock()  # the environment counts the steps of one rendering at a time
        self._compiled: jinja2.Template = _guarded(lambda: self._environment.from_string(source), "cannot be read")

    def render(self, variables: Mapping[str, Any]) -> str:
        """Returns the text for these variables; TemplateError if the template fails, refuses, or exceeds a limit."""
        with self._lock:
            self._environment.start(variables)
            try:
                return str(_guarded(lambda: self._compiled.render(variables), "failed"))
            finally:
                self._environment.start({})


def _guarded(action: Callable[[], Any], what: str) -> Any:
    try:
        return action()
    except FirsthandError:
        raise
    except RecursionError:
        raise TemplateError(f"the chat template {what}: it is nested too deeply or calls itself without end") from None
    except Exception as error:  # whatever the template's own logic raises
        raise TemplateError(f"the chat template {what}: {type(error).__name__}: {str(error)[:500]}") from error


class _Generation(Extension):
    """`{% generation %}`: marks the assistant's text in transformers; here it renders its body."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self, now: datetime | None) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            cache_size=0,
            extensions=[LoopControlExtension, _Generation],
            finalize=self._shown,
        )
        own: dict[str, Callable[..., Any]] = {
            "tojson": self._tojson, "join": self._join, "replace": self._replace, "round": _round, "sum": self._sum,
            "indent": self._indent, "format": self._format_percent, "safe": str, "string": str,
        }  # fmt: skip
        kept = {name: function for name, function in self.filters.items() if name in _FILTERS} | own
        self.filters = {name: self._counted(name, function) for name, function in kept.items()}
        self.globals = {"range": self._range, "dict": dict, "namespace": Namespace, "raise_exception": _refuse}
        if now is not None:
            self.globals["strftime_now"] = functools.partial(_strftime, now)
        self._callable = {id(function) for function in self.globals.values()}
        self.concat = self._concat  # type: ignore[method-assign]
        self.start({})

    def start(self, variables: Mapping[str, Any]) -> None:
        self._steps = MAX_STEPS
        self._left = MAX_TOTAL
        self._deadline = time.monotonic() + TIME_S
        self._given: set[int] = set()
        for value in variables.values():
            self._given.add(id(value))
            self._given.update(map(id, value) if isinstance(value, list) else ())

    # Budgets: steps, characters, weight.

    def tick(self) -> str:
        self._steps -= 1
        if self._steps < 0 or (self._steps % 64 == 0 and time.monotonic() > self._deadline):
            raise TemplateError("the chat template takes too many steps: it loops far longer than a prompt needs")
        return ""

    def charge(self, length: int) -> None:
        self._left -= length
        if length > MAX_LENGTH:
            raise TemplateError(
                f"the chat template makes a value of {length} characters or items, more than a prompt needs"
            )
        if self._left < 0:
            raise TemplateError(f"the chat template makes more than {MAX_TOTAL} characters and items in all")

    def weighed(self, value: Any) -> Any:
        """Returns the value, after checking that it is not a nested structure that expands without end."""
        if isinstance(value, list | tuple | dict | Namespace) and id(value) not in self._given:
            left = MAX_WEIGHT
            waiting: list[Any] = [value]
            while waiting:
                item = waiting.pop()
                inner = inside(item) if id(item) not in self._given else ()
                left -= 1 + len(inner)
                if left < 0:
                    raise TemplateError(f"the chat template makes a list or dict of more than {MAX_WEIGHT} values")
                waiting.extend(inner)
            self._steps -= (MAX_WEIGHT - left) // 64
        return value

    def joined(self, parts: Iterable[Any]) -> str:
        return self._concat(str(self.weighed(part)) for part in parts)

    def _concat(self, parts: Iterable[str]) -> str:
        pieces = []
        for piece in parts:
            self.charge(len(piece))
            pieces.append(piece)
        self.charge(sum(map(len, pieces)))
        return "".join(pieces)

    def _shown(self, value: Any) -> Any:
        return self.weighed(value)

    # Hooks that Jinja calls.

    def _generate(self, source: nodes.Template, name: Any, filename: Any, defer_init: bool = False) -> str:
        return super()._generate(add_meters(source), name, filename, defer_init)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        self.tick()
        if operator == "%" and isinstance(left, str):
            return self._format_percent(left, *(right if isinstance(right, tuple) else (right,)))
        if operator == "*":
            for sequence, count in ((left, right), (right, left)):
                if isinstance(sequence, str | list | tuple) and isinstance(count, int):
                    self.charge(len(sequence) * max(count, 0))
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() * max(right, 0))
        if operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
            self.charge(len(left) + len(right))
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, int):
            _check_bits(result.bit_length())
        return self.weighed(result)

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.tick()
        owner = getattr(getattr(obj, "__wrapped__", obj), "__self__", None)  # Jinja wraps str.format
        if owner is self and getattr(obj, "__name__", "") in ("tick", "weighed", "joined", "_range"):
            return obj(*args)
        named = {key: value for key, value in kwargs.items() if key not in ("_loop_vars", "_block_vars")}
        for value in (*args, *named.values()):
            self.weighed(value)
        name = getattr(obj, "__name__", "")
        if type(owner) in _METHODS and name in _METHODS[type(owner)]:
            return self.weighed(self._method(owner, name, obj, args, named))
        known = isinstance(obj, Macro | LoopContext | BlockReference | Undefined) or id(obj) in self._callable
        if known or (isinstance(owner, LoopContext) and name in ("cycle", "changed")):
            return self.weighed(super().call(context, obj, *args, **kwargs))
        raise TemplateError(f"the chat template calls {name or type(obj).__name__!r}, which is not allowed")

    def _method(self, owner: Any, name: str, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if isinstance(owner, str):
            match name:
                case "join":
                    return self._join(args[0] if args else (), owner)
                case "replace":
                    return self._replace(owner, *args, **kwargs)
                case "format":
                    if re.search(r"\{(?!\{)(?!\w*\})", owner.replace("{{", "").replace("}}", "")):
                        raise TemplateError(
                            "the chat template formats with widths or attributes; only {} and {name} may"
                        )
                    self._charge_format(owner.count("{"), (*args, *kwargs.values()))
                case _:
                    self.charge(len(owner))
        return method(*args, **kwargs)

    # Filters and globals, each with its limit.

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.tick()
            if name not in _LIGHT:
                for value in (*args, *kwargs.values()):
                    self.weighed(value)
            result = function(*args, **kwargs)
            if isinstance(result, str | list | tuple):
                self.charge(len(result))
            return result

        return counted

    def _range(self, *bounds: int) -> range:
        values = range(*bounds)
        if len(values) > MAX_STEPS:
            raise TemplateError(f"the chat template asks for a range of {len(values)} numbers")
        return values

    def _tojson(self, value: Any, ensure_ascii: bool = False, indent: int | str | None = None, separators: Any = None,
                sort_keys: bool = False) -> str:  # fmt: skip
        if (isinstance(indent, int) and indent > 16) or (isinstance(indent, str) and len(indent) > 16):
            raise TemplateError("the chat template indents JSON by more than 16")
        text: str = json.dumps(
            self.weighed(value), ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        return text

    def _join(self, values: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
        items = [value if attribute is None else self.getitem(value, attribute) for value in values]
        pieces = [str(self.weighed(item)) for item in items]
        self.charge(sum(map(len, pieces)) + len(d) * len(pieces))
        return str(d).join(pieces)

    def _replace(self, value: Any, old: str, new: str, count: int | None = None) -> str:
        text = str(value)
        self.charge(len(text) + text.count(old) * len(new))
        return text.replace(old, new, -1 if count is None else count)

    def _sum(self, values: Iterable[Any], attribute: str | int | None = None, start: Any = 0) -> Any:
        numbers = [value if attribute is None else self.getitem(value, attribute) for value in values]
        if not all(isinstance(number, int | float) for number in (start, *numbers)):
            raise TemplateError("the chat template sums a value that is not a number")
        return sum(numbers, start)

    def _indent(self, text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        pad = width if isinstance(width, str) else " " * min(width, 256)
        lines = str(text).split("\n")
        self.charge(len(text) + (len(pad) + 1) * len(lines))
        rest = [pad + line if line or blank else line for line in lines[1:]]
        return "\n".join([pad + lines[0] if first else lines[0], *rest])

    def _format_percent(self, text: str, *args: Any) -> str:
        if re.search(r"%(?![sd%])", str(text)):
            raise TemplateError("the chat template formats with widths or names; only %s, %d and %% may")
        self._charge_format(text.count("%"), args)
        filled: str = str(text) % args
        return filled

    def _charge_format(self, fields: int, args: Iterable[Any]) -> None:
        self.charge(fields * sum(len(str(self.weighed(value))) for value in args))


def _refuse(message: object = "") -> NoReturn:
    raise TemplateError(f"the chat template refuses this conversation: {str(message)[:500]}")


def _strftime(now: datetime, form: str) -> str:
    if len(form) > 100 or re.search(r"%(?!-?[A-Za-z%])", form):
        raise TemplateError("the chat template asks for a date in an unknown format")
    return now.strftime(form)


def _round(value: float, precision: int = 0, method: str = "common") -> float:
    if method != "common" or not -15 <= precision <= 15:
        raise TemplateError("the chat template rounds by an unknown method")
    return round(float(value), precision)


def _check_bits(bits: int) -> None:
    if bits > _MAX_BITS:
        raise TemplateError(f"the chat template makes a number of {bits} bits")


__getattr__ = old_names(__name__, {"Template": "SandboxedTemplate"})
