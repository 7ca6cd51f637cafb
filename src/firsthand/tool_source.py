"""Tools with a life: a ToolSource is opened before an attempt, offers tools, may change them, and is closed after it.

An Environment is one, and so is a client of an MCP server or a database that is kept open. An Agent holds sources among its
tools: `Agent(tools=(calculator, Notebook))`. Which are opened when:

    a class or function that makes a source   one for each attempt
    a source                                  for each attempt, so attempts that hold it must not overlap
    a source with `shared = True`             once for all attempts of a run

`loop/open_sources.py` opens and closes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeGuard

from firsthand.errors import ConfigError
from firsthand.tool import Tool


class ToolSource(Protocol):
    """Offers tools while it is open.

    Five attributes are optional: `name` stands in errors and records; `shared` says that it is opened once for all attempts
    of a run; `max_wait_s` bounds the seconds that `open`, `close`, `reopen` and an environment's `final_state` may each take
    (an hour without it, None for no bound); `version` is a number that changes whenever `tools` did, and attempts look at
    it between turns; an async method `reopen` of a shared source is called before each attempt, to open anew what was lost.
    """

    @property
    def tools(self) -> Sequence[Tool]:
        """The tools there are now; only asked for while it is open."""

    async def open(self) -> None:
        """Make the tools ready. It is closed even if this fails."""

    async def close(self) -> None:
        """Let go of everything; called once for each `open`, whatever happened."""


ToolLike = Tool | ToolSource | Callable[[], ToolSource]
"""Types that an Agent may hold among its tools."""


def is_source(thing: Any) -> TypeGuard[ToolSource]:
    """True for a source, False for a Tool or for what makes a source."""
    if isinstance(thing, type | Tool):
        return False
    return callable(getattr(thing, "open", None)) and callable(getattr(thing, "close", None))


def is_shared(source: ToolSource) -> bool:
    """True if it is opened once for all attempts of a run."""
    return bool(getattr(source, "shared", False))


def is_self_contained(source: ToolSource) -> bool:
    """True if its tools read and change nothing but the state that each `open` makes anew; see `benchmark.Environment`."""
    return bool(getattr(source, "self_contained", False))


def version_of(source: ToolSource) -> object:
    """A value that differs from an earlier one if the tools changed in between."""
    return getattr(source, "version", 0)


def source_name(thing: Any) -> str:
    """The name of a source, or of what makes one."""
    own = getattr(thing, "name", None) or getattr(thing, "__name__", None)
    return str(own or type(thing).__name__)


def check_servers(things: Sequence[Any]) -> None:
    """ConfigError for two MCP servers of which one can give a tool the name of the other's, as `a` and `a__b` can.

    A rule for `a__*` would count for both.
    """
    names = [source_name(each).removeprefix("mcp:") for each in things if source_name(each).startswith("mcp:")]
    for name in names:
        for other in names:
            if other != name and f"{other}__".startswith(f"{name}__"):
                raise ConfigError(
                    f"the MCP servers {name!r} and {other!r} begin names of tools alike ({name}__): rename one of them"
                )


def tools_at_hand(
    own: Mapping[str, Tool], environment: ToolSource | None, sources: Sequence[ToolSource]
) -> dict[str, Tool]:
    """All tools by name. The environment's take the place of the agent's own; any others of one name are a ConfigError."""
    found: dict[str, Tool] = {}
    places: dict[str, str] = {}
    for source in sources if environment is None else [*sources, environment]:
        for tool in source.tools:
            if tool.name in places:
                raise ConfigError(
                    f"{places[tool.name]} and {source_name(source)} both offer a tool {tool.name!r}: leave one of them out"
                )
            found[tool.name], places[tool.name] = tool, source_name(source)
    taken = set() if environment is None else {tool.name for tool in environment.tools}
    for name in own:
        if name in places and name not in taken:
            raise ConfigError(
                f"the agent has a tool {name!r}, and {places[name]} offers one too: leave one of them out"
            )
    return {**own, **found}
