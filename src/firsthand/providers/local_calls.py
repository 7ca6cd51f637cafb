"""Grammars of the tool calls that a local model may, or must, make."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from firsthand.engine.decoding.constraint import CompiledGrammar, Grammars
from firsthand.errors import ConfigError
from firsthand.grammar import Grammar
from firsthand.model import Prompt, Sampling, ToolSpec
from firsthand.providers.demanded_calls import demands_calls
from firsthand.providers.local_completions import Loaded, opens_thought, rules_final
from firsthand.system import request_owner
from firsthand.tokens.calls.call_grammar import Markup, tool_grammar
from firsthand.tokens.grammar_cost import is_cheap

_CALLS_S = 10.0
"""Time to find the tools whose schemas can be compiled, where all together cannot."""


async def with_calls(
    loaded: Loaded, prompt: Prompt | Sequence[int], sampling: Sampling, tools: Sequence[ToolSpec]
) -> Sampling:
    """The Sampling with the calls that it demands as a grammar, which begins after the thought if the prompt opens one.

    A grammar of the request itself rules instead of `parallel_tool_calls`, and in a chat in Harmony it rules the final
    channel. ConfigError if the model's way of writing calls is not known.
    """
    is_demanded = demands_calls(sampling, tools)
    is_strict = any(tool.name in sampling.strict_tools for tool in tools)
    is_free = sampling.parallel_tool_calls and not is_strict
    if not is_demanded and (is_free or not tools or sampling.grammar is not None):
        grammar = sampling.grammar
        if grammar is None or not rules_final(loaded, prompt, grammar):
            return sampling
        return replace(sampling, grammar=replace(grammar, in_final=True))
    if (markup := loaded.chat.markup) is None:
        raise ConfigError(
            "how this model writes tool calls is not known: leave out tool_choice, parallel_tool_calls and strict_tools"
        )
    grammar = tool_grammar(tools, choice=sampling.tool_choice, parallel=sampling.parallel_tool_calls, markup=markup)
    in_thought = await loaded.preparation.run(
        partial(opens_thought, loaded, prompt, tools), owner=request_owner.current()
    )
    return replace(sampling, grammar=replace(grammar, after_thought=in_thought))


async def answer_grammar(
    loaded: Loaded, sampling: Sampling, tools: Sequence[ToolSpec], *, free: bool, owner: str
) -> CompiledGrammar | None:
    """The grammar of the answers, compiled in another thread if it is new; None if nothing constrains them.

    `free` leaves the calls of tools unconstrained; `owner` is whose turn in that thread it is.
    """
    forcing = sampling.allowed_token_ids is None and not sampling.bad_words and not loaded.limits.forbidden
    if (grammar := sampling.grammar) is not None:
        known = loaded.grammars.find(grammar, forcing=forcing)
        make = partial(loaded.grammars.compile, grammar, forcing=forcing, owner=owner)
        return known or await loaded.grammars.in_thread(make)
    markup = loaded.chat.markup
    if not tools or free or markup is None:
        return None
    return await loaded.grammars.in_thread(partial(compile_calls, loaded.grammars, tools, markup, forcing, owner=owner))


def compile_calls(
    grammars: Grammars, tools: Sequence[ToolSpec], markup: Markup, forcing: bool = True, *, owner: str = ""
) -> CompiledGrammar:
    """The grammar of calls of the tools. A schema that cannot be compiled allows any object: its tool checks it."""
    compiled = partial(grammars.compile, forcing=forcing, owner=owner)
    ends = time.monotonic() + _CALLS_S
    with suppress(ConfigError):
        return compiled(tool_grammar(tools, markup=markup))
    with suppress(ConfigError):
        readable = [tool if _is_readable(compiled, tool, markup, ends) else _loose(tool) for tool in tools]
        return compiled(tool_grammar(readable, markup=markup))
    return compiled(tool_grammar([_loose(tool) for tool in tools], markup=markup))


def _is_readable(compiled: Callable[[Grammar], CompiledGrammar], tool: ToolSpec, markup: Markup, ends: float) -> bool:
    """True if the grammar of one tool's calls can be compiled; after a time only what is known to be cheap is tried."""
    try:
        grammar = tool_grammar([tool], markup=markup)
        if time.monotonic() > ends and not is_cheap(grammar):
            return False
        compiled(grammar)
    except ConfigError:
        return False
    return True


def _loose(tool: ToolSpec) -> ToolSpec:
    return replace(tool, parameters={"type": "object"})
