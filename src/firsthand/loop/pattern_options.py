"""Checks that a pattern brings along: of its options, when its agent is made, and of tasks and tools, before a run.

A pattern without checks is one that takes every option. Patterns that a pattern leads are checked with it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec

from firsthand.errors import ConfigError
from firsthand.sampling import Sampling
from firsthand.task import Task

P = ParamSpec("P")
_NAME = "firsthand_checks"
_LED = ("pattern", "patterns")
MAX_NESTED = 16


@dataclass(frozen=True)
class PatternChecks:
    """The check of a pattern's options, made before it runs."""

    options: Callable[..., None] | None = None
    """Given all options by name, defaults included: ConfigError for an impossible value."""
    task: Callable[..., None] | None = None
    """Given a task and all options: FirsthandError for a task that cannot be attempted with them."""
    tools: tuple[str, ...] = ()
    """Names of the tools that it calls."""
    follows_protocol: bool = False
    """True if it asks as a task's protocol says: for log-probs or by plain text, where the task has them."""


def checked(
    options: Callable[..., None] | None = None,
    *,
    task: Callable[..., None] | None = None,
    tools: tuple[str, ...] = (),
    follows_protocol: bool = False,
) -> Callable[[Callable[P, Awaitable[str]]], Callable[P, Awaitable[str]]]:
    """Decorator: gives a pattern its checks. Those of options are made by a direct call of the pattern too."""

    def mark(pattern: Callable[P, Awaitable[str]]) -> Callable[P, Awaitable[str]]:
        defaults = defaults_of(pattern)

        @functools.wraps(pattern)
        async def call(*args: P.args, **given: P.kwargs) -> str:
            if options is not None:
                options(**defaults | given)
            return await pattern(*args, **given)

        setattr(call, _NAME, PatternChecks(options, task, tools, follows_protocol))
        return call

    return mark


def check_options(pattern: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """ConfigError if a pattern, or one that it leads, refuses its options."""
    for checks, _, given in _checks(pattern, options):
        if checks.options is not None:
            checks.options(**given)


def check_task(pattern: Callable[..., Any], options: Mapping[str, Any], task: Task) -> None:
    """FirsthandError if a pattern, or one that it leads, cannot attempt a task."""
    for checks, _, given in _checks(pattern, options):
        if checks.task is not None:
            checks.task(task, **given)


def tools_needed(pattern: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, str]:
    """The tools that a pattern, and those that it leads, cannot do without -> the pattern that needs each."""
    return {tool: name for checks, name, _ in _checks(pattern, options) for tool in checks.tools}


def follows_protocol(pattern: Callable[..., Any], options: Mapping[str, Any]) -> bool:
    """True if a pattern, or one that it leads, asks for log-probs or by plain text where a task has them."""
    return any(checks.follows_protocol for checks, _, _ in _checks(pattern, options))


def option_values(pattern: Callable[..., Any], options: Mapping[str, Any], name: str) -> list[Any]:
    """The values of an option, for a pattern and for each that it leads which has it, defaults included."""
    return [given[name] for _, _, given in _checks(pattern, options) if name in given]


def at_least(least: int, **numbers: int) -> None:
    """ConfigError for the first of the named numbers that is below `least`."""
    for name, number in numbers.items():
        if number < least:
            raise ConfigError(f"{name} is {number}: give {least} or more")


def check_temperature(temperature: float) -> None:
    """ConfigError for a temperature at which nothing can be sampled."""
    Sampling(temperature=temperature)


def defaults_of(pattern: Callable[..., Any]) -> dict[str, Any]:
    """The keyword-only arguments of a pattern that have a default, with it."""
    parameters = inspect.signature(pattern).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}


def _checks(
    pattern: Callable[..., Any], options: Mapping[str, Any], depth: int = 0
) -> Iterator[tuple[PatternChecks, str, dict[str, Any]]]:
    """The checks of a pattern and of those it leads, each with the pattern's name and all its options."""
    given: dict[str, Any] = dict(options)
    while isinstance(pattern, functools.partial):
        given = {**pattern.keywords, **given}
        pattern = pattern.func
    if not callable(pattern) or depth > MAX_NESTED:
        return
    try:
        given = defaults_of(pattern) | given
    except (TypeError, ValueError):  # a callable without a readable signature
        return
    if (checks := getattr(pattern, _NAME, None)) is not None:
        yield checks, str(getattr(pattern, "__name__", "pattern")), given
    for key in _LED:
        led = given.get(key)
        several = led.values() if isinstance(led, Mapping) else led if isinstance(led, list | tuple) else [led]
        for each in several:
            if callable(each):
                yield from _checks(each, {}, depth + 1)
