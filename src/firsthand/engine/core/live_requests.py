"""The requests that have not ended: their sequences by id, and the limit on their prompt tokens."""

from __future__ import annotations

from collections import abc

from firsthand.engine.core.sequence import Sequence
from firsthand.errors import ConfigError, QueueFull


class LiveRequests:
    """Tracks requests from `enter` until the last of their sequences has left."""

    def __init__(self, *, max_tokens: int, max_waiting: int):
        self.max_tokens = max_tokens
        self.max_waiting = max_waiting
        self.next_id = 0
        """The id of the next request, which is the number of requests so far."""
        self.num_tokens = 0
        """Prompt tokens of all live sequences, a prompt counted once per answer."""
        self.num_refused = 0
        """Requests refused because too many waited."""
        self._requests: dict[int, dict[int, Sequence]] = {}

    def __len__(self) -> int:
        return len(self._requests)

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._requests

    def check_room(self, num_tokens: int, *, num_waiting: int) -> None:
        """Raise QueueFull if a request with this many prompt tokens, over all its answers, makes the queue too long.

        Raises ConfigError if even an empty engine could not take it.
        """
        if num_tokens > self.max_tokens:
            raise ConfigError(
                f"the request's answers have {num_tokens} prompt tokens together and the engine takes {self.max_tokens}: "
                "ask for fewer answers or continuations at a time, or raise max_live_tokens"
            )
        if num_waiting >= self.max_waiting or self.num_tokens + num_tokens > self.max_tokens:
            self.num_refused += 1
            raise QueueFull(
                f"{num_waiting} requests wait (at most {self.max_waiting} may) and {self.num_tokens} prompt tokens are live "
                f"(at most {self.max_tokens} may be): try again later, or raise max_waiting and max_live_tokens"
            )

    def enter(self, sequences: abc.Sequence[Sequence]) -> None:
        """Add the sequences of request `next_id`."""
        self._requests[self.next_id] = {sequence.index: sequence for sequence in sequences}
        self.num_tokens += sum(map(_prompt_tokens, sequences))
        self.next_id += 1

    def sequences(self, request_id: int) -> list[Sequence]:
        """Returns the sequences of a request that have not ended; none if it is not live."""
        return list(self._requests.get(request_id, {}).values())

    def leave(self, sequence: Sequence) -> bool:
        """Remove a sequence. Returns whether it was still live."""
        sequences = self._requests.get(sequence.request_id, {})
        if sequences.pop(sequence.index, None) is None:
            return False
        self.num_tokens -= _prompt_tokens(sequence)
        if not sequences:
            del self._requests[sequence.request_id]
        return True


def _prompt_tokens(sequence: Sequence) -> int:
    """Returns the prompt tokens that a sequence counts for, scored continuations included."""
    return len(sequence.tokens) if sequence.goal == "score" else sequence.num_prompt
