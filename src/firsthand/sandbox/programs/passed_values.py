"""Plain values between two processes, one of which is not trusted, as JSON. Standard library only; for `checker.py`."""

from __future__ import annotations

import decimal
import fractions
import operator
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NoReturn

_MUTABLE: dict[str, Callable[[], Any]] = {"list": list, "dict": dict, "set": set, "bytearray": bytearray}
_LISTED: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "frozenset": frozenset,
    "iterator": iter,
    "keys": lambda found: dict.fromkeys(found, 0).keys(),
    "values": lambda found: dict(enumerate(found)).values(),
    "items": lambda found: dict(found).items(),
}
_VIEWS = {type({}.keys()): "keys", type({}.values()): "values", type({}.items()): "items"}
_LARGE = 10**100
_MOST_GIVEN = 1_000_000
"""The most items of an iterator that tests may give: they are read before the call."""
_USES = ("getattribute", "eq", "hash", "repr", "len", "contains", "getitem")
"""What would work on any object, or fail without our message; others lead to these, and `call` would make it callable."""
SCALARS = frozenset({int, float, str, bool, type(None)})


def no_iterator(iterator: Iterator[Any], values: Values) -> NoReturn:
    """Refuse an iterator."""
    raise TypeError(
        f"a {type(iterator).__name__} is no plain value: return numbers, text, lists, tuples, sets or dicts"
    )


def whole(iterator: Iterator[Any], values: Values) -> Any:
    """Read an iterator to its end."""
    found: list[Any] = []
    for item in iterator:
        if len(found) == _MOST_GIVEN:
            raise TypeError(f"a {type(iterator).__name__} of more than {_MOST_GIVEN:,} items: give a list")
        found.append(values.encode(item))
    return {"iterator": found}


class Values:
    """Plain values as JSON that keeps their types, and which lists, dicts, sets and bytearrays are one and the same.

    Both processes number these as they meet them, so that what a call does to its arguments, at any depth, can be done to
    those of the tests. `iterator` writes an iterator, `reader` makes one of what stands for it.
    """

    def __init__(
        self,
        *,
        iterator: Callable[[Iterator[Any], Values], Any] = whole,
        reader: Callable[[int, Callable[[], Values]], Iterator[Any]] | None = None,
    ):
        self.iterator, self.reader = iterator, reader
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.held: list[list[Any]] = []
        """The parts of each object when the other side was last told of it; kept from the first `mark` on."""
        self.num_held = 0
        self.is_marked = False
        self.anew: set[int] | None = None
        self.is_change = False
        """True while a change is told or done: what is no plain value then becomes an object that cannot be used."""

    def fork(self, count: int) -> Values:
        """The first so many objects under the same numbers; each of the two goes on numbering by itself."""
        other = Values(iterator=self.iterator, reader=self.reader)
        other.objects, other.held = self.objects[:count], self.held[:count]
        other.numbers = {id(each): number for number, each in enumerate(other.objects)}
        other.num_held, other.is_marked = sum(map(len, other.held)), self.is_marked
        return other

    def cost(self) -> int:
        """About how much `changes` looks at."""
        return self.num_held + 8 * len(self.held)

    def keep(self, value: Any) -> int:
        """Number an object."""
        number = self.numbers[id(value)] = len(self.objects)
        self.objects.append(value)
        if self.is_marked:
            self.held.append([])
            self.hold(number)
        return number

    def hold(self, number: int) -> None:
        """Note what an object holds now."""
        parts = parts_of(self.objects[number])
        self.num_held += len(parts) - len(self.held[number])
        self.held[number] = parts

    def encode_anew(self, value: Any) -> Any:
        """As `encode`, and with what objects that were met before hold now."""
        self.anew = set()
        try:
            return self.encode(value)
        finally:
            self.anew = None

    def encode(self, value: Any) -> Any:
        """A value as JSON; TypeError for what is no plain value."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int) and abs(value) >= _LARGE:  # decimal digits of a very large number take minutes
            return {"int": hex(value)}
        if isinstance(value, int):  # a subclass, such as an Enum, may show itself as something else
            return int.__int__(value)
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, list | dict | set | bytearray):
            number = self.numbers.get(id(value))
            if number is None:
                number = self.keep(value)
                if self.anew is not None:
                    self.anew.add(number)
                return self.content(value)
            if self.anew is None or number in self.anew:
                return {"again": number}
            self.anew.add(number)
            if self.is_marked:
                self.hold(number)
            return {"now": [number, self.content(value)]}
        for sequence in (tuple, frozenset):
            if isinstance(value, sequence):
                return {sequence.__name__: self.listed(value)}
        if isinstance(value, bytes):
            return {"bytes": value.hex()}
        if isinstance(value, range):
            return {"range": [value.start, value.stop, value.step]}
        if isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        if isinstance(value, decimal.Decimal):
            return {"decimal": str(value)}
        if isinstance(value, fractions.Fraction):
            return {"fraction": [value.numerator, value.denominator]}
        if type(value) in _VIEWS:
            return {_VIEWS[type(value)]: self.listed(value)}
        if isinstance(value, Iterator) and not isinstance(value, type):
            return self.iterator(value, self)
        text = f"a {type(value).__name__} is no plain value: return numbers, text, lists, tuples, sets or dicts"
        if self.is_change:
            return {"other": text}
        raise TypeError(text)

    def content(self, value: Any) -> Any:
        """The content of a list, dict, set or bytearray as JSON."""
        if isinstance(value, dict):
            return {"dict": [[self.encode(key), self.encode(each)] for key, each in value.items()]}
        if isinstance(value, bytearray):
            return {"bytearray": value.hex()}
        return {"list" if isinstance(value, list) else "set": self.listed(value)}

    def listed(self, value: Iterable[Any]) -> list[Any]:
        """The items as JSON."""
        return list(value) if scalars(value) else [self.encode(each) for each in value]

    def decode(self, body: Any) -> Any:
        """The value that `encode` wrote, of Python's own types whatever the other side sent."""
        if not isinstance(body, dict):
            if isinstance(body, list):
                raise TypeError("a bare list is not what encode writes")
            return body
        ((name, inner),) = body.items()
        if name in _MUTABLE:
            made = _MUTABLE[name]()
            self.keep(made)
            self.fill(made, body)
            return made
        if name in _LISTED:
            return _LISTED[name](self.unlisted(inner))
        if name == "again":
            return self.known(inner)
        if name == "now":
            number, content = inner
            self.fill(self.known(number), content)
            return self.known(number)
        if name == "stream" and self.reader is not None:
            return self.reader(inner, partial(self.fork, len(self.objects)))
        if name == "other" and self.is_change:
            return unusable(str(inner), hashed=True)
        if name == "int":
            return int(inner, 16)
        if name == "bytes":
            return bytes.fromhex(inner)
        if name == "range":
            return range(*inner)
        if name == "complex":
            return complex(*inner)
        if name == "decimal":
            return decimal.Decimal(inner)
        if name == "fraction":
            return fractions.Fraction(*inner)
        raise TypeError(f"{name!r} is no kind of value")

    def unlisted(self, inner: list[Any]) -> list[Any]:
        """The items that `listed` wrote."""
        return inner if SCALARS.issuperset(map(type, inner)) else [self.decode(each) for each in inner]

    def known(self, number: Any) -> Any:
        """The object of this number; TypeError if there is none."""
        if type(number) is not int or not 0 <= number < len(self.objects):
            raise TypeError(f"{number!r} is the number of no object")
        return self.objects[number]

    def fill(self, mine: Any, content: Any) -> None:
        """Give an object what `content` wrote."""
        ((name, inner),) = content.items()
        if name == "dict":
            update(mine, {self.decode(key): self.decode(each) for key, each in inner})
        elif name == "bytearray":
            update(mine, bytearray.fromhex(inner))
        else:
            update(mine, self.unlisted(inner) if name == "list" else set(self.unlisted(inner)))

    def mark(self) -> None:
        """Note what each object holds now, and of later ones what they hold when they are met."""
        self.is_marked = True
        self.held = [[] for _ in self.objects]
        for number in range(len(self.objects)):
            self.hold(number)

    def changes(self) -> dict[str, Any]:
        """A part of a message: the new content of objects that hold something else than when they were last told of."""
        told = []
        self.is_change = True
        try:
            for number in range(len(self.held)):
                parts, value = self.held[number], self.objects[number]
                now = parts_of(value)
                if len(now) != len(parts) or not all(map(operator.is_, now, parts)):
                    self.hold(number)
                    told.append([number, self.content(value)])
        finally:
            self.is_change = False
        return {"changes": told} if told else {}

    def apply(self, body: dict[str, Any]) -> None:
        """Do to the objects here what a message says was done to those on the other side."""
        self.is_change = True
        try:
            for number, content in body.get("changes", ()):
                self.fill(self.known(number), content)
        finally:
            self.is_change = False


def encode(value: Any) -> Any:
    """A value as JSON that keeps its type; TypeError for what is no plain value."""
    return Values().encode(value)


def decode(body: Any) -> Any:
    """The value that `encode` wrote, of Python's own types whatever the other side sent."""
    return Values().decode(body)


def scalars(values: Iterable[Any]) -> bool:
    """True if JSON can hold all of these as they are, so that long sequences are encoded fast."""
    kinds = set(map(type, values))
    return kinds <= SCALARS and (int not in kinds or all(type(v) is not int or abs(v) < _LARGE for v in values))


def update(mine: Any, theirs: Any) -> None:
    """Give one of the tests' own containers the content that the answer left in its copy."""
    same = any(isinstance(mine, kind) and isinstance(theirs, kind) for kind in (list, bytearray))
    if same:
        mine[:] = theirs
    elif isinstance(mine, dict | set) and isinstance(theirs, dict | set):
        mine.clear()
        mine.update(theirs)


def parts_of(value: Any) -> list[Any]:
    """The items of a list, set or bytearray, the keys and then the values of a dict, nothing of a scalar."""
    if isinstance(value, dict):
        return [*value, *value.values()]
    return [] if type(value) in SCALARS else list(value)


def unusable(text: str, *, hashed: bool = False) -> Any:
    """An object that raises TypeError where it is compared, read, tested for truth or asked for an attribute.

    `hashed` lets it be a key or in a set.
    """

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(text)

    uses = {f"__{each}__": refuse for each in _USES}
    return type("NoPlainValue", (), uses | ({"__hash__": object.__hash__} if hashed else {}))()
