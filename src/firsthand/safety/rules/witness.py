"""Finds the witness of an argument: the user's words, a trusted field of an earlier result, or the tool's default.

A model's argument has no data flow that could be followed, so its origin is witnessed: the value must occur as it will be
used. Only the case of ASCII letters and surrounding blanks are forgiven. Nothing is decoded: a value that is encoded, split
or spelled with look-alikes has no witness. Lists, objects, and JSON within strings are taken apart, keys included.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from firsthand.declaration import fields_at, values_at
from firsthand.safety.rules.forbidden import is_forbidden
from firsthand.safety.rules.whole_values import is_hidden, stands_whole
from firsthand.system.normalised_text import normalised_text

_LOWER = {ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_LOOK_ALIKES = str.maketrans(
    "аеіјорсухԁɡһӏΑΒΕΖΗΙΚΜΝΟΡΤΥΧαινορτυωАВЕКМНОРСТУХı", "aeijopcyxdghlABEZHIKMNOPTYXaivoptuwABEKMHOPCTYXi"
)
"""Cyrillic and Greek letters that look like Latin ones."""
MAX_LEAVES = 256
"""An argument with more parts has no witness."""


class Witness(NamedTuple):
    """An argument's part and where it comes from."""

    argument: str
    value: str
    source: str
    """`user`, `default`, the name of a tool and its trusted field, or empty if there is no witness."""
    problem: str = ""
    """The reason why a person could not judge the value by reading it; empty if there is none."""


class WitnessSource(NamedTuple):
    """Texts that may be a witness, under a name."""

    name: str
    texts: tuple[str, ...]
    whole: bool = True
    """True if a value must be one of the texts, as with fields of a result; the user's words hold values among others."""

    def has(self, value: str, *, exact: bool = False) -> bool:
        """True if it is a witness of the value."""
        if not self.whole:
            found = [_is_named(value, text, exact) for text in self.texts]
            return True in found and False not in found  # what one message of the user forbids, no other one names
        return value in self.texts or (not exact and _lowered(value) in _folded(self.texts))


def occurs(value: str, text: str, *, exact: bool = False) -> bool:
    """True if the value stands in the text whole, not as a part of a longer word, number, address or path, nor forbidden."""
    return _is_named(value, text, exact) is True


def _is_named(value: str, text: str, exact: bool) -> bool | None:
    """True if the value stands in the text whole, False if any of these places may forbid it, None if it is not there."""
    lowered = text if exact else _lowered(text)
    value = value if exact else _lowered(value)
    found = None
    start = lowered.find(value)
    while start >= 0 and value:
        end = start + len(value)
        if stands_whole(text, start, end, exact=exact):
            if is_forbidden(text, start, end):
                return False
            found = True
        start = lowered.find(value, start + 1)
    return found


@lru_cache(maxsize=512)
def _folded(texts: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(_lowered, texts))


@lru_cache(maxsize=512)
def _lowered(text: str) -> str:
    return text.translate(_LOWER)


def problem_of(value: str, sources: Sequence[WitnessSource]) -> str:
    """The reason why a person could be misled by the value: characters that are not seen, or look-alikes of a witness."""
    if any(map(is_hidden, value)) or "\ufffc" in value:
        return "it has characters that are not seen"
    plain = normalised_text("NFKC", value).translate(_LOOK_ALIKES)
    if plain != value and any(source.has(plain) for source in sources):
        return f"it looks like {plain!r} and is not"
    return ""


def leaves(value: Any, argument: str = "", *, unpack: bool = True) -> Iterator[tuple[str, str]]:
    """The (path, text) of each part of a value: of objects the keys too, of a string that is JSON what it holds."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield f"{argument}.{key}"[:80], str(key)
            yield from leaves(each, f"{argument}.{key}"[:80], unpack=unpack)
    elif isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from leaves(each, argument, unpack=unpack)
    elif isinstance(value, str):
        inner = _parsed(value) if unpack else None
        if isinstance(inner, dict | list):
            yield from leaves(inner, argument, unpack=unpack)
        elif text := value.strip(" \t\r\n"):
            yield argument, text
    elif value is not None:
        yield argument, json.dumps(value) if isinstance(value, bool | int | float) else str(value)


def texts_at(data: Any, paths: Sequence[str], *, unpack: bool = True) -> Iterator[str]:
    """The texts of all parts of the values at these paths."""
    return (text for path in paths for each in fields_at(data, path) for _, text in leaves(each, path, unpack=unpack))


def _parsed(text: str) -> Any:
    """Return the decoded JSON of a text; None for other text, and for JSON that parsers may decode differently.

    So it is with a key that is there twice, an escape that was not needed, or a number in another spelling: such a text is
    judged as it is.
    """
    if not text.lstrip(" \t\r\n").startswith(("{", "[", '"')):
        return None
    try:
        body = json.loads(text)
        plain = _STRING_OR_BLANK.sub(lambda found: found[1] or "", text)
        if plain not in (json.dumps(body, ensure_ascii=ascii_, separators=(",", ":")) for ascii_ in (False, True)):
            return None
    except (ValueError, RecursionError):
        return None
    return _parsed(body) or [body] if isinstance(body, str) else body


_STRING_OR_BLANK = re.compile(r'("(?:[^"\\]|\\.)*+")|[ \t\r\n]+', re.DOTALL)


def _parts(value: str) -> list[str]:
    return [part.strip() for part in re.split("[,;]", value)]


def listed(value: str) -> list[str]:
    """The items of a list in one text, parted at commas and lines as in `witness`; a name in quotes before `<` is none."""
    plain = re.sub(r'"[^"]*"\s*(?=<)', "", value)
    return [part for line in plain.splitlines() for part in _parts(line) if part]


def witness(argument: str, value: str, sources: Sequence[WitnessSource], *, exact: bool = False) -> Witness:
    """The first source in which the value occurs. A list in one text, parted by commas, needs one for each item."""
    for source in sources:
        if source.has(value, exact=exact):
            return Witness(argument, value, source.name)
    parts = _parts(value)
    if len(parts) > 1 and all(len(part) > 1 for part in parts):
        found = [witness(argument, part, sources, exact=exact) for part in parts]
        if all(each.source for each in found):
            return Witness(argument, value, ", ".join(dict.fromkeys(each.source for each in found)))
    return Witness(argument, value, "", problem_of(value, sources))


def witnesses(
    arguments: Mapping[str, Any],
    powers: Sequence[str],
    sources: Sequence[WitnessSource],
    exact: Sequence[str] = (),
    may_be_empty: Callable[[str, Any], bool] = lambda path, value: False,
) -> tuple[Witness, ...]:
    """The witness of every part of the arguments that decide where power goes, in order.

    One that is given and holds nothing has none, unless it `may_be_empty`: it may stand for everything.
    """
    found: list[Witness] = []
    for path in powers:
        for value in values_at(arguments, path):
            begin = len(found)
            for at, text in leaves(value, path):
                if len(found) >= MAX_LEAVES:
                    return (*found, Witness(path, "", "", f"it has more than {MAX_LEAVES} parts"))
                found.append(witness(at, text, sources, exact=path in exact))
            if len(found) > begin and _has_blank_item(value):
                found.append(Witness(path, "", ""))
            if len(found) == begin and not may_be_empty(path, value):
                shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
                found.append(Witness(path, shown, ""))
    return tuple(found)


def _has_blank_item(value: Any) -> bool:
    """True for a list with a text of nothing among others, which may stand for everybody."""
    return isinstance(value, list | tuple) and any(
        (isinstance(each, str) and not each.strip(" \t\r\n")) or _has_blank_item(each) for each in value
    )


@lru_cache(maxsize=512)
def trusted_texts(result: str, trusts: tuple[str, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The trusted fields of a result that is JSON, with their texts; of any other result `.` alone, line by line."""
    if not trusts:
        return ()
    try:
        body = json.loads(result)
    except (ValueError, RecursionError):
        return ((".", _listed(result)),) if "." in trusts else ()
    found = ((path, tuple(texts_at(body, (path,), unpack=False))) for path in trusts)
    return tuple(each for each in found if each[1])


def _listed(text: str) -> tuple[str, ...]:
    """The items of a plain list: its lines, without a label before a colon."""
    lines = [line.strip() for line in text.splitlines()]
    return tuple(dict.fromkeys(item for line in lines for item in (line, line.partition(": ")[2]) if item))
