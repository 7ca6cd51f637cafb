"""Renders chat templates in a sandbox, with limits on steps, sizes and time.

Jinja's immutable sandbox blocks access to Python objects. In addition each loop turn, call, filter and operator takes a
step, every new string or list is charged to a budget, calls that cannot be interrupted are priced before they are made
(`render_budget.py`), and only listed functions can be called. A template that exceeds a limit raises TemplateError.
Templates get what transformers gives them (`raise_exception`, `strftime_now`, `tojson`, break and continue, generation
blocks). Not included: includes, and filters that no chat template needs (lipsum, random, HTML).
"""

from __future__ import annotations

import functools
import json
import re
import threading
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

from firsthand.errors import FirsthandError, TemplateError
from firsthand.system.normalised_text import MAX_MARKS, has_long_marks
from firsthand.tokens.templates.meters import add_meters
from firsthand.tokens.templates.render_budget import MAX_STEPS, RenderBudget, dict_of, is_container, nested_depth

MAX_SOURCE = 1 << 18

# fmt: off
_FILTERS = frozenset((
    "abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "groupby", "int", "items", "last",
    "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "select", "selectattr", "sort",
    "title", "trim", "unique", "upper",
))
_LIGHT = frozenset(("abs", "count", "d", "default", "first", "float", "int", "items", "last", "length", "safe", "string"))
"""Filters that do not look inside a container."""
_LAZY = frozenset(("map", "reject", "rejectattr", "select", "selectattr", "unique"))
"""Filters that take values one by one."""
_SORTING = frozenset(("dictsort", "groupby", "max", "min", "sort"))
"""Filters that compare all values in one call."""
_LISTING = frozenset(("dictsort", "groupby", "list", "sort"))
"""Filters that make a new list, whose items may be new too."""
_TEXTUAL = frozenset(("capitalize", "lower", "title", "trim", "upper"))
"""Filters that turn any value into text first."""
_COMPARING = frozenset((
    "!=", "<", "<=", "==", ">", ">=", "eq", "equalto", "ge", "greaterthan", "gt", "in", "le", "lessthan", "lt", "ne",
))
_DIVIDING = frozenset(("divisibleby", "even", "odd"))
_CASES = frozenset(("lower", "upper"))
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
_RANGE_BITS = 63
"""Most bits of a range's numbers: each is an object of its own once the range is a list."""
_MAX_ATTRIBUTE = 1024
"""Longest path of an attribute that a filter looks up."""
_FIELD_WORK = 64
"""Charge for a field of a format string, which Python code reads."""
_METERS = frozenset(("tick", "weighed", "compared", "sliced", "joined"))


class SandboxedTemplate:
    """A compiled chat template. `now` is the time that `strftime_now` returns; without it there is no clock."""

    def __init__(self, source: str, *, now: datetime | None = None) -> None:
        if len(source) > MAX_SOURCE:
            raise TemplateError(f"the chat template has {len(source)} characters; at most {MAX_SOURCE} are rendered")
        if has_long_marks(source):
            raise TemplateError(f"a letter of the chat template has more than {MAX_MARKS} combining marks: remove them")
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
        self._budget = budget = RenderBudget()
        self.start, self.tick, self.weighed, self.compared = budget.start, budget.tick, budget.weighed, budget.compared
        self._charge, self._text = budget.charge, budget.text
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
            "indent": self._indent, "format": self._format_percent, "safe": self._text, "string": self._text,
        }  # fmt: skip
        kept = {name: function for name, function in self.filters.items() if name in _FILTERS} | own
        self.filters = {name: self._counted(name, function) for name, function in kept.items()}
        self.tests = {name: self._counted_test(name, function) for name, function in self.tests.items()}
        to_dict = dict_of(budget)
        self.globals = {
            "range": self._range, "dict": to_dict, "raise_exception": self._refuse,
            "namespace": lambda *args, **kwargs: Namespace(to_dict(*args, **kwargs)),
        }  # fmt: skip
        if now is not None:
            self.globals["strftime_now"] = functools.partial(_strftime, now)
        self._callable = {id(function) for function in self.globals.values()}
        self.concat = self._concat  # type: ignore[method-assign]

    # What the rewritten tree calls, besides the budget's own methods.

    def sliced(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        """Returns a part of a string or a list, charged before it is copied."""
        part = slice(start, stop, step)
        self.tick()
        if isinstance(value, str | list | tuple):
            self._charge(len(range(*part.indices(len(value)))))
        return value[part]

    def joined(self, parts: Iterable[Any]) -> str:
        """Returns the texts of the values as one."""
        return self._concat(map(self._text, parts))

    def _concat(self, parts: Iterable[str]) -> str:
        pieces = []
        for piece in parts:
            self._charge(len(piece))
            pieces.append(piece)
        self._charge(sum(map(len, pieces)))
        return "".join(pieces)

    def _shown(self, value: Any) -> Any:
        return self._text(value) if is_container(value) else value

    # Hooks that Jinja calls.

    def _generate(self, source: nodes.Template, name: Any, filename: Any, defer_init: bool = False) -> str:
        return super()._generate(add_meters(source), name, filename, defer_init)

    def getitem(self, obj: Any, argument: Any) -> Any:
        self._budget.read()
        return super().getitem(obj, argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        self.tick()
        if operator == "%" and isinstance(left, str):
            return self._format_percent(left, *(right if isinstance(right, tuple) else (right,)))
        for number in (left, right):
            if isinstance(number, int):
                _check_bits(number.bit_length())
        if operator == "*":
            for sequence, count in ((left, right), (right, left)):
                if isinstance(sequence, str | list | tuple) and isinstance(count, int):
                    self._charge(len(sequence) * max(count, 0))
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() * max(right, 0))
        if operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
            self._charge(len(left) + len(right))
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, int):
            _check_bits(result.bit_length())
        return self.weighed(result)

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(getattr(obj, "__wrapped__", obj), "__self__", None)  # Jinja wraps str.format
        name = getattr(obj, "__name__", "")
        if (owner is self or owner is self._budget) and name in _METERS:
            return obj(*args)
        self.tick()
        named = {key: value for key, value in kwargs.items() if key not in ("_loop_vars", "_block_vars")}
        for value in (*args, *named.values()):
            self.weighed(value)
        if type(owner) in _METHODS and name in _METHODS[type(owner)]:
            return self._method(owner, name, obj, args, named)
        known = isinstance(obj, Macro | LoopContext | BlockReference | Undefined) or id(obj) in self._callable
        if known or (isinstance(owner, LoopContext) and name in ("cycle", "changed")):
            return self.weighed(super().call(context, obj, *args, **kwargs))
        raise TemplateError(f"the chat template calls {name or type(obj).__name__!r}, which is not allowed")

    def _method(self, owner: Any, name: str, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if not isinstance(owner, str):
            if name in ("count", "index"):
                self.compared(owner)
            return self.weighed(method(*args, **kwargs))
        match name:
            case "join":
                return self._join(args[0] if args else (), owner)
            case "replace":
                return self._replace(owner, *args, **kwargs)
            case "format":
                if re.search(r"\{(?!\{)(?!\w*\})", owner.replace("{{", "").replace("}}", "")):
                    raise TemplateError("the chat template formats with widths or attributes; only {} and {name} may")
                self._charge_format(owner.count("{"), (*args, *kwargs.values()))
                self._charge(len(owner))
            case "split" | "rsplit":
                args, kwargs = self._budget.before_method(owner, name, _split_options(*args, **kwargs)), {}
            case _:
                args = self._budget.before_method(owner, name, args)
        return self._budget.after_method(name, method(*args, **kwargs))

    # Filters and globals, each with its limit.

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        subject = 1 if hasattr(function, "jinja_pass_arg") else 0

        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.tick()
            if any(len(path) > _MAX_ATTRIBUTE for path in _paths(name, args[subject + 1 :], kwargs)):
                raise TemplateError(f"the chat template names an attribute of more than {_MAX_ATTRIBUTE} characters")
            if name not in _LIGHT:
                for value in (*args, *kwargs.values()):
                    self.weighed(value)
            if len(args) > subject:
                value = self._before_filter(name, args[subject], [*args[subject + 1 :], *kwargs.values()])
                args = (*args[:subject], value, *args[subject + 1 :])
            result = function(*args, **kwargs)
            if name in _LISTING and isinstance(result, list):
                self._budget.charge_items(result)
            elif isinstance(result, str | list | tuple):
                self._charge(len(result))
            if isinstance(result, int):
                _check_bits(result.bit_length())
            return result

        return counted

    def _before_filter(self, name: str, value: Any, options: list[Any]) -> Any:
        """Charge for a filter, and return the value that it gets."""
        if name in _TEXTUAL and not isinstance(value, Undefined):
            text = value if isinstance(value, str) else self._text(value)
            if name == "title":  # by a regular expression and word by word
                self._budget.charge_items(text)
            self._budget.work(len(text) * max(1, *map(self._budget.chars, options), 1))
            return text
        if name == "list" and isinstance(value, str):
            self._budget.charge_items(value)
        elif name in _SORTING and not isinstance(value, Undefined):
            values = value if isinstance(value, list | tuple | dict) else list(self._budget.ticking(value))
            self._budget.before_sort(values)
            return values
        elif name in _LAZY and value and not isinstance(value, Undefined):
            return self._budget.ticking(value)
        return value

    def _counted_test(self, name: str, function: Any) -> Any:
        if name not in _COMPARING | _DIVIDING | _CASES:
            return function

        @functools.wraps(function)
        def counted(*args: Any) -> Any:
            for value in args:
                self.compared(value)
            if name in _CASES:
                args = (self._text(args[0]), *args[1:])
            if name in _DIVIDING:
                for number in args:
                    if not isinstance(number, int | float):
                        raise TemplateError(f"the chat template tests whether {type(number).__name__} is {name}")
                    if isinstance(number, int):
                        _check_bits(number.bit_length())
            return function(*args)

        return counted

    def _range(self, *bounds: int) -> range:
        values = range(*bounds)
        if any(number.bit_length() > _RANGE_BITS for number in (values.start, values.stop, values.step)):
            raise TemplateError(f"the chat template asks for a range of numbers of more than {_RANGE_BITS} bits")
        if len(values) > MAX_STEPS:
            raise TemplateError(f"the chat template asks for a range of {len(values)} numbers")
        return values

    def _tojson(self, value: Any, ensure_ascii: bool = False, indent: int | str | None = None, separators: Any = None,
                sort_keys: bool = False) -> str:  # fmt: skip
        width = len(indent) if isinstance(indent, str) else indent or 0
        if width > 16:
            raise TemplateError("the chat template indents JSON by more than 16")
        values, chars = self._budget.measure(value)
        self._charge(chars + values * (4 + width * nested_depth(value) if width else 4))
        text: str = json.dumps(
            self.weighed(value), ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        return text

    def _join(self, values: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
        pieces = []
        for value in self._budget.ticking(values):
            pieces.append(self._text(value if attribute is None else self.getitem(value, attribute)))
        self._charge(sum(map(len, pieces)) + len(d) * len(pieces))
        return str(d).join(pieces)

    def _replace(self, value: Any, old: str, new: str, count: int | None = None) -> str:
        text = self._text(value)
        self._budget.work(len(text) + len(old))
        self._charge(len(text) + text.count(old) * len(new))
        return text.replace(old, new, -1 if count is None else count)

    def _sum(self, values: Iterable[Any], attribute: str | int | None = None, start: Any = 0) -> Any:
        items = self._budget.ticking(values)
        numbers = [value if attribute is None else self.getitem(value, attribute) for value in items]
        if not all(isinstance(number, int | float) for number in (start, *numbers)):
            raise TemplateError("the chat template sums a value that is not a number")
        for number in (start, *numbers):
            _check_bits(number.bit_length() if isinstance(number, int) else 0)
        return sum(numbers, start)

    def _indent(self, text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        pad = width if isinstance(width, str) else " " * min(width, 256)
        text = self._text(text)
        self._charge(len(text) + (len(pad) + 1) * (1 + text.count("\n")))
        lines = text.split("\n")
        rest = [pad + line if line or blank else line for line in lines[1:]]
        return "\n".join([pad + lines[0] if first else lines[0], *rest])

    def _format_percent(self, text: str, *args: Any) -> str:
        if re.search(r"%(?![sd])", str(text).replace("%%", "")):
            raise TemplateError("the chat template formats with widths or names; only %s, %d and %% may")
        self._charge(len(text))
        self._charge_format(text.count("%"), args)
        filled: str = str(text) % args
        return filled

    def _charge_format(self, fields: int, args: Iterable[Any]) -> None:
        self._charge(fields * (_FIELD_WORK + sum(len(self._text(value)) for value in args)))

    def _refuse(self, message: object = "") -> NoReturn:
        raise TemplateError(f"the chat template refuses this conversation: {self._text(message)[:500]}")


def _split_options(sep: str | None = None, maxsplit: int = -1) -> tuple[str | None, int]:
    return sep, maxsplit


def _paths(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterable[str]:
    """Returns what may be the paths of attributes among the arguments of a filter."""
    first = args[:1] if name in ("groupby", "selectattr", "rejectattr") else ()
    others = args if name in ("sort", "unique", "min", "max", "sum", "join") else ()
    return [each for each in (kwargs.get("attribute"), *first, *others[1:]) if isinstance(each, str)]


def _strftime(now: datetime, form: str) -> str:
    if len(form) > 100 or re.search(r"%(?!-?[A-Za-z])", form.replace("%%", "")):
        raise TemplateError("the chat template asks for a date in an unknown format")
    return now.strftime(form)


def _round(value: float, precision: int = 0, method: str = "common") -> float:
    if method != "common" or not -15 <= precision <= 15:
        raise TemplateError("the chat template rounds by an unknown method")
    return round(float(value), precision)


def _check_bits(bits: int) -> None:
    if bits > _MAX_BITS:
        raise TemplateError(f"the chat template makes a number of {bits} bits")
