"""One problem: a public part for the agent, and a secret part for the scorer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from firsthand.message import Json, Message


@dataclass(frozen=True)
class Task:
    """One problem. A pattern is given `task.public()`, whose `secret` is empty."""

    id: str
    """Unique within its benchmark, and stable: runs are compared task by task."""
    prompt: str
    """The question as text."""
    choices: tuple[str, ...] = ()
    """The possible answers of a multiple-choice problem, in order."""
    context: str | None = None
    """The exact text that a choice continues when choices are scored by log-prob; a choice follows it as it is."""
    requests: tuple[tuple[str | None, str], ...] = ()
    """For each choice the text before it and the text whose log-prob counts, where that is not `context` and the choice:
    letters, or an ending that follows each choice. None before it: it follows conversation and prompt. See `scored`."""
    conversation: tuple[Message, ...] = ()
    """Messages before the prompt: a system message, answered examples. Every attempt begins with them; an agent's own system
    message replaces the first."""
    baseline: str | None = None
    """The text before a choice that is scored without the question, for metrics that subtract that log-prob."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Sampling settings that the protocol fixes, such as `stop` and `max_tokens`."""
    verbatim: bool = False
    """The answer is the whole output: set where scorers judge or search a reply, such as for refusals or code."""
    last_line: bool = False
    """Only an answer that is the last line of the output counts; see `patterns.parts.last_line`."""
    calls: bool = False
    """The answer is the tool calls of one message, which are scored and not run."""
    hint: str | None = None
    """The form of the answer, such as `a number`, for patterns that parse it out of text."""
    thoughts: str | None = None
    """The benchmark whose function `thoughts` defines the search over this task; None for generic steps."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Further public data: subject, level, few-shot examples."""
    secret: Mapping[str, Any] = field(default_factory=dict)
    """For the scorer alone: the reference answer, tests, rubrics."""

    def public(self) -> Task:
        """The task as an agent may see it."""
        return replace(self, secret={})

    @property
    def cluster(self) -> str | None:
        """The group of dependent tasks that it belongs to, such as those about one passage: `metadata["cluster"]`, or None.

        Intervals and tests allow for tasks of one cluster, which are not independent draws from the benchmark.
        """
        named = self.metadata.get("cluster")
        return None if named is None else str(named)

    @property
    def stratum(self) -> str | None:
        """The fixed group that it belongs to, such as its subject: `metadata["stratum"]`, or None.

        Another test set would have the same strata with other tasks, so differences between them are no uncertainty.
        """
        named = self.metadata.get("stratum")
        return None if named is None else str(named)

    @property
    def protected(self) -> str | None:
        """The reason why its text must not be published, `metadata["protected"]`, as its authors ask; or None.

        Printed and exported attempts leave their text out.
        """
        why = self.metadata.get("protected")
        return None if why is None else str(why)

    @property
    def scored(self) -> tuple[tuple[str | None, str], ...]:
        """For each choice the text before it and the text whose log-prob counts; empty if choices are not scored so."""
        if self.requests or self.context is None:
            return self.requests
        return tuple((self.context, choice) for choice in self.choices)

    @property
    def letters(self) -> tuple[str, ...]:
        """A letter for each choice: A, B, C, ..."""
        return tuple(chr(ord("A") + i) for i in range(len(self.choices)))

    @property
    def question(self) -> str:
        """The prompt, with its choices listed under it if there are any."""
        listed = [f"{letter}. {choice.strip()}" for letter, choice in zip(self.letters, self.choices, strict=True)]
        return "\n".join([self.prompt, *listed])

    def to_json(self) -> Json:
        """The task as a JSON object, secret included: for the store, not for an agent."""
        body: Json = {
            "id": self.id,
            "prompt": self.prompt,
            "choices": list(self.choices),
            "context": self.context,
            "requests": [list(pair) for pair in self.requests],
            "baseline": self.baseline,
            "sampling": dict(self.sampling),
            "verbatim": self.verbatim,
            **({"last_line": True} if self.last_line else {}),
            **({"calls": True} if self.calls else {}),
            "hint": self.hint,
            "metadata": dict(self.metadata) | ({} if self.thoughts is None else {"thoughts": self.thoughts}),
            "secret": dict(self.secret),
        }
        if self.conversation:
            body["conversation"] = [message.to_json() for message in self.conversation]
        return body

    @staticmethod
    def from_json(body: Json) -> Task:
        """The task that `to_json` wrote."""
        requests = tuple((before, text) for before, text in body.get("requests", ()))
        fixed = {k: tuple(v) if isinstance(v, list) else v for k, v in body.get("sampling", {}).items()}
        said = tuple(Message.from_json(each) for each in body.get("conversation", ()))
        given = {"choices": tuple(body["choices"]), "requests": requests, "sampling": fixed, "conversation": said}
        metadata = dict(body.get("metadata", {}))
        if "thoughts" in metadata:  # stored there since before it was a field, so that old runs can be resumed
            given |= {"thoughts": metadata.pop("thoughts"), "metadata": metadata}
        return Task(**{**body, **given})
