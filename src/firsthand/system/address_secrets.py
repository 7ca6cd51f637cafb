"""Keeps passwords and tokens in addresses out of what is stored or shown: a variable of the environment stands for each.

`redis://bob:secret@host/0` is stored as `redis://bob:${PASSWORD_HOST}@host/0`, and whoever sets the variable opens it again.
Found are the password before a host, a user without one over http and NATS, which is a token, and parameters such as
`?api_key=`. An address ends at a blank, so write a blank in a password as `%20`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, unquote

from firsthand.errors import ConfigError

_LOGIN = re.compile(r"(?<=://)(?P<login>[^\s/?#,]*?(?:,[^\s/?#,:]*?)*?)@(?P<host>[^\s/?#@,]*+)(?!@)")
"""User and password, up to the last `@` before the host. What has a colon behind a comma is the next name of a list."""
_HOST = re.compile(r"[^/?#]*")
_SERVER = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::\d+)?(?:/\d*)?")
_PARAMETER = re.compile(r"(?<=[?&;])(?P<name>[^=&;#?]{1,100})=(?P<value>(?:(?!:\w{1,40}=)[^&;#'\"])++)")
"""A parameter of a query; `:name=` after it is the next option of a tool."""
_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}", re.ASCII)
_TOKEN_USERS = ("http", "https", "nats", "tls")
"""Schemes in whose addresses a user without a password is a token."""
_NOT_DECODED = ("nats", "tls")
"""Schemes whose client takes a password as it stands in the address."""
_SECRET_ENDINGS = (
    "password",
    "passwd",
    "passphrase",
    "token",
    "secret",
    "apikey",
    "signature",
    "credential",
    "credentials",
)
_SECRET_WORDS = ("pass", "pwd", "key", "auth", "authorization", "sig", "jwt")


def without_secrets(text: str) -> str:
    """The text with `${NAME}` for each password, token and key in its addresses; what is `${NAME}` already stays."""

    def named(value: str, name: str, scheme: str) -> str:
        return value if _VARIABLE.fullmatch(value) else f"${{{name}}}"

    return _replaced(text, named) if "://" in text else text


def without_secrets_in(value: Any) -> Any:
    """The value with every text in its lists, tuples and tables as `without_secrets` gives it; keys stay."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return {key: without_secrets_in(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([without_secrets_in(each) for each in value]) if type(value) in (list, tuple) else value
    return value


def with_secrets(text: str) -> str:
    """The text with the environment's values where its addresses have `${NAME}` for a password, a token or a key.

    A value is taken as it is, without percent-encoding. ConfigError if a variable is not set.
    """

    def filled(value: str, name: str, scheme: str) -> str:
        if (found := _VARIABLE.fullmatch(value)) is None:
            return value
        if (known := os.environ.get(found[1])) is None:
            raise ConfigError(
                f"{without_secrets(text)!r} needs the variable {found[1]} of the environment, and it is not set: export it "
                "with the secret of that address, which no run keeps"
            )
        return known if scheme in _NOT_DECODED else quote(known, safe="")

    return _replaced(text, filled) if "${" in text and "://" in text else text


def server_of(url: str) -> str:
    """Host, port and database of a server's address, for errors: `host:6379/0`.

    `***` if one of them cannot be told from a piece of a password that is not percent-encoded.
    """
    address = url.partition("://")[2] or url
    place, _, query = address.partition("?")
    host = place.rpartition("@")[2]
    is_clear = _SERVER.fullmatch(host) and ("@" not in query or "=" in query.partition("@")[0])
    return host if is_clear else "***"


def _replaced(text: str, change: Callable[[str, str, str], str]) -> str:
    """The text with each secret as `change` gives it, from the secret, the name of a variable for it, and the scheme."""

    def login(found: re.Match[str]) -> str:
        before = text[max(0, found.start() - 10) : found.start() - 3]
        scheme = re.split(r"[^a-z]", before.lower())[-1]
        user, colon, password = found["login"].partition(":")
        if password:
            password = change(password, _variable("PASSWORD", found["host"]), scheme)
        elif user and scheme in _TOKEN_USERS:
            user = change(user, _variable("TOKEN", found["host"]), scheme)
        return f"{user}{colon}{password}@{found['host']}"

    text = _LOGIN.sub(login, text)
    return "".join(map(lambda word: _query_replaced(word, change), re.split(r"([\s,]+)", text)))


def _query_replaced(word: str, change: Callable[[str, str, str], str]) -> str:
    """A word with the secret parameters of the address in it changed."""
    before, mark, address = word.partition("://")
    path, question, query = address.partition("?")
    if not (mark and question):
        return word
    authority = _HOST.match(path)
    assert authority is not None
    host = authority[0].rpartition("@")[2]

    def parameter(found: re.Match[str]) -> str:
        if not _is_secret(name := unquote(found["name"])):
            return found[0]
        return f"{found['name']}={change(found['value'], _variable(name.upper(), host), '')}"

    return f"{before}{mark}{path}{_PARAMETER.sub(parameter, question + query)}"


def _is_secret(name: str) -> bool:
    """True for a parameter's name that ends in a word for a secret: `api_key`, `accessToken`, `X-Amz-Signature`."""
    words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
    return words[-1] in _SECRET_WORDS or words[-1].endswith(_SECRET_ENDINGS)


def _variable(name: str, host: str) -> str:
    """The name of a variable for a secret of a host: `PASSWORD_EXAMPLE_ORG_8000`."""
    return re.sub(r"[^A-Za-z0-9]+", "_", f"{name} {host}").strip("_").upper()
