"""Parses a name with options, as on the command line, and binds the options to a function's keywords.

`self_consistency:samples=16` is a name and an option. Inner patterns stand in parentheses, each with its own options:
`self_consistency(react:max_steps=4):samples=16`. `catalog` looks the names up.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firsthand.config import convert, split_list
from firsthand.errors import ConfigError, nearest

_MAX_NESTED = 16


@dataclass(frozen=True)
class Spec:
    """A name and its options."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[Spec, ...] = ()
    """Inner patterns, from the parentheses."""


def parse_spec(text: str) -> Spec:
    """`name(part,part):key=value:key=value` as a Spec; each part is a spec too, and the parentheses are optional.

    A colon without `=` after it belongs to the name, as in `file.py:function`, or to a value that names a model by its
    provider or kind, as in `judge=openai:llama3@http://localhost:11434/v1` and `rerank=cross_encoder:models/reranker`. In
    any other value, write a colon as `\\:`.
    """
    text, inside = _unfold(text)
    parts = () if inside is None else tuple(parse_spec(each.strip()) for each in split_list(inside))
    name, *rest = (part.replace("\\:", ":") for part in re.split(r"(?<!\\):", text))
    if name.endswith(")"):
        raise ConfigError(f"{text!r} closes a parenthesis that it does not open: write it as name(pattern):key=value")
    options: dict[str, str] = {}
    for part in rest:
        key, equals, value = part.partition("=")
        if equals and (key := key.strip().replace("-", "_")) in options:
            raise ConfigError(f"{text!r} gives {key} twice: give it once")
        if equals:
            options[key] = value.strip()
        elif options and _goes_on(list(options.values())[-1]):
            options[list(options)[-1]] += ":" + part.strip()
        elif options:
            raise ConfigError(
                f"{text!r} has {part!r} among its options: key=value was expected (write a colon in a value as \\:)"
            )
        else:
            name += ":" + part
    return Spec(name, options, parts)


def _goes_on(value: str) -> bool:
    """True if a value starts with a model provider or kind of model, so that its colons are its own."""
    prefix = value.partition(":")[0]
    return prefix in ("hf", "cross_encoder") or (Path(__file__).parent.parent / "providers" / f"{prefix}.py").is_file()


def _unfold(text: str) -> tuple[str, str | None]:
    """The text without its first parentheses, and their content; None without any, as in `work (old)/my.py`."""
    opened = text.find("(")
    if opened < 0 or "=" in text[:opened]:
        if ")" in text[: None if opened < 0 else opened]:
            raise ConfigError(
                f"{text!r} closes a parenthesis that it does not open: write it as name(pattern):key=value"
            )
        return text, None
    depth = 0
    for at, char in enumerate(text[opened:], opened):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if depth > _MAX_NESTED:
            raise ConfigError(f"{text[:60]!r}... nests more than {_MAX_NESTED} patterns: name fewer")
        if depth == 0:
            after = text[at + 1 :]
            if after and after[0] not in ":)":
                return text, None
            return text[:opened] + after, text[opened + 1 : at]
    raise ConfigError(f"{text!r} opens a parenthesis and does not close it: write it as name(pattern):key=value")


def bind_options(
    spec: Spec, function: Callable[..., Any], *, led: Sequence[str] = ("pattern", "patterns")
) -> dict[str, Any]:
    """The spec's options as the function's keyword-only arguments, converted to their annotated types.

    `led` are the keywords of patterns that the function leads, which are given in parentheses.
    """
    keywords = [key for key in keywords_of(function) if key not in led]
    bound: dict[str, Any] = {}
    for key, value in spec.options.items():
        if key in led:
            raise ConfigError(f"{spec.name} takes its {key} in parentheses: write {spec.name}({value})")
        if key not in keywords:
            close = nearest(key, keywords)
            hint = f" did you mean {close!r}?" if close else ""
            raise ConfigError(f"{spec.name} has no option {key!r};{hint} it takes {', '.join(keywords) or 'none'}")
        kind = typing.get_type_hints(getattr(function, "func", function)).get(key, str)
        bound[key] = convert(_truth(value) if kind is bool else value, kind, f"{spec.name}:{key}")
    return bound


def keywords_of(function: Callable[..., Any]) -> list[str]:
    """Names of the keyword-only arguments."""
    return [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]


def _truth(value: str) -> bool | str:
    return {"true": True, "false": False}.get(value.lower(), value)
