r"""Mends JSON in which half of a pair of surrogates is written, as JavaScript does with a text that was cut within an emoji.

A strict reader refuses the whole message for it. The half becomes U+FFFD, the character for what cannot be shown.
"""

from __future__ import annotations

import re

# an escape as a whole, so that an escaped backslash before `ud83d` is none; a pair goes before its halves
_ESCAPES = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def without_halves(body: bytes) -> bytes:
    r"""The JSON with `\ufffd` for each half of a pair of surrogates; all else is as it was, and so is its length."""
    if b"\\ud" not in body.lower():
        return body
    return _ESCAPES.sub(lambda found: found[0] if found["half"] is None else rb"\ufffd", body)
