"""Bounds one rendering of a chat template: steps, sizes, time, and the work of single calls.

CPython runs a string method, a comparison or a sort in one call that holds the interpreter's lock, so a time limit cannot
end it. Each such call is therefore priced before it is made, in characters or values that it may touch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any, NamedTuple

from jinja2.utils import Namespace

from firsthand.errors import TemplateError

MAX_STEPS = 1 << 19
MAX_LENGTH = 1 << 23
"""Most characters of one string, or values in one list."""
MAX_TOTAL = 1 << 26
"""Most characters and values made during one rendering, together."""
MAX_WEIGHT = 1 << 18
"""Most values in a nested list or dict, each counted as often as it is reached."""
MAX_TEXT = 1 << 26
"""Most characters of the strings in a nested list or dict, each counted as often as it is reached."""
MAX_WORK = 1 << 28
"""Most characters or values that a single call may compare, copy or search; less than half a second."""
MAX_ITEMS = 1 << 18
"""Most pieces that a string is split into."""
TIME_S = 5.0
_ITEM_CHARS = 16
"""Charge for each string of a list besides its characters: the memory of a small object."""
_READS = 256
"""Look-ups between two looks at the clock."""
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_FROM_THE_END = frozenset({"rfind", "rindex", "rpartition", "rsplit"})
_SPLITS = frozenset({"split", "rsplit"})
_STRIPS = frozenset({"lstrip", "rstrip", "strip"})
_EMPTY: dict[Any, Any] = {}
_VIEWS: tuple[Any, ...] = (type(_EMPTY.keys()), type(_EMPTY.values()), type(_EMPTY.items()))
_CONTAINERS = (list, tuple, dict, Namespace, *_VIEWS)


class Weight(NamedTuple):
    """The size of a nested value, each part counted as often as it is reached."""

    values: int
    chars: int


class RenderBudget:
    """The steps, sizes and time left to one rendering. `start` begins the next one."""

    def __init__(self) -> None:
        self.start({})

    def start(self, variables: Mapping[str, Any]) -> None:
        """Begin a rendering. The given variables, and the entries of given lists, are not counted as made by it."""
        self._steps = MAX_STEPS
        self._left = MAX_TOTAL
        self._reads = 0
        self._deadline = time.thread_time() + TIME_S
        self._given: dict[int, Any] = {}
        self._given_chars: dict[int, int] = {}
        for value in variables.values():
            self._given[id(value)] = value
            self._given.update((id(each), each) for each in (value if isinstance(value, list) else ()))

    def tick(self) -> str:
        """Count a step, and look at the clock."""
        self._steps -= 1
        if self._steps < 0 or time.thread_time() > self._deadline:
            raise TemplateError("the chat template takes too many steps: it loops far longer than a prompt needs")
        return ""

    def read(self) -> None:
        """Count a look-up, which is no step; every so often look at the clock."""
        self._reads += 1
        if not self._reads % _READS and time.thread_time() > self._deadline:
            raise TemplateError("the chat template takes too long: it looks up far more than a prompt needs")

    def ticking(self, values: Iterable[Any]) -> Iterator[Any]:
        """Yields the values, with a step for each."""
        for value in values:
            self.tick()
            yield value

    def work(self, amount: int) -> None:
        """Take a step that touches so many characters or values, unless they are too many for one call."""
        if amount > MAX_WORK:
            raise TemplateError(f"the chat template compares or searches {amount} characters in one call")
        self.tick()

    def charge(self, length: int) -> None:
        """Count characters or values that are made."""
        self._left -= length
        if length > MAX_LENGTH:
            raise TemplateError(
                f"the chat template makes a value of {length} characters or items, more than a prompt needs"
            )
        if self._left < 0:
            raise TemplateError(f"the chat template makes more than {MAX_TOTAL} characters and items in all")

    def charge_items(self, items: Sized) -> None:
        """Count the strings of a new list, each an object of its own."""
        self.charge(_ITEM_CHARS * len(items))

    def weighed(self, value: Any) -> Any:
        """Returns the value, after checking that it is not a nested structure that expands without end."""
        if is_container(value) and id(value) not in self._given:
            weight = self.measure(value)
            self._steps -= weight.values // 64
        return value

    def text(self, value: Any) -> str:
        """Returns `str` of a value, whose length is charged before it is made if it is a container."""
        if is_container(value):
            values, chars = self.measure(value)
            self.charge(chars + 4 * values)
        return str(value)

    def compared(self, value: Any) -> Any:
        """Returns an operand of a comparison, after a step; containers are weighed."""
        self.tick()
        return self.weighed(value)

    def chars(self, value: Any) -> int:
        """Returns the characters of the strings in a value."""
        return len(value) if isinstance(value, str) else self.measure(value).chars if is_container(value) else 0

    def measure(self, value: Any) -> Weight:
        """Returns the size of a value; TemplateError if it is too large to be read."""
        left, chars = MAX_WEIGHT, 0
        waiting: list[Any] = [value]
        given = self._given
        while waiting:
            item = waiting.pop()
            if isinstance(item, str):
                left -= 1
                chars += len(item)
            elif not is_container(item):
                left -= 1
            elif id(item) in given:
                left -= 1
                chars += self._chars_given(item)
            else:
                inner = inside(item)
                left -= 1 + len(inner)
                if left >= 0:
                    waiting.extend(inner)
            if left < 0:
                raise TemplateError(f"the chat template makes a list or dict of more than {MAX_WEIGHT} values")
            if chars > MAX_TEXT:
                raise TemplateError(f"the chat template makes a list or dict of more than {MAX_TEXT} characters")
        return Weight(MAX_WEIGHT - left, chars)

    def _chars_given(self, value: Any) -> int:
        """Returns the characters of a given value, 4 for each value in it; measured once."""
        known = self._given_chars.get(id(value))
        if known is None:
            known, waiting = 0, [value]
            while waiting:
                item = waiting.pop()
                if isinstance(item, str):
                    known += len(item)
                elif is_container(item):
                    waiting.extend(inside(item))
                known += 4
            self._given_chars[id(value)] = known
        return known

    # The price of calls.

    def before_method(self, text: str, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Charge for a method of a string, and return its arguments, with a bound on the pieces of a split."""
        size = len(text)
        self.charge(size)
        pattern = args[0] if args else None
        length = self.chars(pattern)
        if name in _FROM_THE_END and isinstance(pattern, str):
            self.work(length * max(size - length + 1, 1))  # CPython searches from the end without a second strategy
        elif name in _STRIPS:
            self.work(size * max(length, 1))
        elif name == "splitlines" and size > MAX_ITEMS:
            self.work(size * len(_LINE_ENDS))
            self._check_pieces(sum(map(text.count, _LINE_ENDS)))
        else:
            self.work(size + length)
        if name in _SPLITS and size > MAX_ITEMS and not 0 <= args[1] <= MAX_ITEMS:
            return (pattern, MAX_ITEMS + 1)
        return args

    def after_method(self, name: str, found: Any) -> Any:
        """Charge for what a method returned, and return it."""
        if isinstance(found, list):
            self._check_pieces(len(found) - 1)
            self.charge_items(found)
        return self.weighed(found)

    def before_sort(self, values: list[Any] | tuple[Any, ...] | dict[Any, Any]) -> None:
        """Charge for comparisons in a sort, or a search of the largest, unique or grouped."""
        weight = self.measure(values)
        self.charge(weight.chars + weight.values)  # keys are copies in lower case
        self.work((weight.chars + weight.values) * max(len(values).bit_length(), 1))

    def _check_pieces(self, pieces: int) -> None:
        if pieces > MAX_ITEMS:
            raise TemplateError(f"the chat template splits a text into more than {MAX_ITEMS} pieces")


def inside(item: Any) -> Any:
    """Returns the values one level inside a container, keys of dicts included; none for anything else."""
    if isinstance(item, dict):
        return (*item.keys(), *item.values())
    if isinstance(item, list | tuple):
        return item
    if isinstance(item, _VIEWS):
        return tuple(item)
    if isinstance(item, Namespace):
        attributes: dict[Any, Any] = item._Namespace__attrs
        return (*attributes.keys(), *attributes.values())
    return ()


def is_container(value: Any) -> bool:
    """True for a value whose text shows other values."""
    return isinstance(value, _CONTAINERS)


def nested_depth(value: Any) -> int:
    """Returns how deep lists and dicts nest."""
    depth, level = 0, [value]
    while level := [inner for item in level for inner in inside(item) if is_container(inner)]:
        depth += 1
    return depth + is_container(value)


def dict_of(budget: RenderBudget) -> Callable[..., dict[Any, Any]]:
    """Returns `dict` with a step for each pair: keys whose hashes collide are slow, and one call must not be."""

    def make(pairs: Any = (), /, **named: Any) -> dict[Any, Any]:
        if isinstance(pairs, dict):
            return {**pairs, **named}
        made: dict[Any, Any] = {}
        for key, value in budget.ticking(pairs):
            made[key] = value
        return made | named

    return make
