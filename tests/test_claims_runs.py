"""Claims measured as a run: the thread of a measurement, the stored outcomes, and the table of patterns."""

import asyncio
import json
import threading
from types import SimpleNamespace

import pytest

from claims_made import claim_of, closed
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.claims import claim_run, list_tables
from firsthand.claims.claim import Measurement, ruling
from firsthand.claims.claim_run import claims_experiment, last_outcomes, outcomes_of, run_of
from firsthand.claims.lab import Lab, paired
from firsthand.claims.list_tables import MeasuredRow, PatternRow, PatternTable
from firsthand.errors import DataError, StoreError
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.stats.intervals import mean_interval
from firsthand.system.home import data_home
from firsthand.system.home_seal import KEY
from firsthand.task import Task

LAB = Lab(4)


def test_a_measurement_is_made_in_a_daemon_thread_and_its_error_is_its_own():
    seen = []

    def measure(given):
        seen.append((given, threading.current_thread().name, threading.current_thread().daemon, threading.get_ident()))
        return Measurement(3.0)

    assert asyncio.run(claim_run._in_thread(measure, LAB)) == Measurement(3.0)
    assert seen[0][:3] == (LAB, "claim", True) and seen[0][3] != threading.get_ident()

    class Stop(BaseException):
        pass

    for error in (DataError("not here"), Stop("now")):

        def fails(given, error=error):
            raise error

        with pytest.raises(type(error)) as told:
            asyncio.run(claim_run._in_thread(fails, LAB))
        assert told.value is error
    with pytest.raises(AssertionError, match=r"^a claim measured nothing$"):
        asyncio.run(claim_run._in_thread(lambda given: None, LAB))


def test_a_measurement_that_nobody_waits_for_any_more_disturbs_nothing(monkeypatch):
    go, ended, told = threading.Event(), threading.Event(), []
    monkeypatch.setattr(threading, "excepthook", told.append)

    def slow(given):
        go.wait(10)
        ended.set()
        return Measurement(1.0)

    async def gives_up(looks_on):
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        waiting = asyncio.ensure_future(claim_run._in_thread(slow, LAB))
        await asyncio.sleep(0.01)
        waiting.cancel()
        if looks_on:
            go.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        while looks_on and not ended.is_set():
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)

    asyncio.run(gives_up(True))
    go.clear()
    ended.clear()
    asyncio.run(gives_up(False))  # and here the loop is closed when the measurement ends
    go.set()
    assert ended.wait(10)
    for thread in [each for each in threading.enumerate() if each.name == "claim"]:
        thread.join(10)
    assert told == []


KNOWN = {each.name: each for each in (claim_of("zeta"), claim_of("beta", 0.5), closed("alpha"), claim_of("eta", -6.0))}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(claim_run, "all_claims", lambda: KNOWN)
    return data_home()


def test_an_answer_is_the_measurement_with_its_cpu_seconds_and_null_for_a_claim_that_is_closed(home, monkeypatch):
    ticks = iter((10.0, 12.3456))

    def answer(name, **options):
        return json.loads(asyncio.run(claim_run.measured(Task(name, "q"), None, **options)))

    assert answer("alpha") is None
    with monkeypatch.context() as patched:
        patched.setattr(claim_run, "time", SimpleNamespace(process_time=lambda: next(ticks)))
        assert answer("zeta", seed=7) == Measurement(9.0).to_json() | {"cpu_s": 2.35}
    assert answer("zeta")["value"] == 2.0


def test_the_newest_run_of_a_claim_tells_its_outcome_and_the_list_gives_the_order(home):
    with claims_experiment([KNOWN["eta"], KNOWN["beta"], KNOWN["zeta"]], 1).run() as run:
        old = run.id
        first = list(outcomes_of(run))
    with claims_experiment([KNOWN["alpha"], KNOWN["beta"]], 2).run() as run:
        new = run.id
    assert [(each.claim.name, each.measurement.value, each.verdict, each.run) for each in first] == [
        ("eta", -5.0, ruling("does not hold here", "it is -5"), old),
        ("beta", 1.5, ruling("holds here", "it is 1.5"), old),
        ("zeta", 3.0, ruling("holds here", "it is 3"), old),
    ]
    assert all(0 <= each.cpu_s < 5 for each in first)
    found = last_outcomes(home)
    assert {name: (each.run, each.verdict.why) for name, each in found.items()} == {
        "alpha": (new, "hosted, 0"), "beta": (new, "it is 2.5"), "eta": (old, "it is -5"), "zeta": (old, "it is 3"),
    }  # fmt: skip
    assert found["alpha"].measurement is None and found["alpha"].cpu_s is None
    run, claims, seed = run_of(old, home)
    run.close()
    assert ([each.name for each in claims], seed, run.id) == (["zeta", "beta", "eta"], 1, old)


def test_a_run_that_was_made_elsewhere_gives_no_verdict_of_this_machine(home):
    with claims_experiment([KNOWN["eta"], KNOWN["zeta"]], 1).run() as run:
        copied = run.id
    (home / KEY).write_bytes(bytes(32))  # as if the run had been made under another data home
    with claims_experiment([KNOWN["zeta"]], 1).run() as run:
        own = run.id
    found = last_outcomes(home)
    assert (found["zeta"].run, found["zeta"].verdict) == (own, ruling("holds here", "it is 3"))
    told = f"run {copied} was made elsewhere and says: does not hold here, it is -5"
    assert (found["eta"].run, found["eta"].verdict) == (copied, ruling("cannot be tested here", told))
    (home / KEY).write_bytes(bytes(range(32)))
    assert {each.verdict.word for each in last_outcomes(home).values()} == {"cannot be tested here"}


def test_a_run_with_a_claim_of_another_version_is_not_resumed_and_its_other_outcomes_are_kept(home, monkeypatch):
    with claims_experiment([KNOWN["eta"], KNOWN["beta"]], 0).run() as run:
        name = run.id
    less = {key: each for key, each in KNOWN.items() if key != "beta"}
    monkeypatch.setattr(claim_run, "all_claims", lambda: less)
    told = f"run {name} holds no claims of this version: `firsthand claims run all` makes one"
    with pytest.raises(StoreError, match=f"^{told}$"):
        run_of(name, home)
    assert list(last_outcomes(home)) == ["eta"]
    bare = Agent("a", Scripted(lambda messages, sampling, index: "x"), plain)
    other = claim_run.Experiment([bare], Benchmark("others", lambda seed: [Task("eta", "q")], ()))
    with other.run() as run, pytest.raises(StoreError, match="holds no claims"):
        run_of(run.id, home)
    assert list(last_outcomes(home)) == ["eta"]


async def plain(task, ctx):
    return (await ctx.say(task.prompt).generate()).text


PATTERN = """
from firsthand.message import ToolCall

async def thrice(task, ctx):
    if task.id == "t2":
        raise ValueError("no third")
    if task.id == "t1":
        await ctx.call(ToolCall("c", "calculator", {"expression": "1+1"}))
    await ctx.score([" one", " two"])
    for _ in range(2):
        await ctx.say("once more please").generate()
    return (await ctx.say("right").generate()).text
"""
BENCHMARK = """
from firsthand.benchmark import Benchmark
from firsthand.scorers.match import exact
from firsthand.task import Task

def three():
    told = ("right", "left", "third", "fourth")
    tasks = [Task(f"t{at}", word, secret={"answer": "right"}) for at, word in enumerate(told)]
    return Benchmark("three", lambda seed: tasks, (exact,))
"""


def test_patterns_are_measured_on_the_same_tasks_against_a_plain_answer(tmp_path, home, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "thrice.py").write_text(PATTERN)
    (tmp_path / "three.py").write_text(BENCHMARK)
    rows = (
        PatternRow("Thrice", "Any", "Low", "thrice.py"),
        PatternRow("Vote", "4B+", "High", "self_consistency:samples=2"),
    )
    table = list_tables.measured_patterns(rows, "scripted:echo", "three.py", limit=3, max_tokens=9, seed=5)
    with store.open_run(table.run, home) as run:
        kept = {key: run.config[key] for key in ("limit", "max_tokens", "seed", "name", "tools", "pattern", "model")}
        tokens = [
            sum(each.usage.total_tokens for each in run.traces(agent=name))
            for name in ("direct", *(row.pattern for row in rows))
        ]
    assert kept == {
        "limit": 3, "max_tokens": 9, "seed": 5, "name": "patterns-table", "tools": ["calculator"],
        "pattern": ["direct", "thrice.py", "self_consistency:samples=2"], "model": ["scripted:echo"],
    }  # fmt: skip
    direct, thrice, vote = [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]
    first = MeasuredRow(rows[0], mean_interval(thrice), paired(thrice, direct), tokens[1] / tokens[0], 2.0, 1)
    second = MeasuredRow(rows[1], mean_interval(vote), paired(vote, direct), tokens[2] / tokens[0], 1.0, 0)
    assert table == PatternTable(table.run, mean_interval(direct), (first, second))
    assert tokens == [6, 32, 96]
