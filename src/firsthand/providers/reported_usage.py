"""Reads the token counts and costs that replies of the OpenAI protocol report."""

from __future__ import annotations

import math
from typing import Any

from firsthand.message import Json
from firsthand.model import Usage

_CACHED = ("prompt_cache_hit_tokens", "cached_tokens")
"""DeepSeek's name and Moonshot's for the cached tokens of a prompt, beside OpenAI's."""


def read_usage(body: Any) -> Usage:
    """Returns the token counts of a reply; missing or invalid ones are 0. `cost` is in USD if the endpoint reports it.

    What the total has beside the prompt and the answer is of the answer: xAI and Google count reasoning there alone.
    """
    body = json_object(body)
    prompt, answer = count(body.get("prompt_tokens")), count(body.get("completion_tokens"))
    if prompt:  # a total without it is that of the prompt too
        answer = max(answer, count(body.get("total_tokens")) - prompt)
    cached = max(
        count(json_object(body.get("prompt_tokens_details")).get("cached_tokens")),
        *(count(body.get(name)) for name in _CACHED),
    )
    cost = _dollars(body.get("cost"))
    if body.get("is_byok") is True:  # OpenRouter's fee alone: the provider charges the user's own key
        cost += _dollars(json_object(body.get("cost_details")).get("upstream_inference_cost"))
    return Usage(prompt, min(cached, prompt), answer, cost)


def _dollars(value: Any) -> float:
    return max(number(value) or 0.0, 0.0)


def json_object(value: Any) -> Json:
    """Returns the value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def number(value: Any) -> float | None:
    """Returns a finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e15 or not math.isfinite(value):
        return None
    return float(value)


def count(value: Any) -> int:
    """Returns a count of tokens or a number of an item; 0 for anything else. Some servers write whole numbers as 400.0."""
    return int(value) if type(value) in (int, float) and 0 <= value < 2**40 and value == int(value) else 0
