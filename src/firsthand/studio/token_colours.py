"""Sampled tokens with their text, log-prob and entropy, where a call has recorded the alternatives of each token.

A message keeps ids and log-probs; texts of tokens are known from the alternatives (`Sampling.top_logprobs`). Each token is
laid on the message's text in order; a token whose text is not known gets the text up to the next one that is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from firsthand.trace import Trace

MAX_TOKENS = 4000
_MATCH = 1e-3
"""A token's log-prob and that of its alternative differ by rounding at most."""
ENTROPY_STEPS = (0.1, 0.5, 1.0, 2.0)
"""Nats above which a token is one step more uncertain."""


@dataclass(frozen=True)
class ColouredToken:
    """A token on a message's text."""

    text: str
    logprob: float
    entropy: float
    """In nats, of the alternatives that were recorded, the rest of the probability as one: a lower bound."""
    logprob_step: int
    """0 (certain) to 4 (very unlikely)."""
    entropy_step: int
    """0 (certain) to 4 (more than 2 nats)."""
    others: tuple[tuple[str, float], ...]
    """The most probable tokens with their probabilities."""


def tokens_of(trace: Trace, node: int) -> tuple[ColouredToken, ...]:
    """The tokens of a sampled message; empty if it has no alternatives recorded, or they do not fit its text."""
    message = trace.nodes[node].message
    top = _alternatives(trace, node)
    if message.sampled is None or top is None:
        return ()
    logprobs = message.sampled.logprobs
    if len(top) != len(logprobs) or len(top) > MAX_TOKENS:
        return ()
    pieces = laid_out(message.text, [_text(pairs, logprob) for pairs, logprob in zip(top, logprobs, strict=True)])
    if pieces is None:
        return ()
    found = []
    for piece, pairs, logprob in zip(pieces, top, logprobs, strict=True):
        entropy = entropy_of([each for _, each in pairs])
        others = tuple((text, math.exp(min(0.0, each))) for text, each in pairs[:6])
        step = sum(entropy > bound for bound in ENTROPY_STEPS)
        found.append(ColouredToken(piece, logprob, entropy, logprob_step(logprob), step, others))
    return tuple(found)


def logprob_step(logprob: float) -> int:
    """0 for a token of probability above .9, 1 above .5, 2 above .1, 3 above .01, 4 below."""
    if not math.isfinite(logprob):
        return 4
    probability = math.exp(min(0.0, logprob))
    return sum(probability <= bound for bound in (0.9, 0.5, 0.1, 0.01))


def laid_out(text: str, tokens: Sequence[str | None]) -> list[str] | None:
    """The text cut into one piece for each token, which joined are the text; None if less than half of the tokens fit.

    A token of None, or one whose text does not come next, gets the text up to the next token that fits; what an end-of-turn
    token stands for is in no text, and it gets an empty piece.
    """
    pieces, position, fitting = [""] * len(tokens), 0, 0
    open_at: int | None = None
    for index, token in enumerate(tokens):
        if token and open_at is None and text.startswith(token, position):
            place = position
        elif token and open_at is not None:
            place = text.find(token, position)
            if place > position + 40 * (index - open_at):
                place = -1
        else:
            place = -1
        if place < 0 or not token:
            open_at = index if open_at is None else open_at
            continue
        if open_at is not None:
            pieces[open_at] = text[position:place]
            open_at = None
        pieces[index] = token
        position = place + len(token)
        fitting += 1
    if open_at is not None:
        pieces[open_at] = text[position:]
    elif pieces:
        pieces[-1] += text[position:]
    return pieces if fitting * 2 >= len(tokens) and fitting else None


def entropy_of(logprobs: Sequence[float]) -> float:
    """The entropy in nats of the probabilities that are known, the rest of the mass as one more outcome."""
    known = [math.exp(min(0.0, each)) for each in logprobs if math.isfinite(each)]
    rest = max(0.0, 1.0 - math.fsum(known))
    return -math.fsum(p * math.log(p) for p in [*known, rest] if p > 0) + 0.0


def _alternatives(trace: Trace, node: int) -> list[list[tuple[str, float]]] | None:
    for call in trace.calls:
        if node in call.nodes and "top_logprobs" in call.detail:
            try:
                found = call.detail["top_logprobs"][call.nodes.index(node)]
                return [[(str(text), float(value)) for text, value in token] for token in found]
            except (TypeError, ValueError, LookupError):
                return None
    return None


def _text(pairs: Sequence[tuple[str, float]], logprob: float) -> str | None:
    """The text of the alternative that was sampled, by its log-prob; None if it is not among them, or two have it."""
    near = [text for text, each in pairs if abs(each - logprob) < _MATCH]
    return near[0] if len(near) == 1 else None
