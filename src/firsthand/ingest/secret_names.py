"""Recognises names of attributes whose values are secrets, in any of the ways in which programs write them."""

from __future__ import annotations

import re

SECRET_NAMES = (
    "authorization", "proxy_authorization", "cookie", "set_cookie", "password", "passwd", "pwd", "passphrase", "secret",
    "api_key", "apikey", "x_api_key", "access_token", "refresh_token", "auth_token", "id_token", "client_secret",
    "private_key", "secret_key", "secret_access_key", "session_token", "credential", "connection_string",
)  # fmt: skip
"""Names, or the last words of names, whose values are secrets. `token` alone is not: it is the word of a model's output."""
_PARTED = ("pass_word", "pass_phrase")
SPELLINGS = tuple(
    dict.fromkeys(name.replace("_", between) for name in (*SECRET_NAMES, *_PARTED) for between in ("_", "-", "", " "))
)
"""The names in lower case as texts hold them."""
_PASSWORDS = ("password", "passwd", "pwd", "passphrase")
_ENDINGS = tuple(f"_{name}" for name in SECRET_NAMES)
_JOINED = frozenset(name.replace("_", "") for name in SECRET_NAMES)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_BETWEEN = re.compile(r"[^a-z0-9]+")
_PARTS = re.compile(r"[.\[\]/]+")


def is_secret_name(name: str) -> bool:
    """True if the value of an attribute of this name is a secret, or a part of one."""
    last = last_words(name)
    return last.replace("_", "") in _JOINED or last.endswith((*_ENDINGS, "authorization"))


def is_password_name(name: str) -> bool:
    """True if the name is that of a password, which may be a number."""
    return last_words(name).replace("_", "").endswith(_PASSWORDS)


def last_words(name: str) -> str:
    """The last part of a name that says something, in lower case with _ between its words and without a plural's s."""
    parts = [
        part for part in _PARTS.split(name) if part and not part.isdigit() and part.lower() not in ("value", "values")
    ]
    words = _BETWEEN.sub("_", _HUMP.sub("_", parts[-1]).lower()).strip("_") if parts else ""
    return words.removesuffix("s")
