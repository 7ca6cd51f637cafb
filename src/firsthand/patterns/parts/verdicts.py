"""A verdict that cannot fail to parse: one of a few labels, and how probable each of them is.

A model that scores (one that runs here, or an endpoint that echoes log-probs) is not asked to write: its verdict is the
distribution over the labels as its next words. Other models write the verdict under a grammar, and the distribution comes
from the log-probs of the tokens they considered, where the endpoint gives them. What does not fit is asked for in words, and
once more in words, and a model that gives no verdict then is a ModelError: never a verdict by default, and never one of two
that a text names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from firsthand.context import Context
from firsthand.errors import ConfigError, ModelError, PromptTooLong, TransientError
from firsthand.grammar import choice, json_schema
from firsthand.patterns.parts.written_labels import written_label

VerdictMethod = Literal["auto", "logprob", "grammar", "words"]
By = Literal["logprob", "top log-probs", "grammar", "words"]
TOP_LOGPROBS = 20
"""The most that OpenAI returns."""
MAX_TOKENS = 32


@dataclass(frozen=True)
class Distribution:
    """The probability of each label, summing to 1, and the method it comes from."""

    probabilities: Mapping[str, float]
    by: By
    mass: float = 1.0
    """The total probability of all labels as the model's next words: a small one means that it would have written something
    else. 1 if a grammar constrained it and there are no log-probs."""

    @property
    def top(self) -> str:
        """The most probable label; the first of equals."""
        return max(self.probabilities, key=lambda label: self.probabilities[label])


async def distribution(ctx: Context, labels: Sequence[str], how: VerdictMethod = "auto") -> Distribution:
    """The distribution over the labels as the next words of a conversation that asked for one of them.

    `auto` takes the first way that the model has: `logprob`, `grammar`, `words`. A passing fault, or a prompt that is too
    long, is raised as it is.
    """
    ways = {"logprob": _by_scoring, "grammar": _by_choice, "schema": _by_schema, "words": _in_words}
    wanted = {"auto": list(ways), "grammar": ["grammar", "schema"]}.get(how, [how])
    for way in wanted:
        try:
            return await ways[way](ctx, labels)
        except (TransientError, PromptTooLong):
            raise
        except (ModelError, ConfigError):
            if way == wanted[-1]:
                raise
    raise AssertionError("the last way returns or raises")


def normalised(logprobs: Mapping[str, float]) -> tuple[dict[str, float], float]:
    """Log-probs of labels as probabilities that add up to 1, and the sum before that."""
    top = max(logprobs.values())
    if any(math.isnan(each) or each == math.inf for each in logprobs.values()):
        raise ModelError(f"a log-prob of the judge is no number ({dict(logprobs)}): is the model damaged?")
    if not math.isfinite(top):
        raise ModelError("every verdict has probability 0: the log-probs of the judge are of no use")
    weights = {label: math.exp(logprob - top) for label, logprob in logprobs.items()}
    total = sum(weights.values())
    return {label: weight / total for label, weight in weights.items()}, min(1.0, total * math.exp(top))


def weighed(
    forms: Mapping[str, str], text: str, alternatives: Sequence[Sequence[tuple[str, float]]]
) -> tuple[dict[str, float], float] | None:
    """The probability of each label from the alternatives at each token of a written one, and how much of it is known.

    `forms` is how each label is written. A token on the way that leaves one label possible gives it its probability; one
    beside the way that leaves several possible is not known further, and counts for none. None if the tokens do not spell
    the text.
    """
    found = dict.fromkeys(forms, 0.0)
    seen, mass = "", 1.0
    for token in alternatives:
        ours = [(each, logprob) for each, logprob in token if each and text.startswith(seen + each)]
        if not ours:
            return None
        chosen = max(ours, key=lambda pair: pair[1])
        for each, logprob in token:
            if not each:
                continue
            possible = [label for label, form in forms.items() if form.startswith(seen + each)]
            if len(possible) == 1 and (each, logprob) != chosen:
                found[possible[0]] += mass * math.exp(logprob)
        possible = [label for label, form in forms.items() if form.startswith(seen + chosen[0])]
        mass *= math.exp(chosen[1])
        if len(possible) <= 1:
            for label in possible:
                found[label] += mass
            break
        seen += chosen[0]
    total = sum(found.values())
    return ({label: share / total for label, share in found.items()}, min(1.0, total)) if total > 0 else None


async def _by_scoring(ctx: Context, labels: Sequence[str]) -> Distribution:
    likelihoods = await ctx.score(labels)
    shares, mass = normalised({label: each.logprob for label, each in zip(labels, likelihoods, strict=True)})
    return Distribution(shares, "logprob", mass)


async def _by_choice(ctx: Context, labels: Sequence[str]) -> Distribution:
    settings: dict[str, Any] = {"grammar": choice(labels), "max_tokens": MAX_TOKENS, "temperature": 0.0}
    try:
        said = await ctx.generate(**settings, top_logprobs=TOP_LOGPROBS)
    except (TransientError, PromptTooLong):
        raise
    except ModelError:  # some endpoints give no log-probs, and refuse to be asked
        said = await ctx.generate(**settings)
    return _read(said, {label: label for label in labels})


async def _by_schema(ctx: Context, labels: Sequence[str]) -> Distribution:
    """For endpoints that take JSON schemas and no other grammar."""
    schema = {
        "type": "object",
        "properties": {"verdict": {"type": "string", "enum": list(labels)}},
        "required": ["verdict"],
        "additionalProperties": False,
    }
    settings: dict[str, Any] = {"grammar": json_schema(schema), "max_tokens": 2 * MAX_TOKENS, "temperature": 0.0}
    try:
        said = await ctx.generate(**settings, top_logprobs=TOP_LOGPROBS)
    except (TransientError, PromptTooLong):
        raise
    except (ModelError, ConfigError):  # some endpoints take schemas and give no log-probs
        said = await ctx.generate(**settings)
    text = said.said.strip()
    try:
        label = json.loads(text)["verdict"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModelError(f"the judge wrote {text[:80]!r} where a JSON object with a verdict was asked for") from None
    forms = {each: text.replace(json.dumps(label), json.dumps(each), 1) for each in labels}
    return _read(said, forms)


async def _in_words(ctx: Context, labels: Sequence[str]) -> Distribution:
    """The label that an answer without any grammar is; asked for once more where a text names several, or none by itself."""
    asked = ctx
    for _ in range(2):
        said = await asked.generate(max_tokens=8 * MAX_TOKENS, temperature=0.0)
        label = written_label(said.said, labels)
        if label is not None:
            return Distribution({each: float(each == label) for each in labels}, "words")
        asked = said.say(f"Reply with one of these and nothing else: {', '.join(labels)}.")
    raise ModelError(
        f"the judge answered {said.text[:80]!r}, where one of {', '.join(labels)[:120]} and nothing else was asked for "
        "twice: take a judge that writes under a grammar, or one that answers with a label alone"
    )


def _read(said: Context, forms: Mapping[str, str]) -> Distribution:
    text = said.said.strip()
    label = next((each for each, form in forms.items() if form == text), None)
    if label is None:
        raise ModelError(f"the judge wrote {text[:80]!r}, which is none of {', '.join(forms)[:120]}")
    found = weighed(forms, text, said.alternatives)
    if found is not None:
        return Distribution(found[0], "top log-probs", found[1])
    return Distribution({each: float(each == label) for each in forms}, "grammar")
