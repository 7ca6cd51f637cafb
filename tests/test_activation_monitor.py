"""Monitors of activations: fitted with a false alarm rate, in one file, read while an agent runs, and judged by a guard."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

import tiny
from engine_tiny import tiny_model
from firsthand import catalog
from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError, DataError, ModelFileError
from firsthand.interp.activations import read_activations
from firsthand.interp.monitor_fitting import fit_monitor, text_scores, threshold_at
from firsthand.message import Message, Sampled, user
from firsthand.model import Sampling
from firsthand.nn.activation_monitor import ActivationMonitor, read_monitor, write_monitor
from firsthand.nn.weights import load
from firsthand.providers.local import Local, open_model
from firsthand.rollout import rollout
from firsthand.task import Task

SITE = "blocks.1.resid.post"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def monitor(folder: Path) -> ActivationMonitor:
    width = load(folder).architecture.hidden_size
    direction = torch.randn(width, generator=torch.Generator().manual_seed(0))
    return ActivationMonitor("blocks.0.resid.post", direction, 0.5, threshold=0.25, name="calm", false_alarms=0.02)


@pytest.fixture
def watched(folder: Path, monitor: ActivationMonitor) -> Iterator[Local]:
    plain = Local(folder, name="tiny", config=EngineConfig(kv_memory_bytes=8 << 20, threads=1, weights="float32"))
    yield plain.monitored_by(monitor, name="tiny+monitor:calm")
    plain.close()


@pytest.mark.slow
def test_each_sampled_token_has_the_score_of_the_activation_it_was_sampled_from(
    watched: Local, monitor: ActivationMonitor, folder: Path
) -> None:
    async def asked() -> Any:
        sampling = Sampling(max_tokens=6, seed=1)
        answers = await watched.complete([user("What is 2 + 3?")], sampling, n=2)
        (again,) = await watched.complete([user("What is 2 + 3?")], sampling)  # its prompt is cached
        whole = [delta async for delta in watched.stream_many([user("What is 2 + 3?")], sampling)][-1].completion
        return answers, again, whole

    answers, again, whole = asyncio.run(asked())
    model = load(folder)
    for each in (*answers, again, whole):
        born, prompt = each.message.sampled, each.prompt_ids
        text = [*prompt, *born.token_ids[:-1]]
        exact = monitor.scores(read_activations(model, text, monitor.site)[monitor.site])[len(prompt) - 1 :]
        assert born.monitor == pytest.approx(exact, abs=2e-3) and len(born.monitor) == len(born.token_ids)
    assert Sampled.from_json(again.message.sampled.to_json()) == again.message.sampled
    assert Message.from_json(again.message.to_json()).sampled.monitor == again.message.sampled.monitor


def test_scores_of_steps_are_in_the_trace_and_a_guard_notes_or_stops_what_is_at_the_threshold(watched: Local) -> None:
    async def ask(task: Task, ctx: Context) -> str:
        return (await ctx.say(task.question).generate(max_tokens=4, seed=1)).text

    def attempted(guard: str) -> Any:
        return asyncio.run(
            rollout(Agent("a", watched, ask, guard=catalog.guards([guard])), Task("t", "What is 2 + 3?"))
        )

    quiet = attempted("monitor:threshold=1000")
    born = quiet.nodes[-1].message.sampled
    (noted,) = [event for event in quiet.events if event.kind == "guard"]
    mean = sum(born.monitor) / len(born.monitor)
    assert noted.data["detail"] == {
        "largest": max(born.monitor), "mean": pytest.approx(mean), "tokens": len(born.monitor), "threshold": 1000,
    }  # fmt: skip
    assert "alarm" not in noted.data["reason"] and quiet.error is None
    alarmed = attempted(f"monitor:threshold={mean - 1e-4!r}")
    assert [event.data["reason"][:5] for event in alarmed.events if event.kind == "guard"] == ["alarm"]
    assert alarmed.error is None and alarmed.answer
    stopped = attempted(f"monitor:threshold={mean - 1e-4!r}:stop=true")
    assert stopped.stop_reason == "guard" and [
        event.data["action"] for event in stopped.events if event.kind == "guard"
    ] == ["block"]


def test_stored_steps_at_or_above_the_threshold_are_counted(watched: Local) -> None:
    async def ask(task: Task, ctx: Context) -> str:
        first = await ctx.say(task.question).generate(max_tokens=3, seed=1)
        return (await first.say("And 4?").generate(max_tokens=3, seed=1)).text

    task = Task("t", "What is 2 + 3?")
    trace = asyncio.run(rollout(Agent("a", watched, ask), task))
    means = sorted(
        sum(node.message.sampled.monitor) / len(node.message.sampled.monitor)
        for node in trace.nodes
        if node.message.sampled
    )
    assert len(means) == 2 and means[0] < means[1]
    for threshold, share in ((means[0], 1.0), (means[1], 0.5), (means[1] + 1e-3, 0.0)):
        score = catalog.scorer(f"monitor_alarms:threshold={threshold!r}")(task, trace)
        assert (score.value, score.detail["steps"], score.detail["largest"]) == (share, 2, means[1])  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"no step has monitor scores"):
        catalog.scorer("monitor_alarms")(task, replace(trace, nodes=trace.nodes[:1]))
    with pytest.raises(ConfigError, match="give a number"):
        catalog.scorer("monitor_alarms:threshold=nan")


def test_a_model_without_a_monitor_has_no_scores_and_the_guard_notes_it() -> None:
    (guard,) = catalog.guards(["monitor"])

    class View:
        messages = (user("Hi"), Message("assistant", (), None))

    assert guard.answer(View(), "x").action == "pass" and "no scores" in guard.answer(View(), "x").reason  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="give a number"):
        catalog.guards(["monitor:threshold=nan"])


def test_a_monitors_file_is_read_by_a_models_name(folder: Path, monitor: ActivationMonitor, tmp_path: Path) -> None:
    file = tmp_path / "calm.safetensors"
    write_monitor(monitor, file)
    read = read_monitor(file)
    assert torch.equal(read.direction, monitor.direction)
    assert (read.site, read.bias, read.threshold, read.name) == ("blocks.0.resid.post", 0.5, 0.25, "calm")
    model = open_model(f"{folder}+monitor:{file}")
    assert model.monitor is not None and model.path == folder and model.name.endswith("calm.safetensors")
    plain = Local(folder, config=model.config)
    assert model.fingerprint != plain.fingerprint == Local(folder, config=model.config).fingerprint
    assert getattr(catalog.model(f"{folder}+monitor:{file}"), "monitor", None) is not None


def test_files_that_are_no_monitor_and_monitors_of_another_model_are_refused(
    folder: Path, monitor: ActivationMonitor, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    with pytest.raises(ConfigError, match="no monitor"):
        read_monitor(tmp_path / "missing")
    other = tmp_path / "other.safetensors"
    save_file({"direction": torch.zeros(4)}, other)
    with pytest.raises(ModelFileError, match="is no monitor"):
        read_monitor(other)
    bad = ActivationMonitor(SITE, torch.tensor([1.0, float("nan")]))
    write_monitor(bad, other)
    with pytest.raises(ModelFileError, match="is no monitor"):
        read_monitor(other)
    narrow = Local(folder, config=EngineConfig(kv_memory_bytes=8 << 20, threads=1)).monitored_by(
        ActivationMonitor(SITE, torch.ones(3), name="narrow"), name="x"
    )
    with pytest.raises(ConfigError, match="reads 3 values"):
        asyncio.run(narrow.complete("Hi", Sampling(max_tokens=1)))
    narrow.close()


@pytest.mark.slow
def test_a_fitted_monitor_keeps_its_false_alarms_on_texts_it_never_saw() -> None:
    model = tiny_model().eval()
    rng = Random(0)

    def texts(mark: int | None) -> list[list[int]]:
        return [
            [1, *(rng.randrange(10, 90) for _ in range(8)), *([] if mark is None else [mark] * 3)] for _ in range(90)
        ]

    found = fit_monitor(model, texts(5), texts(None), SITE, name="marked", false_alarms=0.1, held_out=0.5)
    assert found.separation.low > 0.7 and found.caught.value > 0.4 and found.false_alarms.value < 0.3
    assert found.study.shuffled.value < found.study.accuracy.value
    again = fit_monitor(model, texts(None), texts(None), SITE, name="nothing")
    assert again.separation.low < 0.5 < again.separation.high
    (one,) = text_scores(model, found.monitor, [[1, 20, 30]])
    rows = read_activations(model, [1, 20, 30], SITE)[SITE]
    assert one == pytest.approx(sum(found.monitor.scores(rows[1:])) / 2, abs=1e-4)
    with pytest.raises(DataError, match="20 of each"):
        fit_monitor(model, texts(5)[:10], texts(None), SITE, name="few")


def test_the_threshold_lets_no_more_than_its_share_be_alarms() -> None:
    scores = [float(value) for value in range(100)]
    assert sum(score >= threshold_at(scores, 0.05) for score in scores) == 5
    assert sum(score >= threshold_at(scores[:10], 0.05) for score in scores[:10]) == 0
    assert sum(score >= threshold_at([1.0] * 10, 0.05) for score in [1.0] * 10) == 0


def test_one_monitor_is_taken_and_a_second_is_refused(
    watched: Local, monitor: ActivationMonitor, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"^tiny\+monitor:calm has a monitor already: give one$"):
        watched.monitored_by(monitor, name="two")
    write_monitor(monitor, tmp_path / "a")
    with pytest.raises(ConfigError, match="has a monitor already: give one"):
        open_model(f"{watched.path}+monitor:{tmp_path / 'a'}+monitor:{tmp_path / 'a'}")


def test_a_monitor_of_the_inner_layer_of_an_mlp_has_its_width(folder: Path) -> None:
    model = load(folder)
    a = model.architecture
    inner = ActivationMonitor("blocks.0.mlp.act", torch.linspace(-1, 1, a.intermediate_size), name="inner")
    inner.expect_fits(a)
    plain = Local(folder, name="tiny", config=EngineConfig(kv_memory_bytes=8 << 20, threads=1, weights="float32"))

    async def asked(watching: ActivationMonitor) -> Any:
        asks = plain.monitored_by(watching, name="m")
        return (await asks.complete([user("What is 2 + 3?")], Sampling(max_tokens=3, seed=0)))[0]

    answer = asyncio.run(asked(inner))
    born = answer.message.sampled
    text = [*answer.prompt_ids, *born.token_ids[:-1]]
    exact = inner.scores(read_activations(model, text, inner.site)[inner.site])[len(answer.prompt_ids) - 1 :]
    assert born.monitor == pytest.approx(exact, abs=2e-3) and len(born.monitor) == 3
    told = f"reads {a.hidden_size} values, and this model's blocks.0.mlp.act have {a.intermediate_size}"
    with pytest.raises(ConfigError, match=told):
        asyncio.run(asked(replace(inner, direction=torch.ones(a.hidden_size))))
