"""Spans of an experiment's attempts: sent where a flag or the environment asks, and told where they cannot be sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from collector import collecting, values
from firsthand import Agent, Benchmark, Experiment, Task
from firsthand.context import Context
from firsthand.experiment import named_agents
from firsthand.experiment.settings import RunSettings
from firsthand.loop.listener import Began
from firsthand.message import ToolCall
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.system import trace_context
from firsthand.system.trace_context import TraceParent
from firsthand.tool import tool


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_SAMPLER"):
        monkeypatch.delenv(name, raising=False)


def experiment(count: int) -> Experiment:
    tasks = [Task(f"t{number}", "?") for number in range(count)]
    return Experiment([Agent("a", Scripted({"": "x"}), direct)], Benchmark("b", lambda seed: tasks, ()))


@pytest.mark.slow
def test_each_kept_attempt_is_sent_and_its_steps_are_heard_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    notices: list[str] = []
    heard: list[tuple[str, str]] = []
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)

        def listener(place: Any) -> Any:
            return lambda step: heard.append((place.task.id, type(step).__name__))

        for count, asked in ((2, True), (1, False)):  # the second by its environment alone
            collector.spans.clear()
            with experiment(count).run(otel=asked, listener=listener, on_notice=notices.append) as run:
                found = collector.wait(2 * count)
                roots = [values(each.attributes) for each in found if each.name == "invoke_agent a"]
                assert sorted(each["firsthand.task"] for each in roots) == [f"t{number}" for number in range(count)]
                assert {each["firsthand.run"] for each in roots} == {run.id}
    assert notices == [] and {id for id, kind in heard if kind == Began.__name__} == {"t0", "t1"}


def test_a_collector_that_takes_nothing_is_told_of_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    notices: list[str] = []
    with collecting(status=400) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with experiment(1).run(otel=True, on_notice=notices.append) as run:
            assert run.status == "done" and len(run.done()) == 1
    assert notices[0].startswith("spans cannot be sent: ")
    assert notices[-1].startswith(f"2 of 2 spans were not sent to {collector.url}/v1/traces: ")


def test_each_model_is_fetched_before_it_is_opened_and_shown_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []
    monkeypatch.setattr(named_agents, "fetch_named", lambda name, *, shown: asked.append((name, shown)))  # a download
    Path("s.json").write_text('["x"]')
    settings = RunSettings(("arithmetic",), ("scripted:echo", "scripted:s.json"), tools=("none",))
    for given, shown in (({}, False), ({"show_progress": True}, True), ({"show_progress": False}, False)):
        asked.clear()
        made = Experiment.from_settings(settings, **given)  # type: ignore[arg-type]
        assert [each.model.name for each in made.agents] == ["scripted:echo", "scripted:s.json"]
        assert asked == [("scripted:echo", shown), ("scripted:s.json", shown)]
    asked.clear()
    Experiment.from_settings(settings, models=[Scripted(["x"])], show_progress=True)
    assert asked == [], "models that are open already are not fetched"


@pytest.mark.slow
def test_what_an_attempt_does_belongs_to_the_span_of_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, TraceParent | None]] = []

    @tool(effect="read")
    def look(name: str) -> str:
        """Look."""
        seen.append((name, trace_context.current()))
        return "x"

    async def looks(task: Task, ctx: Context) -> str:
        for number in range(2):
            await ctx.call(ToolCall(str(number), "look", {"name": f"{task.id} {number}"}))
        return "done"

    tasks = [Task(f"t{number}", "?") for number in range(2)]
    agent = Agent("a", Scripted({"": "x"}), looks, tools=(look,))
    made = Experiment([agent], Benchmark("b", lambda seed: tasks, ()))
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with made.run(otel=True) as run:
            assert run.status == "done"
        sent = {each.span_id.hex(): each for each in collector.wait(6)}
        assert sorted(name for name, _ in seen) == ["t0 0", "t0 1", "t1 0", "t1 1"]
        for _, parent in seen:
            assert parent is not None
            step = sent.pop(f"{parent.span_id:016x}")
            assert (step.name, step.trace_id.hex()) == ("execute_tool look", f"{parent.trace_id:032x}")
        assert [each.name for each in sent.values()] == ["invoke_agent a"] * 2
    seen.clear()
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    with made.run() as run:
        assert run.status == "done" and [parent for _, parent in seen] == [None] * 4, "nothing is sent, nothing entered"
