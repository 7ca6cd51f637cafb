"""The answer of a remote agent as far as it has come: the events of a stream, or its task, over A2A 1.0.

Texts and ids of an answer have bounds, whoever sends them again and again. Requests are in `a2a.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from firsthand.errors import ModelError
from firsthand.message import canonical
from firsthand.providers.openai_wire import clip

if TYPE_CHECKING:
    from a2a.types.a2a_pb2 import Artifact, StreamResponse, Task

MAX_EVENTS = 100_000
MAX_ID_CHARS = 256
"""Of a context or a task, which are kept for the conversation's next message."""
MAX_CHARS = 8 << 20
"""Of all artifacts of an answer, with their ids: as many as a response has bytes."""
STUCK = ("TASK_STATE_FAILED", "TASK_STATE_REJECTED", "TASK_STATE_CANCELED", "TASK_STATE_AUTH_REQUIRED")


class Answer:
    """An answer as far as it has come."""

    def __init__(self, agent: str, quote: Callable[[str], str] = clip) -> None:
        """`agent` is the name that errors tell, and `quote` makes a short line of its words."""
        self._quote = quote
        self.agent = agent
        self.context = self.task = ""
        self._chars = 0
        self._artifacts: dict[str, list[str]] = {}
        self._worded: set[str] = set()
        """The artifacts with a part that is text, not data or a file."""
        self._ends: dict[str, str] = {}
        """The kind of the last part of each artifact."""
        self._fresh: list[str] = []
        self._grows = True
        self.said = self.state = ""
        self.events = 0

    @property
    def text(self) -> str:
        """The artifacts, then what the agent said if it asks for input or no artifact has words."""
        made = "\n\n".join("".join(pieces) for pieces in self._artifacts.values())
        is_said = not self._worded or self.state == "TASK_STATE_INPUT_REQUIRED"
        is_new = bool(self.said) and not made.endswith(self.said)
        return f"{made}\n\n{self.said}" if made and is_new and is_said else made or self.said

    def put(self, artifact: str, text: str, *, append: bool) -> None:
        """Take in a piece of an artifact, or all of it. Costs what the piece does, however long the answer is."""
        before = self._artifacts.get(artifact)
        self._chars += len(text) + (len(artifact) if before is None else 0)
        if before is not None and not append:
            self._chars -= sum(map(len, before))
        if self._chars > MAX_CHARS:
            raise ModelError(f"{self.agent} sent artifacts of more than {MAX_CHARS:,} characters: {self.where}")
        if before is None:
            self._fresh += ["\n\n" if self._artifacts else "", text]
            self._artifacts[artifact] = [text]
            return
        fresh, extends = text, append
        if append:
            before.append(text)
        else:
            whole = "".join(before)
            self._artifacts[artifact] = [text]
            fresh, extends = text[len(whole) :], text.startswith(whole)
        if extends and next(reversed(self._artifacts)) == artifact:
            self._fresh.append(fresh)
        elif fresh or not extends:
            self._grows = False

    def news(self) -> str:
        """Return the text appended since the last call; empty once earlier text has changed."""
        fresh = "".join(self._fresh) if self._grows else ""
        self._fresh.clear()
        return fresh

    @property
    def is_settled(self) -> bool:
        """True if no more of it will come."""
        return self.state in ("message", "TASK_STATE_COMPLETED", "TASK_STATE_INPUT_REQUIRED", *STUCK)

    @property
    def where(self) -> str:
        """The places where a broken answer can be looked for."""
        return f"its task is {self._quote(self.task)}" if self.task else "it gave no task"

    def take(self, event: StreamResponse) -> None:
        """Take in an event. ModelError for one that no answer has."""
        self.events += 1
        if self.events > MAX_EVENTS:
            raise ModelError(f"{self.agent} sent more than {MAX_EVENTS:,} events and no answer: {self.where}")
        match event.WhichOneof("payload"):
            case "task":
                self.take_task(event.task)
            case "message":
                self.said, self.state = text_of(event.message.parts), "message"
                self._take_ids(context=event.message.context_id)
            case "status_update":
                update = event.status_update
                self._take_ids(update.context_id, update.task_id)
                self._take_status(update.status)
            case "artifact_update":
                update_of = event.artifact_update
                self._take_artifact(update_of.artifact, append=update_of.append)

    def take_task(self, task: Task) -> None:
        """Take in all of a task."""
        self._take_ids(task.context_id, task.id)
        for artifact in task.artifacts:
            self._take_artifact(artifact, append=False)
        self._take_status(task.status)

    def _take_artifact(self, artifact: Artifact, *, append: bool) -> None:
        if not append:
            self._worded.discard(artifact.artifact_id)
            self._ends.pop(artifact.artifact_id, None)
        if any(part.WhichOneof("content") == "text" and part.text.strip() for part in artifact.parts):
            self._worded.add(artifact.artifact_id)
        text, end = _joined(artifact.parts, self._ends.get(artifact.artifact_id, ""))
        self.put(artifact.artifact_id, text, append=append)
        self._ends[artifact.artifact_id] = end

    def _take_status(self, status: Any) -> None:
        from a2a.types.a2a_pb2 import TaskState

        known = status.state in TaskState.values()
        self.state = TaskState.Name(status.state) if known else f"state {status.state}"
        if self.is_settled:
            self.said = text_of(status.message.parts) or self.said

    def _take_ids(self, context: str = "", task: str = "") -> None:
        if max(len(context), len(task)) > MAX_ID_CHARS:
            raise ModelError(f"{self.agent} gave its context or task an id of more than {MAX_ID_CHARS} characters")
        self.context, self.task = context or self.context, task or self.task


def text_of(parts: Any) -> str:
    """The text of a message's parts, data as JSON; of a file its name."""
    return "\n".join(_part_text(part) for part in parts if part.WhichOneof("content"))


def _joined(parts: Any, end: str) -> tuple[str, str]:
    """The text of an artifact's parts after one of the kind `end`, or after none, and the kind of the last.

    Text goes on where the text before it ended: the chunks of a stream are parts of the artifact once it is whole. Data and
    files have lines of their own.
    """
    pieces: list[str] = []
    for part in parts:
        if not (kind := part.WhichOneof("content")):
            continue
        if end and not end == kind == "text":
            pieces.append("\n")
        pieces.append(_part_text(part))
        end = kind
    return "".join(pieces), end


def _part_text(part: Any) -> str:
    from google.protobuf.json_format import MessageToDict

    match part.WhichOneof("content"):
        case "text":
            return str(part.text)
        case "data":
            return canonical(MessageToDict(part.data))
    return f"[file {part.filename or part.url or part.media_type}]"
