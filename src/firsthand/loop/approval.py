"""Which tool calls run, which are asked about first, and which never run.

An Approval is a rule for each tool or effect: `allow`, `ask` or `deny`. Who is asked is the person at the terminal, or any
function of your own. Where nobody can be asked, what should be asked is denied, and the model is told so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from firsthand.errors import ConfigError, nearest
from firsthand.message import Json, canonical
from firsthand.system.terminal import Terminal, printable
from firsthand.tool import Effect, Tool

Verdict = Literal["allow", "ask", "deny"]

MAX_SHOWN = 4_000
"""Characters of one argument that a person is shown."""


@dataclass(frozen=True)
class Decision:
    """Whether a call may run, who said so, and why: the reason of a refusal is told to the model."""

    allowed: bool
    by: str
    """`rule`, `terminal`, or what a function of your own calls itself."""
    reason: str = ""


Ask = Callable[[Tool, Json], Awaitable[Decision]]


class AskPerson:
    """Asks the person at the terminal, one question at a time, and remembers which tools were allowed for good."""

    def __init__(self, terminal: Terminal | None = None):
        self.terminal = terminal or Terminal()
        self.always: set[str] = set()

    async def __call__(self, tool: Tool, arguments: Json) -> Decision:
        """The person's decision; without a terminal it is no, with the reason."""
        async with self.terminal.turn():
            if tool.name in self.always:
                return Decision(True, "terminal", "always")
            if not self.terminal.is_there():
                reason = f"{tool.name} needs approval ({tool.effect}), and there is no terminal to ask at"
                return Decision(False, "nobody", reason)
            answer = await self.terminal.choose(question(tool, arguments), ("yes", "no", "always"))
        if answer == "always":
            self.always.add(tool.name)
        reason = "" if answer in ("yes", "always") else f"the person asked did not approve this call of {tool.name}"
        return Decision(not reason, "terminal", reason)


@dataclass(frozen=True)
class Approval:
    """Rules by tool name or effect; the name goes first. What no rule names is allowed, but `irreversible` is asked."""

    rules: Mapping[str, Verdict] = field(default_factory=dict)
    """Such as `{"external": "ask", "shell": "deny"}`."""
    ask: Ask = field(default_factory=AskPerson, compare=False)
    """Who is asked."""

    def __post_init__(self) -> None:
        for name, verdict in self.rules.items():
            if verdict not in get_args(Verdict):
                close = nearest(str(verdict), get_args(Verdict))
                hint = f" did you mean {close!r}?" if close else ""
                raise ConfigError(f"the approval of {name!r} is {verdict!r};{hint} allow, ask or deny was expected")

    def verdict(self, tool: Tool) -> Verdict:
        """What the rules say of a tool."""
        otherwise: Verdict = "ask" if tool.effect == "irreversible" else "allow"
        return self.rules.get(tool.name) or self.rules.get(tool.effect) or otherwise

    async def decide(self, tool: Tool, arguments: Json) -> Decision:
        """Whether this call may run; whoever must be asked is."""
        verdict = self.verdict(tool)
        if verdict == "ask":
            return await self.ask(tool, arguments)
        return Decision(verdict == "allow", "rule", "" if verdict == "allow" else f"{tool.name} is not allowed here")


def parse_rules(words: Iterable[str]) -> dict[str, Verdict]:
    """The rules in words such as `external=ask` and `shell=deny`; a bare verdict is meant for `irreversible`."""
    rules: dict[str, Verdict] = {}
    for word in words:
        name, equals, verdict = word.partition("=")
        name, verdict = (name.strip(), verdict.strip()) if equals else ("irreversible", name.strip())
        if not name or name in rules:
            raise ConfigError(f"approve has {word!r}: give each tool or effect once, as in external=ask,shell=deny")
        rules[name] = verdict  # type: ignore[assignment]
    return dict(Approval(rules).rules)


def check_rules(rules: Mapping[str, Verdict], tools: Iterable[Tool]) -> None:
    """ConfigError if a rule names no tool and no effect there is."""
    known = [*get_args(Effect), *(tool.name for tool in tools)]
    for name in rules:
        if name not in known:
            close = nearest(name, known)
            hint = f" did you mean {close!r}?" if close else ""
            raise ConfigError(f"approve names {name!r}, no tool and no effect;{hint} there are {', '.join(known)}")


def question(tool: Tool, arguments: Json) -> str:
    """What a person is shown: the tool, its effect, and every argument, with nothing in it that could drive a terminal."""
    lines = [f"{tool.name} ({tool.effect}): {tool.spec.description}"]
    for name, value in arguments.items():
        text = value if isinstance(value, str) else canonical(value)
        more = f" [and {len(text) - MAX_SHOWN} characters more]" if len(text) > MAX_SHOWN else ""
        lines.append(f"  {name}: {printable(text[:MAX_SHOWN])}{more}".replace("\n", "\n    "))
    return "\n".join([*(printable(line) for line in lines), "Run it?"])
