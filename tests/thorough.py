"""Sizes of the slow tests: what CI has time for, or all of it with `FIRSTHAND_THOROUGH=1` before a release."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

Case = TypeVar("Case")
THOROUGH = bool(os.environ.get("FIRSTHAND_THOROUGH"))


def part(cases: Sequence[Case], one_in: int) -> list[Case]:
    """Every `one_in`-th case, or all of them."""
    return list(cases) if THOROUGH else list(cases)[::one_in]


def repetitions(whole: int, in_ci: int) -> int:
    """The number of repetitions: `in_ci`, or the whole of them."""
    return whole if THOROUGH else in_ci
