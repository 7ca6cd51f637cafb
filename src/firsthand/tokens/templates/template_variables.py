"""What a request may tell a chat template besides its messages, such as Qwen3's `enable_thinking`: a little plain data.

What a template does with it becomes the template's own text, which is trusted, so a text that names a control token is
refused, and so are the names under which a template is told the conversation itself.
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
    """The variables, copied. ConfigError if they are anything but a few short plain values."""
    if len(variables) > MAX_VARIABLES:
        raise ConfigError(f"the chat template is told {len(variables)} variables: give at most {MAX_VARIABLES}")
    left = MAX_VALUES

    def copied(value: Any, name: str, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > MAX_DEPTH:
            raise ConfigError(
                f"the template variable {name} holds too much: give at most {MAX_VALUES} values, nested {MAX_DEPTH} deep"
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
            raise ConfigError(f"{name!r:.80} is no variable that a chat template may be told by a request")
    return {name: copied(value, name, 0) for name, value in variables.items()}
