"""The calls that a request demands: `tool_choice` and `parallel_tool_calls` of its Sampling."""

from __future__ import annotations

from collections.abc import Sequence

from firsthand.errors import ConfigError
from firsthand.model import Sampling, ToolSpec
from firsthand.system.field_types import shown


def demands_calls(sampling: Sampling, tools: Sequence[ToolSpec]) -> bool:
    """True if the answer must call a tool; ConfigError if the request has no such tool, or a grammar beside it."""
    choice = sampling.tool_choice
    if choice == "auto":
        return False
    names = [spec.name for spec in tools]
    if not names:
        raise ConfigError(f"tool_choice is {shown(choice)}, and the request has no tools: give some, or leave it out")
    if choice != "required" and choice not in names:
        raise ConfigError(f"tool_choice is {shown(choice)}: give auto, required, or a tool's name ({', '.join(names)})")
    if sampling.grammar is not None:
        raise ConfigError(f"tool_choice is {shown(choice)}, and a grammar rules the answer: give one of them")
    return True
