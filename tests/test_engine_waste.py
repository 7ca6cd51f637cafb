"""How much of the memory in use holds nothing, over mixes of requests that all run to their end."""

from pathlib import Path

import pytest
from kv_waste import BLOCK_SIZES, MIXES, table, waste

DOCS = Path(__file__).parent.parent / "docs" / "engine.md"


@pytest.mark.parametrize("mix", [MIXES[0], MIXES[3]], ids=["long and short, samples", "32 chats"])
def test_less_than_4_percent_of_allocated_memory_is_wasted(mix) -> None:
    found = waste(mix, 16)
    assert found.answers == found.asked >= mix.requests, "every answer got all its tokens"
    assert 0 < found.share < 0.04, f"{found.share:.2%}"


@pytest.mark.parametrize("size", BLOCK_SIZES)
def test_what_is_wasted_is_half_a_block_of_each_text(size: int) -> None:
    """Short texts waste more than 4 %, and as much as the rule of the documentation says."""
    found = waste(MIXES[1], size)
    expected = (size - 1) / 2 / ((size - 1) / 2 + found.positions)
    assert found.share == pytest.approx(expected, rel=0.06)


@pytest.mark.slow
def test_the_documentation_has_these_numbers() -> None:
    assert "\n".join(table()) in DOCS.read_text()
