"""Takes out of a text the characters that are drawn as nothing."""

from __future__ import annotations

import re

UNSEEN = (
    "\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u206f\\u3164"
    "\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb\\U0001bca0-\\U0001bca3\\U0001d173-\\U0001d17a\\U000e0000-\\U000e0fff"
)
"""Default_Ignorable_Code_Point of Unicode, and the marks of interlinear notes, as a set of an expression."""
_UNSEEN = re.compile(f"[{UNSEEN}]+")


def without_unseen(text: str) -> str:
    """The text without characters that nobody sees; names of hosts drop them too (UTS 46)."""
    return text if text.isascii() else _UNSEEN.sub("", text)
