"""Two agents paired task by task: every field of the result, on runs that differ in each of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from firsthand.errors import ConfigError, UnknownName
from firsthand.runs import store
from firsthand.runs.flaky import Flaky, _flips, flaky
from firsthand.runs.pairing import (
    Attempted,
    Comparison,
    Pair,
    _agent,
    _agents,
    _Attempt,
    _attempted,
    _attempts,
    _changed,
    _repeated,
    _tried,
    _unscored,
    compare,
    scores_of,
)
from firsthand.runs.task_groups import TaskGroups
from firsthand.task import Task
from firsthand.trace import Failure, Score
from made_traces import trace


def tasks(mark: str) -> list[Task]:
    """Tasks whose clusters, and the question of t5, are those of one run."""
    return [
        Task("t1", "one", metadata={"cluster": f"{mark} one", "level": "1"}),
        Task("t2", "two", metadata={"cluster": f"{mark} one", "level": "2"}),
        Task("t5", f"five of {mark}", metadata={"cluster": f"{mark} one", "level": "1"}),
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[store.Run, store.Run]]:
    """Run `a` has agents x and y, run `b` has x and z and reduces epochs by their maximum."""
    home = tmp_path_factory.mktemp("home")
    with (
        store.create(home, {}, "a", command=["run"]) as a,
        store.create(home, {"seed": 0, "reduce": "max"}, "b", command=["run"]) as b,
    ):
        for run, mark, other in ((a, "a", "y"), (b, "b", "z")):
            run.add_tasks("m", tasks(mark))
            run.add_agent("x", {"model": "small"})
            run.add_agent(other, {"model": other})
        others = (Score("s", 0.5), Score("more", 8.0))
        for id, task, value, epoch, benchmark, agent in (
            ("a1", "t1", 0.25, 1, "m", "x"),
            ("a2", "t1", 1.0, 0, "m", "x"),
            ("a3", "t2", None, 0, "m", "x"),
            ("a5", "t5", 0.75, 0, "m", "x"),
            ("a6", "t6", None, 0, "m", "x"),
            ("a7", "t1", 0.75, 0, "n", "x"),
            ("a8", "t1", 0.375, 0, "m", "y"),
        ):
            a.append(trace(id, task, value, agent=agent, epoch=epoch, benchmark=benchmark))
        a.append(trace("a4", "t3", agent="x", benchmark="m", scores=others))
        failed = Failure("E", "gone")
        a.append(trace("a9", "t7", agent="y", benchmark="m", error=failed, scores=others))
        for id, task, value, epoch, benchmark, agent in (
            ("b1", "t1", 0.5, 0, "m", "x"),
            ("b2", "t2", 0.5, 0, "m", "x"),
            ("b3", "t4", 1.0, 0, "m", "x"),
            ("b4", "t5", 0.0, 0, "m", "x"),
            ("b5", "t1", 0.5, 2, "n", "x"),
            ("b6", "t1", None, 1, "n", "x"),
            ("b7", "t1", 0.25, 0, "n", "x"),
            ("b8", "t1", 0.125, 0, "m", "z"),
        ):
            b.append(trace(id, task, value, agent=agent, epoch=epoch, benchmark=benchmark))
        yield a, b


def test_a_comparison_tells_all_of_two_agents_in_two_runs(runs: tuple[store.Run, store.Run]) -> None:
    a, b = runs
    assert compare(a, b, agent_a="x") == Comparison(
        a=f"{a.id}/x",
        b=f"{b.id}/x",
        pairs=(
            Pair(
                "m",
                "t1",
                Attempted((1.0, 0.25), ("a2", "a1"), 0, (0, 1), ("mt1x0", "mt1x1")),
                Attempted((0.5,), ("b1",), 0, (0,), ("mt1x0",)),
            ),
            Pair(
                "n",
                "t1",
                Attempted((0.75,), ("a7",), 0, (0,), ("nt1x0",)),
                Attempted((0.25, 0.5), ("b7", "b6", "b5"), 1, (0, 2), ("nt1x0", "nt1x1", "nt1x2")),
            ),
        ),
        only_a=(("m", "t3"),),
        only_b=(("m", "t2"), ("m", "t4")),
        changed=(("m", "t5"),),
        missing=(("m", "t3"), ("m", "t6")),
        unscored=({"m": 2, "n": 0}, {"m": 0, "n": 1}),
        clusters={"m": {"t1": "a one", "t2": "a one", "t5": "a one"}},
        repeated=True,
    )
    assert compare(b, a, agent_a="x").pairs[-1] == Pair(  # as the first run reduces epochs, over as many as both have
        "n",
        "t1",
        Attempted((0.25, 0.5), ("b7", "b6", "b5"), 1, (0, 2), ("nt1x0", "nt1x1", "nt1x2"), 0.25),
        Attempted((0.75,), ("a7",), 0, (0,), ("nt1x0",), 0.75),
    )


def test_what_is_asked_of_a_comparison_decides_its_sides_and_values(runs: tuple[store.Run, store.Run]) -> None:
    a, b = runs
    found = compare(a, b, agent_a="y", agent_b="z", benchmark="m", strata="level", reduce="mean")
    assert (found.a, found.b, found.repeated) == (f"{a.id}/y", f"{b.id}/z", False)
    assert found.pairs == (
        Pair("m", "t1", Attempted((0.375,), ("a8",), 0, (0,), ("mt1y0",)),
             Attempted((0.125,), ("b8",), 0, (0,), ("mt1z0",))),
    )  # fmt: skip
    groups = found.clusters["m"]
    assert isinstance(groups, TaskGroups)
    assert groups.strata == {"t1": "1", "t2": "2", "t5": "1"}
    valued = compare(a, a, agent_a="x", agent_b="y", benchmark="m", score="more", error_value=0.125)
    assert valued.only_a == (("m", "t2"), ("m", "t3"), ("m", "t5"), ("m", "t6"))
    assert valued.only_b == (("m", "t7"),)
    assert valued.values == ([0.125], [0.125])
    assert valued.num_unscored == (2, 1)
    assert valued.pairs[0].a == Attempted((0.125, 0.125), ("a2", "a1"), 2, (0, 1), ("mt1x0", "mt1x1"))
    assert (valued.changed, valued.repeated) == ((), False)
    assert compare(a, b, agent_a="x", score="more").unscored == ({"m": 5, "n": 1}, {"m": 4, "n": 3})


def test_an_agent_is_the_only_one_or_has_to_be_named(tmp_path: Path, runs: tuple[store.Run, store.Run]) -> None:
    a, b = runs
    with store.create(tmp_path, {}, "c", command=["run"]) as c:
        with pytest.raises(ConfigError) as none:
            _agent(c, None)
        assert str(none.value) == f"run {c.id} has 0 agents (none yet): say which to compare"
        for name in ("w", ""):
            with pytest.raises(UnknownName, match=rf"^no agent '{name}'.*`firsthand show {c.id}`"):
                _agent(c, name)
        with pytest.raises(UnknownName, match=rf"^no agent 'x'.*`firsthand show {c.id}`"):
            compare(a, c, agent_a="x", agent_b="x")
        c.append(trace("c1", "t1", 0.5, agent="w", benchmark="m"))
        c.append(trace("c2", "t2", 0.5, agent="w", benchmark="m"))
        assert (_agents(c), _agent(c, None)) == (["w"], "w")
        found = compare(a, c, agent_a="x")
        assert (found.a, found.b) == (f"{a.id}/x", f"{c.id}/w")
        assert found.repeated is False
        assert compare(c, b, agent_b="x").a == f"{c.id}/w"
        c.append(trace("c3", "t1", 0.5, agent="v", benchmark="m"))
        assert _agents(c) == ["w", "v"]
    assert _agents(a) == ["x", "y"]
    with pytest.raises(ConfigError) as several:
        _agent(a, None)
    assert str(several.value) == f"run {a.id} has 2 agents (x, y): say which to compare"
    with pytest.raises(UnknownName, match=r"no agent 'yy'; did you mean 'y'\?") as unknown:
        _agent(a, "yy")
    assert f"firsthand show {a.id}" in str(unknown.value)
    assert _agent(a, "y") == "y"
    with pytest.raises(ConfigError, match=r"\(x, z\): say which"):  # y is no agent of b
        compare(a, b, agent_a="y")


def test_all_scores_of_several_runs_stand_by_benchmark_agent_and_task(runs: tuple[store.Run, store.Run]) -> None:
    a, b = runs
    assert scores_of([a]) == {
        "m": {"x": {"t1": (1.0, 0.25), "t3": (0.5,), "t5": (0.75,)}, "y": {"t1": (0.375,)}},
        "n": {"x": {"t1": (0.75,)}},
    }
    assert scores_of([b, a]) == {  # the first run's reducer, and what it holds of t5
        "m": {
            f"{b.id}/x": {"t1": (0.5,), "t2": (0.5,), "t4": (1.0,), "t5": (0.0,)},
            f"{b.id}/z": {"t1": (0.125,)},
            f"{a.id}/x": {"t1": (1.0,), "t3": (0.5,)},
            f"{a.id}/y": {"t1": (0.375,)},
        },
        "n": {f"{b.id}/x": {"t1": (0.5,)}, f"{a.id}/x": {"t1": (0.75,)}},
    }
    assert scores_of([a], score="more", error_value=0.0, reduce="at_least_1") == {
        "m": {
            "x": {"t1": (0.0,), "t2": (0.0,), "t3": (1.0,), "t5": (0.0,), "t6": (0.0,)},
            "y": {"t1": (0.0,), "t7": (0.0,)},
        },
        "n": {"x": {"t1": (0.0,)}},
    }
    assert scores_of([a], score="no such") == {}


def test_the_attempts_at_a_task_are_ordered_valued_and_reduced(runs: tuple[store.Run, store.Run]) -> None:
    a, b = runs
    tries = [
        _Attempt(1, "p9", "late", 0.25),
        _Attempt(0, "p8", "second", None),
        _Attempt(0, "p7", "first", 4.0),
        _Attempt(2, "p6", "last", None),
    ]
    places, ids = ("p7", "p8", "p9", "p6"), ("first", "second", "late", "last")
    assert _attempted(tries, None, None) == Attempted((4.0, 0.25), ids, 2, (0, 1), places, None)
    assert _attempted(tries, 0.0, min) == Attempted((4.0, 0.0, 0.25, 0.0), ids, 2, (0, 0, 1, 2), places, 0.0)
    assert _attempted(tries[1:2], None, max) == Attempted((), ("second",), 1, (), ("p8",), None)
    whole = _attempted(tries, None, max)
    assert (whole.value, whole.drawn) == (4.0, (4.0,))
    assert (_attempted(tries, None, None).value, _attempted(tries, None, None).drawn) == (2.125, (4.0, 0.25))
    assert list(_tried(_attempts(b, "x", "n", None), (), None, lambda name: {"n": "mode"}[name])) == [("n", "t1")]
    by_name = _tried(_attempts(a, "x", None, "more"), (), None, lambda name: "max" if name == "m" else "")
    assert by_name["m", "t3"] == Attempted((8.0,), ("a4",), 0, (0,), ("mt3x0",), 8.0)
    assert by_name["n", "t1"] == Attempted((), ("a7",), 1, (), ("nt1x0",), None)
    assert list(by_name) == [("m", "t1"), ("m", "t2"), ("m", "t3"), ("m", "t5"), ("m", "t6"), ("n", "t1")]
    assert _unscored(by_name) == {"m": 5, "n": 1}
    assert _changed(a, b) == {("m", "t5")}
    assert _changed(a, a) == set()


@pytest.mark.slow
def test_runs_repeat_each_other_if_agent_and_seed_are_equal_and_the_folder_is_not(tmp_path: Path) -> None:
    with (
        store.create(tmp_path, {"seed": 3}, "a", command=["run"]) as a,
        store.create(tmp_path, {"seed": 3}, "b", command=["run"]) as b,
        store.create(tmp_path, {"seed": 4}, "c", command=["run"]) as c,
    ):
        for run in (a, b, c):
            run.add_agent("same", {"model": "one"})
            run.add_agent("also", {"model": "one"})
        a.add_agent("new", {"model": "two"})
        assert _repeated(a, b, "same", "same")
        assert not _repeated(a, b, "same", "gone")
        assert not _repeated(a, b, "gone", "gone")  # of which nothing is known
        assert not _repeated(a, b, "new", "same")
        assert not _repeated(a, c, "same", "same")
        assert not _repeated(a, a, "same", "same")


def test_changes_are_told_by_the_values_of_both_sides_and_ordered_by_size() -> None:
    def side(*values: float) -> Attempted:
        return Attempted(values, tuple(map(str, values)), 2, tuple(range(len(values))))

    small = Pair("m", "t1", side(0.5), side(0.25))
    large = Pair("m", "t2", side(1.0, 0.0), side(0.0))
    better = Pair("m", "t3", side(0.0), side(0.25))
    same = Pair("m", "t4", side(0.0, 1.0), side(0.5))
    whole = Comparison("a", "b", (small, large, better, same), (), (), ())
    assert [pair.change for pair in whole.pairs] == ["worse", "worse", "better", "same"]
    assert whole.tasks("worse") == [large, small]
    assert (whole.tasks("better"), whole.tasks("same")) == ([better], [same])
    assert whole.values == ([0.5, 0.5, 0.0, 0.5], [0.25, 0.0, 0.25, 0.5])
    assert whole.num_unscored == (8, 8)


def test_flaky_tasks_are_those_whose_attempts_disagree_most_first() -> None:
    steady = Attempted((1.0, 1.0), ("", ""), 0, (0, 1))
    torn = Attempted((1.0, 0.0, 1.0), ("", "", ""), 0, (0, 1, 2))
    other = Attempted((1.0, 0.0), ("", ""), 0, (0, 1))
    late = Attempted((0.0,), ("",), 0, (5,))
    pairs = (
        Pair("n", "t2", steady, other),
        Pair("m", "t1", torn, steady),
        Pair("m", "t3", steady, late),
        Pair("m", "t0", other, other),
    )
    between = Flaky("n", "t2", "between", (1.0, 1.0, 1.0, 0.0))
    assert between.disagreement == 0.5  # 6 of 12 ordered pairs
    assert Flaky("", "", "a", (1.0, 0.0, 0.5, 1.0)).disagreement == 1 - 2 / 12
    alone = [
        Flaky("m", "t0", "a", (1.0, 0.0)),
        Flaky("m", "t0", "b", (1.0, 0.0)),
        Flaky("n", "t2", "b", (1.0, 0.0)),
        Flaky("m", "t1", "a", (1.0, 0.0, 1.0)),  # 4 of 6
    ]
    assert flaky(Comparison("a", "b", pairs, (), (), ())) == alone
    again = flaky(Comparison("a", "b", pairs, (), (), (), repeated=True))
    assert again == [*alone, between, Flaky("m", "t1", "between", (1.0, 0.0, 1.0, 1.0, 1.0))]  # 8 of 20
    assert not _flips(steady, late)  # no attempt that both made
    assert _flips(torn, Attempted((0.0,), ("",), 0, (2,)))
    assert not _flips(torn, Attempted((0.0,), ("",), 0, (1,)))


def test_an_attempt_that_failed_has_no_value_although_it_was_scored(runs: tuple[store.Run, store.Run]) -> None:
    a, _ = runs
    unscored = Attempted((), ("a9",), 1, (), ("mt7y0",), None)
    assert _tried(_attempts(a, "y", "m", None), (), None, "")["m", "t7"] == unscored
    assert _tried(_attempts(a, "y", "m", "s"), (), None, "")["m", "t7"] == unscored
