"""Approval of tool calls: which run, which a person is asked about, and which never run.

An Approval is a rule for each tool or effect: `allow`, `ask` or `deny`. The person at the terminal is asked, or any function
of your own. Without either, such a call is denied, and the model reads why.
"""

from __future__ import annotations

import inspect
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal, NamedTuple, get_args

from firsthand.errors import ConfigError, nearest
from firsthand.loop.form import FormField
from firsthand.loop.opened_page import ASK_PAGE, opened_page
from firsthand.loop.question_rows import OVER, WHY, labelled, passes_for_data
from firsthand.loop.request_key import request_key
from firsthand.message import Json, canonical
from firsthand.system.plurals import count_of
from firsthand.system.terminal import Terminal, printable
from firsthand.tool import Effect, Tool

Permission = Literal["allow", "ask", "deny"]

MAX_SHOWN = 4_000
"""The most characters that are shown, shared by the arguments: half from the beginning of one, half from its end."""
MAX_LINES = 60
"""The most rows of them at `COLUMNS` columns, the reason for asking included, so that a question stays on the screen."""
COLUMNS = 80
MAX_LINE = 1_000
"""The most characters of a form's field, or of what is wrong with an answer."""
MIN_SHOWN, MIN_LINES = 400, 6
"""Characters that each argument may have at least, unless there are too many; on fewer rows one is cut in a line."""
MAX_DESCRIPTION = 400, 6
"""The most characters and rows of a tool's description, which its server may have written."""
MAX_WHY = 2_600, 44
"""The most characters and rows of a reason, its dry run included, that is shown whole beside few arguments."""
MAX_BESIDE_WHY = 6
MAX_ARGUMENTS = 30
"""The most arguments that are shown; those that the tool declares come first."""
MAX_NAME = 100
"""The most characters of an argument's name."""


@dataclass(frozen=True)
class Decision:
    """The decision on one call, who made it, and why: the model reads the reason of a refusal."""

    allowed: bool
    by: str
    """`rule`, `terminal`, or the name your own function gives itself."""
    reason: str = ""
    once: str = ""
    """The id of a yes to a call that is not repeated, which the call uses up; made for one that comes without."""

    def kept(self, tool: Tool) -> Json:
        """The decision as a journal keeps it."""
        body: Json = {"allowed": self.allowed, "by": self.by, "reason": self.reason}
        if not self.allowed or tool.effect not in ("external", "irreversible"):
            return body
        return body | {"once": self.once or secrets.token_hex(16)}


Ask = Callable[[Tool, Json], Awaitable[Decision] | Decision]

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
        self.always: set[str | tuple[str, ...]] = set()
        """The tools that are not asked about again: those answered `always`, and names that you put in."""

    async def __call__(self, tool: Tool, arguments: Json) -> Decision:
        """The person's decision; without a terminal it is no, with the reason."""
        async with self.terminal.turn():
            once = bool(_about.get()) or tool.request == "elicitation"  # each page is asked about
            if not self.always.isdisjoint({tool.name, kind_of(tool)}) and not once:
                return Decision(True, "terminal", "always")
            if not self.terminal.is_there():
                reason = f"{tool.name} needs approval ({tool.effect}), and there is no terminal to ask at"
                return Decision(False, "nobody", reason)
            answers = ("yes", "no") if once else ("yes", "no", "always")
            answer = await self.terminal.choose(self._drawn(question(tool, arguments)), answers)
        if answer == "always":
            self.always.add(kind_of(tool))
        reason = "" if answer in ("yes", "always") else f"the person asked did not approve this call of {tool.name}"
        return Decision(not reason, "terminal", reason)

    def _drawn(self, text: str) -> str:
        from firsthand.loop.question_screen import columns_of, on_screen

        return on_screen(text, min(COLUMNS, columns_of(getattr(self.terminal, "sink", None))))

    async def fill(self, tool: Tool, message: str, fields: Sequence[FormField]) -> Json | None:
        """The person's answers to the fields of a form; None if they declined, or if there is no terminal."""
        async with self.terminal.turn():
            if not self.terminal.is_there():
                return None
            shown = _shortened(message, MAX_SHOWN, MAX_LINES).replace("\n", "\n    ")  # no line of it is one of ours
            self.terminal.sink.write(self._drawn(f"{printable(_description(tool))}\n  {printable(shown)}") + "\n")
            if await self.terminal.choose("Answer it?", ("yes", "no")) != "yes":
                return None
            answers: Json = {}
            for field_ in fields:
                for _ in range(3):
                    line = await self.terminal.ask(self._drawn(f"  {_on_a_line(field_.shown(typed=True))}:"))
                    if line is None:
                        return None
                    try:
                        value = field_.parse(line)
                    except ValueError as error:
                        self.terminal.sink.write(self._drawn(f"  {_on_a_line(str(error))}") + "\n")
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
    """Called with the tool and its arguments where a rule says `ask`: an async function, or one that decides at once."""

    def __post_init__(self) -> None:
        for name, verdict in self.rules.items():
            if verdict not in get_args(Permission):
                close = nearest(str(verdict), get_args(Permission))
                hint = f" did you mean {close!r}?" if close else ""
                raise ConfigError(f"the approval of {name!r} is {verdict!r};{hint} allow, ask or deny was expected")

    def verdict(self, tool: Tool) -> Permission:
        """The rule that applies to a tool. Of one that is named as an effect, the stricter of the two rules."""
        otherwise: Permission = "ask" if tool.effect == "irreversible" else "allow"
        named, by_effect = self.rules.get(tool.name), self.rules.get(tool.effect) or otherwise
        if named is not None and tool.name in get_args(Effect):
            return max(named, by_effect, key=get_args(Permission).index)
        return named or by_effect

    async def decide(self, tool: Tool, arguments: Json) -> Decision:
        """The decision on this call, after asking if the rule says so."""
        verdict = self.verdict(tool)
        if verdict == "ask":
            return await decision_of(self.ask, tool, arguments)
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
        decision = await decision_of(self.ask, tool, {"message": message, "answers": defaults})
        return defaults if decision.allowed else None


async def decision_of(ask: Ask, tool: Tool, arguments: Json) -> Decision:
    """The decision of a function that is asked about a call; ConfigError if it gives anything else."""
    answer: Any = ask(tool, arguments)
    if inspect.isawaitable(answer):
        answer = await answer
    if not isinstance(answer, Decision):
        raise ConfigError(
            f"the function that was asked about {tool.name} gave {answer!r:.60}: give a Decision, such as "
            "Decision(True, 'my policy')"
        )
    return answer


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


def approval_key(effect: str, tool: Tool, arguments: Json, about: str = "") -> tuple[str, str]:
    """The place and the request of a call's approval in the attempt's journal: the tool, its data, and the reason shown."""
    asked = [tool.name, tool.effect, tool.origin or "", tool.over, arguments, about]
    return f"{effect} approval", request_key("approval", canonical(asked))


def question(tool: Tool, arguments: Json) -> str:
    """The question a person is asked: the tool, its effect and every argument, without characters that are not seen.

    Of a long argument the beginning, the end, its length, and how much is left out between them.
    """
    called = f"{_name(tool.name)} ({tool.effect})"
    texts = {name: value if isinstance(value, str) else canonical(value) for name, value in arguments.items()}
    own = tool.spec.parameters.get("properties", {})
    names = sorted(texts, key=lambda name: name not in own)[:MAX_ARGUMENTS]
    head = [f"{called}: {_description(tool)}", *([f"  {OVER}: {_on_a_line(tool.over)}"] if tool.over else [])]
    more = []
    if left := [name for name in texts if name not in names]:
        size = sum(len(name) + len(texts[name]) for name in left)
        more = [f"  [{len(left):,} more arguments, {size:,} characters, are not shown: say no unless you know them]"]
    parts = [(name, texts[name], passes_for_data(arguments[name])) for name in names]
    asked = f"Run {called}?" if opened_page(tool, arguments) is None else ASK_PAGE
    return _laid_out(head, parts, more, _about.get(), asked)


def _laid_out(head: list[str], parts: Sequence[tuple[str, str, bool]], more: list[str], about: str, asked: str) -> str:
    """A question to a person: its head, named texts (the third says which are marked), reason and what is asked.

    Rows are those of a screen of `COLUMNS` columns. Lines of a text but its first stand further right than ours.
    """
    texts = [text for _, text, _ in parts]
    room, lines, why = MAX_SHOWN, MAX_LINES, [about] if about else []
    if about and len(parts) <= MAX_BESIDE_WHY and _size(about) <= MAX_WHY[0] and _rows(about) <= MAX_WHY[1]:
        room, lines = room - _size(about), lines - _rows(about)  # it says what the call does: whole, before all others
    else:
        texts += why
    most_each = 2 * MAX_SHOWN // max(1, len(texts))
    most = max(min(MIN_SHOWN, most_each), _share([_size(each) for each in texts], room))
    rows = max(2, _share([_rows(each) for each in texts], lines))
    most_name = MAX_NAME if len(parts) <= 4 else MAX_NAME // 3
    drawn = [(labelled(name, _name(name, most_name)), is_marked) for name, _, is_marked in parts]
    names = [f"{name} (text)" if is_marked else name for name, is_marked in drawn] + [WHY]
    cut = [_parted(text, most, rows) for text in texts]
    cut += [_parted(text, *MAX_WHY) for text in why[len(texts) - len(parts) :]]
    shown = [f"  {name}: {text}".replace("\n", "\n    ") for name, (text, _) in zip(names, cut, strict=False)]
    body = [*shown[: len(parts)], *more, *shown[len(parts) :]]
    left_out = sum(each.left_out for each in cut)
    unread = (
        f" {count_of(left_out, 'character')} of it {'is' if left_out == 1 else 'are'} not shown." if left_out else ""
    )
    return "\n".join([*(printable(line) for line in [*head, *body]), printable(f"{asked}{unread}")])


def _name(name: str, most: int = MAX_NAME) -> str:
    """A name on one line; a long one is cut."""
    return _on_a_line(name if len(name) <= most else f"{name[:most]} [... {len(name) - most:,} characters ...]")


def _description(tool: Tool) -> str:
    """A tool's description, a short one as it is; its further lines stand further right than ours."""
    return _shortened(tool.spec.description, *MAX_DESCRIPTION).replace("\n", "\n    ")


def kind_of(tool: Tool) -> tuple[str, ...]:
    """Return the key that an answer of `always` covers: the tool's name, function, effect and what it acts on."""
    made = (str(getattr(tool.function, each, "")) for each in ("__module__", "__qualname__"))
    return (tool.name, tool.effect, tool.origin or "", tool.over, tool.request, *made)


def form_question(tool: Tool, message: str, fields: Sequence[FormField]) -> str:
    """The question to a person who fills in a form: its message and fields, without characters that are not seen."""
    head = [_description(tool), f"  {_shortened(message, MAX_SHOWN // 2, MAX_LINES // 2)}".replace("\n", "\n    ")]
    parts = [(each.name, " ".join(each.shown().split()), False) for each in fields]
    return _laid_out(head, parts, [], "", "Fill it in?")


def _share(sizes: list[int], room: int) -> int:
    """The most that one of these may have, so that all have room, and what small ones leave goes to the others."""
    for left, size in zip(range(len(sizes), 0, -1), sorted(sizes), strict=True):
        if size * left > room:
            return room // left
        room -= size
    return max(sizes, default=0)


def _size(text: str) -> int:
    """The characters that a text takes, as it is or as it is shown, whichever are more."""
    return len(text) if len(text) > MAX_SHOWN else max(len(text), len(_without_gaps(text)))


class _Parted(NamedTuple):
    """A text as it is shown, and how many characters of it are not."""

    shown: str
    left_out: int


def _shortened(text: str, most: int, most_lines: int) -> str:
    return _parted(text, most, most_lines).shown


def _parted(text: str, most: int, most_lines: int) -> _Parted:
    """The text, blanks in a row counted; of a long one its ends, with a note of its length before them and between."""
    lines = text.split("\n")
    if len(text) <= most and len(shown := _without_gaps(text)) <= most and screen_rows(shown) <= most_lines:
        return _Parted(shown, 0)
    if most_lines < MIN_LINES:
        return _on_few_rows(text, len(lines), most, most_lines)
    half, few = most // 2, max(1, most_lines // 2)
    begin = "\n".join(lines[:few])[:half]
    end = "\n".join(lines[-few:])[-half:]
    while not _fits(begin, half, few):  # what is not seen is shown as more characters than it has
        begin = begin[: len(begin) * 3 // 4]
    while not _fits(end, half, few):
        end = end[-(len(end) * 3 // 4) :]
    left_out = len(text) - len(begin) - len(end)
    return _Parted(
        f"[{len(text):,} characters in {len(lines):,} lines, of which {left_out:,} in the middle are not shown]\n"
        f"{_without_gaps(begin)}\n[... {left_out:,} characters are not shown here ...]\n{_without_gaps(end)}",
        left_out,
    )


def _fits(text: str, most: int, rows: int) -> bool:
    shown = _without_gaps(text)
    return len(text) <= 1 or (len(shown) <= most and screen_rows(shown) <= rows)


def _on_few_rows(text: str, num_lines: int, most: int, rows: int) -> _Parted:
    """The ends of a text without its line ends, which are shown as escapes, on so few rows."""
    room = min(most, rows * (COLUMNS - 4) - 80) // 2
    begin, end = text[:room], text[-room:]
    while len(begin) > 1 and _cells(_escaped(begin)) > room:
        begin = begin[: len(begin) * 3 // 4]
    while len(end) > 1 and _cells(_escaped(end)) > room:
        end = end[-(len(end) * 3 // 4) :]
    left_out = len(text) - len(begin) - len(end)
    if left_out <= 0:
        return _Parted(_escaped(text), 0)
    note = f"[... {left_out:,} of {len(text):,} characters in {num_lines:,} lines are not shown ...]"
    return _Parted(f"{_escaped(begin)} {note} {_escaped(end)}", left_out)


def _escaped(text: str) -> str:
    return _without_gaps(text).replace("\n", "\\n")


def _cells(text: str) -> int:
    """The columns that a line takes: a wide letter takes two."""
    from rich.cells import cell_len

    return cell_len(text)


def screen_rows(shown: str) -> int:
    """The rows that a text takes on a screen of `COLUMNS` columns, indented as our lines are."""
    return sum(max(1, -(-_cells(line) // (COLUMNS - 4))) for line in shown.split("\n"))


def _rows(text: str) -> int:
    """The rows that a text takes as it is shown, no more than a question has."""
    return MAX_LINES if len(text) > MAX_SHOWN else min(MAX_LINES, screen_rows(_without_gaps(text)))


def _on_a_line(text: str) -> str:
    """Returns a server's text as one line, which cannot pass for our own questions; a long one is cut in the middle."""
    line = printable(" ".join(text.split()))
    half = MAX_LINE // 2
    return (
        line if len(line) <= MAX_LINE else f"{line[:half]} [... {len(line) - MAX_LINE:,} characters ...] {line[-half:]}"
    )


def _without_gaps(text: str) -> str:
    """The text as it can be read; rows of blanks, of blank lines and of what is not seen, which push text out of sight, as
    their number.
    """
    if printable(text) != text:
        runs = groupby(text, lambda each: printable(each) != each)
        text = "".join(_counted("".join(run)) if is_unseen else "".join(run) for is_unseen, run in runs)
    text = _EMPTY_LINES.sub(lambda found: f"\n[{found[0].count(chr(10)) - 1} blank lines]\n", printable(text))
    return _GAP.sub(lambda found: f" [{len(found[0])} spaces] ", text)


def _counted(run: str) -> str:
    """A run of characters that are not seen; of a long one its number and kinds."""
    if len(run) < UNSEEN:
        return run
    kinds = list(dict.fromkeys(run))
    named = ", ".join(f"U+{ord(each):04X}" for each in kinds[:3]) + (", ..." if len(kinds) > 3 else "")
    return f" [{len(run):,} characters that are not seen: {named}] "


UNSEEN = 8
"""The least characters in a row that are told by their number and not each by its escape."""
_GAP = re.compile(r"[ \t]{40,}|[ \t]*(?:\t[ ]*){5,}")
"""Blanks that fill half of a line; a tab takes up to eight columns."""
_EMPTY_LINES = re.compile(r"\n(?:[ \t]*\n){4,}")
