"""Puts U+FFFD for half surrogates in what the server sends.

The SDK would end the connection at one, for UTF-8 does not hold them.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


def whole(value: Any) -> Any:
    """The value, of the wire or a model of it, whose texts can all be written; itself if they can."""
    if isinstance(value, str):
        return value if value.isascii() else _whole_text(value)
    if isinstance(value, BaseModel):
        found = {name: (each, whole(each)) for name, each in value}
        changes = {name: made for name, (each, made) in found.items() if made is not each}
        return value.model_copy(update=changes) if changes else value
    if isinstance(value, dict):
        pairs = {whole(key): whole(each) for key, each in value.items()}
        same = len(pairs) == len(value) and all(
            a is b and pairs[a] is value[b] for a, b in zip(pairs, value, strict=True)
        )
        return value if same else pairs
    if isinstance(value, list | tuple):
        made = [whole(each) for each in value]
        return value if all(a is b for a, b in zip(made, value, strict=True)) else type(value)(made)
    return value


def _whole_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
