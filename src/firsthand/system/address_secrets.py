"""Keeps secrets in addresses and commands out of what is stored or shown: a variable of the environment stands for each.

`redis://bob:secret@host/0` is stored as `redis://bob:${PASSWORD_BOB_HOST}@host/0`, and whoever sets the variable opens it
again. Found are the password of a user before a host, a token before a host of NATS, a long one before any host, and
parameters such as `?api_key=`. A login ends at a blank, `/`, `?` or `#`: write one in a password as `%20`, `%2F` and so on.
In a command, `mcp:serve --api-key KEY`, the values of options, variables and headers of a secret's name are found.
`helm_metrics` writes `;` for each colon of a benchmark's options, so `http;//bob;secret@host` is an address too.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from itertools import count, pairwise
from typing import Any
from urllib.parse import quote, unquote

from firsthand.errors import ConfigError

_MARK = re.compile(r"[:;]//")
_AUTHORITY = re.compile(r"(?<=[:;]//)[^\s/?#]+")
"""The part of an address after its scheme, including further names of a comma-separated list."""
_NO_LOGIN = re.compile(
    r"(?:localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9A-Fa-f:.;]*\])[:;]\d{1,5}@"
    r"|[\w.-]*[:;](?:\d{1,5}(?:,|[:;]\w{1,40}=|\+\w{1,40}[:;]|@\w{1,40}[:;](?!\w{1,40}=)[A-Za-z_])|\w{1,40}=[^@]*,)"
)
"""A host, its port, and what is no login: a model after `@`, as agents are named, a next name, an option, an adapter."""
_FILLED = re.compile(r"(?P<before>[^,@:;$]*[:;]?)(?P<secret>\$\{[A-Za-z_]\w*\})(?=@)", re.ASCII)
_NEXT_SCHEME = re.compile(r"(?:@\w{1,40}[:;][^@,:;]*)?@\w{1,40}[:;]$")
"""The scheme of the address that comes next, with the model that it is the address of."""
_OPTION = re.compile(r"@(?:\[[^\]@]*\]|[\w.-]*)(?:[:;]\d{1,5})?(?=[:;]\w{1,40}=)")
"""A host that an option of a name follows."""
_HOST = re.compile(r"(?:\[[^\]]*\]|[\w.-]*)(?:[:;]\d{1,5})?")
_PLACE = r"(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::\d+)?"
_SERVER = re.compile(rf"{_PLACE}(?:,{_PLACE})*(?:/[\w.-]*)?")
_PARAMETER = re.compile(
    r"(?<=[?&;])(?P<name>[^=&;#?]{1,100})="
    r"(?P<value>(?:(?!:\w{1,40}=|[)\]]{1,20}(?:[:@]|$))[^&;#'\"])++)"
)
"""A parameter of a query. `:name=` after it is the next option of a tool, `)` and `]` close what the address stands in."""
_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}", re.ASCII)
_TOKEN_SCHEMES = ("nats", "tls")
"""Schemes in whose addresses a user without a password is a token; their client takes a password as it is written."""
_COMMAND = re.compile(r"(?:^|(?<=[\s,;='\"(\[]))mcp:(?!https?://)")
"""Begins the command of an MCP server among tools."""
_ARGUMENT = re.compile(r"[^\s\"',]*(?:\"[^\"]*\"|'[^']*')|[^\s\"',]+")
_NAMED = re.compile(r"(-{0,2}(?P<name>[A-Za-z_][\w.-]{0,80})(?:=|:[ ]?))(?P<value>.+)", re.DOTALL)
"""An argument that is an option, a variable or a header with its value."""
_FLAG = re.compile(r"--?([A-Za-z][\w.-]{0,80})")
_BARE = re.compile(r"[\w@%+=:./${}-]+")
_BEGIN = "mcp:"
_IN_COMMAND = "command"
"""Stands in place of the scheme of an address."""
WRAPPERS = {"npx", "uvx", "uv", "node", "python", "python3", "docker", "run", "exec", "tool", "bunx", "deno", "env"}
"""Words of a command that do not say which server it starts."""
_KEY = re.compile(r"(?=\D*\d)(?=[^A-Za-z]*[A-Za-z])[\w.~+/%=-]{20,}", re.ASCII)
"""A value that looks like a key: 20 or more letters and digits."""
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
_SECRET_NAMES = re.compile(
    r"(?:.*_)?(?:pwd|jwt|authorization|(?:api|access|secret|private|account|auth)_key)|pass|pw|bearer"
)
_DOUBTFUL_WORDS = ("key", "auth", "sig", "pass", "code", "pat", "bearer")
"""Last words of names whose value is a secret if it looks like a key: `key=topic` is none."""
_PUBLIC_WORDS = {"public", "max", "min", "page", "next", "continuation", "sync", "cursor", "sort"}
"""Words before the last one of names that hold no secret, such as `next_page_token`."""


def without_secrets(text: str) -> str:
    """The text with `${NAME}` for each password, token and key in its addresses and commands of MCP servers.

    What is `${NAME}` already stays.
    """
    return _replaced(text, _as_variable)


def command_without_secrets(words: Sequence[str]) -> list[str]:
    """The words of a command with `${NAME}` for each secret of an option, a variable, a header or an address."""
    return [without_secrets(word) for word in _words_replaced(words, _as_variable)]


def _as_variable(value: str, name: str, scheme: str) -> str:
    return value if _VARIABLE.fullmatch(value) else f"${{{name}}}"


def without_secrets_in(value: Any) -> Any:
    """The value with every text in its lists, tuples and tables as `without_secrets` gives it; keys stay."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return {key: without_secrets_in(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        each = [without_secrets_in(each) for each in value]
        return tuple(each) if isinstance(value, tuple) else each
    return value


def with_secrets(text: str, *, default: str | None = None) -> str:
    """The text with the environment's values where its addresses have `${NAME}` for a password, a token or a key.

    A value is taken as it is, without percent-encoding. `default` stands for a variable that is not set; ConfigError if
    there is none.
    """

    def filled(value: str, name: str, scheme: str) -> str:
        if (found := _VARIABLE.fullmatch(value)) is None:
            return value
        if (known := os.environ.get(found[1], default)) is None:
            raise ConfigError(
                f"{without_secrets(text)!r} needs the variable {found[1]} of the environment, and it is not set: export it "
                f"with the secret of that {'command' if scheme == _IN_COMMAND else 'address'}, which no run keeps"
            )
        return known if scheme in (*_TOKEN_SCHEMES, _IN_COMMAND) else quote(known, safe="")

    return _replaced(text, filled) if "${" in text else text


def server_of(url: str) -> str:
    """Host, port and database of a server's address, for errors: `host:6379/0`.

    `***` if one of them cannot be told from a piece of a password that is not percent-encoded.
    """
    scheme, _, address = url.rpartition("://")
    place, _, query = address.partition("?")
    if scheme == "unix" and "@" not in address:
        return place
    host = place.rpartition("@")[2]
    is_clear = _SERVER.fullmatch(host) and ("@" not in query or "=" in query.partition("@")[0])
    return host if is_clear else "***"


def _replaced(text: str, change: Callable[[str, str, str], str]) -> str:
    """The text with each secret as `change` gives it, from the secret, the name of a variable for it, and the scheme."""
    if begun := _COMMAND.search(text):
        text = text[: begun.end()] + _command_replaced(text[begun.end() :], change)
    if _MARK.search(text) is None:
        return text

    def logins(found: re.Match[str]) -> str:
        scheme = re.split(r"[^a-z]", text[max(0, found.start() - 10) : found.start() - 3].lower())[-1]
        colon, is_cut = text[found.start() - 3], text.startswith("//", found.end())
        if scheme not in _TOKEN_SCHEMES:
            return _login_replaced(found[0], scheme, colon, is_cut, change)
        return ",".join(_login_replaced(server, scheme, colon, False, change) for server in found[0].split(","))

    changed = _AUTHORITY.sub(logins, text)
    return "".join(_query_replaced(word, change) for word in re.split(r"([\s,]+)", changed))


def _command_replaced(text: str, change: Callable[[str, str, str], str]) -> str:
    """The text of a command, and of what follows it, with each secret of its arguments changed."""
    found = [*_ARGUMENT.finditer(text)]
    words = [re.sub(r"\"([^\"]*)\"|'([^']*)'", lambda part: part[1] or part[2] or "", each[0]) for each in found]
    made, at = [], 0
    for each, word, new in zip(found, words, _words_replaced(words, change), strict=True):
        if new != word:
            made += [text[at : each.start()], new if _BARE.fullmatch(new) else shlex.quote(new)]
            at = each.end()
    return "".join([*made, text[at:]])


def _words_replaced(words: Sequence[str], change: Callable[[str, str, str], str]) -> list[str]:
    """The words of commands with the values of their options, variables and headers of a secret's name changed.

    A word that begins with `mcp:` begins a command. No two secrets have one variable.
    """
    found = [_secret_in(word, before) for before, word in zip(["", *words], words, strict=False)]
    begins = [at for at, word in enumerate(words) if at == 0 or word.startswith(_BEGIN)]
    made, stands_for, last = [], dict[str, str](), dict[str, int]()
    for begin, end in pairwise([*begins, len(words)]):
        program = _program_of(
            [word for word, secret in zip(words[begin:end], found[begin:end], strict=True) if not secret]
        )
        for word, secret in zip(words[begin:end], found[begin:end], strict=True):
            if secret is None:
                made.append(word)
                continue
            own, value = _variable(secret[1].upper(), program), secret[2]
            number = next(n for n in count(last.get(own, 1)) if stands_for.get(_numbered(own, n), value) == value)
            name, last[own] = _numbered(own, number), number
            filled = _VARIABLE.fullmatch(value)
            stands_for[filled[1] if filled else name] = value
            made.append(secret[0] + change(value, name, _IN_COMMAND))
    return made


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}_{number}"


def _program_of(words: Sequence[str]) -> str:
    """The program that the words of a command start, without its folder; empty if they name none."""
    plain = (word.removeprefix(_BEGIN) for word in words if not word.startswith("-") and "=" not in word)
    own = (re.split(r"[/\\]", word)[-1] for word in plain)
    return next((word for word in own if word not in WRAPPERS), "")


def _secret_in(word: str, before: str) -> tuple[str, str, str] | None:
    """The text before a secret in a word of a command, the secret's name and the secret; None if there is none."""
    flag = _FLAG.fullmatch(before)
    given = [("", flag[1], word)] if flag and not word.startswith("-") else []
    if named := _NAMED.fullmatch(word):
        given.append((named[1], named["name"], named["value"]))
        if inner := _NAMED.fullmatch(named["value"]):  # as in --env=API_KEY=...
            given.append((named[1] + inner[1], inner["name"], inner["value"]))
    found = (each for each in given if each[2].lower() not in ("true", "false") and _is_secret(each[1], each[2]))
    return next(found, None)


def _login_replaced(
    authority: str, scheme: str, colon: str, is_cut: bool, change: Callable[[str, str, str], str]
) -> str:
    """An authority with its password or token changed. `is_cut` is true if the next address's `//` follows it."""
    if filled := _FILLED.match(authority):
        if filled["before"] and filled["before"][-1] not in ":;":
            return authority
        return filled["before"] + change(filled["secret"], "", scheme) + authority[filled.end() :]
    if _NO_LOGIN.match(authority):
        return authority
    own = authority
    if is_cut and (following := _NEXT_SCHEME.search(own)):
        own = own[: following.start()]
    if option := _OPTION.search(own):
        own = own[: option.end()]
    first, comma, _ = own.partition(",")
    if comma and ("@" in first or colon not in first):
        own = first
    login, at, place = own.rpartition("@")
    user, _, password = login.partition(colon)
    host_found = _HOST.match(place)
    assert host_found is not None
    host = host_found[0]
    if password:
        login = f"{user}{colon}{change(password, _variable(f'PASSWORD {user}', host), scheme)}"
    elif user and (scheme in _TOKEN_SCHEMES or _KEY.fullmatch(user)):
        login = change(user, _variable("TOKEN", host), scheme) + login[len(user) :]
    return f"{login}{at}{place}{authority[len(own) :]}"


def _query_replaced(word: str, change: Callable[[str, str, str], str]) -> str:
    """A word with the secret parameters of the address in it changed."""
    address, question, query = word.partition("?")
    if not question or _MARK.search(address) is None:
        return word
    authority = re.split("[/#]", address.rpartition("//")[2], maxsplit=1)[0]
    host = authority.rpartition("@")[2]

    def parameter(found: re.Match[str]) -> str:
        name, value, rest = unquote(found["name"]), found["value"], ""
        if not _is_password(name):  # a token holds no `@`, and the protocol of a benchmark may follow it
            value, at, after = value.partition("@")
            rest = at + after
        if not value or not _is_secret(name, value):
            return found[0]
        return f"{found['name']}={change(value, _variable(name.upper(), host), '')}{rest}"

    return f"{address}{_PARAMETER.sub(parameter, question + query)}"


def _words(name: str) -> list[str]:
    """The words of a parameter's name: `accessToken` and `access-token` have two."""
    return re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())


def _is_password(name: str) -> bool:
    """True for the name of a password, in which any character may stand."""
    return _words(name)[-1].endswith(("password", "passwd", "passphrase", "pass", "pwd", "pw"))


def _is_secret(name: str, value: str) -> bool:
    """True for a secret: of `api_key`, `accessToken`, `X-Amz-Signature`, or of `key` if it looks like one."""
    words = _words(name)
    if _PUBLIC_WORDS & set(words[-2:-1]):
        return False
    if words[-1].endswith(_SECRET_ENDINGS) or _SECRET_NAMES.fullmatch("_".join(words)):
        return True
    return words[-1] in _DOUBTFUL_WORDS and bool(_VARIABLE.fullmatch(value) or _KEY.fullmatch(value))


def _variable(name: str, host: str) -> str:
    """The name of a variable for a secret of a host: `PASSWORD_BOB_EXAMPLE_ORG_8000`."""
    return re.sub(r"[^A-Za-z0-9]+", "_", f"{name} {host}").strip("_").upper()
