"""Names the rows of a question to a person, so that no row of a call's arguments passes for one of the question's own."""

from __future__ import annotations

import re
from typing import Any

OVER, WHY = "over", "why you are asked"
"""The question's own rows: the server that a tool acts through, and the reason for asking."""
_PLAIN = re.compile(r"[A-Za-z_](?:[.-]?[A-Za-z0-9_])*")
_OURS = {re.sub("[^a-z]", "", each) for each in (OVER, WHY)}
_DATA = re.compile(r"""\s*(?:[{\["]|(?:-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)\s*\Z)""")
"""The texts that are drawn like a number, a list or another value of JSON, or whose ends are."""


def labelled(name: str, drawn: str) -> str:
    """The name of an argument's row, as it is drawn: in quotes unless the name is a plain one."""
    is_plain = _PLAIN.fullmatch(name) is not None and re.sub("[^a-z]", "", name.lower()) not in _OURS
    return drawn if is_plain and drawn == name else '"{}"'.format(drawn.replace('"', '\\"'))


def passes_for_data(value: Any) -> bool:
    """True for a text that is drawn like a number, a list or another value of JSON."""
    return isinstance(value, str) and _DATA.match(value) is not None
