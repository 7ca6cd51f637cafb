"""Approval of tool calls: which run, which a person is asked about, and which never run.

An Approval is a rule for each tool or effect: `allow`, `ask` or `deny`. The person at the terminal is asked, or any function
of your own. Without either, such a call is denied, and the model reads why.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, get_args

from firsthand.errors import ConfigError, nearest
from firsthand.loop.form import FormField
from firsthand.message import Json, canonical
from firsthand.model import request_key
from firsthand.system.terminal import Terminal, printable
from firsthand.tool import Effect, Tool

Permission = Literal["allow", "ask", "deny"]

MAX_SHOWN = 4_000
"""The most characters that are shown, shared by the arguments: half from the beginning of one, half from its end."""
MAX_LINES = 60
"""The most lines of them, so that the beginning of a question stays on the screen."""
MAX_LINE = 1_000
"""The most characters of a form's field, or of what is wrong with an answer."""
MIN_SHOWN, MIN_LINES = 400, 6
"""Characters and lines that each argument may have at least."""


@dataclass(frozen=True)
class Decision:
    """The decision on one call, who made it, and why: the model reads the reason of a refusal."""

    allowed: bool
    by: str
    """`rule`, `terminal`, or the name your own function gives itself."""
    reason: str = ""


Ask = Callable[[Tool, Json], Awaitable[Decision]]

_about: ContextVar[str] = ContextVar("firsthand_about", default="")


@contextmanager
def explained(about: str) -> Iterator[None]:
    """Marks the block as asking for a reason of its own: `question` shows it, and no earlier `always` answers it."""
    mark = _about.set(about)
    try:
        yield
    finally:
        _about.reset(mark)


class AskPerson:
    """Asks the person at the terminal, one question at a time, and remembers tools that are always allowed."""

    def __init__(self, terminal: Terminal | None = None):
        self.terminal = terminal or Terminal()
        self.always: set[str] = set()

    async def __call__(self, tool: Tool, arguments: Json) -> Decision:
        """The person's decision; without a terminal it is no, with the reason."""
        async with self.terminal.turn():
            explained_here = bool(_about.get())
            if tool.name in self.always and not explained_here:
                return Decision(True, "terminal", "always")
            if not self.terminal.is_there():
                reason = f"{tool.name} needs approval ({tool.effect}), and there is no terminal to ask at"
                return Decision(False, "nobody", reason)
            answers = ("yes", "no") if explained_here else ("yes", "no", "always")
            answer = await self.terminal.choose(question(tool, arguments), answers)
        if answer == "always":
            self.always.add(tool.name)
        reason = "" if answer in ("yes", "always") else f"the person asked did not approve this call of {tool.name}"
        return Decision(not reason, "terminal", reason)

    async def fill(self, tool: Tool, message: str, fields: Sequence[FormField]) -> Json | None:
        """The person's answers to the fields of a form; None if they declined, or if there is no terminal."""
        async with self.terminal.turn():
            if not self.terminal.is_there():
                return None
            shown = _shortened(message, MAX_SHOWN, MAX_LINES).replace(
                "\n", "\n    "
            )  # no line of it can be one of ours
            self.terminal.sink.write(f"{printable(tool.spec.description)}\n  {shown}\n")
            if await self.terminal.choose("Answer it?", ("yes", "no")) != "yes":
                return None
            answers: Json = {}
            for field_ in fields:
                for _ in range(3):
                    line = await self.terminal.ask(f"  {_on_a_line(field_.shown())}:")
                    if line is None:
                        return None
                    try:
                        value = field_.parse(line)
                    except ValueError as error:
                        self.terminal.sink.write(f"  {_on_a_line(str(error))}\n")
                        continue
                    if value is not None:
                        answers[field_.name] = value
                    break
                else:
                    return None
            return answers


@dataclass(frozen=True)
class Approval:
    """Rules by tool name, or else by effect. Without a rule a call is allowed, or asked about if it is `irreversible`."""

    rules: Mapping[str, Permission] = field(default_factory=dict)
    """Such as `{"external": "ask", "shell": "deny"}`."""
    ask: Ask = field(default_factory=AskPerson, compare=False)
    """Called with the tool and its arguments where a rule says `ask`."""

    def __post_init__(self) -> None:
        for name, verdict in self.rules.items():
            if verdict not in get_args(Permission):
                close = nearest(str(verdict), get_args(Permission))
                hint = f" did you mean {close!r}?" if close else ""
                raise ConfigError(f"the approval of {name!r} is {verdict!r};{hint} allow, ask or deny was expected")

    def verdict(self, tool: Tool) -> Permission:
        """The rule that applies to a tool."""
        otherwise: Permission = "ask" if tool.effect == "irreversible" else "allow"
        return self.rules.get(tool.name) or self.rules.get(tool.effect) or otherwise

    async def decide(self, tool: Tool, arguments: Json) -> Decision:
        """The decision on this call, after asking if the rule says so."""
        verdict = self.verdict(tool)
        if verdict == "ask":
            return await self.ask(tool, arguments)
        return Decision(verdict == "allow", "rule", "" if verdict == "allow" else f"{tool.name} is not allowed here")

    async def fill(self, tool: Tool, message: str, fields: Sequence[FormField]) -> Json | None:
        """The user's answers to the fields of a form that a tool's server sent; None if they are not given.

        An `ask` with a method `fill`, as `AskPerson` has, is asked for them. Any other is asked for leave to send the
        defaults, where each field that must be given has one.
        """
        if self.verdict(tool) == "deny":
            return None
        if (fill := getattr(self.ask, "fill", None)) is not None:
            answers: Json | None = await fill(tool, message, fields)
            return answers
        if any(each.required and each.default is None for each in fields):
            return None
        defaults = {each.name: each.default for each in fields if each.default is not None}
        decision = await self.ask(tool, {"message": message, "answers": defaults})
        return defaults if decision.allowed else None


def parse_rules(words: Iterable[str]) -> dict[str, Permission]:
    """Parses rules such as `external=ask` and `shell=deny`; a bare `ask` is the rule for `irreversible`."""
    rules: dict[str, Permission] = {}
    for word in words:
        name, equals, verdict = word.partition("=")
        name, verdict = (name.strip(), verdict.strip()) if equals else ("irreversible", name.strip())
        if not name or name in rules:
            raise ConfigError(f"approve has {word!r}: give each tool or effect once, as in external=ask,shell=deny")
        rules[name] = verdict  # type: ignore[assignment]
    return dict(Approval(rules).rules)


def check_rules(rules: Mapping[str, Permission], tools: Iterable[Tool]) -> None:
    """Raises ConfigError if a rule names neither a tool nor an effect."""
    known = [*get_args(Effect), *(tool.name for tool in tools)]
    for name in rules:
        if name not in known:
            close = nearest(name, known)
            hint = f" did you mean {close!r}?" if close else ""
            raise ConfigError(f"approve names {name!r}, no tool and no effect;{hint} there are {', '.join(known)}")


def approval_key(effect: str, tool: Tool, arguments: Json) -> tuple[str, str]:
    """The place and the request of a call's approval in the attempt's journal."""
    return f"{effect} approval", request_key("approval", canonical([tool.name, arguments]))


def question(tool: Tool, arguments: Json) -> str:
    """The question a person is asked: the tool, its effect and every argument, without characters that are not seen.

    Of a long argument the beginning, the end, its length, and how much is left out between them.
    """
    lines = [f"{tool.name} ({tool.effect}): {tool.spec.description}"]
    texts = {name: value if isinstance(value, str) else canonical(value) for name, value in arguments.items()}
    most = max(MIN_SHOWN, _share([len(text) for text in texts.values()], MAX_SHOWN))
    most_lines = max(MIN_LINES, _share([text.count("\n") + 1 for text in texts.values()], MAX_LINES))
    for name, text in texts.items():
        lines.append(f"  {name}: {_shortened(text, most, most_lines)}".replace("\n", "\n    "))
    if about := _about.get():
        lines.append(f"  why you are asked: {_shortened(about, MAX_SHOWN, MAX_LINES)}".replace("\n", "\n    "))
    return "\n".join([*(printable(line) for line in lines), "Run it?"])


def form_question(tool: Tool, message: str, fields: Sequence[FormField]) -> str:
    """The question to a person who fills in a form: its message and fields, without characters that are not seen."""
    lines = [tool.spec.description, f"  {_shortened(message, MAX_SHOWN, MAX_LINES)}".replace("\n", "\n    ")]
    lines += [f"  {each.name}: {_shortened(each.shown(), MIN_SHOWN, MIN_LINES)}" for each in fields]
    return "\n".join([*(printable(line) for line in lines), "Fill it in?"])


def _share(sizes: list[int], room: int) -> int:
    """The most that one of these may have, so that all have room, and what small ones leave goes to the others."""
    for left, size in zip(range(len(sizes), 0, -1), sorted(sizes), strict=True):
        if size * left > room:
            return room // left
        room -= size
    return max(sizes, default=0)


def _shortened(text: str, most: int, most_lines: int) -> str:
    """The text, blanks in a row counted; of a long one its ends, with a note of its length before them and between."""
    lines = text.split("\n")
    if len(text) <= most and len(lines) <= most_lines:
        return _without_gaps(text)
    half, few = most // 2, most_lines // 2
    begin = "\n".join(lines[:few])[:half]
    end = "\n".join(lines[-few:])[-half:]
    left_out = len(text) - len(begin) - len(end)
    return (
        f"[{len(text):,} characters in {len(lines):,} lines, of which {left_out:,} in the middle are not shown]\n"
        f"{_without_gaps(begin)}\n[... {left_out:,} characters are not shown here ...]\n{_without_gaps(end)}"
    )


def _on_a_line(text: str) -> str:
    """Returns a server's text as one line, which cannot pass for our own questions; a long one is cut in the middle."""
    line = printable(" ".join(text.split()))
    half = MAX_LINE // 2
    return (
        line if len(line) <= MAX_LINE else f"{line[:half]} [... {len(line) - MAX_LINE:,} characters ...] {line[-half:]}"
    )


def _without_gaps(text: str) -> str:
    """The text as it can be read; rows of blanks and of blank lines, which push text out of sight, as their number."""
    text = _EMPTY_LINES.sub(lambda found: f"\n[{found[0].count(chr(10)) - 1} blank lines]\n", printable(text))
    return _GAP.sub(lambda found: f" [{len(found[0])} spaces] ", text)


_GAP = re.compile(r"[ \t]{40,}|[ \t]*(?:\t[ ]*){5,}")
"""Blanks that fill half of a line; a tab takes up to eight columns."""
_EMPTY_LINES = re.compile(r"\n(?:[ \t]*\n){4,}")
