"""Taps of single requests: functions that read or edit the activations of one request's tokens while it is served.

A step computes the tokens of requests with taps module by module, apart from all others, so no other request's numbers
change. A tap gets a copy of its own rows. Tokens that a tap may edit are neither taken from the prefix cache nor shared.
"""

# T tokens of one request in a step

from __future__ import annotations

from collections import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

RequestTap = Callable[["Tensor", range, int], "Tensor | None"]
"""(a copy of the values T ..., the positions of the T tokens, the answer's index) -> their replacement, or None to read."""


@dataclass(frozen=True, eq=False)
class RequestTaps:
    """The taps of a request by site (`nn/sites.py`).

    Positions come again where a request is preempted or a draft token was refused; the last values are those that count.
    """

    taps: abc.Mapping[str, RequestTap]
    edits: bool = True
    """True if a tap may return a replacement. A request whose taps only read takes its prefix from the cache; its taps
    see the other tokens alone."""
