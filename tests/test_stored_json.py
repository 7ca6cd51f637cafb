"""One door for JSON that a file of somebody else holds: its size and values before it is decoded, its depth after."""

from __future__ import annotations

from typing import Any

import pytest

from firsthand.system.stored_json import decoded_column, decoded_object


@pytest.mark.parametrize(
    ("column", "value"), [('[1,"a,b"]', [1, "a,b"]), (b'"\xed\xa0\x80"', "\ud800"), ("null", None)]
)
def test_a_column_of_text_or_bytes_is_decoded(column: Any, value: Any) -> None:
    assert decoded_column(column, 9, 2) == value


def test_the_bounds_themselves_are_within() -> None:
    assert decoded_column("[1,2]", 5, 2) == [1, 2]
    with pytest.raises(ValueError, match=r"^its JSON is larger than 4 characters$"):
        decoded_column("[1,2]", 4, 2)
    with pytest.raises(ValueError, match=r"^its JSON holds more than 1 values$"):
        decoded_column("[1,2]", 5, 1)


@pytest.mark.parametrize("column", [None, 5, 1.5])
def test_a_column_of_another_type_is_refused(column: Any) -> None:
    with pytest.raises(ValueError, match=f"^JSON was expected, and there is {type(column).__name__}$"):
        decoded_object(column, 9, 9)
