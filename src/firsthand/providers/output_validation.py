"""Checks that answers from elsewhere match their grammar, and calls of strict tools their schemas.

Local models are constrained to both.
"""

from __future__ import annotations

from collections.abc import Sequence

from firsthand.errors import ConfigError, GrammarIgnored, GrammarUnchecked, ModelError
from firsthand.grammar import Grammar, json_schema
from firsthand.message import ToolCall, canonical
from firsthand.model import Completion, Sampling, ToolSpec, Usage, add_lost_usage
from firsthand.system import request_owner


async def check(
    name: str, completions: Sequence[Completion], sampling: Sampling, tools: Sequence[ToolSpec] = ()
) -> None:
    """Raise GrammarIgnored if a finished answer does not match the sampling's grammar, or a call of a strict tool its
    schema; GrammarUnchecked if that takes more than the limits of a check.

    The error has the answers and what they cost. After stop strings an answer need only begin a matching text; calls of
    other tools and truncated answers are not checked.
    """
    strict = {tool.name: tool for tool in tools if tool.name in sampling.strict_tools}
    try:
        for completion in completions:
            if sampling.grammar is not None and completion.finish_reason == "stop":
                await _check_text(name, completion.message.text, sampling.grammar, is_whole=not sampling.stop)
            if completion.finish_reason in ("stop", "tool_calls"):
                for call in completion.message.tool_calls:
                    if call.name in strict:
                        await _check_call(name, call, strict[call.name])
    except ModelError as error:
        error.answers = tuple(completions)
        add_lost_usage(error, sum((each.usage for each in completions), Usage()))
        raise


async def _check_text(name: str, text: str, grammar: Grammar, *, is_whole: bool) -> None:
    if not await _fits(name, grammar, text, is_whole):
        raise GrammarIgnored(
            f"{name} answered {text[:80]!r}, which does not fit the {grammar.kind} grammar it was given: it seems to "
            "ignore grammars, so leave the grammar out, or use a local model"
        )


async def _check_call(name: str, call: ToolCall, tool: ToolSpec) -> None:
    written = canonical(call.arguments) if call.invalid is None else call.invalid
    if call.invalid is None and await _fits(name, json_schema(tool.parameters), written, True):
        return
    raise GrammarIgnored(
        f"{name} called {tool.name} with {written[:80]!r}, which does not fit the tool's schema, though the tool is strict: "
        "it seems to ignore `strict`, so leave it out, or use a local model"
    )


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
