"""Translates GBNF, the grammars of llama.cpp (`grammars/README.md` there), to llguidance's Lark.

llguidance's own translation makes each rule that refers to no other a token of a greedy lexer, so that `a "x"` with
`a ::= [a-z]+` fits no text. Here every character is a token, and a text fits in any way that the rules allow, as it does
in llama.cpp.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from firsthand.errors import ConfigError

MAX_DEPTH = 200
"""Brackets within each other."""
_TOKEN = re.compile(
    r"""(?P<blank>(?:[ \t]|\#[^\r\n]*)+)|(?P<line>\r\n?|\n)|(?P<rule>[A-Za-z0-9_-]+(?=[ \t]*::=))|(?P<is>::=)
    |(?P<text>"(?:[^"\\]|\\.)*")|(?P<class>\[(?:[^\]\\]|\\.)*\])|(?P<name>[A-Za-z0-9_-]+)
    |(?P<times>[*+?]|\{[ \t]*\d+[ \t]*(?:,[ \t]*\d*[ \t]*)?\})|(?P<sign>[.|()])""",
    re.VERBOSE | re.DOTALL,
)
_CHARACTER = re.compile(
    r"""\\x(?P<x>[0-9A-Fa-f]{2})|\\u(?P<u>[0-9A-Fa-f]{4})|\\U(?P<U>[0-9A-Fa-f]{8})|\\(?P<escape>[tnr"\\\[\]])
    |(?P<plain>[^\\])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r"}


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def lark_of_gbnf(text: str) -> str:
    """The same grammar in Lark. ConfigError for what is no GBNF, or for a rule that is missing, twice there, or `root`."""
    tokens = _tokens(text)
    named = [token for token in tokens if token.kind == "rule"]
    names: dict[str, str] = {}
    for token in named:
        if token.text in names:
            raise _error(token.line, f"the rule {token.text!r:.80} is there twice")
        names[token.text] = "start" if token.text == "root" else f"r{len(names)}"
    if "root" not in names:
        raise ConfigError("the gbnf grammar cannot be used: it has no rule `root`")
    return _translated(tokens, names)


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise _error(line, f"{text[at : at + 20]!r} is not understood")
        found.append(_Token(match.lastgroup, match[0], line))
        line += match[0].count("\n") or match[0] == "\r"
        at = match.end()
    return [token for token in found if token.kind != "blank"]


def _translated(tokens: list[_Token], names: dict[str, str]) -> str:
    """The rules, each on a line. `is_open` is where a sequence may still be empty, and a line break ends nothing."""
    made = ["%llguidance {}\n"]
    depth, is_open, in_rule, may_repeat = 0, False, False, False

    def expect(holds: bool, token: _Token) -> None:
        if not holds:
            raise _error(token.line, f"{token.text.strip()[:20]!r} is not expected there")

    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        repeats, may_repeat = may_repeat, False
        match token.kind:
            case "line":
                if in_rule and not depth and not is_open:
                    in_rule = False
                may_repeat = repeats and bool(depth)
            case "rule":
                expect(not in_rule and following is not None and following.kind == "is", token)
                made.append(f"\n{names[token.text]}: ")
                in_rule = True
            case "is":
                expect(in_rule and not is_open and made[-1].endswith(": "), token)
                is_open = True
            case "times":
                expect(repeats, token)
                made[-1] = made[-1].rstrip() + _times(token) + " "
            case "sign" if token.text == "|":
                expect(in_rule, token)
                made.append('"" | ' if is_open else "| ")
                is_open = True
            case "sign" if token.text == ")":
                expect(depth > 0, token)
                made.append('"" ) ' if is_open else ") ")
                depth, is_open, may_repeat = depth - 1, False, True
            case "sign" if token.text == "(":
                expect(in_rule, token)
                made.append("( ")
                depth, is_open = depth + 1, True
                if depth > MAX_DEPTH:
                    raise _error(token.line, f"more than {MAX_DEPTH} brackets are within each other")
            case _:
                expect(in_rule, token)
                made.append(_item(token, names) + " ")
                is_open, may_repeat = False, True
        if following is None or (token.kind == "line" and following.kind == "rule" and not depth):
            if is_open and in_rule:
                made.append('""')
            in_rule = is_open = False
    if depth:
        raise ConfigError("the gbnf grammar cannot be used: a bracket is not closed")
    return "".join(made) + "\n"


def _item(token: _Token, names: dict[str, str]) -> str:
    if token.kind == "text":
        found = [rf"/\x{{{ord(each):X}}}/" for each in _characters(token.text[1:-1], token.line)]
        return f"( {' '.join(found)} )" if len(found) > 1 else "".join(found) or '""'
    if token.kind == "class":
        return _class(token)
    if token.kind == "sign":
        return r"/[\x{0}-\x{10FFFF}]/"
    if token.text not in names:
        raise _error(token.line, f"there is no rule {token.text!r:.80}")
    return names[token.text]


def _class(token: _Token) -> str:
    body = token.text[1:-1]
    negated = body.startswith("^")
    characters = _characters(body[negated:], token.line)
    if not characters:
        raise _error(token.line, f"{token.text} allows no character")
    is_dash = [match[0] == "-" for match in _CHARACTER.finditer(body[negated:])]
    parts, at = [], 0
    while at < len(characters):
        first = last = characters[at]
        if at + 2 < len(characters) and is_dash[at + 1]:
            last = characters[at + 2]
            at += 2
        if last < first:
            raise _error(token.line, f"the range {first}-{last} in {token.text[:40]} goes down")
        parts.append(rf"\x{{{ord(first):X}}}" + (rf"-\x{{{ord(last):X}}}" if last > first else ""))
        at += 1
    return f"/[{'^' * negated}{''.join(parts)}]/"


def _characters(body: str, line: int) -> list[str]:
    found, at = [], 0
    while at < len(body):
        match = _CHARACTER.match(body, at)
        if match is None:
            raise _error(line, f"{body[at : at + 10]!r} is no escape")
        number = match["x"] or match["u"] or match["U"]
        if number is not None:
            code = int(number, 16)
            if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                raise _error(line, f"{match[0]} is no character")
            found.append(chr(code))
        else:
            found.append(match["plain"] or _ESCAPES.get(match["escape"], match["escape"]))
        at = match.end()
    return found


def _times(token: _Token) -> str:
    if token.text[0] != "{":
        return token.text
    low, comma, high = token.text[1:-1].replace(" ", "").replace("\t", "").partition(",")
    high = high if comma else low
    if len(low) > 9 or len(high) > 9 or (high and int(high) < int(low)):
        raise _error(token.line, f"{token.text[:20]} is no number of times")
    return f"{{{int(low)},{int(high) if high else ''}}}"


def _error(line: int, what: str) -> ConfigError:
    return ConfigError(f"the gbnf grammar cannot be used: line {line}: {what}")
