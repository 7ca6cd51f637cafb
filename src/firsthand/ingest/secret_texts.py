"""Finds the values of secret names in texts that are no JSON as a whole: logs, settings, code, headers, flags, XML.

A name of `secret_names.py`, whatever word stands before it; then what parts it from its value; then the whole value, up to
the quote that closes it or to the end of the word. Patterns run on the text in lower case, in time linear in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from firsthand.ingest.stepped_matches import stepped_matches
from firsthand.system.secret_names import ENDS, PARTED_NAMES, is_secret_name, last_words

PUT = "[redacted]"


def _pattern_of(names: Iterable[str]) -> str:
    """A pattern of the names in all their spellings, without those that end in another: any word may stand before one."""
    given = tuple(names)
    shortest = [name for name in given if not any(name != other and name.endswith(other) for other in given)]
    return "|".join(name.replace("_", "(?:[ _-]|%5f|%2d)?") for name in sorted(shortest, key=len, reverse=True))


_QUOTE = r"(?:\\{0,8}[\"'`]|&quot;|&apos;|&#0?3[49];|%22|%27)"
_AFTER_NAME = rf"s?+(?:[_-](?:{'|'.join(ENDS)}))?+[0-9]{{0,4}}+{_QUOTE}?+(?:[\])]|%5d)?+\s{{0,4}}+"
_TYPE = r"\s{0,4}(?:(?:optional|final)\[[a-z_.]{1,30}\]|secretstr|string|str|bytes)(?:\s\|\snone)?\s{0,4}=(?!=)"
"""In code, between the name and its value; other words after a colon are the value, such as one in Base64 that ends in =."""
_SIGN = rf"(?>%(?:25)?3[ad]|\\u003[ad]|:=|=>|={{1,3}}|[\uff1a\uff1d]|:(?!:)(?:{_TYPE})?)\s{{0,4}}+"
_NEXT = r"(?:\s|\Z|[\"'`)\]}]|(?:quot|apos|amp|lt|gt|#[0-9]{2,3});|[a-z_][a-z0-9_.-]{0,40}[\"']?\s{0,4}[=:])"
"""After a comma, a semicolon or an ampersand: the value is over."""
_CHAR = rf"(?:[^\s,;&\"'`<\\]|[,;&](?!{_NEXT})|<(?!/)|\\(?!\\{{0,8}}[\"'`])|[\"'`](?![\s,;:)\]}}<]|\Z))"
_OPENED = (
    r"(?:\[[^\[\]\n]{0,4000}\]|\{[^{}\n]{0,4000}\}|\([^()\n]{0,4000}\)|[\[{(]{1,4}\s{0,4}[bruf]{0,2}[\"'][^\n]{0,4000})"
)
_QUOTED = (
    r"(?:[bruf]{1,2}(?=[\"']))?(?P<open>\\{0,8}(?:\"\"\"|'''|[\"'`])|&quot;|&apos;|&#0?3[49];|%22|%27)"
    r"(?!\[redacted)(?P<quoted>(?:(?!(?<!\\)(?P=open))[^\n])++)"
)
_PLAIN = (
    rf"(?!{_QUOTE})(?:(?P<line>(?:digest|aws4-hmac-sha256|hawk|oauth|signature)\s[^\r\n]+)"
    rf"|(?:(?:bearer|basic|token|apikey|negotiate)\s{{1,4}})?(?!\[redacted|</)(?P<plain>{_OPENED}{_CHAR}*+|{_CHAR}{{6,}}+))"
)
_NAMED = re.compile(
    rf"(?P<name>{_pattern_of(name for name in PARTED_NAMES if not name.endswith('cookie'))})"
    rf"{_AFTER_NAME}{_SIGN}(?:{_QUOTED}|{_PLAIN})"
)
_COOKIE = re.compile(rf"cookie{_AFTER_NAME}{_SIGN}(?:{_QUOTED}|(?P<plain>[^\s=;,\"']{{1,200}}=[^\r\n\"']+))")
_FLAG = re.compile(rf"(?<![a-z0-9_-])--?(?P<name>[a-z][a-z0-9_-]{{1,60}})\s{{1,4}}(?!-)(?:{_QUOTED}|{_PLAIN})")
_TAG = re.compile(
    r"<(?P<name>[a-z_][a-z0-9_:.-]{0,80})(?:\s[^<>\n]{0,200})?>(?:<!\[cdata\[)?(?!\[redacted)(?P<plain>[^<]{1,4000})(?=<)"
    r"|<(?P<closed>[a-z_][a-z0-9_:.-]{0,80})(?:\s[^<>\n]{0,200})?><!\[cdata\[(?!\[redacted)(?P<quoted>[^\]]{1,4000})"
)
_PAIR = re.compile(
    r"[\"'](?P<name>[a-z][a-z0-9_ .-]{2,60})\\{0,8}[\"']"
    r"(?=(?:\s{0,4},\s{0,4}(?:\\{0,8}[\"']?values?\\{0,8}[\"']?\s{0,4}[:=]\s{0,4}[\[(]?)?|\s{1,4}value\s{0,4}=\s{0,4})"
    + _QUOTED
    + ")"
)
_RANDOM = r"[a-z0-9_.~+/=-]"
_TOKEN_NAME = r"token(?<![a-z0-9_]token)(?<![a-z0-9_]-token)"
"""The word alone, or behind `--` or `?`; `x-token` and `my_token` are other names."""
_TOKEN = re.compile(
    rf"{_TOKEN_NAME}{_QUOTE}?+(?:[\])]|%5d)?+(?:\s{{0,4}}+{_SIGN}|\s(?<=-token\s))"
    rf"{_QUOTE}?+(?P<plain>{_RANDOM}{{16,4000}}+)"
)
_SIGNATURE = re.compile(
    r"sig(?:(?<=[?&;]sig)|(?<=%26sig)|(?<=%3fsig)|(?<=u0026sig))(?:=|%3d)(?P<plain>[a-z0-9_+/=%-]{16,400}+)"
)
"""The signature of an address that Azure gave, `?sv=...&sig=...`."""
_HINTS = (rf"{_TOKEN_NAME}[^a-z0-9_]{{1,40}}{_RANDOM}{{12}}", r"sig(?<=[?&;6f]sig)(?:=|%3d)")
_hints = [re.compile(each).search for each in _HINTS]
_hints_in_bytes = [re.compile(each.encode()).search for each in _HINTS]
_IS_RANDOM = re.compile(r"(?i)(?=[^0-9]{0,4000}[0-9])(?=[^a-z]{0,4000}[a-z])[a-z0-9_.~+/=-]{16,4000}")
_PLAIN_WORD = re.compile(r"[A-Za-z_.-]*")
_is_secret = lru_cache(4096)(is_secret_name)
_LOWER = {code: code + 32 for code in range(65, 91)} | {0x212A: ord("k")}
_A_FOLDER = re.compile(r"[/~.$]|[a-z]:[\\/]")


def without_named_values(text: str) -> tuple[str, int]:
    """The text with the values of secret names replaced, and how many they were."""
    number = 0
    for expression, is_secret in _RULES:
        text, times = _replaced(text, expression, is_secret)
        number += times
    return text, number


def may_hold_token(text: str) -> bool:
    """False only for a text in lower case without a value of the name `token` alone, and without a signature."""
    return any(search(text) for search in _hints)


def may_hold_token_in_bytes(raw: bytes) -> bool:
    """The same of a text in UTF-8, or of JSON."""
    return any(search(raw) for search in _hints_in_bytes)


def is_token(name: str, value: object) -> bool:
    """True for a value of the name `token` alone that is a secret: 16 characters or more, with letters and digits and
    without spaces. What a model writes are tokens too, and those are words."""
    return (
        isinstance(value, str)
        and len(name) <= 200
        and name.rstrip("])")[-5:].lower() == "token"
        and last_words(name) == "token"
        and _IS_RANDOM.fullmatch(value) is not None
    )


def is_plain_word(text: str) -> bool:
    """True for what is rather the name of a field, as in a list of names, than a secret."""
    return _PLAIN_WORD.fullmatch(text) is not None or is_secret_name(text)


def _replaced(text: str, expression: re.Pattern[str], is_secret: Callable[[re.Match[str]], bool]) -> tuple[str, int]:
    lower = text.lower()
    if len(lower) != len(text):  # some letters become two
        lower = text.translate(_LOWER)
    pieces, end = [], 0
    for match in stepped_matches(expression, lower):
        if is_secret(match):
            begin, after = match.span(match.lastgroup or 0)
            pieces += [text[end:begin], PUT]
            end = after
    return ("".join([*pieces, text[end:]]), len(pieces) // 2) if pieces else (text, 0)


def _is_named(match: re.Match[str]) -> bool:
    """False for the shell's variables of its folder."""
    if match["name"] != "pwd" or match["plain"] is None or _A_FOLDER.match(match["plain"]) is None:
        return True
    before = match.string[max(0, match.start() - 3) : match.start()]
    return before != "old" and (before[-1:].isalnum() or before[-1:] in tuple("_-"))


def _has_secret_name(match: re.Match[str]) -> bool:
    return _is_secret(match["name"] or match["closed"])


def _is_flag(match: re.Match[str]) -> bool:
    return _is_secret(match["name"])


def _is_pair(match: re.Match[str]) -> bool:
    is_labelled = "value" in match.string[match.end("name") : match.start("open")]
    return _is_secret(match["name"]) and (is_labelled or not is_plain_word(match["quoted"]))


_RULES = (
    (_NAMED, _is_named),
    (_COOKIE, lambda match: True),
    (_FLAG, _is_flag),
    (_TAG, _has_secret_name),
    (_PAIR, _is_pair),
    (_TOKEN, lambda match: _IS_RANDOM.fullmatch(match["plain"]) is not None),
    (_SIGNATURE, lambda match: True),
)
