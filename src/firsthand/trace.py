"""One attempt, on record: the tree of messages, the calls, events, scores, usage, timing, and any error as data.

A Trace is self-describing and versioned: it can be scored again, shown, compared or trained on from disk, without the code
that made it. Messages form a tree, and a node holds only what it adds, so branches that share a prefix share its nodes.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from firsthand.errors import StoreError
from firsthand.message import Json, Message
from firsthand.model import Usage

TRACE_VERSION = 3
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"

CallKind = Literal["generate", "tool", "score"]


@dataclass(frozen=True)
class Node:
    """A message at its place in the tree: `parent` is the index of the node before it, None for a first message."""

    parent: int | None
    message: Message


@dataclass(frozen=True)
class Call:
    """One effect: a generation, a tool call or a scoring."""

    id: str
    """Its place: branch path and index there, such as `0.3:1`."""
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
    """Finish reasons of a generation; name, arguments and result of a tool call; likelihoods of a scoring."""
    replayed: bool = False
    """Whether the reply came from the journal of an earlier, interrupted try."""
    error: str | None = None


@dataclass(frozen=True)
class Event:
    """Something that happened besides the calls: a retry, a limit, a guard's verdict, a note of the pattern."""

    kind: str
    at_s: float
    """Seconds since the attempt began."""
    data: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """One scorer's verdict. `value` is 0 to 1 unless the scorer says otherwise."""

    name: str
    value: float
    detail: Json = field(default_factory=dict)

    @property
    def corpus(self) -> Json | None:
        """The attempt's share of a figure of the whole corpus, if the score is one; see `evals/corpus.py`."""
        share = self.detail.get("corpus")
        return share if isinstance(share, dict) else None

    @property
    def failed(self) -> bool:
        """Whether the scorer itself failed, so that the value says nothing of the attempt."""
        return "scorer_failed" in self.detail

    @property
    def unjudged(self) -> bool:
        """Whether a judge could not be had. It says nothing of the agent: an error in tables, and no part of a mean."""
        return self.failed and bool(self.detail.get("unjudged"))


@dataclass(frozen=True)
class Failure:
    """An error as data. `traceback` is kept only where the error is a bug of the pattern or the tool."""

    kind: str
    message: str
    traceback: str | None = None


@dataclass(frozen=True)
class Origin:
    """Where a forked attempt began: the trace it was forked from, and the node that it goes on from."""

    trace: str
    """Id of the parent trace."""
    at: int
    """Index of the node in the parent."""
    run: str = ""
    """The run that holds the parent, where it is known."""


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
    """`done`, `error`, or the limit that ended the attempt: tokens, calls, seconds, cost_usd, depth."""
    final_state: Json = field(default_factory=dict)
    """What the environment looked like at the end, for the scorers."""
    error: Failure | None = None
    scores: tuple[Score, ...] = ()
    origin: Origin | None = None
    """Where the attempt was forked from, if it was."""
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
        return sum((call.usage for call in self.calls), Usage())

    def seconds_in(self, kind: CallKind) -> float:
        """Seconds spent in calls of one kind, added up, whether or not they overlapped."""
        return sum(call.duration_s for call in self.calls if call.kind == kind)

    @property
    def protected(self) -> str | None:
        """Why the words of the attempt are not to be printed or exported, as its task said; None if they may be."""
        why = next((event.data.get("why", "") for event in self.events if event.kind == "protected"), None)
        return None if why is None else str(why)

    def score(self, name: str) -> Score | None:
        """The score of that name, if there is one."""
        return next((score for score in self.scores if score.name == name), None)

    def value(self, name: str | None = None) -> float | None:
        """The value of the score of that name, or of the first; None if the attempt, or the scoring of it, failed."""
        found = self.score(name) if name is not None else next(iter(self.scores), None)
        if self.error is not None or found is None or found.failed or not float("-inf") < found.value < float("inf"):
            return None
        return float(found.value)

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

    def branches(self) -> Iterator[tuple[Message, ...]]:
        """Each conversation of the attempt, from its first message to a leaf of the tree."""
        inner = {node.parent for node in self.nodes}
        return (self.messages(index) for index in range(len(self.nodes)) if index not in inner)

    def scored(self, scores: tuple[Score, ...]) -> Trace:
        """The same attempt with these scores."""
        return replace(self, scores=scores)

    def to_json(self) -> Json:
        """The trace as a JSON object, which shares its details with the trace: do not change it."""
        body = {name: getattr(self, name) for name in _PLAIN}
        body["nodes"] = [{"parent": node.parent, "message": node.message.to_json()} for node in self.nodes]
        body["calls"] = [vars(call) | {"usage": call.usage.to_json()} for call in self.calls]
        body["events"] = [dict(vars(event)) for event in self.events]
        body["scores"] = [dict(vars(score)) for score in self.scores]
        body["error"] = asdict(self.error) if self.error else None
        body["origin"] = asdict(self.origin) if self.origin else None
        return body

    @staticmethod
    def from_json(body: Json) -> Trace:
        """The trace that `to_json` wrote, in this version or an earlier one. A newer version is a StoreError."""
        body = _upgraded(body)
        if not all(_comes_after(node["parent"], index) for index, node in enumerate(body["nodes"])):
            raise StoreError("this trace has a message whose parent does not come before it: the file is damaged")
        return Trace(
            **{name: body[name] for name in _PLAIN},
            nodes=tuple(Node(node["parent"], Message.from_json(node["message"])) for node in body["nodes"]),
            calls=tuple(
                Call(**{**call, "usage": Usage(**call["usage"]), "nodes": tuple(call["nodes"])})
                for call in body["calls"]
            ),
            events=tuple(Event(**event) for event in body["events"]),
            scores=tuple(Score(**score) for score in body["scores"]),
            error=Failure(**body["error"]) if body["error"] else None,
            origin=Origin(**body["origin"]) if body["origin"] else None,
        )


def _upgraded(body: Json) -> Json:
    """The body as this version writes it. Step n of _UPGRADES takes version n to n + 1; they are only ever added to."""
    version = body.get("version")
    if type(version) is not int or not 1 <= version <= TRACE_VERSION:
        raise StoreError(
            f"this trace has version {version!r}, and this firsthand reads 1 to {TRACE_VERSION}: "
            "open it with the firsthand that wrote it, or a newer one"
        )
    for step in range(version, TRACE_VERSION):
        body = _UPGRADES[step](body) | {"version": step + 1}
    return body


_UPGRADES: dict[int, Callable[[Json], Json]] = {
    1: lambda body: body | {"origin": None},
    2: lambda body: body | {"place": body["id"]},
}


def new_trace_id() -> str:
    """A new id of 26 lower-case characters that sorts by time: a ULID (48 bits of milliseconds, 80 random bits)."""
    number = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def as_json(data: Any) -> Any:
    """The data as JSON can hold it, copied: keys and what JSON does not know become text, tuples and sets lists."""
    if data is None or isinstance(data, str | int | float):
        return data
    if isinstance(data, Mapping):
        return {str(key): as_json(value) for key, value in data.items()}
    if isinstance(data, list | tuple | set | frozenset):
        return [as_json(item) for item in data]
    return str(data)


def _comes_after(parent: Any, index: int) -> bool:
    """Whether a node of this index may have that parent: in a circle, walking up to the first message would never end."""
    return parent is None or (type(parent) is int and 0 <= parent < index)


_PLAIN = (
    "version", "id", "place", "benchmark", "task_id", "agent", "epoch", "seed", "started_at", "duration_s", "answer",
    "stop_reason", "final_state",
)  # fmt: skip


@dataclass(frozen=True)
class Preference:
    """Which of two attempts at a task was better: an arena vote, a judge's verdict, and a DPO pair are all this."""

    task_id: str
    a: str
    """Id of the first trace."""
    b: str
    """Id of the second trace."""
    winner: Literal["a", "b", "tie"]
    by: str
    """Who decided, such as `human:ada` or `judge:smollm2`."""

    def to_json(self) -> Json:
        """The preference as a JSON object."""
        return asdict(self)

    @staticmethod
    def from_json(body: Json) -> Preference:
        """The preference that `to_json` wrote."""
        return Preference(**body)
