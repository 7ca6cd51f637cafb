"""Rewrites a MySQL statement so that SQLite reads it: string escapes, names that begin with a digit, SHOW and DESCRIBE.

Left out: functions and types that SQLite lacks. Their errors are told to the agent as SQLite words them.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""
    (?P<string>'(?:[^'\\]|\\.|'')*')          # MySQL: a backslash escapes
    | (?P<unclosed>'(?:[^'\\]|\\.|'')*+\\?\Z)     # to the end, so that nothing is read again from the next one on
    | (?P<quoted>"(?:[^"]|"")*"|`(?:[^`]|``)*`)
    | (?P<comment>--[^\n]*|\#[^\n]*|/\*.*?(?:\*/|\Z))    # an open one ends with the statement, as in SQLite
    | (?P<digits>(?<![\w.])\d+[A-Za-z_]\w*)
    | (?P<other>[A-Za-z_]\w*|\d+(?:\.\d+)?|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"[\\'](.)", re.DOTALL)
"""A letter behind a backslash, or the second of two quotes: within a string no quote stands alone."""
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "Z": "\x1a", "0": "\0"}
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|\d+[eE]\d+")
_NAME = r"[`\"']?(?P<name>[^`\"';\s](?:[^`\"';]*[^`\"';\s])?)[`\"']?"
_SHOW_TABLES = re.compile(r"\s*SHOW\s+(?:FULL\s+)?TABLES\s*+(?:;\s*+)?", re.IGNORECASE)
_DESCRIBE = re.compile(
    rf"\s*(?:DESC(?:RIBE)?|SHOW\s+(?:FULL\s+)?COLUMNS\s+(?:FROM|IN)|SHOW\s+CREATE\s+TABLE)\s++{_NAME}\s*+(?:;\s*+)?",
    re.IGNORECASE,
)


def for_sqlite(statement: str) -> str:
    """The statement in SQLite's dialect."""
    if _SHOW_TABLES.fullmatch(statement):
        return "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    if (asked := _DESCRIBE.fullmatch(statement)) is not None:
        name = asked["name"].replace("'", "''")
        return f"SELECT sql FROM sqlite_master WHERE type = 'table' AND name = '{name}' COLLATE NOCASE"
    return "".join(_rewritten(token) for token in _TOKEN.finditer(statement))


def _rewritten(token: re.Match[str]) -> str:
    text = token.group()
    match token.lastgroup:
        case "string":
            inside = _ESCAPE.sub(lambda escape: _ESCAPED.get(escape[1], escape[1]), text[1:-1]).replace("'", "''")
            return f"'{inside}'"
        case "digits" if not _NUMBER.fullmatch(text):
            return f"`{text}`"
        case "comment":
            return " "
    return text
