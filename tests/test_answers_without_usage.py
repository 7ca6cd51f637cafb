"""Tests that answers of endpoints that state no usage are charged an estimate, once for each prompt."""

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from boards_by_hand import board, row
from firsthand.loop.listener import Added, Began, Piece
from firsthand.message import assistant, user
from firsthand.model import Completion, Delta, Usage
from firsthand.serve.admission.charged_steps import ChargedSteps
from firsthand.serve.admission.metered_answers import metered
from firsthand.show.board import Cost, caveats
from firsthand.trace import Call, Node

PROMPT = (user("a" * 396),)
"""400 bytes with 8 control tokens around: 99 + 8."""


def completion(usage: Usage, text: str = "b" * 40) -> Completion:
    return Completion(assistant(text), "stop", usage)


def charges(*completions: Completion) -> tuple[list[int], list[int]]:
    """What is charged to the client, and counted by the metrics."""
    charged: list[int] = []
    counted: list[int] = []
    metric = SimpleNamespace(observe=lambda seconds: None)
    telemetry: Any = SimpleNamespace(
        metrics=SimpleNamespace(first_token=metric, between_tokens=metric),
        count_usage=lambda notes, usage: counted.append(usage.total_tokens),
    )
    admission: Any = SimpleNamespace(charge=lambda client, tokens: charged.append(tokens))
    request: Any = SimpleNamespace(client="c", notes={}, span=None)

    async def answers() -> AsyncGenerator[Delta, None]:
        for index, each in enumerate(completions):
            yield Delta(each.message.text, index=index)
            yield Delta("", each, index=index)

    async def read() -> None:
        async for _ in metered(answers(), request, admission, telemetry, PROMPT):
            pass

    asyncio.run(read())
    return charged, counted


def test_an_answer_without_usage_is_charged_an_estimate_and_its_prompt_once() -> None:
    assert charges(completion(Usage())) == ([117], [117])
    assert charges(completion(Usage()), completion(Usage())) == ([117, 10], [117, 10])
    assert charges(completion(Usage(7, 0, 3))) == ([10], [10])
    assert charges(completion(Usage(7, 0, 3)), completion(Usage(0, 0, 3))) == ([10, 3], [10, 3])


def test_a_step_without_usage_is_charged_an_estimate() -> None:
    def charged(call: Call, kind: Any = "generate") -> list[int]:
        made: list[int] = []
        steps = ChargedSteps(lambda client, tokens: made.append(tokens), "c")
        steps(Added(0, Node(None, PROMPT[0])))
        steps(Began("1", kind, 0, {}))
        steps(Piece("1", "bbbb"))
        steps(Added(1, Node(0, assistant("b" * 40))))
        steps(call)
        return made

    assert charged(Call("1", "generate", 0, 0.0, 1.0, "r", nodes=(1,))) == [117]
    assert charged(Call("1", "generate", 0, 0.0, 1.0, "r", Usage(3, 0, 4), nodes=(1,))) == [7]
    assert charged(Call("1", "generate", 0, 0.0, 1.0, "r", nodes=(1,), replayed=True)) == []
    assert charged(Call("1", "generate", 0, 0.0, 1.0, "r", error="no")) == []
    assert charged(Call("1", "tool", 0, 0.0, 1.0, "r"), "tool") == []


@pytest.mark.parametrize(
    ("tokens", "calls", "named"),
    [
        ((0.0, 5.0), 1.0, "silent"),
        ((0.0, 5.0), 0.0, "silent"),
        ((0.0, 0.0), 1.0, "silent, base"),
        ((0.0, 0.0), 0.0, ""),
        ((4.0, 5.0), 1.0, ""),
    ],
)
def test_a_table_says_of_whom_no_tokens_were_reported(tokens: tuple[float, float], calls: float, named: str) -> None:
    costs = [Cost(each, 0.0, 0.0, 1.0, 1.0, calls, 0.0, 1.0) for each in tokens]
    made = board(row("silent", 0.5, costs[0]), row("base", 0.25, costs[1]))
    text = f"No tokens were reported of {named}: where a model was asked, the cost is unknown."
    assert [each for each in caveats(made) if "No tokens" in each] == ([text] if named else [])
