"""Finds secrets that a statement or a command states by its own grammar, with no sign behind a name: accounts in SQL,
variables of shells, addresses of databases, and keys of property lists.

Patterns take time linear in the text.
"""

from __future__ import annotations

import re

from firsthand.ingest.secret_rules import Rule, without_matches
from firsthand.system.secret_names import is_secret_name

_HINT = r"@(?=tcp\(|unix\()|jdbc:oracle:|identified(?=[\s\\])"
"""Matches wherever a secret may stand that has no secret name before it, in lower case."""
_QUOTED = r"(?P<open>\\{0,8}[\"'])(?!\[redacted)(?P<secret>(?:(?P=open){2}|(?!(?<!\\)(?P=open))[^\n]){1,1000})"
_DSN = re.compile(
    r"(?<![^\s\"'\\=])[^\s:\"'\\=]{1,100}+:(?!\[redacted)(?P<secret>[^\s\"'\\]{1,200})(?=@(?:tcp|unix)\()"
)
"""An address as Go's driver of MySQL reads it: `ada:...@tcp(host:3306)/shop`."""
_ORACLE = re.compile(
    r"(?i)jdbc:oracle:(?:thin|oci8?):[^\s/@\"'\\]{1,100}/(?!\[redacted)(?P<secret>[^\s@\"'\\]{1,200})(?=@)"
)
_BETWEEN = r"(?:\s|\\[nrt]){1,8}"
_IDENTIFIED = re.compile(
    rf"(?i)identified{_BETWEEN}(?:(?:with|via){_BETWEEN}[\w\"'`\\]{{1,80}}{_BETWEEN})?(?:by|as|using){_BETWEEN}"
    rf"(?:(?:password|values){_BETWEEN}|password\s{{0,4}}\(\s{{0,4}})?"
    rf"(?:{_QUOTED}|(?!values\b)(?P<plain>[^\s;,\"'`\\()]{{1,200}})"
    r"(?=\s{0,4}(?:[;\n\"']|\\|\Z|(?:default|temporary|account|quota|profile|password|container|using|replace|with|require)\b)))"
)
_PASSWORD = re.compile(
    rf"(?i)(?<![a-z0-9_])(?:password|replace){_BETWEEN}(?:e?{_QUOTED}|\$\$(?P<plain>[^$\n]{{1,1000}})(?=\$\$))"
)
_SET_PASSWORD = re.compile(
    rf"(?i)(?<![a-z0-9_])set{_BETWEEN}password(?:{_BETWEEN}for{_BETWEEN}[^\n=;]{{1,200}})?\s{{0,4}}=\s{{0,4}}"
    rf"(?:password\(\s{{0,4}})?{_QUOTED}"
)
_ACCOUNT = re.compile(
    r"(?i)(?<![a-z0-9_])(?:(?:create|alter|replace)(?:\s|\\[nrt]){1,8}(?:(?:public|shared)\s{1,8}){0,2}"
    r"(?:user|role|group|login|database\s{1,4}link)|grant(?:\s|\\[nrt])[^;]{1,200}?\s(?:on|to))"
    r"(?=\s|\\)"
)
_VARIABLE = re.compile(
    r"(?i)(?<![a-z0-9_-])(?:setx(?:[ \t]{1,4}/m)?|setenv|set(?:[ \t]{1,4}(?:-[a-z]{1,4}|--[a-z]{3,12})){1,3})[ \t]{1,4}"
    rf"(?P<name>[a-z_][a-z0-9_]{{1,60}})[ \t]{{1,4}}(?:{_QUOTED}|(?P<plain>(?![-\[])[^\s;\"'\\]{{6,1000}}))"
)
_PROPERTY = re.compile(
    r"(?i)<(?P<tag>key|name)>\s{0,8}(?P<name>[a-z_][a-z0-9_ .:-]{0,80})</(?P=tag)>\s{0,40}<(?:string|data|integer|value)>"
    r"(?!\[redacted)(?P<secret>[^<]{1,4000})(?=<)"
)
_WITHIN = 400
"""Characters between the beginning of a statement and the password in it."""
_hint, _hint_in_bytes = re.compile(_HINT).search, re.compile(_HINT.encode()).search


def may_hold_statement(text: str) -> bool:
    """False only for a text in lower case in which no rule of this file finds a secret without a secret name."""
    return _hint(text) is not None


def may_hold_statement_in_bytes(raw: bytes) -> bool:
    """The same of a text in UTF-8, or of JSON."""
    return _hint_in_bytes(raw) is not None


def without_stated_secrets(text: str) -> tuple[str, int]:
    """The text with the secrets of statements replaced, and how many they were."""
    return without_matches(text, _RULES)


def _is_of_account(match: re.Match[str]) -> bool:
    """True behind a statement that makes an account: prose says `identified by "id"` of other things."""
    return _ACCOUNT.search(match.string, max(0, match.start() - _WITHIN), match.start()) is not None


def _is_named(match: re.Match[str]) -> bool:
    return is_secret_name(match["name"])


_RULES: tuple[Rule, ...] = (
    (_DSN, lambda match: True),
    (_ORACLE, lambda match: True),
    (_IDENTIFIED, _is_of_account),
    (_PASSWORD, _is_of_account),
    (_SET_PASSWORD, lambda match: True),
    (_VARIABLE, _is_named),
    (_PROPERTY, _is_named),
)
