"""Checks that answers from elsewhere match their grammar. Local models are constrained to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from firsthand.errors import ConfigError, GrammarIgnored
from firsthand.grammar import Grammar
from firsthand.model import Completion, Sampling


async def check(name: str, completions: Iterable[Completion], sampling: Sampling) -> None:
    """Raise GrammarIgnored if a finished answer does not match the sampling's grammar.

    After stop strings it need only begin a matching text; tool calls and truncated answers are not checked.
    """
    grammar = sampling.grammar
    if grammar is None:
        return
    for completion in completions:
        text = completion.message.text
        if completion.finish_reason != "stop" or await asyncio.to_thread(_fits, grammar, text, not sampling.stop):
            continue
        raise GrammarIgnored(
            f"{name} answered {text[:80]!r}, which does not fit the {grammar.kind} grammar it was given: it seems to ignore "
            "grammars, so leave the grammar out, or use a local model"
        )


def _fits(grammar: Grammar, text: str, whole: bool) -> bool:
    from firsthand.tokens.grammar_compiler import accepts  # takes a while to import

    try:
        return accepts(grammar, text, whole=whole)
    except ConfigError:
        return True  # a dialect that we cannot compile, but the endpoint accepted
