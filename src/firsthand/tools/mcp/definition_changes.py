"""Shows a person what changed in a tool's definition: each stretch that differs, whole, in as many questions as it takes.

A text that is cut would be approved unread, and its middle is where a server would put what matters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from firsthand.loop.approval import MAX_LINES, MAX_SHOWN, Ask, Decision, decision_of, explained, screen_rows
from firsthand.message import canonical
from firsthand.model import ToolSpec
from firsthand.tool import Tool
from firsthand.tools.mcp.definitions import ToolDefinition, tool_name
from firsthand.tools.mcp.server_declaration import ServerDeclaration

MOST = MAX_SHOWN - 100
"""The most characters of a question's part, which shares them with the reason for asking."""
MAX_QUESTIONS = 8
"""The most questions about one change; a longer one is refused."""
_AROUND = 40
"""Characters of what stayed that are shown beside what changed."""
_NOTHING = object()


async def decided(
    ask: Ask, server: ServerDeclaration, definition: ToolDefinition, change: Mapping[str, Mapping[str, Any]]
) -> Decision | None:
    """The decision on a definition that changed; None if the change is too long to be asked about."""
    pages = questions(change)
    if len(pages) > MAX_QUESTIONS:
        return None
    for number, page in enumerate(pages, 1):
        part = f", part {number} of {len(pages)}" if len(pages) > 1 else ""
        spec = ToolSpec(
            f"{tool_name(server.name, definition.name)}@{definition.digest}",
            f"{server.origin} changed the tool {definition.name[:100]} after it was approved{part}.",
            {"type": "object", "properties": {}},
        )
        with explained("a yes approves this definition, for later calls too"):  # so no earlier `always` answers
            tool = Tool(spec, "irreversible", _nothing, dict, over=server.target)
            decision = await decision_of(ask, tool, {"change": page})
        if not decision.allowed:
            break
    return decision


def questions(change: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The texts to ask about, none longer than a question shows: each part that differs, as it was and as it is."""
    pages: list[str] = []
    for part, values in change.items():
        for line in _lines(part, values["was"], values["is"]):
            for at in range(0, len(line), MOST):
                piece = line[at : at + MOST]
                fits = bool(pages) and len(pages[-1]) + 1 + len(piece) <= MOST
                if fits and screen_rows(longer := f"{pages[-1]}\n{piece}") <= MAX_LINES - 2:  # two are the reason's
                    pages[-1] = longer
                else:
                    pages.append(piece)
    return pages


def _lines(place: str, was: Any, now: Any) -> Iterator[str]:
    """Two lines for each value that differs, by its place; a value is JSON, so no text can pass for a line of ours."""
    old, new = ("nothing" if each is _NOTHING else canonical(each) for each in (was, now))
    if old == new:
        return
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted({*was, *now}):
            inner = f"{place}.{key if key.isidentifier() else canonical(key)}"
            yield from _lines(inner, was.get(key, _NOTHING), now.get(key, _NOTHING))
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for at, (before, after) in enumerate(zip(was, now, strict=True)):
            yield from _lines(f"{place}[{at}]", before, after)
    else:
        most = min(len(old), len(new))
        begin = next((at for at in range(most) if old[at] != new[at]), most)
        end = next((at for at in range(most - begin) if old[-1 - at] != new[-1 - at]), most - begin)
        yield f"{place} was: {_around(old, begin, end)}"
        yield f"{place} is: {_around(new, begin, end)}"


def _around(text: str, begin: int, end: int) -> str:
    """The text without what it has in common with the other at its begin and its end, but for a few characters."""
    before, after = max(0, begin - _AROUND), max(0, end - _AROUND)
    shown = text[before : len(text) - after]
    if before:
        shown = f"[{before:,} characters as before] {shown}"
    return f"{shown} [{after:,} characters as before]" if after else shown


def _nothing() -> None:
    return None
