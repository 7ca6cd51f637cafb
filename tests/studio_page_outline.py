"""A page of the Studio in one line: its texts, the addresses of its links, and the fields of its forms with their values."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

_TAG = re.compile(r"<(/?)(\w+)((?:\s+[\w:-]+(?:=\"[^\"]*\")?)*)\s*/?>")
_ATTRIBUTE = re.compile(r"([\w:-]+)(?:=\"([^\"]*)\")?")


def outline(answer: Any, names: Mapping[str, str] | None = None) -> str:
    """The main part of a page, or a part of a page as it is.

    A link is `text(address)`, a form `[METHOD address`, a field `{name=value}` with `*` if it is chosen. Texts in `names`,
    such as ids of runs, are shown by their names.
    """
    text = answer if isinstance(answer, str) else answer.text
    found = re.search(r"<main[^>]*>(.*)</main>", text, re.DOTALL)
    text = found[1] if found else text
    text = re.sub(r"<svg.*?</svg>", " (picture) ", text, flags=re.DOTALL)
    links: list[str] = []

    def shown(tag: re.Match[str]) -> str:
        ends, kind = bool(tag[1]), tag[2]
        has = {name: value for name, value in _ATTRIBUTE.findall(tag[3])}
        if kind == "a":
            if not ends:
                links.append(has.get("href", ""))
                return " " + "*" * ("aria-current" in has)
            return f"({links.pop()}) "
        if kind == "form":
            return "] " if ends else f" [{has.get('method', '')} {has.get('action', '')} "
        if ends:
            return "} " if kind == "textarea" else "" if kind in ("span", "b", "small", "bdi", "code", "kbd") else " "
        if kind in ("input", "button") and "name" in has:
            chosen = "*" * ("checked" in has or "aria-pressed" in has)
            return f" {{{chosen}{has['name']}={has.get('value', '')}}} "
        if kind == "textarea":
            return f" {{{has.get('name', '')}="
        if kind == "select":
            return f" {has.get('name', '')}: "
        if kind == "option":
            return " *" if "selected" in has else " "
        return "" if kind in ("span", "b", "small", "bdi", "code", "kbd") else " "

    words = " ".join(html.unescape(_TAG.sub(shown, text)).split())
    for said, name in (names or {}).items():
        words = words.replace(said, name)
    return words


def asked(client: Any, key: str, names: Mapping[str, str]) -> tuple[str, int]:
    """The outline and status of a page; a path that begins with `+` is asked for as a part, and holds names for ids."""
    path = key.removeprefix("+")
    for said, name in names.items():
        path = path.replace(name, said)
    answer = client.get(path, headers={"hx-request": "true"} if key.startswith("+") else {})
    return outline(answer, names).partition(" Use it copy as")[0], answer.status_code


def sent(client: Any, path: str, names: Mapping[str, str], **fields: str) -> tuple[int, str]:
    """The status of a form that is sent, and the address that it leads to, or the outline of its page."""
    for said, name in names.items():
        path = path.replace(name, said)
        fields = {key: value.replace(name, said) for key, value in fields.items()}
    answer = client.post(path, data=fields, headers={"sec-fetch-site": "same-origin"}, follow_redirects=False)
    place = answer.headers.get("location")
    return answer.status_code, outline(answer, names) if place is None else outline(place, names)
