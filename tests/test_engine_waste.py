"""How much of the memory in use holds nothing, over mixes of requests that all run to their end."""

from dataclasses import replace
from pathlib import Path

import pytest
from kv_waste import BLOCK_SIZES, MIXES, Mix, table, waste

from engine_tiny import drain, tiny_engine, tokens
from firsthand.engine.core.sequence import Request
from firsthand.model import Sampling
from thorough import part

DOCS = Path(__file__).parent.parent / "docs" / "engine.md"


@pytest.mark.slow
@pytest.mark.parametrize("mix", [MIXES[0], MIXES[3]], ids=["long and short, samples", "32 chats"])
def test_less_than_4_percent_of_allocated_memory_is_wasted(mix: Mix) -> None:
    found = waste(mix, 16)
    assert found.answers == found.asked >= mix.requests, "every answer got all its tokens"
    assert 0 < found.share < 0.04, f"{found.share:.2%}"


@pytest.mark.slow
@pytest.mark.parametrize("size", BLOCK_SIZES)
def test_what_is_wasted_is_half_a_block_of_each_text(size: int) -> None:
    """Short texts waste more than 4 %, and as much as the rule of the documentation says."""
    found = waste(replace(MIXES[1], requests=128), size)
    expected = (size - 1) / 2 / ((size - 1) / 2 + found.positions)
    assert found.share == pytest.approx(expected, rel=0.06)


def test_blocks_of_8_give_the_same_answers_through_the_models_modules() -> None:
    answers = []
    for size in (8, 16):
        engine = tiny_engine(block_size=size, weights="float32")
        assert (engine.runner.fused is None) == (size == 8)
        engine.add(Request(tuple(range(20)), Sampling(max_tokens=30), n=2))
        answers.append({key: tokens(outputs) for key, outputs in drain(engine).items()})
    assert answers[0] == answers[1]


@pytest.mark.slow
def test_the_documentation_has_these_numbers() -> None:
    kept = DOCS.read_text()
    assert all(line in kept for line in table(part(MIXES, len(MIXES))))
