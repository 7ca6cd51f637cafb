"""Refuses the sampling settings and prompts that an endpoint has no field for, since it would ignore them in silence."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields

from firsthand.errors import ConfigError
from firsthand.model import Prompt, Sampling
from firsthand.system.field_types import shown

_FLAGS = {"top_logprobs": "log-probs"}
"""The field's words for settings whose name is not one."""


def check_supported(name: str, sampling: Sampling, supported: Collection[str]) -> None:
    """ConfigError if a setting that is not among `supported` is used, or a grammar other than a JSON schema."""
    refused = [
        f"{_FLAGS.get(each.name, each.name)} ({shown(getattr(sampling, each.name))})"
        for each in fields(sampling)
        if each.name not in supported and each.name != "grammar" and getattr(sampling, each.name) != each.default
    ]
    if refused:
        raise ConfigError(
            f"{name} has no {', '.join(refused)}: leave {'it' if len(refused) == 1 else 'them'} out, or use a local model"
        )
    if sampling.grammar is not None and sampling.grammar.kind != "json_schema":
        raise ConfigError(
            f"{name} takes JSON schemas and no other grammar, but got a {sampling.grammar.kind} grammar: write it as a "
            "JSON schema, or use a local model"
        )


def check_conversation(name: str, prompt: Prompt) -> None:
    """ConfigError for a plain-text prompt, which an endpoint for conversations cannot continue."""
    if isinstance(prompt, str):
        raise ConfigError(
            f"{name} answers conversations and continues no plain text: use a protocol that chats, a local model, or vLLM"
        )


def no_scores(name: str) -> str:
    """Returns the sentence on log-probs of given continuations, which the endpoint does not report."""
    return (
        f"{name} gives no log-probs, which this task is scored by: use a pattern that generates, such as --pattern cot, a "
        "local model, or vLLM"
    )
