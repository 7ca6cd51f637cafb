"""Tests that answers of endpoints that state no usage are charged an estimate, once for each prompt."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from boards_by_hand import board, row
from firsthand.loop.listener import Added, Began, Piece
from firsthand.message import assistant, user
from firsthand.model import Completion, Delta, Usage
from firsthand.runs.attempt_summary import AttemptSummary
from firsthand.runs.unreported_usage import Unreported, total_unreported, unreported_in
from firsthand.serve.admission.charged_steps import ChargedSteps
from firsthand.serve.admission.metered_answers import metered
from firsthand.show.agent_cost import Cost
from firsthand.show.board import caveats, leaderboard
from firsthand.show.unreported_words import unreported_notes
from firsthand.trace import Call, Node
from made_traces import trace

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


def model_call(id: str, usage: Usage, kind: Any = "generate", **more: Any) -> Call:
    return Call(id, kind, 0, 0.0, 1.0, "r", usage, **more)


def test_calls_without_tokens_estimates_and_attempts_without_a_cost_are_counted() -> None:
    calls = (
        model_call(":0", Usage(5, 0, 1)), model_call(":1", Usage()), model_call(":2", Usage(), "score"),
        model_call(":3", Usage(), error="it was refused"), model_call(":4", Usage(), "tool"),
        model_call(":5", Usage(), "guard"), model_call(":6", Usage(), "guard", detail={"model": "m"}),
        model_call(":7", Usage(4, 0, 1), detail={"usage_estimated": True}),
    )  # fmt: skip
    made = trace("1", calls=calls)
    assert unreported_in(made) == (3, 1, 0)
    for limits, spent, found in (
        ({"cost_usd": 0.5}, 0.0, 1), ({"cost_usd": 0.5}, 0.25, 0), ({"tokens": 9}, 0.0, 0), ({}, 0.0, 0), (None, 0.0, 0),
    ):  # fmt: skip
        asked = replace(made, agent=made.agent | {"limits": limits}, calls=(model_call(":0", Usage(5, 0, 1, spent)),))
        assert unreported_in(asked) == (0, 0, found)
    silent = replace(made, agent=made.agent | {"limits": {"cost_usd": 0.5}}, calls=())
    assert unreported_in(silent) == (0, 0, 0), "no model was asked"
    assert total_unreported([Unreported(1, 2, 3), Unreported(4, 5, 6)]) == (5, 7, 9)
    assert total_unreported([]) == (0, 0, 0)
    (told,) = leaderboard([AttemptSummary.of(made), replace(made, id="2", place="p2", task_id="t2")])
    assert told.rows[0].unreported == (6, 2, 0)


def test_a_table_says_which_calls_count_as_nothing_or_are_estimates() -> None:
    cost = Cost(5.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0)
    none = replace(cost, prompt_tokens=0.0)
    made = board(
        row("base", 0.25, cost, unreported=Unreported(1, 2, 3)), row("mute", 0.5, none, unreported=Unreported(4))
    )
    assert caveats(made)[:4] == [
        "No tokens were reported of mute: where a model was asked, the cost is unknown.",
        "No tokens were reported of 1 model call of base: they count as 0, so the cost is higher.",
        "The tokens of 2 model calls of base are estimates from bytes, for none were reported.",
        "No cost was reported of 3 attempts of base: a limit in USD counts them as free.",
    ]
    assert made.frontier == ("base",), "what mute costs is not known"
    partly = board(row("base", 0.25, cost), row("some", 0.5, cost, unreported=Unreported(4)), row("free", 0.125, none))
    assert partly.frontier == ("free", "some"), "an agent that asks no model costs nothing"
    assert board(row("mute", 0.5, none, unreported=Unreported(4))).frontier == ()
    assert unreported_notes({"a": Unreported(), "b": Unreported(0, 1)}) == [
        "The tokens of 1 model call of b are estimates from bytes, for none were reported."
    ]
    assert unreported_notes({"a": Unreported()}) == []
