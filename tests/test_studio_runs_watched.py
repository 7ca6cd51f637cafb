"""Runs that the Studio keeps open, follows, exports and draws: what is told of a change, and every point of a curve."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import UnknownName
from firsthand.message import assistant, user
from firsthand.runs import store
from firsthand.runs.run_folder import Run
from firsthand.runs.track import Track
from firsthand.studio import live_events, open_runs
from firsthand.studio.live_events import changes, mark_of, marks_of, version_of
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.run_export import _curves, exported
from firsthand.studio.views.curve_views import KeptCurves, last_values, parts_of, shared_files
from firsthand.studio.views.feature_views import _matching, _sorted
from firsthand.task import Task
from firsthand.trace import Node, Score, Trace


def trained(home: Path, name: str, *logged: tuple[int, dict[str, float]]) -> str:
    """The id of a run with curves."""
    with store.create(home, {"name": name}, name) as run:
        with Track(run) as track:
            for step, values in logged:
                track.log(values, step=step, at=1000.0 + step)
        return run.id


@pytest.mark.slow
def test_as_many_runs_stay_open_as_are_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_runs, "MOST_OPEN", 2)
    a, b, c = (trained(tmp_path, name) for name in "abc")
    runs = OpenRuns(tmp_path)
    assert {info.id for info in runs.infos()} == {a, b, c}
    first = runs.get(a)
    second = runs.get(b)
    assert runs.get(a) is first and runs.several([b, a]) == [second, first]  # a is the last that was looked at
    runs.get(c)
    assert list(runs._open) == [a, c] and runs.get(a) is first
    assert runs.get(b) is not second
    assert runs.get("last").id in (a, b, c)
    for bad in ("../x", "a\\b", ".hidden", "a\0b"):
        with pytest.raises(UnknownName, match="no run"):
            runs.get(bad)
    runs.close()
    assert not runs._open and runs.get(a) is not first
    runs.close()


def test_a_topic_is_told_of_each_change_and_of_those_before_it_was_listened_to(tmp_path: Path) -> None:
    id = trained(tmp_path, "a", (1, {"loss": 1.0}))
    runs, topic = OpenRuns(tmp_path), f"run:{id}"
    traces: Any = SimpleNamespace(version="v1")
    assert version_of("traces", runs) == version_of("other", runs) == version_of("run:none", runs) == ""
    assert version_of("traces", runs, traces) == "v1" and version_of("runs", OpenRuns(tmp_path / "none")) == ""
    assert mark_of("traces", runs, traces) == hashlib.sha256(b"v1").hexdigest()[:16]
    seen = marks_of(["traces", topic], runs, traces)
    assert seen == f"{mark_of('traces', runs, traces)} {mark_of(topic, runs)}"

    async def told(topics: list[str], seen: str, *acts: Any, events: int) -> list[str]:
        found, waiting = [], list(acts)
        async for text in changes(topics, runs, traces, seen=seen, poll_s=0.001):
            found.append(text)
            if waiting:
                waiting.pop(0)()
            if len(found) > events:
                return found[1:]
        return found

    def event(topic: str) -> str:
        return f"event: changed\ndata: {json.dumps({'topic': topic})}\n\n"

    def change() -> None:
        traces.version += "+"

    assert asyncio.run(told(["traces", topic], seen, change, events=1)) == [event("traces")]
    assert asyncio.run(told(["traces", topic, "traces"], seen, events=1)) == [event("traces")]  # it was v1 when seen
    assert asyncio.run(told(["traces"], "", change, change, events=2)) == [event("traces")] * 2
    assert asyncio.run(told([topic, "traces"], f"{mark_of(topic, runs)} x", events=1)) == [event("traces")]
    runs.close()


def test_a_quiet_stream_is_pinged_and_only_so_many_topics_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_events, "PING_S", 0.003)
    monkeypatch.setattr(live_events, "MOST_TOPICS", 2)
    asked: list[str] = []

    def version(topic: str, *_: Any) -> str:
        asked.append(topic)
        return "same"

    monkeypatch.setattr(live_events, "version_of", version)

    async def first(count: int) -> list[str]:
        found = []
        async for text in changes(["a", "a", "b", "c"], None, poll_s=0.001):  # type: ignore[arg-type]
            found.append(text)
            if len(found) == count:
                break
        return found

    begin = "retry: 2000\n: the Studio tells what changes\n\n"
    assert asyncio.run(first(3)) == [begin, ": still here\n\n", ": still here\n\n"]
    assert asked == ["a", "b"] * 7  # once before, and three times for each ping


def points(home: Path, *logged: tuple[int, dict[str, float]]) -> dict[str, Any]:
    with store.open_run(trained(home, "c", *logged), home) as run:
        return {each.name: each for each in _curves(run)}


def test_a_curve_is_drawn_between_its_lowest_and_highest_value(tmp_path: Path) -> None:
    nan, inf = float("nan"), float("inf")
    found = points(
        tmp_path,
        (10, {"loss": 4.0, "flat": 2.0, "none": nan}),
        (20, {"loss": nan, "flat": 2.0, "none": inf}),
        (30, {"loss": 1.0, "flat": 2.0}),
        (50, {"loss": 2.0, "one": 7.0}),
    )
    assert set(found) == {"loss", "flat", "none", "one"}
    loss, flat, none, one = found["loss"], found["flat"], found["none"], found["one"]
    assert loss.pieces == ("0.0,5.0", "300.0,155.0 600.0,105.0")
    assert (loss.low, loss.high, loss.last_step, loss.last) == (1.0, 4.0, 50, 2.0)
    assert flat.pieces == ("0.0,80.0 300.0,80.0 600.0,80.0",) and one.pieces == ("0.0,80.0",)
    assert (one.low, one.high, one.last_step, one.last) == (7.0, 7.0, 50, 7.0)
    assert (none.pieces, none.last_step, none.last) == ((), 20, inf)  # nothing to draw of what has no finite value
    assert none.low != none.low and none.high != none.high


def test_a_run_is_one_file_that_allows_its_own_style_alone(tmp_path: Path) -> None:
    with store.create(tmp_path, {"model": ["m"]}, "whole") as run:
        run.add_tasks(
            "quiz", [Task("t0", "Open <b>Q</b>?", secret={"answer": "X0"}), Task("t1", "Q1?", secret={"answer": "X1"})]
        )
        run.add_agent("ann", {"name": "ann", "model": "m"})
        for at, task in enumerate(("t0", "t1")):
            nodes = (Node(None, user(f"Q {task}")), Node(0, assistant(f"said {task}")))
            run.append(Trace(f"x{at}", "quiz", task, {"name": "ann", "model": "m"}, 0, 0, "2026-01-01T00:00:00+00:00", 1.5,
                             nodes=nodes, answer=f"A{at}", scores=(Score("exact", float(at)),), place=f"p{at}"))  # fmt: skip
        text, shown, left = exported(run)
        assert (shown, left) == (2, 0) and "said t0" in text and "said t1" in text and "<bdi>X0</bdi>" in text
        assert "<script" not in text and "Open &lt;b&gt;Q&lt;/b&gt;?" in text and "<b>Q</b>" not in text
        (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
        assert policy in text.replace("&#39;", "'")
        some, shown, left = exported(run, "task:t1")
        assert (shown, left) == (1, 0) and "said t1" in some and "said t0" not in some


def test_curves_are_made_once_until_something_is_logged(tmp_path: Path) -> None:
    id = trained(tmp_path, "a", (1, {"loss": 2.0, "lr": 0.5}), (2, {"loss": 1.0, "lr": 0.25}))
    kept = KeptCurves(most=3)
    with store.open_run(id, tmp_path) as run:

        def begun(*names: str, columns: int = 10, parts: Any = ()) -> list[Any]:
            found = kept.begin(run, names, columns, parts)
            for each in found:
                each.result()
            return found

        loss, lr = begun("loss", "lr")
        assert json.loads(loss.result()) == {"run": id, "name": "loss", "steps": [1, 2], "values": [2.0, 1.0]}
        assert json.loads(lr.result())["values"] == [0.5, 0.25] and begun("loss", "lr") == [loss, lr]
        (timed,) = begun("loss", parts=["at"])
        assert json.loads(timed.result())["at"] == [1001.0, 1002.0] and timed is not loss
        begun("lr", columns=11)  # a fourth: the first is forgotten
        assert begun("lr") == [lr] and begun("loss") != [loss]
        with Track(run) as track:
            track.log({"lr": 0.125}, step=3)
        (again,) = begun("lr")
        assert again is not lr and json.loads(again.result())["values"] == [0.5, 0.25, 0.125]
        assert last_values(Track(run)) == {"loss": 1.0, "lr": 0.125}
    kept.close()
    with store.open_run(id, tmp_path) as run, pytest.raises(RuntimeError):
        kept.begin(run, ["loss"], 10, ["means"])


def test_files_that_runs_share_are_told_in_the_order_of_the_runs(tmp_path: Path) -> None:
    def track(id: str, at: str, *digests: str) -> tuple[Run, Track]:
        files = [SimpleNamespace(sha256=digest) for digest in digests]
        found: Any = SimpleNamespace(id=id, created_at=at), SimpleNamespace(artifacts=lambda: files)
        return found

    found = shared_files([track("late", "2", "x", "y"), track("early", "1", "y", "z", "y"), track("mid", "15", "y")])
    assert found == {"y": ["early", "mid", "late"]}


def test_a_page_of_curves_asks_for_the_parts_it_draws() -> None:
    def parts(**query: str) -> list[str]:
        return parts_of(SimpleNamespace(query_params=query))  # type: ignore[arg-type]

    assert parts() == parts(smooth="0") == parts(smooth="x") == parts(smooth="-1") == []
    assert parts(smooth="0.5") == parts(group="lr") == ["means"] and parts(x="time") == ["at"]
    assert parts(smooth="0.1", x="time") == ["means", "at"] and parts(x="step") == []


def test_features_are_found_by_any_of_their_words_and_sorted_by_what_was_measured() -> None:
    def feature(
        index: int, density: float, rule: str = "", accuracy: float = 0.0, ablation: Any = None, **more: Any
    ) -> Any:
        held = SimpleNamespace(rule=rule, balanced_accuracy=accuracy) if rule else None
        top = [[SimpleNamespace(text=text) for text in more.get("top", ())]]
        return SimpleNamespace(
            index=index, density=density, rule=held, ablation=ablation, bands={"top": top},
            promoted=more.get("promoted", ()), suppressed=more.get("suppressed", ()),
        )  # fmt: skip

    def effect(value: float, n: int) -> Any:
        return SimpleNamespace(value=value, n=n)

    all = [
        feature(7, 0.1, "after NOT", 0.9, top=("New ", "York")),
        feature(70, 0.3, ablation=effect(0.5, 3), promoted=("Paris",)),
        feature(8, 0.2, "digits", 0.95, effect(9.0, 0), suppressed=("rome",)),
    ]

    def found(wanted: str) -> list[int]:
        return [each.index for each in _matching(all, wanted)]

    assert found("") == found(" ") == [7, 70, 8] and found("7") == [7, 70] and found(" not ") == [7]
    assert found("new york") == [7] and found("PARIS") == [70] and found("Rome") == [8] and found("x") == []
    order = {sort: [each.index for each in _sorted(list(all), sort)] for sort in ("density", "ablation", "rule")}
    assert order == {"density": [70, 8, 7], "ablation": [70, 7, 8], "rule": [8, 7, 70]}
