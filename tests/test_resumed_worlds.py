"""Every benchmark with an environment: a killed and resumed attempt ends in the state of one that was not."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest

import firsthand
from firsthand import catalog
from firsthand.errors import DataError
from firsthand.loop.journal import MemoryJournal
from firsthand.message import Json
from firsthand.trace import Trace
from firsthand.worlds.browsing.chromium import BROWSERS
from firsthand.worlds.players import play
from namespaces import WHY_NOT
from test_self_contained_worlds import Killed, Steps, attempt

GENERATED = (
    "agentbench_hh:level=1",
    "agentbench_kg:level=1",
    "agentbench_ws:level=1",
    "agentbench_dcg",
    "office:level=1",
)
OF_DATA = ("agentbench_db", "agentbench_os", "agentbench_ltp", "tau_retail", "tau_airline", "bfcl_multi_turn")
BROWSED = ("agentbench_wb", "miniwob")
FOLDER: Steps = [
    ("write_file", {"path": "solution.py", "text": "def nothing():\n    return 1\n"}),
    ("give_up", {"reason": "The tests contradict each other."}),
    ("read_file", {"path": "solution.py"}),
]
ELSEWHERE = {
    "agentbench": "the worlds of agentbench_*",
    "bfcl": "its functions do nothing",
    "closed_world": "its pages are read only",
    "inspect": "its tools but one that looks are `write` tools of sandboxes that each attempt makes anew",
    "irreversible_actions": "test_self_contained_worlds.py",
    "joint_alignment": "its tools keep no state",
    "nested_kv": "its pages are read only",
    "office_attacked": "test_self_contained_worlds.py",
    "scope_creep": "test_self_contained_worlds.py",
    "swe_tasks": "its tools are `write` tools of a checkout that each attempt makes anew",
    "tau_bench": "tau_retail and tau_airline",
}


def ended(trace: Trace) -> tuple[Json, list[tuple[str, float]], Any, Any]:
    """What an attempt left, said and earned. How fast it was is no part of it, which miniwob counts in."""
    state: Json = dict(trace.final_state)
    if isinstance(state.get("result"), dict):
        state["result"] = {name: value for name, value in state["result"].items() if name != "reward"}
    return state, [(each.name, round(each.value, 1)) for each in trace.scores], trace.answer, trace.error


def check(name: str, steps: Steps = ()) -> None:
    """Kill attempts at the benchmark's first task in the middle and at the end, and resume them."""
    try:
        benchmark = catalog.benchmark(name)
        task = next(iter(benchmark.tasks(0)))
        if not steps:
            played = asyncio.run(play(benchmark, task, "optimal"))
            steps = [(call.detail["name"], call.detail["arguments"]) for call in played.calls if call.kind == "tool"]
    except DataError:
        pytest.skip("the benchmark's data is not here")
    whole = asyncio.run(attempt(benchmark, task, steps, MemoryJournal()))
    assert whole.error is None and steps
    for kill in {max(1, len(steps) // 2), len(steps)}:
        journal = MemoryJournal()
        with pytest.raises(Killed):
            asyncio.run(attempt(benchmark, task, steps, journal, kill))
        resumed = asyncio.run(attempt(benchmark, task, steps, journal))
        assert ended(resumed) == ended(whole)
        assert not [each for each in resumed.events if each.kind in ("rebuilt_otherwise", "not_repeated")]


@pytest.mark.parametrize("name", GENERATED)
def test_a_resumed_attempt_in_a_generated_world_has_the_state_of_a_whole_one(name: str) -> None:
    check(name)


def test_a_resumed_attempt_in_a_folder_of_an_exercise_has_the_state_of_a_whole_one() -> None:
    check("evaluation_gaming", FOLDER)


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_DATA)
def test_a_resumed_attempt_in_a_world_of_data_has_the_state_of_a_whole_one(name: str) -> None:
    if name == "bfcl_multi_turn":
        pytest.importorskip("bfcl_eval", reason="bfcl-eval is not installed")
    if name == "agentbench_os" and WHY_NOT is not None:
        pytest.skip(WHY_NOT)
    check(name)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="chromium is not installed")
@pytest.mark.parametrize("name", BROWSED)
def test_a_resumed_attempt_in_a_browser_has_the_state_of_a_whole_one(name: str) -> None:
    if name == "miniwob" and not importlib.util.find_spec("miniwob"):
        pytest.skip("MiniWoB++ is not installed")
    check(name)


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("textworld"), reason="needs pip install 'firsthand[textworld]'")
def test_a_resumed_attempt_in_a_text_game_has_the_state_of_a_whole_one() -> None:
    check("textworld:level=1")


def test_every_benchmark_with_an_environment_is_resumed_here_or_elsewhere() -> None:
    folder = Path(firsthand.__file__).parent / "benchmarks"
    made = {path.stem for path in folder.rglob("*.py") if "environment=" in path.read_text(encoding="utf-8")}
    here = {name.partition(":")[0] for name in (*GENERATED, *OF_DATA, *BROWSED, "evaluation_gaming", "textworld")}
    assert made - here == set(ELSEWHERE)
