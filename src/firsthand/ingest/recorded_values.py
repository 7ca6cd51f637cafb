"""Arguments, results and items of recorded calls as text: JSON where it can be, objects by their fields."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import Any, NamedTuple

from firsthand.ingest.stream_pieces import StreamedAnswer
from firsthand.message import Json

MAX_VALUE_CHARS = 131_072
"""Arguments, a result, or all that a generator gave; what is longer is cut and marked by CUT."""
_GENERATED = "__create_fn__."
"""In what the code of a `__repr__` that `dataclass` made lies."""
_ADDRESS = " at 0x"


class ShownValue(NamedTuple):
    """A value as text."""

    text: str
    is_told: bool
    """False if an object in it has no text but its type and its address, as a client or a stream has."""


def shown_value(value: Any, *, as_json: bool = False) -> ShownValue:
    """A value as text, in JSON unless it is a text; of `as_json` in any case. Never an error of the program."""
    if isinstance(value, str) and not as_json:
        return ShownValue(value, True)
    bare: list[str] = []

    def shown(inner: Any) -> Any:
        held = _fields(inner)
        if held is not None:
            return held
        text = shown_object(inner)
        if _is_bare(inner, text):
            bare.append(text)
        return text

    try:
        text = json.dumps(value, ensure_ascii=False, default=shown)
    except Exception:  # keys that JSON has none for, a loop, too many levels
        text = shown_object(value)
        bare = [text] if _is_bare(value, text) else []
        text = json.dumps(text, ensure_ascii=False) if as_json else text
    return ShownValue(text, not bare)


def shown_arguments(signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: Json) -> str:
    """The arguments by name as JSON, without `self`; a single one that is a text as it is."""
    try:
        given = dict(signature.bind(*args, **kwargs).arguments) if signature is not None else {"args": args, **kwargs}
    except TypeError:
        given = {"args": args, **kwargs}
    given.pop("self", None)
    given.pop("cls", None)
    values = list(given.values())
    return values[0] if len(values) == 1 and isinstance(values[0], str) else shown_value(given).text


def shown_object(value: Any) -> str:
    """The `repr` of a value; its type where that fails."""
    try:
        return repr(value)[: MAX_VALUE_CHARS + 1]  # one more, so that `keep` marks the cut
    except Exception:
        return f"<{type(value).__name__}>"


class GivenItems:
    """The items of a generator as text: texts joined, pieces of a model's answer too, others as a JSON list; at most one
    character more than is kept."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._is_text = True
        self._num_chars = 0
        self._is_told = True
        self._answer = StreamedAnswer(MAX_VALUE_CHARS)

    def add(self, item: Any) -> None:
        """Take the next item."""
        is_full = self._num_chars > MAX_VALUE_CHARS
        if is_full and not self._answer.is_whole:
            return
        is_text = isinstance(item, str)
        if self._is_text and not is_text:
            self._become_list()
        shown = shown_value(item, as_json=not self._is_text)
        self._answer.add(None if is_text else shown.text)
        self._is_told = self._is_told and shown.is_told
        if not is_full and (part := shown.text[: MAX_VALUE_CHARS + 1]):
            self._parts.append(part)
            self._num_chars += len(part)

    def shown(self) -> ShownValue:
        """All items that were taken; not told if they are pieces of an answer that cannot be joined."""
        if self._answer.is_whole:
            return ShownValue(self._answer.text(), self._is_told)
        text = "".join(self._parts) if self._is_text else f"[{', '.join(self._parts)}]"
        return ShownValue(text, self._is_told and not self._answer.is_broken)

    @property
    def ended(self) -> str:
        """Why a model's answer ended, where its pieces say it."""
        return self._answer.ended if self._answer.is_whole else ""

    def _become_list(self) -> None:
        self._is_text = False
        self._parts = [shown_value(text, as_json=True).text[: MAX_VALUE_CHARS + 1] for text in self._parts if text]
        self._num_chars = sum(map(len, self._parts))


def _fields(value: Any) -> Any:
    """The fields of an object that its `repr` would show, or what its `to_dict` gives where it has no `repr` of its own;
    None of others."""
    kind: Any = type(value)
    try:
        owner: Any = next(each for each in kind.__mro__ if "__repr__" in vars(each))  # a subclass may have more fields
        if "__dataclass_fields__" in vars(owner) and _has_made_repr(owner):
            return {each.name: getattr(value, each.name) for each in dataclasses.fields(owner) if each.repr}
        if isinstance(known := getattr(kind, "model_fields", None), dict) and _is_of(kind, "pydantic"):
            return _of_model(value, known)
        if isinstance(known := vars(owner).get("__attrs_attrs__"), tuple) and _is_of(owner, "attr"):
            return {each.name: getattr(value, each.name) for each in known if each.repr is True}
        if kind.__repr__ is object.__repr__ and callable(getattr(kind, "to_dict", None)):
            held = value.to_dict()
            return held if isinstance(held, dict) else None
    except Exception:
        return None
    return None


def _of_model(value: Any, known: Json) -> Any:
    """The fields of a model of pydantic with those that it does not declare; of one that is its root alone, the root."""
    if list(known) == ["root"]:
        return value.root
    told = {
        name: getattr(value, name)
        for name, field in known.items()
        if field.repr and not field.exclude and hasattr(value, name)
    }
    told |= getattr(value, "model_extra", None) or {}
    computed = getattr(type(value), "model_computed_fields", {})
    told |= {name: getattr(value, name) for name, field in computed.items() if field.repr}
    if type(value).__repr_args__.__module__.startswith("pydantic"):
        return told
    said = {name: held for name, held in value.__repr_args__() if name}  # its author's, maybe without defaults
    plain = {name for name, field in known.items() if name in told and told[name] in (field.default, None, "", [], {})}
    return {name: said.get(name, held) for name, held in told.items() if name in said or name in plain}


def _has_made_repr(kind: type) -> bool:
    """True if `dataclass` wrote the `__repr__` of the class: one of its author's may leave something out on purpose."""
    code = getattr(inspect.unwrap(kind.__repr__), "__code__", None)
    return code is not None and code.co_qualname.startswith(_GENERATED)


def _is_of(kind: type, package: str) -> bool:
    """True if a package wrote the `__repr__` of the class."""
    code = getattr(kind.__repr__, "__code__", None)
    module = getattr(kind.__repr__, "__module__", None) or ""
    made = code is not None and code.co_filename.startswith("<attrs generated")
    return module.startswith(package) or (package == "attr" and made)


def _is_bare(value: Any, text: str) -> bool:
    """True if the text says no more than what the object is and where it lies, or that its result is to come."""
    return hasattr(type(value), "__await__") or (text[:1] == "<" and text[-1:] == ">" and _ADDRESS in text[:1000])
