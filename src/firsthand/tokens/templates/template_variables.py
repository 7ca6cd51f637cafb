"""Checks the extra variables of a request's chat template, such as Qwen3's `enable_thinking`.

The template turns them into its own, trusted text, so strings that name a special token are refused, and so are the
names of the standard variables.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from firsthand.errors import ConfigError

RESERVED = frozenset({"messages", "tools", "add_generation_prompt", "add_bos", "bos_token", "eos_token"})
MAX_VARIABLES = 16
MAX_VALUES = 256
MAX_CHARS = 256
MAX_DEPTH = 4
_MAX_INT = 2**53


def check_variables(variables: Mapping[str, Any], names_control: Callable[[str], bool]) -> dict[str, Any]:
    """Returns a copy of the variables. ConfigError unless they are a few short plain values."""
    if len(variables) > MAX_VARIABLES:
        raise ConfigError(f"the chat template gets {len(variables)} variables: give at most {MAX_VARIABLES}")
    left = MAX_VALUES

    def copied(value: Any, name: str, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > MAX_DEPTH:
            raise ConfigError(
                f"the template variable {name} is too large: give at most {MAX_VALUES} values, nested {MAX_DEPTH} deep"
            )
        match value:
            case None | bool():
                return value
            case int() if abs(value) <= _MAX_INT:
                return value
            case float() if math.isfinite(value):
                return value
            case str() if len(value) <= MAX_CHARS and not names_control(value):
                return value
            case list() | tuple():
                return [copied(each, name, depth + 1) for each in value]
            case dict():
                return {copied(str(key), name, depth): copied(each, name, depth + 1) for key, each in value.items()}
        raise ConfigError(
            f"the template variable {name} is or holds {value!r:.60}: give true, false, numbers, lists, objects, and texts "
            f"of at most {MAX_CHARS} characters without control tokens"
        )

    for name in variables:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\w{0,63}", name, re.ASCII) or name in RESERVED:
            raise ConfigError(
                f"{name!r:.80} is not a template variable that a request may set: give a name of letters, digits and _"
            )
    return {name: copied(value, name, 0) for name, value in variables.items()}
