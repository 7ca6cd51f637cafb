"""Declares an MCP server: how it is reached, and what its tools may do.

    [servers.time]
    command = "uvx"                       # or: url = "https://mcp.example.org/mcp"
    args = ["mcp-server-time"]
    [servers.time.effects]
    get_current_time = "read"
    "convert_*" = "read"
    [servers.time.authority]              # for guards: the arguments that decide where power goes
    set_alarm = "device"

A tool that no line of `effects` names is `external`, and a server is untrusted unless it says `trusted = true`: its words
then reach the model as data between marks.
"""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from firsthand.declaration import Declaration
from firsthand.errors import ConfigError, nearest
from firsthand.message import Json
from firsthand.system.address_secrets import WRAPPERS, command_without_secrets
from firsthand.system.bounded_toml import read_toml_file
from firsthand.tool import Effect

Revision = Literal["auto", "2025-11-25", "2026-07-28"]
MAX_NAME = 24
"""The most characters of a server's name, which the names of its tools begin with."""
SENT = {"read_resource": ("uri",), "get_prompt": ("name", "arguments")}
"""Tools that are offered beside the server's own, with the arguments that the server reads; the first names what does."""
_WANTED = {
    "tuple[str, ...]": "a list of texts", "Mapping[str, str]": "a table of texts", "bool": "true or false",
    "float": "a number", "int": "a whole number",
}  # fmt: skip
_VARIABLE = re.compile(r"(?:-{0,2}[\w.-]+(?:=|:[ ]?)){0,2}\$\{\w+\}")
"""An argument that a variable of the environment stands for: the whole, or after a name or two (`--env=KEY=${NAME}`)."""
_FORMS = {
    "allow": ', with + between networks and hosts, as in "10.0.0.0/8+auth.local"',
    "scopes": ', as in ["files:read", "files:write"]',
    "args": ', as in ["-m", "server"]',
}
"""The forms of settings that other programs take as another type."""


@dataclass(frozen=True)
class ServerDeclaration:
    """An MCP server, and what is allowed to it."""

    name: str
    """Begins the names of its tools: the tool `now` of `time` is `time__now`."""
    command: str = ""
    """The program to start, which speaks MCP over its standard input and output."""
    args: tuple[str, ...] = ()
    """Arguments of the program; one that is `${NAME}`, or `--option=${NAME}`, stands for a variable of the environment."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables for the program besides HOME, PATH and the like; `${NAME}` stands for one of our own."""
    cwd: str = ""
    """The program's folder; empty for ours."""
    url: str = ""
    """The address of a server that is reached by streamable HTTP."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of each request to the URL; `${NAME}` stands for a variable of the environment."""
    allow: str = ""
    """Networks and hosts that may be reached besides the URL's own and public ones, as in `10.0.0.0/8+auth.local`."""
    oauth: bool = False
    """Sign in with OAuth where the URL asks for it: the browser opens, and tokens are kept in the data home."""
    scopes: tuple[str, ...] = ()
    """OAuth scopes to ask for, and no others; none leaves it to the server."""
    issuer: str = ""
    """The authorization server to sign in at, and no other; a `client_id` needs it, empty leaves it to the server."""
    client_id: str = ""
    """The id of a client that was registered by hand; empty to register on the way."""
    client_secret: str = ""
    """The secret of that client; `${NAME}` stands for a variable of the environment."""
    client_metadata_url: str = ""
    """The https address of a document that describes the client, which servers may take for its id."""
    trusted: bool = False
    """Show its descriptions and results to the model as they are, and not as data between marks."""
    effects: Mapping[str, str] = field(default_factory=dict)
    """Effects by the tool's own name or a pattern such as `get_*`; the first that fits counts, `external` without."""
    authority: Mapping[str, str] = field(default_factory=dict)
    """Arguments that decide where power goes, by tool or pattern: `"send_*" = "to cc"`; an empty text says there is none."""
    recipients: Mapping[str, str] = field(default_factory=dict)
    """Arguments that name those who will read the call, by tool or pattern; an empty text says that nobody does, and guards
    then do not ask about the server either."""
    trusts: Mapping[str, str] = field(default_factory=dict)
    """Fields of results that may be believed, by tool or pattern: `"search_*" = "id sender"`."""
    spends: Mapping[str, str] = field(default_factory=dict)
    """Arguments that are amounts which a call spends, by tool or pattern."""
    private: tuple[str, ...] = ()
    """Patterns of the tools whose results only the user may read; all of an untrusted server's are untrusted."""
    grants: tuple[str, ...] = ()
    """Patterns of the tools that give a permission."""
    only: tuple[str, ...] = ()
    """Patterns of the tools to offer; none offers all."""
    resources: bool = True
    """Offer its resources, by a tool that lists and one that reads them."""
    prompts: bool = True
    """Offer its prompts, by a tool that lists and one that gets them."""
    sampling: bool = True
    """Answer its requests for completions with the agent's model, under the attempt's budget."""
    elicitation: bool = True
    """Put its questions to the person who approves tool calls."""
    roots: tuple[str, ...] = ()
    """Folders that it is told of."""
    timeout_s: float = 60.0
    """Seconds that one call may take."""
    opening_s: float = 30.0
    """Seconds to start and list the tools."""
    lazy_above: int = 40
    """With more tools than this, only a tool that searches them is offered, and those that it found."""
    shared: bool = False
    """One connection for all attempts of a run, instead of one for each."""
    revision: Revision = "auto"
    """The revision of the protocol to speak; auto takes the newest that both know."""

    def __post_init__(self) -> None:
        where = f"the MCP server {self.name!r}"
        if not re.fullmatch(rf"[A-Za-z0-9_-]{{1,{MAX_NAME}}}", self.name):
            raise ConfigError(f"{where}: a name of 1 to {MAX_NAME} letters, digits, _ or - was expected")
        if bool(self.command) == bool(self.url):
            raise ConfigError(f"{where} has {'both' if self.url else 'neither'} a command and a url: give one of them")
        if self.url and (urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname):
            raise ConfigError(f"{where} has the url {self.url!r}: an address with http:// or https:// was expected")
        if urlsplit(self.url).username is not None:
            raise ConfigError(f"{where} has a password in its url: give it as a header, from the environment")
        if self.issuer and (
            urlsplit(self.issuer).scheme not in ("http", "https") or not urlsplit(self.issuer).hostname
        ):
            raise ConfigError(f"{where} has the issuer {self.issuer!r}: an address with https:// was expected")
        if self.client_id and not self.issuer:
            raise ConfigError(
                f"{where} has a client_id and no issuer, so the server could have its secret sent anywhere: give the "
                'authorization server that it was registered at, as in issuer = "https://login.example.org"'
            )
        if self.client_secret and not self.client_id:
            raise ConfigError(f"{where} has a client_secret and no client_id: give both, or leave both out")
        for tool, effect in self.effects.items():
            if effect not in get_args(Effect):
                close = nearest(str(effect), get_args(Effect))
                hint = f" did you mean {close!r}?" if close else ""
                raise ConfigError(f"{where}: the effect of {tool!r} is {effect!r};{hint} one of {get_args(Effect)}")
        if self.revision not in get_args(Revision):
            raise ConfigError(f"{where} has the revision {self.revision!r}: one of {get_args(Revision)} was expected")
        for number in ("timeout_s", "opening_s"):
            if not 0 < getattr(self, number) <= 86_400:
                raise ConfigError(f"{where} has {number} = {getattr(self, number)}: seconds above 0 were expected")
        if self.lazy_above < 1:
            raise ConfigError(f"{where} has lazy_above = {self.lazy_above}: a number of tools above 0 was expected")

    @property
    def origin(self) -> str:
        """The name under which its words are marked as untrusted."""
        return f"MCP server {self.name}"

    @property
    def target(self) -> str:
        """The endpoint, without secrets: equal for two declarations of one server."""
        return self.url.partition("?")[0] or shlex.join(command_without_secrets([self.command, *self.args]))

    @property
    def filled_args(self) -> tuple[str, ...]:
        """The arguments as the program gets them; ConfigError for a variable that is not set."""
        where = f"the command of the MCP server {self.name}"
        return tuple(_filled(each, where) if _VARIABLE.fullmatch(each) else each for each in self.args)

    def effect_of(self, tool: str) -> Effect:
        """The declared effect of a tool, by its own name."""
        for pattern, effect in self.effects.items():
            if fnmatchcase(tool, pattern):
                return effect  # type: ignore[return-value]
        return "external"

    def declares(self, tool: str) -> Declaration | None:
        """A tool's declaration for guards; None, which they refuse, unless it only reads or `authority` names it."""
        authority, recipients = _words_for(self.authority, tool), _words_for(self.recipients, tool)
        if self.effect_of(tool) != "read" and authority is None and recipients is None:
            return None
        return Declaration(
            authority or (),
            _words_for(self.trusts, tool) or (),
            recipients or (),
            "user" if any(fnmatchcase(tool, each) for each in self.private) else "public",
            tells="" if recipients == () else self.origin,
            grants=any(fnmatchcase(tool, each) for each in self.grants),
            spends=_words_for(self.spends, tool) or (),
        )

    def effect_of_sending(self, tool: str) -> Effect:
        """The effect of a tool of ours that sends its arguments to the server; patterns are for the server's own tools."""
        return self.effects.get(tool, "external")  # type: ignore[return-value]

    def declares_sending(self, tool: str) -> Declaration:
        """The declaration of a tool of ours that sends its arguments to the server: all decide, unless `authority` says
        otherwise by its very name."""
        sent = SENT[tool]
        said = tuple(self.authority[tool].split()) if tool in self.authority else sent
        decide = said if set(said) <= set(sent) else sent
        told = tuple(each for each in sent[:1] if each in decide)
        reader = "" if tool in self.recipients and not self.recipients[tool].split() else self.origin
        return Declaration(decide, recipients=told, readers="user", tells=reader)

    @property
    def requests(self) -> frozenset[str]:
        """The server's requests that rules know by a name as of a tool (`SERVER__sampling`), if they are answered."""
        return frozenset(each for each in ("sampling", "elicitation") if getattr(self, each))

    def offers(self, tool: str) -> bool:
        """True if a tool is to be offered."""
        return not self.only or any(fnmatchcase(tool, pattern) for pattern in self.only)


def _words_for(table: Mapping[str, str], tool: str) -> tuple[str, ...] | None:
    """The words of the first pattern that fits a tool; None if none does."""
    return next((tuple(words.split()) for pattern, words in table.items() if fnmatchcase(tool, pattern)), None)


def declarations(text: str) -> tuple[ServerDeclaration, ...]:
    """The servers that a text names: a URL, a TOML file of servers, `FILE.toml#NAME` for one of them, or a command."""
    text = text.strip()
    if not text:
        raise ConfigError("mcp: names no server: write mcp:COMMAND, mcp:https://HOST/mcp or mcp:FILE.toml")
    if re.match(r"https?://", text, re.IGNORECASE):
        return (ServerDeclaration(_short(urlsplit(text).hostname or "server"), url=text),)
    path, _, chosen = text.partition("#")
    if path.endswith(".toml"):
        servers = read_declarations(Path(path))
        if not chosen:
            return tuple(servers.values())
        if chosen not in servers:
            close = nearest(chosen, servers)
            hint = f" did you mean {close!r}?" if close else ""
            raise ConfigError(f"{path} declares no server {chosen!r};{hint} there are {', '.join(servers) or 'none'}")
        return (servers[chosen],)
    try:
        command, *args = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no command: {error}") from None
    return (_startable(ServerDeclaration(_name_of([command, *args]), command=command, args=tuple(args))),)


def read_declarations(path: Path) -> dict[str, ServerDeclaration]:
    """The servers of a TOML file, by name; relative folders are those of the file."""
    try:
        body = read_toml_file(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no TOML: {str(error)[:200]}") from None
    servers = body.pop("servers", None)
    if body or not isinstance(servers, dict) or not servers:
        raise ConfigError(f"{path} declares no servers: tables [servers.NAME] were expected, and nothing else")
    return {name: _declared(name, table, path) for name, table in servers.items()}


def _declared(name: str, table: object, path: Path) -> ServerDeclaration:
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: servers.{name} is {table!r:.60}: a table was expected")
    kinds = {each.name: each for each in fields(ServerDeclaration) if each.name != "name"}
    given: dict[str, Any] = {}
    for key, value in table.items():
        if key not in kinds:
            close = nearest(key, kinds)
            hint = f" did you mean {close!r}?" if close else ""
            raise ConfigError(f"{path}: servers.{name} has no setting {key!r};{hint} there are {', '.join(kinds)}")
        given[key] = _value(str(kinds[key].type), value, f"{path}: servers.{name}.{key}")
    for key in ("client_id", "client_secret"):
        if key in given:
            given[key] = _filled(given[key], f"{path}: servers.{name}.{key}")
    for key in ("env", "headers"):
        if key in given:
            given[key] = {each: _filled(text, f"{path}: servers.{name}.{key}") for each, text in given[key].items()}
    if given.get("cwd"):
        given["cwd"] = str(path.parent / Path(given["cwd"]).expanduser())
    if given.get("roots"):
        given["roots"] = tuple(str((path.parent / Path(each).expanduser()).resolve()) for each in given["roots"])
    return _startable(ServerDeclaration(name, **given))


def _startable(declaration: ServerDeclaration) -> ServerDeclaration:
    """The declaration, once the variables that its arguments name are found set; ConfigError otherwise."""
    assert len(declaration.filled_args) == len(declaration.args)
    return declaration


def _value(kind: str, value: Any, where: str) -> Any:
    """The value of a setting; ConfigError if it is of another type."""
    if kind.startswith("tuple") and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    if kind.startswith("Mapping") and isinstance(value, dict) and all(isinstance(x, str) for x in value.values()):
        return dict(value)
    if kind == "float" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if {"bool": bool, "int": int, "str": str, "Revision": str}.get(kind) is type(value):
        return value
    form = _FORMS.get(where.rpartition(".")[2], "")
    raise ConfigError(f"{where} is {value!r:.80}: {_WANTED.get(kind, 'a text')} was expected{form}")


def _filled(text: str, where: str) -> str:
    """The text with `${NAME}` replaced by the variables of the environment."""

    def value(found: re.Match[str]) -> str:
        if (known := os.environ.get(found[1])) is None:
            raise ConfigError(f"{where} needs the variable {found[1]} of the environment, and it is not set")
        return known

    return re.sub(r"\$\{(\w+)\}", value, text)


def _name_of(words: list[str]) -> str:
    """The name of the server that a command starts: its first word that is no wrapper and no flag."""
    for word in words:
        stem = re.split(r"[/\\]", word)[-1].partition("@")[0].removesuffix(".py").removesuffix(".js")
        if (
            stem
            and not word.startswith("-")
            and "=" not in word
            and stem not in WRAPPERS
            and not re.match(r"python[\d.]*$", stem)
        ):
            return _short(re.sub(r"^(?:mcp[-_])?server[-_]|^mcp[-_]|[-_]mcp(?:[-_]server)?$", "", stem) or stem)
    return _short(re.split(r"[/\\]", words[0])[-1])


def _short(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:MAX_NAME].strip("-") or "server"


def to_json(declaration: ServerDeclaration) -> Json:
    """The declaration as data for a trace, without what may be a secret."""
    return {
        "name": declaration.name,
        "target": declaration.target,
        "trusted": declaration.trusted,
        "effects": dict(declaration.effects),
        "revision": declaration.revision,
    }
