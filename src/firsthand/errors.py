"""All errors for users, in one tree. A message says what came, what was expected, and what to do.

    FirsthandError
    ├── ConfigError          a setting that cannot work, or clashes with another one
    ├── UnknownName          no model, pattern, benchmark, tool or flag of that name (with the nearest one)
    ├── MissingExtra         an optional package is needed; says what to install
    ├── DataError            a benchmark's data is missing or is not what it should be
    ├── ModelFileError       a model file is truncated, corrupt, hostile, or of an unsupported kind
    ├── TemplateError        a chat template failed, or tried to leave its sandbox
    ├── DownloadError        a download could not be finished or did not match its checksum
    ├── StoreError           a run's folder cannot be read or written (full disk, other version)
    │   └── BodyTooLarge     one reply or trace is larger than a run's file may hold: it ends its attempt, not the run
    ├── ModelError           a model could not answer
    │   ├── TransientError   a transient fault (connection, overload): retried with backoff
    │   │   ├── QueueFull    too many requests wait for a model that runs here
    │   │   └── Unreachable  the connection to an endpoint was refused, lost, or never made
    │   └── PromptTooLong    the prompt does not fit the model's context
    ├── ToolError            a tool call failed: the model is told, the attempt goes on
    │   ├── GuardRefused     a guard blocked the call or its result
    │   └── OutcomeUnknown   the tool was called, and nobody can tell whether the call took effect
    ├── SandboxError         no sandbox can be opened here, or it broke: untrusted code is not run without one
    ├── GuardBlocked         a guard blocked a prompt or an answer: it ends the attempt
    ├── LimitExceeded        a budget (tokens, calls, seconds, money, depth) is used up: it ends the attempt
    │   └── AnswerPending    somebody has to answer a question first: it ends the attempt until the answer is there
    ├── TooManyFailures      attempts failed one after the other: it ends the run
    └── TrainingError        a training run cannot go on: its loss is not finite, or its checkpoints do not fit

A bug of ours is an `AssertionError` or any other exception: it keeps its traceback.
"""

from __future__ import annotations

import codecs
import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any


class FirsthandError(Exception):
    """Base class of all errors that are not bugs: `except FirsthandError as error: print(error)`."""


class ConfigError(FirsthandError):
    """A setting that cannot work, or that clashes with another one."""


class UnknownName(FirsthandError):
    """An unknown name; the message gives the nearest known one."""


class MissingExtra(FirsthandError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs the package {package!r}: pip install 'firsthand[{extra}]'")


class DataError(FirsthandError):
    """Data is missing, or is not what the benchmark expects."""


class ModelFileError(FirsthandError):
    """A model file is truncated, corrupt, hostile, or of a kind that is not supported."""


class TemplateError(FirsthandError):
    """A chat template failed, or tried to leave its sandbox."""


class DownloadError(FirsthandError):
    """A download could not be finished, or its content is not what was promised."""


class StoreError(FirsthandError):
    """A run's folder cannot be read or written."""


class BodyTooLarge(StoreError):
    """One reply, trace or other body is larger than a run's file may hold. The file itself is sound: the run goes on."""


class ModelError(FirsthandError):
    """A model could not answer, or its answer is refused, which may have to be paid for all the same."""

    usage: Any = None
    """The `Usage` of the requests, as far as an endpoint stated it; see `firsthand.model.lost_usage`."""
    answers: Sequence[Any] = ()
    """Completions that were made and refused: the size of those is estimated for which no usage is stated."""
    refused_as: int | None = None
    """The HTTP status for a client of ours, where an endpoint refused its request for good: 400, 413, 415 or 422 where the
    request is at fault; 502 where our key, account, model's name or address is. 409 for an approval that has another
    answer, 500 for a served agent's turn that failed. None for other errors, which clients may repeat."""
    refused_field: str | None = None
    """The field that the endpoint found at fault, in its own name."""


class TransientError(ModelError):
    """A transient fault. `retry_after_s` is the wait that the server asked for, if any.

    `is_for_all` says that it asked so of everybody who uses the endpoint, not only for this request.
    """

    def __init__(self, message: str, retry_after_s: float | None = None, *, is_for_all: bool = False):
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.is_for_all = is_for_all


class QueueFull(TransientError):
    """The queue of a local model is full."""


class Unreachable(TransientError):
    """The connection to an endpoint was refused, lost, or never made."""


class GrammarIgnored(ModelError):
    """An endpoint's answer does not match the grammar that it was given."""


class GrammarUnchecked(ModelError):
    """An answer cannot be checked against its grammar within the limits of time and memory."""


class PromptTooLong(ModelError):
    """The prompt does not fit the model's context."""


class ToolError(FirsthandError):
    """A failed tool call. The model reads the message too. `origin` is the source of words from outside that it quotes."""

    def __init__(self, message: str = "", origin: str | None = None):
        super().__init__(message)
        self.origin = origin


class GuardRefused(ToolError):
    """A guard blocked a tool call or its result. `told` is what clients of a served agent read: the rule, not its reason."""

    def __init__(self, message: str, told: str = ""):
        super().__init__(message)
        self.told = told


class OutcomeUnknown(ToolError):
    """A call whose tool was late, lost its connection or raised an unexpected exception: it may have taken effect.

    A tool that raises a plain ToolError says that it has done nothing. `answered` is True if the tool did answer, with an
    error that says what happened but not that nothing was done; a model then reads its words alone.
    """

    def __init__(self, message: str, answered: bool = False):
        super().__init__(message)
        self.answered = answered


class SandboxError(FirsthandError):
    """No sandbox can be opened here, or it broke: never the fault of the code it runs."""


class WorldFailed(FirsthandError):
    """A part of the task's world broke, such as the model that plays a customer: never the fault of the agent."""


class GuardBlocked(FirsthandError):
    """A guard blocked a prompt or an answer. It ends the attempt, with the stop reason `guard`."""


class LimitExceeded(FirsthandError):
    """A budget is used up. `limit` is its field name, such as `tokens`."""

    def __init__(self, limit: str, message: str):
        super().__init__(message)
        self.limit = limit


class AnswerPending(LimitExceeded):
    """Somebody has to answer a question first. The attempt ends, and goes on with the same call once the answer is there."""


class TooManyFailures(FirsthandError):
    """Attempts failed one after the other, so that the rest of the run would fail too."""


class TrainingError(FirsthandError):
    """A training run cannot go on."""


def reason_of(error: BaseException) -> str:
    """The reason within an exception of the system, without its number and file, which a message names itself."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, UnicodeEncodeError) and is_of_file_names(error.encoding):
        return f"its name cannot be written in {error.encoding}, the encoding of file names here: set PYTHONUTF8=1"
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    words = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return re.sub(r"^\[Errno -?\d+\] ", "", words)


def is_of_file_names(encoding: str) -> bool:
    """True of the encoding of file names, if it is not UTF-8, in which every name can be written."""
    here = codecs.lookup(sys.getfilesystemencoding()).name
    return here != "utf-8" and here == codecs.lookup(encoding).name


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to `name`, or None if none is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def unknown(kind: str, name: str, known: Iterable[str], *, see: str) -> UnknownName:
    """The error for a `name` that is no `kind`, with the nearest of the `known` names; `see` is a command."""
    close = nearest(name, known)
    hint = f" did you mean {close!r}?" if close else ""
    return UnknownName(f"no {kind} {name!r};{hint} `{see}` shows all")
