"""The JSON of a trace before it is read: an earlier version is brought to this one, and references are checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from firsthand.errors import StoreError
from firsthand.message import Json

TRACE_VERSION = 3


def checked(body: Json) -> Json:
    """The body as this version writes it. StoreError for a newer version, or one whose nodes or calls are out of order."""
    body = _upgraded(body)
    if not all(_comes_after(node["parent"], index) for index, node in enumerate(body["nodes"])):
        raise StoreError("this trace has a message whose parent does not come before it: the file is damaged")
    if not all(_continues(body, index) for index in range(len(body["calls"]))):
        raise StoreError("this trace has a prompt that continues no earlier call: the file is damaged")
    return body


def _upgraded(body: Json) -> Json:
    """The body as this version writes it. Step n of _UPGRADES takes version n to n + 1; steps are only ever added."""
    version = body.get("version")
    if type(version) is not int or not 1 <= version <= TRACE_VERSION:
        raise StoreError(
            f"this trace has version {version!r}, and this firsthand reads 1 to {TRACE_VERSION}: "
            "open it with the firsthand that wrote it, or a newer one"
        )
    for step in range(version, TRACE_VERSION):
        body = _UPGRADES[step](body) | {"version": step + 1}
    return body


def _with_ids(body: Json) -> Json:
    """Version 2 as version 3: an attempt's id was its place, and no prompt ids and no schemas were recorded."""
    calls = [call | {"prompt": None, "tools": []} for call in body["calls"]]
    return body | {"calls": calls, "tools": [], "place": body["id"]}


_UPGRADES: dict[int, Callable[[Json], Json]] = {1: lambda body: body | {"origin": None}, 2: _with_ids}


def _comes_after(parent: Any, index: int) -> bool:
    """Returns whether `parent` is None or an earlier index: in a cycle, walking up to the first would never end."""
    return parent is None or (type(parent) is int and 0 <= parent < index)


def _continues(body: Json, index: int) -> bool:
    """Returns whether the prompt of a call, if it has one, continues an answer of an earlier call."""
    prompt = body["calls"][index]["prompt"]
    if prompt is None or prompt["after"] is None:
        return True
    if not _comes_after(prompt["after"], index):
        return False
    sample, nodes = prompt["sample"], body["calls"][prompt["after"]]["nodes"]
    return type(sample) is int and 0 <= sample < len(nodes) and nodes[sample] in range(len(body["nodes"]))
