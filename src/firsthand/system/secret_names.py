"""Recognises names of attributes whose values are secrets, in any of the ways in which programs write them."""

from __future__ import annotations

import re

_TOKENS = (
    "access", "refresh", "auth", "id", "session", "security", "api", "bot", "github", "gitlab", "hf", "huggingface", "npm",
    "pypi", "slack", "telegram", "discord", "sas", "oauth", "vault", "deploy",
)  # fmt: skip
_KEYS = (
    "api", "access", "account", "subscription", "private", "secret", "secret_access", "signing", "encryption", "ssh",
    "master",
)  # fmt: skip
_PASSES = ("db", "database", "user", "smtp", "mail", "mysql", "redis", "ftp", "admin", "root", "login")
SECRET_NAMES = (
    "authorization", "proxy_authorization", "cookie", "set_cookie", "password", "passwd", "pwd", "passphrase", "passcode",
    "secret", "client_secret", "credential", "connection_string", "apikey", "x_api_key",
    "private_key_id", "x_amz_signature", "x_goog_signature",
    *(f"{kind}_token" for kind in _TOKENS), *(f"{kind}_key" for kind in _KEYS), *(f"{kind}_pass" for kind in _PASSES),
)  # fmt: skip
"""Names, or the last words of names, whose values are secrets. `token` alone is not: it is the word of a model's output."""
ENDS = (
    "pem", "base64", "b64", "prod", "production", "staging", "dev", "test", "old", "new", "current", "default", "value",
)  # fmt: skip
"""Words after a secret's name that leave it one."""
_PARTED = ("pass_word", "pass_phrase")
PARTED_NAMES = (*SECRET_NAMES, *_PARTED)
SPELLINGS = tuple(dict.fromkeys(name.replace("_", between) for name in PARTED_NAMES for between in ("_", "-", "", " ")))
"""The names in lower case as texts hold them."""
_PAIRED = {"token": _TOKENS, "key": _KEYS, "pass": _PASSES}
WORDS = tuple(each for each in SPELLINGS if not each.endswith(tuple(_PAIRED)))
"""Those of them that end in none of the words of which most are no secret's."""
_PASSWORDS = ("password", "passwd", "pwd", "passphrase", "passcode", "_pass")
_ENDINGS = tuple(f"_{name}" for name in SECRET_NAMES)
_JOINED = frozenset(name.replace("_", "") for name in SECRET_NAMES)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_BETWEEN = re.compile(r"[^a-z0-9]+")
_PARTS = re.compile(r"[.\[\]/]+")
_END = re.compile(rf"(?<=[a-z])(?:_(?:{'|'.join(ENDS)}))?_?[0-9]{{0,4}}\Z")


def paired_patterns() -> list[str]:
    """Patterns that find the other SPELLINGS, and begin with their common last word: each is looked for once."""
    found = []
    for last, firsts in _PAIRED.items():
        parted, joined = ("|".join(f"(?<={first}{between}{last})" for first in firsts) for between in (".", ""))
        found.append(f"{last}(?:(?<=[ _-]{last})(?:{parted})|(?<=[a-z]{last})(?:{joined}))")
    return found


def is_secret_name(name: str) -> bool:
    """True if the value of an attribute of this name is a secret, or a part of one."""
    last = last_words(name)
    return last.replace("_", "") in _JOINED or last.endswith((*_ENDINGS, "authorization"))


def is_password_name(name: str) -> bool:
    """True if the name is that of a password, which may be a number."""
    return last_words(name).replace("_", "").endswith(_PASSWORDS)


def last_words(name: str) -> str:
    """The last part of a name that says something, in lower case with _ between its words, without an s or an end."""
    parts = [
        part for part in _PARTS.split(name) if part and not part.isdigit() and part.lower() not in ("value", "values")
    ]
    named = "_".join(parts[-2:]) if parts[-1:] in (["pass"], ["Pass"], ["PASS"]) else parts[-1] if parts else ""
    words = _END.sub("", _BETWEEN.sub("_", _HUMP.sub("_", named).lower()).strip("_"))
    return words if words.endswith("ss") else words.removesuffix("s")
