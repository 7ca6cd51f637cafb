"""Scores what tools give by the words of known injections: an event for each result that looks like one, and no more.

Weights are log-odds of cues that are common in published injections and rare in documents. It is a detector, and detectors
fall to whoever writes against them: it reports, and decides nothing.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from firsthand.errors import ConfigError
from firsthand.guard import AttemptView, GuardVerdict
from firsthand.message import ToolResult
from firsthand.tool import Tool

CUES: tuple[tuple[str, float], ...] = (
    (r"\b(?:ignore|disregard|forget)\b.{0,40}\b(?:instruction|prompt|above|previous|task|user)", 4.0),
    (r"\b(?:important|urgent)\s+(?:message|instruction|information|note)s?\b", 2.5),
    (r"\b(?:before|after|instead of)\s+(?:you\s+)?(?:can\s+)?(?:solv|do|complet|continu|answer|go)\w*\b", 2.5),
    (r"</?\s*(?:information|system|instructions?|important|admin|task)\s*>", 2.5),
    (r"\b(?:you are|act as|pretend to be)\s+(?:now\s+)?(?:an?|the)\b", 2.0),
    (r"<\|[a-z_]+\|>|\[/?INST\]|<start_of_turn>|###\s*(?:system|instruction)", 3.5),
    (r"\b(?:please\s+)?(?:do|follow|execute|perform|carry out)\s+(?:the\s+)?(?:following|these)\b", 2.0),
    (r"\b(?:the|this|your)\s+(?:assistant|ai|model|agent|llm)\b|\bfrom me,.{0,40}, to you\b", 1.5),
    (r"\bTODO\s*:", 2.0),
    (r"\b(?:do not|don't|never)\s+(?:tell|mention|inform|show)\b.{0,30}\b(?:user|anyone)\b", 3.0),
    (r"\b(?:send|forward|email|transfer|post)\b.{0,60}\b(?:to|at)\b.{0,30}(?:@|www\.|https?:|[A-Z]{2}\d{6})", 1.5),
)
_EXPRESSIONS = tuple((re.compile(pattern, re.IGNORECASE | re.DOTALL), weight) for pattern, weight in CUES)
PRIOR = -5.0
MAX_CHARS = 200_000


def injection_score(text: str) -> float:
    """The estimated chance that a text holds an injection, 0 to 1."""
    shown = text[:MAX_CHARS]
    total = PRIOR + sum(weight for expression, weight in _EXPRESSIONS if expression.search(shown))
    return 1 / (1 + math.exp(-total))


@dataclass(frozen=True)
class Injection:
    """The guard."""

    name = "injection"
    at: float = 0.5

    def result(self, view: AttemptView, tool: Tool, result: ToolResult) -> GuardVerdict:
        """Lets every result pass; one that scores `at` or more is an event."""
        score = injection_score(result.content)
        if score < self.at:
            return GuardVerdict.passed(self.name)
        return GuardVerdict.passed(self.name, f"looks like an injection ({score:.2f})", {"score": round(score, 4)})


def injection(*, at: float = 0.5) -> Injection:
    """A detector that notes results whose score is `at` or more."""
    if not 0 < at < 1:
        raise ConfigError(f"at is {at}: a score between 0 and 1 was expected")
    return Injection(at)
