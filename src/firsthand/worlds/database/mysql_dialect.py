"""Rewrites a MySQL statement so that SQLite reads it: string escapes, names that begin with a digit, SHOW and DESCRIBE.

Double quotes hold a text in MySQL and a name in SQLite, and agents, who are told that it is SQLite, write both. SQLite takes
them as a name where a column has it, else as a text. Here they hold a text

- if a backslash stands in them, unless the table or a column has that name;
- behind `=`, `<`, `>`, LIKE, or in the list of an IN, if the statement has names in backquotes, or has double quotes in such
  places alone and the name needs none: `Nation = "Total"`.

`||` joins texts, as in SQLite.
Left out: functions and types that SQLite lacks. Their errors are told to the agent as SQLite words them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

_TOKEN = re.compile(
    r"""
    (?P<string>'(?:[^'\\]|\\.|'')*')          # MySQL: a backslash escapes
    | (?P<double>"(?:[^"\\]|\\.|"")*")
    | (?P<unclosed>'(?:[^'\\]|\\.|'')*+\\?\Z|"(?:[^"\\]|\\.|"")*+\\?\Z)    # so that nothing is read again from there on
    | (?P<backquoted>`(?:[^`]|``)*`)
    | (?P<minuses>(?<=[\w)'"`])--(?=[\w('"`.]))    # MySQL: no comment without a blank behind
    | (?P<comment>--[^\n]*|\#[^\n]*|/\*.*?(?:\*/|\Z))    # an open one ends with the statement, as in SQLite
    | (?P<digits>(?<![\w.])\d+[A-Za-z_]\w*)
    | (?P<other>[A-Za-z_]\w*|\d+(?:\.\d+)?|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = {quote: re.compile(rf"[\\{quote}](.)", re.DOTALL) for quote in "'\""}
"""A letter behind a backslash, or the second of two quotes: within a string no quote stands alone."""
_PLAIN_NAME = re.compile(r'"[A-Za-z_]\w*"')
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "Z": "\x1a", "0": "\0"}
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|\d+[eE]\d+")
_NAME = r"[`\"']?(?P<name>[^`\"';\s](?:[^`\"';]*[^`\"';\s])?)[`\"']?"
_SHOW_TABLES = re.compile(r"\s*SHOW\s+(?:FULL\s+)?TABLES\s*+(?:;\s*+)?", re.IGNORECASE)
_DESCRIBE = re.compile(
    rf"\s*(?:DESC(?:RIBE)?|SHOW\s+(?:FULL\s+)?COLUMNS\s+(?:FROM|IN)|SHOW\s+CREATE\s+TABLE)\s++{_NAME}\s*+(?:;\s*+)?",
    re.IGNORECASE,
)


def one_line(statement: str) -> str:
    """The statement with blanks in place of its line breaks, also within texts, but for those that end a comment."""
    tokens = list(_TOKEN.finditer(statement))
    ends_comment = [False, *(token.lastgroup == "comment" for token in tokens)]
    return "".join(
        token.group() if after and token.group() == "\n" else token.group().replace("\n", " ")
        for token, after in zip(tokens, ends_comment, strict=False)
    )


def for_sqlite(statement: str, names: Collection[str] = ()) -> str:
    """The statement in SQLite's dialect; `names` are those of the table and its columns."""
    statement = "".join(" " if each.lastgroup == "comment" else each.group() for each in _TOKEN.finditer(statement))
    if _SHOW_TABLES.fullmatch(statement):
        return "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    if (asked := _DESCRIBE.fullmatch(statement)) is not None:
        name = asked["name"].replace("'", "''")
        return f"SELECT sql FROM sqlite_master WHERE type = 'table' AND name = '{name}' COLLATE NOCASE"
    tokens = list(_TOKEN.finditer(statement))
    known, values = {name.lower() for name in names}, _places_of_values(tokens)
    doubles = {at for at, token in enumerate(tokens) if token.lastgroup == "double"}
    is_mysql, is_plain = any(token.lastgroup == "backquoted" for token in tokens), doubles <= values

    def is_text(at: int, text: str) -> bool:
        if at in values and (is_mysql or (is_plain and _PLAIN_NAME.fullmatch(text))):
            return True
        return "\\" in text and text[1:-1].replace('""', '"').lower() not in known

    return "".join(
        _string(token.group()) if at in doubles and is_text(at, token.group()) else _rewritten(token)
        for at, token in enumerate(tokens)
    )


def _places_of_values(tokens: Sequence[re.Match[str]]) -> set[int]:
    """The places of tokens right behind a comparison, and of those within the parentheses of an IN."""
    found, last, listed = set[int](), "", False
    for at, token in enumerate(tokens):
        text = token.group().upper()
        if text.strip():
            if listed or last in ("=", "<", ">", "LIKE"):
                found.add(at)
            listed = last == "IN" if text == "(" else listed and text != ")"
            last = text
    return found


def _rewritten(token: re.Match[str]) -> str:
    text = token.group()
    match token.lastgroup:
        case "string":
            return _string(text)
        case "digits" if not _NUMBER.fullmatch(text):
            return f"`{text}`"
        case "minuses":
            return "- -"
    return text


def _string(text: str) -> str:
    """MySQL's string as SQLite writes it."""
    inside = _ESCAPE[text[0]].sub(lambda escape: _ESCAPED.get(escape[1], escape[1]), text[1:-1])
    return "'" + inside.replace("'", "''") + "'"
