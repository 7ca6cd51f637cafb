"""The record of one attempt: the tree of messages, the calls, events, scores, usage, timing, and any error as data.

A Trace is self-describing and versioned: it can be scored again, shown, compared or trained on from disk, without the code
that made it. Messages form a tree, and a node holds only what it adds, so branches that share a prefix share its nodes.
The same holds for the token ids of prompts. `Trace.samples` gives each branch as token ids, mask and log-probs.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import ModuleType
from typing import Any, Literal

import firsthand
from firsthand import trace_body
from firsthand.errors import ModelError
from firsthand.message import Json, Message
from firsthand.model import ToolSpec, Usage

TRACE_VERSION = trace_body.TRACE_VERSION
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"

CallKind = Literal["generate", "tool", "score", "memory", "guard"]


MAX_NUMBER = 1e200
"""The largest score, cost or time of an attempt, so that sums of squares are finite."""
_ABOVE_ONE, _BELOW_ZERO = 1e-6, 1e-12


def unrounded(score: float) -> float:
    """The score; 1 or 0 where only rounding puts it above or below, as it does cosines in float32 and sums of shares."""
    if 1 < score <= 1 + _ABOVE_ONE:
        return 1.0
    return 0.0 if -_BELOW_ZERO <= score < 0 else score


@dataclass(frozen=True)
class Node:
    """A message in the tree: `parent` is the index of the node before it, None for a first message."""

    parent: int | None
    message: Message


@dataclass(frozen=True)
class PromptIds:
    """The token ids of a call's prompt, stored as what they add to an earlier call's prompt and answer."""

    ids: tuple[int, ...]
    """The ids after the shared ones."""
    after: int | None = None
    """Index of the earlier call; None if nothing is shared."""
    sample: int = 0
    """Index of the earlier call's answer that is shared."""
    kept: int = 0
    """Number of shared ids, counted over the earlier call's prompt and then its answer."""


@dataclass(frozen=True)
class Call:
    """One effect: a generation, a tool call, a scoring, a memory operation, or what a guard asked of a model."""

    id: str
    """Branch path and index there, such as `0.3:1`."""
    kind: CallKind
    at: int | None
    """The node it was made from; None before the first message."""
    started_s: float
    """Seconds since the attempt began."""
    duration_s: float
    request: str
    """SHA-256 of all that decides the reply."""
    usage: Usage = field(default_factory=Usage)
    nodes: tuple[int, ...] = ()
    """The nodes that a generation added, one per sample."""
    detail: Json = field(default_factory=dict)
    """Finish reasons and sampling of a generation; name, arguments and result of a tool call; likelihoods of a scoring.

    A tool call that was carried out and has no result that the model read says `ran`; see `tool_calls.has_run`.
    """
    replayed: bool = False
    """True if the reply came from the journal of an earlier, interrupted try."""
    error: str | None = None
    prompt: PromptIds | None = None
    """Of a generation whose model reports token ids; `Trace.prompt_ids` gives all of them."""
    tools: tuple[int, ...] = ()
    """The tools that the model was offered, as indices into `Trace.tools`."""


@dataclass(frozen=True)
class Event:
    """Anything that happened besides the calls: a retry, a limit, a guard's verdict, a note of the pattern."""

    kind: str
    at_s: float
    """Seconds since the attempt began."""
    data: Json = field(default_factory=dict)


NOTE = "note."
"""Scores that people give have names that begin so. No mean counts an attempt that nobody rated."""


@dataclass(frozen=True)
class Score:
    """One scorer's verdict. `value` is 0 to 1 unless the scorer says otherwise."""

    name: str
    value: float
    detail: Json = field(default_factory=dict)
    node: int | None = None
    """The message that is scored, as in a process reward; None for the whole attempt."""
    failure: str | None = field(default=None, kw_only=True)
    """The error of the scorer itself, if it failed: the value then says nothing about the attempt."""
    unjudged: bool = field(default=False, kw_only=True)
    """True if it failed because the judge could not answer: an error in tables, and no part of a mean."""

    def __post_init__(self) -> None:
        if isinstance(self.value, float):
            object.__setattr__(self, "value", unrounded(self.value))
        if not isinstance(self.detail, Mapping):
            raise TypeError(f"the detail of a score is a {type(self.detail).__name__}: an object was expected")
        if "scorer_failed" in self.detail:  # stored before there were the two fields
            detail = dict(self.detail)
            object.__setattr__(self, "failure", self.failure or str(detail.pop("scorer_failed")))
            object.__setattr__(self, "unjudged", self.unjudged or bool(detail.pop("unjudged", False)))
            object.__setattr__(self, "detail", detail)

    @property
    def corpus(self) -> Json | None:
        """The attempt's share of a figure of the whole corpus, if the score is one; see `stats/corpus_formulas.py`."""
        share = self.detail.get("corpus")
        return share if isinstance(share, dict) else None

    @property
    def is_harm(self) -> bool:
        """True if a higher value is worse, as of attacks that succeed: a failed attempt is then no part of a mean."""
        return self.detail.get("is_harm") is True

    @property
    def is_right(self) -> bool:
        """True for full marks: 1 or more, and of a score of harm 0 or less."""
        return self.value <= 0 if self.is_harm else self.value >= 1

    @property
    def failed(self) -> bool:
        """True if the scorer itself failed, so that the value says nothing about the attempt."""
        return self.failure is not None


@dataclass(frozen=True)
class TrainingSample:
    """One branch of a trace as training data. All tuples but `spans` and `scores` have one entry per token."""

    leaf: int
    """The last node of the branch."""
    token_ids: tuple[int, ...]
    mask: tuple[int, ...]
    """1 for a token that the model sampled, 0 for a token of the prompt, where log-probs are 0 and versions -1."""
    logprobs: tuple[float, ...]
    """Natural log, under the model's own distribution."""
    behaviour_logprobs: tuple[float, ...] | None
    """Natural log, under the distribution that was sampled; None if it is not known for all sampled tokens."""
    versions: tuple[int, ...] | None
    """The version of the weights that computed each token; None if it is not known for all sampled tokens."""
    spans: tuple[tuple[int, int, int], ...]
    """(node, start, stop) of each sampled message. A node shared with another branch is in the samples of both."""
    scores: tuple[Score, ...]
    """The scores at nodes of the branch. Those of the whole attempt are the trace's."""


@dataclass(frozen=True)
class Failure:
    """An error as data. `traceback` is kept only if the error is a bug of the pattern or the tool."""

    kind: str
    message: str
    traceback: str | None = None


@dataclass(frozen=True)
class Origin:
    """The trace that an attempt was forked from, and the node it continues from."""

    trace: str
    """Id of the parent trace."""
    at: int
    """Index of the node in the parent."""
    run: str = ""
    """The run that holds the parent, if known."""


@dataclass(frozen=True)
class Trace:
    """One attempt of one agent at one task."""

    id: str
    """Unique to the attempt, as `new_trace_id` gives it."""
    benchmark: str
    task_id: str
    agent: Json
    """The agent as data: name, model, pattern, options, tools, sampling, limits."""
    epoch: int
    seed: int
    started_at: str
    """UTC, ISO 8601."""
    duration_s: float
    nodes: tuple[Node, ...] = ()
    calls: tuple[Call, ...] = ()
    events: tuple[Event, ...] = ()
    answer: str | None = None
    stop_reason: str = "done"
    """`done`, `error`, `guard` where a guard blocked a prompt or the answer, or the limit that ended the attempt, refused
    one of its calls or cut an answer short: tokens, calls, seconds, cost_usd, depth."""
    final_state: Json = field(default_factory=dict)
    """The environment's state at the end, for the scorers."""
    error: Failure | None = None
    scores: tuple[Score, ...] = ()
    origin: Origin | None = None
    """The trace and node it was forked from; None if it was not forked."""
    tools: tuple[ToolSpec, ...] = ()
    """The full schemas of all tools that models were offered, each once; calls refer to them."""
    place: str = ""
    """Hash of benchmark, task, agent and epoch (`Place.id`): equal in every run and every try. The id if left out."""
    version: int = TRACE_VERSION

    def __post_init__(self) -> None:
        if not self.place:
            object.__setattr__(self, "place", self.id)

    @property
    def agent_name(self) -> str:
        """The name of the agent that made the attempt."""
        name: str = self.agent["name"]
        return name

    @property
    def usage(self) -> Usage:
        """Tokens and money of all calls together."""
        each = [call.usage for call in self.calls]
        return Usage(
            sum(usage.prompt_tokens for usage in each),
            sum(usage.cached_tokens for usage in each),
            sum(usage.completion_tokens for usage in each),
            sum((usage.cost_usd for usage in each), 0.0),
            sum(usage.cache_write_tokens for usage in each),
        )

    def seconds_in(self, kind: CallKind) -> float:
        """The sum of the seconds of all calls of one kind, even where they overlapped."""
        return sum(call.duration_s for call in self.calls if call.kind == kind)

    @property
    def protected(self) -> str | None:
        """The reason why the attempt's text must not be printed or exported; None if it may be."""
        why = next((event.data.get("why", "") for event in self.events if event.kind == "protected"), None)
        return None if why is None else str(why)

    @property
    def attempt_scores(self) -> tuple[Score, ...]:
        """The scores of the whole attempt, without those at nodes."""
        return tuple(score for score in self.scores if score.node is None)

    def score(self, name: str) -> Score | None:
        """The whole attempt's score of that name, if there is one."""
        return next((score for score in self.attempt_scores if score.name == name), None)

    def value(self, name: str | None = None) -> float | None:
        """The value of the attempt's score of that name, or of its first; None if the attempt or the scorer failed."""
        found = self.score(name) if name is not None else next(iter(self.attempt_scores), None)
        if self.error is not None or found is None or found.failed or not float("-inf") < found.value < float("inf"):
            return None
        return float(found.value)

    def is_unjudged(self, name: str | None = None) -> bool:
        """True if the judge gave no verdict for the score of that name, or for its first: no mean counts the attempt.

        Of a score that people give (`NOTE`), True if nobody rated the attempt.
        """
        found = self.score(name) if name is not None else next(iter(self.attempt_scores), None)
        if found is None:
            return name is not None and name.startswith(NOTE)
        return self.error is None and found.unjudged

    def messages(self, node: int | None) -> tuple[Message, ...]:
        """The conversation that ends at a node, from its first message on."""
        return tuple(self.nodes[index].message for index in self.path(node))

    def path(self, node: int | None) -> tuple[int, ...]:
        """The indices of the nodes from the first message to `node`."""
        indices: list[int] = []
        while node is not None:
            indices.append(node)
            node = self.nodes[node].parent
        return tuple(reversed(indices))

    def sent(self, call: Call) -> tuple[Message, ...] | str:
        """The prompt as the model got it in a call: the conversation, or a text, after what guards replaced."""
        if isinstance(text := call.detail.get("prompt"), str):
            return text
        if (sent := call.detail.get("messages")) is None:
            return self.messages(call.at)
        return tuple(self.nodes[each].message if isinstance(each, int) else Message.from_json(each) for each in sent)

    def branches(self) -> Iterator[tuple[Message, ...]]:
        """Each conversation of the attempt, from its first message to a leaf of the tree."""
        return (self.messages(index) for index in self._leaves())

    def _leaves(self) -> list[int]:
        inner = {node.parent for node in self.nodes}
        return [index for index in range(len(self.nodes)) if index not in inner]

    def scored(self, scores: tuple[Score, ...]) -> Trace:
        """The same attempt with these scores."""
        return replace(self, scores=scores)

    def prompt_ids(self, call: int) -> tuple[int, ...] | None:
        """The token ids of the prompt of the call with this index; None if its model did not report them."""
        return prompt_ids(self.calls, self.nodes, call)

    def samples(self) -> Iterator[TrainingSample]:
        """Each branch as token ids with mask, log-probs, versions and scores at nodes: what a trainer needs.

        A branch ends with its last sampled message; one without any gives nothing. A later prompt that does not begin with
        the earlier prompt and answer, as after an edit or with `ctx.generate(prompt=...)`, begins a sample of its own.
        ModelError if the model of a sampled message did not report token ids.
        """
        made_by = {node: index for index, call in enumerate(self.calls) for node in call.nodes}
        if not any(self.calls[index].kind == "generate" for index in made_by.values()):
            raise ModelError(f"trace {self.id} has no sampled message: there is nothing to train on")
        for leaf in self._leaves():
            yield from self._samples_of(leaf, made_by)

    def _samples_of(self, leaf: int, made_by: Mapping[int, int]) -> Iterator[TrainingSample]:
        """The samples of one branch: as a rule one."""
        path = self.path(leaf)
        scores = tuple(score for score in self.scores if score.node in path)
        ids: tuple[int, ...] = ()
        spans: list[tuple[int, int, int]] = []
        for node in path:
            if node not in made_by or self.nodes[node].message.sampled is None:
                if node in made_by and self.calls[made_by[node]].prompt is None:
                    raise self._no_ids(node)
                continue  # said to the model, or sampled and then edited
            prompt = self.prompt_ids(made_by[node])
            if prompt is None:
                raise self._no_ids(node)
            if spans and prompt[: len(ids)] != ids:
                yield self._sample(leaf, ids, spans, scores)
                spans = []
            sampled = self.nodes[node].message.sampled
            assert sampled is not None
            ids = prompt + sampled.token_ids
            spans.append((node, len(prompt), len(ids)))
        if spans:
            yield self._sample(leaf, ids, spans, scores)

    def _sample(
        self, leaf: int, ids: tuple[int, ...], spans: Sequence[tuple[int, int, int]], scores: tuple[Score, ...]
    ) -> TrainingSample:
        size = len(ids)
        mask, logprobs, behaviour, versions = [0] * size, [0.0] * size, [0.0] * size, [-1] * size
        knows_behaviour = knows_versions = True
        for node, start, stop in spans:
            sampled = self.nodes[node].message.sampled
            assert sampled is not None
            mask[start:stop] = [1] * (stop - start)
            logprobs[start:stop] = sampled.logprobs
            behaviour[start:stop] = sampled.behaviour_logprobs or sampled.logprobs
            versions[start:stop] = sampled.versions or [-1] * (stop - start)
            knows_behaviour &= sampled.behaviour_logprobs is not None
            knows_versions &= sampled.versions is not None
        return TrainingSample(
            leaf,
            ids,
            tuple(mask),
            tuple(logprobs),
            tuple(behaviour) if knows_behaviour else None,
            tuple(versions) if knows_versions else None,
            tuple(spans),
            scores,
        )

    def _no_ids(self, node: int) -> ModelError:
        return ModelError(
            f"message {node} of trace {self.id} has no token ids: {self.agent.get('model', 'its model')} did not report "
            "them, or a firsthand before 0.7 recorded it; roll out again with a local model"
        )

    def to_json(self) -> Json:
        """The trace as a JSON object, which shares its details with the trace: do not change it."""
        body = {name: getattr(self, name) for name in _PLAIN}
        body["nodes"] = [{"parent": node.parent, "message": node.message.to_json()} for node in self.nodes]
        body["calls"] = [_call_to_json(call) for call in self.calls]
        body["tools"] = [dict(vars(tool)) for tool in self.tools]
        body["events"] = [dict(vars(event)) for event in self.events]
        body["scores"] = [dict(vars(score)) for score in self.scores]
        body["error"] = asdict(self.error) if self.error else None
        body["origin"] = asdict(self.origin) if self.origin else None
        return body

    @staticmethod
    def from_json(body: Json) -> Trace:
        """The trace that `to_json` wrote, in this version or an earlier one. A newer version is a StoreError."""
        body = trace_body.checked(body)
        return Trace(
            **{name: body[name] for name in _PLAIN},
            nodes=tuple(Node(node["parent"], Message.from_json(node["message"])) for node in body["nodes"]),
            calls=tuple(_call_from_json(call) for call in body["calls"]),
            events=tuple(Event(**event) for event in body["events"]),
            scores=tuple(Score(**score) for score in body["scores"]),
            error=Failure(**body["error"]) if body["error"] else None,
            origin=Origin(**body["origin"]) if body["origin"] else None,
            tools=tuple(ToolSpec(**tool) for tool in body["tools"]),
        )


def prompt_ids(calls: Sequence[Call], nodes: Sequence[Node], call: int) -> tuple[int, ...] | None:
    """The token ids of a call's prompt, put together from those of the calls it continues; None if they are not known."""
    parts: list[PromptIds] = []
    at: int | None = call
    while at is not None:
        prompt = calls[at].prompt
        if prompt is None:
            return None
        parts.append(prompt)
        at = prompt.after
    ids: list[int] = []
    for part in reversed(parts):
        if part.after is not None and part.kept > len(ids):
            sampled = nodes[calls[part.after].nodes[part.sample]].message.sampled
            ids += () if sampled is None else sampled.token_ids
        if part.kept > len(ids):  # the answer that it continues was edited since
            return None
        del ids[part.kept :]
        ids += part.ids
    return tuple(ids)


def _call_to_json(call: Call) -> Json:
    body = vars(call) | {"usage": call.usage.to_json()}
    if call.prompt is not None:
        body["prompt"] = dict(vars(call.prompt))
    return body


def _call_from_json(body: Json) -> Call:
    prompt = body["prompt"]
    return Call(
        **{
            **body,
            "usage": Usage(**body["usage"]),
            "nodes": tuple(body["nodes"]),
            "prompt": PromptIds(**{**prompt, "ids": tuple(prompt["ids"])}) if prompt else None,
            "tools": tuple(body["tools"]),
        }
    )


def new_trace_id() -> str:
    """A new id of 26 lower-case characters that sorts by time: a ULID (48 bits of milliseconds, 80 random bits)."""
    number = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def as_json(data: Any) -> Any:
    """A copy of the data that JSON can hold: keys and unknown types become text, tuples and sets become lists."""
    if data is None or isinstance(data, str | int | float):
        return data
    if isinstance(data, Mapping):
        return {str(key): as_json(value) for key, value in data.items()}
    if isinstance(data, list | tuple | set | frozenset):
        return [as_json(item) for item in data]
    return str(data)


_PLAIN = (
    "version", "id", "place", "benchmark", "task_id", "agent", "epoch", "seed", "started_at", "duration_s", "answer",
    "stop_reason", "final_state",
)  # fmt: skip


class _Callable(ModuleType):
    """This module, which may be called: `@firsthand.trace` is the decorator `firsthand.traced`."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return firsthand.traced(*args, **options)


sys.modules[__name__].__class__ = _Callable
