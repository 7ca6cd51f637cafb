"""Whether answers that came from elsewhere are what their grammar asks for: a model that runs here cannot do otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from firsthand.errors import ConfigError, ModelError
from firsthand.grammar import Grammar
from firsthand.model import Completion, Sampling


async def check(name: str, completions: Iterable[Completion], sampling: Sampling) -> None:
    """ModelError if an answer that came to its end does not fit the sampling's grammar.

    After stop strings it need only be the beginning of a text that fits; tool calls and answers cut off are not looked at.
    """
    grammar = sampling.grammar
    if grammar is None:
        return
    for completion in completions:
        text = completion.message.text
        if completion.finish_reason != "stop" or await asyncio.to_thread(_fits, grammar, text, not sampling.stop):
            continue
        raise ModelError(
            f"{name} answered {text[:80]!r}, which does not fit the {grammar.kind} grammar it was given: it seems to ignore "
            "grammars, so leave the grammar out, or use a local model"
        )


def _fits(grammar: Grammar, text: str, whole: bool) -> bool:
    from firsthand.tokens.grammar_compiler import accepts  # takes a while to import

    try:
        return accepts(grammar, text, whole=whole)
    except ConfigError:
        return True  # another dialect than ours: the endpoint took it
