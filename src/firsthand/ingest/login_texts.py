"""Finds passwords that stand beside a user's name instead of behind a name of their own: `curl -u ada:...`,
`auth=("ada", "...")`, the `auth` of Docker and npm, `.netrc`, and fields of a form as multipart.

Patterns take time linear in the text.
"""

from __future__ import annotations

import base64
import binascii
import re

from firsthand.ingest.secret_rules import Rule, without_matches
from firsthand.system.secret_names import is_secret_name

USER_FLAGS = ("-u", "--user", "-U", "--proxy-user")
"""Flags of curl that take a user's name and password."""
_LOGIN = (
    r"\b(?:(?:docker|podman|nerdctl|buildah|skopeo|helm|oras|crane|az|oc|cf)\b[^\n;|]{0,200}?[\s\"',]login|sshpass)\b"
)
_RUN = r"\b(?:docker|podman|nerdctl)\s{1,8}(?:run|create|compose|service|stack)\b"
"""Commands whose `-p` is a port or a project, also in prose after a login."""
_MYSQL = r"\b(?:mysql|mysqldump|mysqladmin|mysqlimport|mysqlshow|mariadb|mariadb-dump|mariadb-admin|sshpass)\b"
_WORDS = ("login", "mysql", "mariadb", "sshpass")
_HINT = r"u(?:(?<=cu)rl|(?<=au)th\\{0,8}[\"']?\s{0,4}(?:[:=]|\(\s{0,4}[bruf]?\\{0,8}[\"']))"
"""Matches wherever a login may stand that has no secret name before it; a cheap test before the rules."""
_END = r"(?:\r?\n|\\{1,8}r\\{1,8}n|\\{1,8}n)"
_BASIC = re.compile(
    r"(?i)(?<![a-z0-9])_?auth\\{0,8}[\"']?\s{0,4}[:=]\s{0,4}\\{0,8}[\"']?(?P<secret>[a-z0-9+/_-]{8,4000}={0,2})"
)
_QUOTED = r"(?P<open>\\{0,8}[\"'])(?!\[redacted)(?P<secret>(?:(?!(?P=open))[^\n]){1,1000})"
_PAIR = re.compile(
    r"(?i)auth\s{0,4}=?\s{0,4}\(\s{0,4}[bruf]?(?P<first>\\{0,8}[\"'])[^\"'\\\n]{1,200}(?P=first)\s{0,4},\s{0,4}[bruf]?"
    + _QUOTED
)
_USER = re.compile(
    r"(?<![A-Za-z0-9_-])(?:-[uU]|--user|--proxy-user)\\{0,8}[\"']?[\s=,]{1,8}(?P<open>\\{0,8}[\"'])?"
    r"[^\s:\"'\\-][^\s:\"'\\]{0,200}:(?!\[redacted)"
    r"(?P<secret>(?(open)(?:(?!(?P=open))[^\n]){1,1000}|(?:[^\s\"'\\]|\\(?![nrt\"'\\\s])){1,1000}))"
)
_WORD = (
    r"(?P<open>\\{0,8}[\"'])?(?!\[redacted)"
    r"(?P<secret>(?(open)(?:(?!(?P=open))[^\n]){1,1000}|[^\s\"'\\;|&-][^\s\"'\\]{0,1000}))"
)
_PASSWORD = re.compile(rf"(?<![A-Za-z0-9_-])-p\\{{0,8}}[\"']?[\s=,]{{1,8}}{_WORD}")
_JOINED = re.compile(rf"(?<![A-Za-z0-9_-])-p{_WORD}")
_NETRC = re.compile(
    r"(?m)(?:^|(?<=[\"'`])|(?<=\\n))\s{0,8}machine\s{1,8}\S{1,200}\s{1,8}login\s{1,8}\S{1,200}\s{1,8}password\s{1,8}"
    r"(?!\[redacted)(?P<secret>\S{1,1000})"
)
_FIELD = re.compile(
    r"(?i)form-data;\s{0,4}name=\\{0,8}[\"'](?P<name>[^\"'\\\r\n]{1,100})\\{0,8}[\"']"
    rf"(?:{_END}content-[^\r\n\\]{{1,100}}){{0,2}}{_END}{{2}}"
    rf"(?!\[redacted)(?P<secret>(?:(?!{_END}--|form-data;)[\s\S]){{1,4000}})"
)
_STANDARD = str.maketrans("-_", "+/")
_WITHIN = 400
"""Characters between `curl` and its flag."""
_takes_password, _takes_joined = re.compile(_LOGIN).search, re.compile(_MYSQL).search
_runs = re.compile(_RUN).search
_FLAG = r"-p(?:(?<=[\s\"'`]-p)|(?<=\\[nt]-p))"
_flag, _flag_in_bytes = re.compile(_FLAG).search, re.compile(_FLAG.encode()).search
_WORDS_IN_BYTES = tuple(word.encode() for word in _WORDS)
_hint, _hint_in_bytes = re.compile(_HINT).search, re.compile(_HINT.encode()).search


def may_hold_login(text: str) -> bool:
    """False only for a text in lower case in which no rule of this file finds a login without a secret name."""
    return _hint(text) is not None or (any(word in text for word in _WORDS) and _flag(text) is not None)


def may_hold_login_in_bytes(raw: bytes) -> bool:
    """The same of a text in UTF-8, or of JSON."""
    if _hint_in_bytes(raw) is not None:
        return True
    return any(word in raw for word in _WORDS_IN_BYTES) and _flag_in_bytes(raw) is not None


def without_logins(text: str) -> tuple[str, int]:
    """The text with the passwords of logins replaced, and how many they were."""
    return without_matches(text, _RULES)


def is_basic(value: str) -> bool:
    """True for a name and a password in Base64, as in the header of the scheme Basic."""
    whole = value.rstrip("=").translate(_STANDARD)
    try:
        name, _, password = base64.b64decode(whole + "=" * (-len(whole) % 4), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return False
    return bool(name and password) and (name + password).isprintable()


def takes_password(command: str) -> bool:
    """True for the beginning of a command whose flag `-p` is a password, such as `docker login`."""
    return (found := _takes_password(command)) is not None and _runs(command[found.end() :]) is None


def _command_before(match: re.Match[str]) -> str:
    before = match.string[max(0, match.start() - _WITHIN) : match.start()].replace("\\\n", " ")
    return re.split(r"[\n;|]|&&|\\n", before)[-1]


def _is_of_login(match: re.Match[str]) -> bool:
    return takes_password(_command_before(match))


def _is_of_mysql(match: re.Match[str]) -> bool:
    """True behind a client of MySQL, whose password is joined to its flag."""
    return _takes_joined(_command_before(match)) is not None


def _is_of_curl(match: re.Match[str]) -> bool:
    """True behind curl in one command; `docker run -u 1000:1000` names no password."""
    before = match.string[max(0, match.start() - _WITHIN) : match.start()].replace("\\\n", " ")
    return "curl" in before.rpartition("\n")[2]


_RULES: tuple[Rule, ...] = (
    (_BASIC, lambda match: is_basic(match["secret"])),
    (_PAIR, lambda match: True),
    (_USER, _is_of_curl),
    (_PASSWORD, _is_of_login),
    (_JOINED, _is_of_mysql),
    (_NETRC, lambda match: True),
    (_FIELD, lambda match: is_secret_name(match["name"])),
)
