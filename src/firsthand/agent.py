"""An Agent: a named combination of model, pattern, tools, memory, guard and limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from firsthand.errors import ConfigError
from firsthand.guard import Guard, check_guard, guard_name
from firsthand.loop.approval import Approval
from firsthand.loop.budget import Limits
from firsthand.loop.concurrency import Retry
from firsthand.loop.pattern_options import check_options
from firsthand.memory import Memory, check_memory, memory_name
from firsthand.message import Json
from firsthand.model import Model, Sampling
from firsthand.system.address_secrets import without_secrets, without_secrets_in
from firsthand.tool import Tool
from firsthand.tool_source import ToolLike, ToolSource, check_servers, is_source, source_name

Pattern = Callable[..., Awaitable[str]]
"""`async def pattern(task, ctx, *, option=default) -> str`: the strategy; what it returns is the attempt's answer.

A pattern that leads others takes them as its keyword `pattern` (one) or `patterns` (several), so that composing is
`functools.partial(self_consistency, pattern=react)`."""


@dataclass(frozen=True)
class Agent:
    """A named combination that a leaderboard ranks, a server serves and training improves."""

    name: str
    model: Model
    pattern: Pattern
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments for the pattern."""
    tools: tuple[ToolLike, ...] = ()
    """Tools, tool sources, and classes or functions that make a source for each attempt."""
    sampling: Sampling = field(default_factory=Sampling)
    system: str | None = None
    """A system message that opens every conversation."""
    guard: Guard | tuple[Guard, ...] | None = None
    """Watches prompts, calls, results and the answer; several do so in order, each seeing what the one before let pass."""
    approval: Approval = field(default_factory=Approval)
    """Rules for tool calls: allow, ask or deny. `irreversible` ones are asked about unless a rule says otherwise."""
    limits: Limits = field(default_factory=Limits)
    """For one attempt."""
    retry: Retry = field(default_factory=Retry)
    memory: Memory | None = None
    """Written by `ctx.remember` and searched by `ctx.recall`; each agent needs its own."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self._shown(self.name))  # it may be an address
        for tool in self.tools:
            if not (isinstance(tool, Tool) or is_source(tool) or callable(tool)):
                raise ConfigError(
                    f"the agent {self.name} has {tool!r:.80} among its tools: a Tool or a ToolSource was expected"
                )
        check_servers([each for each in self.tools if not isinstance(each, Tool)])
        for guard in self.guards:
            check_guard(guard)
        check_options(self.pattern, self.options)
        if self.memory is not None:
            check_memory(self.memory)

    def named_as_in(self, names: Collection[str]) -> Agent:
        """The agent under the one of the names that is its own with a password: version 0.21 kept that in a run."""
        kept = [name for name in names if name != self.name == self._shown(name)]
        if self.name in names or len(kept) != 1:
            return self
        same = copy(self)
        object.__setattr__(same, "name", kept[0])
        return same

    def _shown(self, name: str) -> str:
        """The name without the secrets of its addresses, which end where `@` and the model's name follow."""
        after = f"@{self.model.name}"
        is_named_so = name.endswith(after)
        parts = (name.removesuffix(after), "@", self.model.name) if is_named_so else (name,)
        return "".join(map(without_secrets, parts))

    @property
    def own_tools(self) -> tuple[Tool, ...]:
        """The tools that are there without a source."""
        return tuple(tool for tool in self.tools if isinstance(tool, Tool))

    @property
    def sources(self) -> tuple[ToolSource, ...]:
        """The tool sources that it holds itself."""
        return tuple(tool for tool in self.tools if is_source(tool))

    def make_sources(self) -> tuple[ToolSource, ...]:
        """The sources for one attempt: those it holds, and a new one from whatever makes one."""
        return tuple(tool if is_source(tool) else tool() for tool in self.tools if not isinstance(tool, Tool))  # type: ignore[operator]

    @property
    def guards(self) -> tuple[Guard, ...]:
        """The guards, in the order in which they are asked."""
        if self.guard is None:
            return ()
        return self.guard if isinstance(self.guard, tuple) else (self.guard,)

    def to_json(self) -> Json:
        """The agent as data, for its traces."""
        body: Json = {
            "name": self.name,
            "model": self.model.name,
            "fingerprint": self.model.fingerprint,
            "pattern": without_secrets(pattern_name(self.pattern)),
            "options": without_secrets_in({key: _named(value) for key, value in self.options.items()}),
            "tools": sorted(source_name(tool) for tool in self.tools),
            "sampling": self.sampling.to_json(),
            "system": self.system,
            "guard": without_secrets(",".join(map(guard_name, self.guards))) or None,
            "limits": self.limits.to_json(),
        }
        body |= {"memory": without_secrets(memory_name(self.memory))} if self.memory is not None else {}
        return body | {"approval": dict(self.approval.rules)} if self.approval.rules else body


def pattern_name(pattern: Pattern) -> str:
    """The name of a pattern, a composed one as the command line writes it: `self_consistency(react):samples=5`."""
    if not isinstance(pattern, partial):
        return str(getattr(pattern, "__name__", "pattern"))
    given = {key: _named(value) for key, value in pattern.keywords.items()}
    inner = [given.pop("pattern")] if "pattern" in given else []
    several = given.pop("patterns", ())
    inner += list(several)
    options = "".join(without_secrets(f":{key}={value}")[:80] for key, value in given.items())
    return pattern_name(pattern.func) + (f"({','.join(inner)})" if inner else "") + options


def _named(value: Any) -> Any:
    """The value with every pattern in it replaced by its name."""
    if callable(value):
        return pattern_name(value)
    if isinstance(value, Mapping):
        return {key: _named(each) for key, each in value.items()}
    return [_named(each) for each in value] if isinstance(value, list | tuple) else value
