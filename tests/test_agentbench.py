"""The composite: its environments, its overall score, and what it says of those that are missing."""

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest

from firsthand.benchmarks.agentbench import WEIGHTS, agentbench, overall
from firsthand.errors import ConfigError, DataError, UnknownName
from firsthand.trace import Score, Trace
from firsthand.worlds.players import play

SHARED = (
    Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data") / "agents" / "agentbench"
)


def trace(task: str, value: float) -> Trace:
    return Trace("t", "agentbench", task, {"name": "a"}, 0, 0, "", 0.0, scores=(Score("score", value),))


@pytest.mark.parametrize(
    ("published", "scores"),
    [
        (4.01, (42.4, 32.0, 58.8, 74.5, 16.6, 78.0, 61.1, 29.0)),
        (2.32, (32.6, 36.7, 25.9, 33.7, 10.5, 16.0, 64.1, 20.0)),
        (0.96, (2.8, 14.0, 23.5, 8.4, 0.7, 4.0, 52.1, 20.0)),
        (0.78, (9.7, 13.0, 8.0, 21.3, 0.0, 2.0, 5.6, 19.0)),
    ],
)
def test_the_overall_score_of_published_scores_is_the_published_one(published: float, scores: tuple[float, ...]):
    """gpt-4, gpt-3.5-turbo, codellama-34b and llama-2-70b, as docs/worlds.md shows them."""
    named = zip(("os", "db", "kg", "dcg", "ltp", "hh", "ws", "wb"), scores, strict=True)
    figure = overall([trace(f"{name}/0", value / 100) for name, value in named])
    assert figure.of(np.ones((1, 8)))[0] == pytest.approx(published, abs=0.005)


def test_environments_weigh_the_same_however_many_tasks_they_have():
    traces = [trace("os/0", 1.0), trace("os/1", 0.0), trace("db/0", 1.0)]
    one, drawn = overall(traces).of(np.array([[1.0, 1.0, 1.0], [2.0, 0.0, 0.0]]))
    assert one == pytest.approx((50 / WEIGHTS["os"] + 100 / WEIGHTS["db"]) / 2)
    assert drawn == pytest.approx(100 / WEIGHTS["os"] / 2)  # nothing was drawn of db


def test_one_environment_is_played_under_the_composites_name(tmp_path: Path):
    benchmark = agentbench(worlds="dcg", each=3)
    tasks = benchmark.tasks(0)
    places = ["dcg/seed0-baseline1-first-0", "dcg/seed0-baseline1-second-1", "dcg/seed0-baseline2-first-3"]
    assert [task.id for task in tasks] == places
    assert len(tasks) == 3 and {task.stratum for task in tasks} == {"dcg"}
    played = asyncio.run(play(benchmark, tasks[0], "optimal"))
    assert played.value() == 1 and played.scores[0].name == "score"
    assert played.scores[0].detail["world"] == "dcg" and played.scores[0].detail["metric"] == "reward"


def test_what_is_missing_is_said_and_what_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    monkeypatch.setenv("FIRSTHAND_OFFLINE", "1")
    benchmark = agentbench()
    assert "; without db: " in benchmark.protocol and "; without ltp: " in benchmark.protocol
    assert "dcg" in str(benchmark.options["worlds"])
    with pytest.raises(DataError):
        agentbench(worlds="ltp+dcg")
    with pytest.raises(UnknownName, match="did you mean 'dcg'"):
        agentbench(worlds="dgc")
    with pytest.raises(ConfigError, match="each is -1"):
        agentbench(each=-1)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="AgentBench's items are not here")
def test_the_real_environments_are_found_in_one_data_folder():
    benchmark = agentbench(worlds="os+db+ltp", data=str(SHARED.parent.parent))
    assert len(benchmark.tasks(0)) == 119 + 300 + 50
    assert len(agentbench(worlds="db+ltp", each=20, data=str(SHARED)).tasks(0)) == 40
