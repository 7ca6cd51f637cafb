"""Compares values that hold NaN: since Python 3.13 a dataclass with one equals none, not even itself."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any


def same(one: Any, other: Any) -> bool:
    """True for values of equal parts, where NaN equals NaN; a part may be `pytest.approx`."""
    if type(one) is type(other) and is_dataclass(one):
        return all(same(getattr(one, each.name), getattr(other, each.name)) for each in fields(one) if each.compare)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, Sequence) and isinstance(other, Sequence) and not isinstance(one, str | bytes):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    is_nan = isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)
    return is_nan or bool(one == other)
