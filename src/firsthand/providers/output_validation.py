"""Checks that answers from elsewhere match their grammar. Local models are constrained to it."""

from __future__ import annotations

from collections.abc import Sequence

from firsthand.errors import ConfigError, GrammarIgnored, GrammarUnchecked, ModelError
from firsthand.grammar import Grammar
from firsthand.model import Completion, Sampling, Usage, add_lost_usage
from firsthand.system import request_owner


async def check(name: str, completions: Sequence[Completion], sampling: Sampling) -> None:
    """Raise GrammarIgnored if a finished answer does not match the sampling's grammar, GrammarUnchecked if that takes
    more than the limits of a check.

    The error has the answers and what they cost. After stop strings an answer need only begin a matching text; tool calls
    and truncated answers are not checked.
    """
    grammar = sampling.grammar
    if grammar is None:
        return
    try:
        for completion in completions:
            text = completion.message.text
            if completion.finish_reason != "stop" or await _fits(name, grammar, text, not sampling.stop):
                continue
            raise GrammarIgnored(
                f"{name} answered {text[:80]!r}, which does not fit the {grammar.kind} grammar it was given: it seems to "
                "ignore grammars, so leave the grammar out, or use a local model"
            )
    except ModelError as error:
        error.answers = tuple(completions)
        add_lost_usage(error, sum((each.usage for each in completions), Usage()))
        raise


async def _fits(name: str, grammar: Grammar, text: str, whole: bool) -> bool:
    from firsthand.tokens.grammar_checks import checked  # takes a while to import

    owner = request_owner.current().partition("/")[0]  # a client, whatever users it names
    try:
        return await checked(grammar, text, whole=whole, owner=owner)
    except GrammarUnchecked as error:
        raise GrammarUnchecked(
            f"an answer of {name} with {len(text)} characters cannot be checked against its grammar: {error}"
        ) from None
    except ConfigError:
        return True  # a dialect that we cannot compile, but the endpoint accepted
