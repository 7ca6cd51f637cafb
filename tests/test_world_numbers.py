"""Numbers that no task means are refused by every world, and scorers of older runs compute with them."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.benchmarks.protocols.tau_bench import database_matches, tau_reward
from firsthand.worlds.database.table_items import is_exact, is_right
from firsthand.worlds.json_calls import read_call
from firsthand.worlds.knowledge.triples import extreme
from firsthand.worlds.shop.products import words_of
from firsthand.worlds.world import InvalidAction, WorldCall, WorldEnvironment

HUGE = [10**101, -(10**400), 10**4299, float("inf"), float("-inf"), float("nan"), 1.1e100]


class Till:
    """A world that adds what it is given."""

    form = ending = None

    def __init__(self) -> None:
        self.held: list[Any] = []
        self.moves = (self.put,)

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def put(self, coins: list[dict[str, Any]]) -> str:
        """Put coins in.

        Args:
            coins: Their values.
        """
        self.held += coins
        return "done"

    def read(self, action: str) -> WorldCall:
        return read_call(action, self.moves)

    def admissible(self) -> None:
        return None

    async def result(self) -> Any:
        return self.held


def acted(value: Any, actions: Any) -> tuple[str, WorldEnvironment]:
    environment = WorldEnvironment(Till(), rounds=5, actions=actions)  # type: ignore[arg-type]

    async def act() -> str:
        await environment.open()
        if actions == "text":
            return await environment.act(json.dumps({"name": "put", "arguments": {"coins": [{"value": value}]}}))
        return await environment.tools[0].function(coins=[{"value": value}])  # type: ignore[misc]

    return asyncio.run(act()), environment


@pytest.mark.parametrize("actions", ["text", "native"])
@pytest.mark.parametrize("value", HUGE)
def test_a_number_that_no_task_means_is_an_invalid_action_wherever_it_stands(value: float, actions: str):
    with pytest.raises(InvalidAction, match="coins has a number beyond ±1e100, or none"):
        acted(value, actions)


@pytest.mark.parametrize("actions", ["text", "native"])
@pytest.mark.parametrize("value", [10**100, -(10**100), 0, 2**63, 1.5, True, "9" * 400, None, 1e100])
def test_any_other_value_is_given_to_the_world(value: Any, actions: str):
    said, environment = acted(value, actions)
    assert said == "done" and environment.invalid_actions == 0 and environment.world.held == [{"value": value}]  # type: ignore[attr-defined]


def test_a_native_call_with_more_digits_than_python_writes_is_refused_too():
    with pytest.raises(InvalidAction, match="beyond"):
        acted(10**5000, "native")


@pytest.mark.parametrize("value", [*HUGE, 10**19, 2**53 + 1, 21, 20.1, True])
def test_changes_with_another_number_of_any_size_do_not_match(value: float):
    def matched(changes: Any, wanted: Any) -> tuple[float, float]:
        task = SimpleNamespace(secret={"changes": {"bags": wanted}, "outputs": []})
        state = {"rounds": 1, "invalid_actions": 0, "result": {"changes": {"bags": changes}, "said": []}}
        trace = SimpleNamespace(final_state=state, stop_reason="done", events=())
        return database_matches(task, trace).value, tau_reward(task, trace).value  # type: ignore[arg-type]

    assert matched([value], [20]) == (0, 0)
    assert matched([20.0, 0.1 + 0.2, -0.0], [20, 0.3, 0]) == (1, 1)
    assert matched([2**53 + 1], [2**53]) == (0, 0)


@pytest.mark.parametrize("given", [10**400, 10**4299, True, b"1", bytearray(b"1"), None, 1j, [1], (1,)])
def test_a_value_that_is_no_number_and_no_text_is_no_right_answer(given: Any):
    assert not is_right([given], ["1"]) and not is_exact([given], ["1"])
    assert is_right([1], ["1"]) and is_right(["1.0"], ["1"]) and is_right([1.0], ["1"]) and is_right(["a"], ["a"])


def test_a_number_of_400_digits_in_a_graph_is_no_year():
    assert extreme({"a": ["9" * 400], "b": ["2001-02-03"], "c": ["1999"]}, largest=True) == {"b"}
    assert extreme({"a": ["3"], "b": ["12.5"]}, largest=True) == {"b"}


def test_options_in_other_alphabets_are_equal_to_themselves_alone():
    for one, other in (
        ("красный", "синий"),
        ("红色", "蓝色"),
        ("की", "का"),
        ("🔴", "🔵"),
        ("café", "cafè"),
    ):
        assert words_of(one) != words_of(other) and words_of(one).strip() and words_of(one) == words_of(one.upper())
    assert words_of("GORE-TEX® jacket, Nike™, 20°") == " gore tex jacket nike 20 "
    assert words_of("Blue – “Large”\u00a010 x 12!") == " blue large 10 x 12 " and words_of("cafe\u0301") == words_of(
        "café"
    )
