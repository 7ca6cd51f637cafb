"""Parts of A2A messages whose content arrives unchanged.

The data of a part is a protobuf Value: its numbers are doubles, its text is UTF-8, and only so many levels of it can be read
back. What does not fit is sent as JSON text. Data of clients is refused where it may have been changed on the way.
"""

from __future__ import annotations

import math
import re
from typing import Any

from a2a.types.a2a_pb2 import Part, SendMessageRequest
from a2a.utils.errors import InvalidParamsError
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct, Value

from firsthand.message import Json, canonical

SAFE = 1 << 53
"""Whole numbers below it are exact as a double; from it on, two of them may be the same double."""
MAX_LEVELS = 24
"""Levels of lists and objects in data: protobuf reads 100 levels of messages, and an object takes three of them."""
_HALF = re.compile("[\ud800-\udfff]")


def text_part(text: str, media_type: str = "") -> Part:
    """A part of text; half surrogates, which UTF-8 does not hold, are shown as escapes."""
    return Part(text=_escaped(text), media_type=media_type)


def data_part(body: Json) -> Part:
    """A part of data. A field that a Value would change, or cannot hold, is the JSON text of its content."""
    kept = {key: value if _fits(value) else _escaped(canonical(value)) for key, value in body.items()}
    return Part(data=ParseDict(kept, Value()), media_type="application/json")


def check_data(params: SendMessageRequest) -> None:
    """InvalidParamsError for data that is not kept as it was sent, and for data or metadata that cannot be sent back."""
    for part in params.message.parts:
        if part.HasField("data"):
            _check(part.data, "data", SAFE)
        _check_struct(part.metadata)
    _check_struct(params.message.metadata)
    _check_struct(params.metadata)


def _check_struct(metadata: Struct) -> None:
    for value in metadata.fields.values():
        _check(value, "metadata", math.inf, 2)


def _check(value: Value, where: str, least: float, level: int = 1) -> None:
    match value.WhichOneof("kind"):
        case "number_value":
            if not math.isfinite(value.number_value):
                raise InvalidParamsError(f"a number of the {where} is not finite: send it as text")
            if abs(value.number_value) >= least:
                raise InvalidParamsError(
                    f"a number of the {where} is 2^53 or more, where A2A's numbers lose digits: send it as text"
                )
            return
        case "struct_value":
            inner = list(value.struct_value.fields.values())
        case "list_value":
            inner = list(value.list_value.values)
        case _:
            return
    if level > MAX_LEVELS:
        raise InvalidParamsError(f"the {where} nests lists and objects more than {MAX_LEVELS} deep: send it as text")
    for each in inner:
        _check(each, where, least, level + 1)


def _fits(value: Any, level: int = 2) -> bool:
    """True if a Value holds this and gives back the same."""
    match value:
        case None | bool():
            return True
        case str():
            return _HALF.search(value) is None
        case int():
            return abs(value) < SAFE
        case float():
            return math.isfinite(value)
        case dict():
            return level <= MAX_LEVELS and all(
                isinstance(key, str) and _fits(key) and _fits(each, level + 1) for key, each in value.items()
            )
        case list() | tuple():
            return level <= MAX_LEVELS and all(_fits(each, level + 1) for each in value)
    return False


def _escaped(text: str) -> str:
    return _HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", text)
