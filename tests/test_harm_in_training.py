"""What is trained on, kept or shown as good follows a score's direction: of a score of harm the lowest is the best."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from firsthand.boards.board_results import ItemScores
from firsthand.boards.read_results import run_results
from firsthand.commands import data
from firsthand.errors import ConfigError
from firsthand.memories.episodic import episode_of
from firsthand.memories.procedural import skill_of
from firsthand.message import Message, Sampled, Text, assistant, user
from firsthand.runs.store import Run, create
from firsthand.runs.training_data import DataFilter, training_rows
from firsthand.stats.agent_scores import agent_scores, task_values
from firsthand.stats.breakdown import Cell, cells
from firsthand.stats.effective_length import Effective, effective
from firsthand.stats.intervals import Interval
from firsthand.studio.trace_copies import as_test
from firsthand.studio.views.comparison_views import grid_rows, sides_of
from firsthand.task import Task
from firsthand.trace import Call, Node, PromptIds, Score, Trace
from firsthand.train.episodes import grade


def harm(value: float, name: str = "obeyed") -> Score:
    return Score(name, value, {"is_harm": True})


def attempt(text: str, *scores: Score, task: str = "t0", epoch: int = 0, reason: str = "stop") -> Trace:
    nodes = (Node(None, user(f"{task}?")), Node(0, assistant(text)))
    calls = (Call("0", "generate", 0, 0.0, 1.0, "", nodes=(1,), detail={"finish_reasons": [reason]}),)
    return Trace(
        f"{task}{epoch}{text}", "b", task, {"name": "a"}, epoch, 0, "", 1.0, nodes, calls, answer=text, scores=scores
    )


def stored(home: Path, *attempts: Trace, about: dict[str, Any] | None = None) -> Run:
    run = create(home, about or {}, "r")
    run.add_tasks("b", [Task(f"t{n}", f"t{n}?", metadata={"len": n}) for n in range(3)])
    run.add_agent("a", {"name": "a"})
    for each in attempts:
        run.append(each)
    return run


def content(messages: list[dict[str, Any]]) -> str:
    return str(messages[-1]["content"])


THREE = (attempt("leak", harm(1.0)), attempt("hint", harm(0.5)), attempt("refuse", harm(0.0)))


@pytest.mark.parametrize("answers", [False, True])
@pytest.mark.parametrize("score", [None, "obeyed"])
def test_the_least_harm_is_chosen_first_desirable_and_best(tmp_path: Path, answers: bool, score: str | None) -> None:
    run = stored(tmp_path, *THREE)

    def rows(kind: Any, **more: Any) -> list[dict[str, Any]]:
        return training_rows([run], kind, DataFilter(score, answers=answers, **more)).rows

    (pair,) = rows("pairs")
    assert (content(pair["chosen"]), content(pair["rejected"])) == ("refuse", "leak")
    assert [each["score"] for each in pair["lineage"]] == [0.0, 1.0], "the lineage keeps the scores as they are"
    (ranked,) = rows("reward")
    assert [content(each) for each in ranked["answers"]] == ["refuse", "hint", "leak"]
    labels = {content(each["completion"]): each["label"] for each in rows("kto")}
    assert labels == {"refuse": True, "hint": False, "leak": False}
    assert {content(each["completion"]): each["label"] for each in rows("kto", max_score=0.5)} == labels | {
        "hint": True
    }
    assert [content(each["messages"]) for each in rows("sft", best_of=1)] == ["refuse"]
    assert [content(each["messages"]) for each in rows("sft", max_score=0.5)] == ["refuse", "hint"]
    assert not rows("pairs", max_score=-0.1) and rows("pairs", max_score=0.0) == [pair]


def test_a_bound_of_the_other_direction_is_refused_and_both_count_each_for_their_own(tmp_path: Path) -> None:
    good = (attempt("right", Score("exact", 1.0), task="t1"), attempt("wrong", Score("exact", 0.0), task="t1"))
    with create(tmp_path / "1", {}, "r") as run:
        for each in (*good, *THREE):
            run.append(each)
        for bound, told in (
            ({"min_score": 1.0}, "min_score is given, and the score is of harm, where lower is better: give max_score"),
            ({"max_score": 0.0}, "max_score is for scores of harm, where lower is better: give min_score"),
        ):
            with pytest.raises(ConfigError) as refused:
                training_rows([run], "sft", DataFilter(**bound))  # type: ignore[arg-type]
            assert str(refused.value) == told
        found = training_rows([run], "sft", DataFilter(min_score=1.0, max_score=0.0))
    assert {content(each["messages"]) for each in found.rows} == {"right", "refuse"}
    assert +found.left_out == Counter({"above the highest score of harm": 2, "below the least score": 1})


def test_a_score_without_a_mark_is_of_harm_where_another_of_its_name_has_one(tmp_path: Path) -> None:
    before = stored(tmp_path / "before", attempt("leak", Score("obeyed", 1.0)), attempt("other", Score("other", 1.0)))
    after = stored(tmp_path / "after", attempt("refuse", harm(0.0)))
    found = training_rows([before, after], "kto", DataFilter())
    labels = {content(each["completion"]): each["label"] for each in found.rows}
    assert labels == {"leak": False, "other": True, "refuse": True}
    (pair,) = training_rows([before, after], "pairs", DataFilter("obeyed")).rows
    assert (content(pair["chosen"]), content(pair["rejected"])) == ("refuse", "leak")


def test_an_episode_tells_that_less_harm_is_better() -> None:
    found = episode_of(attempt("leak", harm(1.0)))
    assert found is not None and "Outcome: obeyed 1 (lower is better), " in found.text
    plain = episode_of(attempt("right", Score("exact", 1.0)))
    assert plain is not None and "Outcome: exact 1, " in plain.text


def test_an_answer_that_was_cut_is_no_better_one_of_harm(tmp_path: Path) -> None:
    cut = attempt("cut", harm(0.0), reason="length")
    found = training_rows([stored(tmp_path, cut, *THREE[:2])], "pairs", DataFilter())
    assert [(content(each["chosen"]), content(each["rejected"])) for each in found.rows] == [("hint", "leak")]


def test_the_command_passes_the_bound_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = stored(tmp_path, *THREE)
    assert data.main(data.Config((str(run.path),), "sft", max_score=0.0)) == 0
    out, err = capsys.readouterr()
    assert "refuse" in out and len(out.splitlines()) == 1 and "2 above the highest score of harm" in err


def test_rollouts_are_rewarded_for_less_harm() -> None:
    def reward(*scores: Score, **more: Any) -> float:
        sampled = Sampled((5, 6), (-0.1, -0.1), (-0.1, -0.1), adapter="x")
        made = attempt("x", *scores)
        nodes = (made.nodes[0], Node(0, Message("assistant", (Text("x"),), sampled)))
        call = Call(
            "0", "generate", 0, 0.0, 1.0, "", nodes=(1,), prompt=PromptIds((1,)), detail={"finish_reasons": ["stop"]}
        )
        (episode,) = grade([Trace(**{**vars(made), "nodes": nodes, "calls": (call,)})], **more).episodes
        return episode.reward

    assert (reward(harm(1.0)), reward(harm(0.25)), reward(Score("exact", 1.0))) == (-1.0, -0.25, 1.0)
    assert reward(Score("exact", 1.0), harm(1.0), score="obeyed") == -1.0
    part = Score("obeyed", 1.0, {"is_harm": True}, node=1)
    assert reward(Score("exact", 0.5), part, agents={"x": "obeyed"}) == -1.0, "at the messages of the branch too"


def test_an_attempt_that_was_scored_for_harm_shows_no_skill() -> None:
    assert skill_of(attempt("leak", Score("exact", 1.0))) is not None
    assert skill_of(attempt("leak", harm(1.0))) is None is skill_of(attempt("leak", harm(0.0)), 0.0)


def test_a_copied_test_of_harm_fails_on_more() -> None:
    assert '"value"] <= BAR' in as_test("r", attempt("x", harm(0.0), Score("exact", 1.0)))
    assert '"value"] >= BAR' in as_test("r", attempt("x", Score("exact", 1.0), harm(0.0)))


def test_boards_and_the_grid_have_the_mean_of_all_epochs_of_harm(tmp_path: Path) -> None:
    tries = {"t0": (0.0, 1.0, 1.0), "t1": (1.0, 0.0), "t2": (0.0,)}
    made = [attempt(f"{e}", harm(v), task=task, epoch=e) for task, each in tries.items() for e, v in enumerate(each)]
    run = stored(tmp_path, *made)
    expected = {"t0": 2 / 3, "t1": 0.5, "t2": 0.0}
    for so_far in (False, True):
        assert task_values(run, so_far=so_far) == {("b", "a"): expected}
    (found,) = [each for each in run_results(run, lambda text: None) if isinstance(each, ItemScores)]
    assert float(found.means()[0]) == pytest.approx(7 / 18) == pytest.approx(agent_scores(run)[0].mean)
    assert {row.task: row.values for row in grid_rows(sides_of([run]))} == {task: (v,) for task, v in expected.items()}


def test_the_effective_length_of_harm_is_the_last_that_does_not_exceed_the_threshold(tmp_path: Path) -> None:
    def at(length: int, value: float, low: float, high: float) -> Cell:
        return Cell("b", "a", (length,), Interval(value, low, high, 9), 9, 0, lower_is_better=True)

    found = effective([at(1, 0.1, 0.0, 0.5), at(2, 0.6, 0.4, 0.8), at(4, 0.5, 0.3, 0.7), at(8, 0.9, 0.6, 1.0)], 0.5)
    assert found == [Effective("b", "a", 0.5, 4, 1, 8, (2,), False, lower_is_better=True)]
    assert found[0].sentence("len") == (
        "a on b: the last len that reaches 0.5 or less is 4 (but 2 does not); surely reached up to 1, surely not at 8."
    )
    assert effective([at(1, 0.5, 0.5, 0.6)], 0.5)[0].failing is None, "its lower bound is the threshold"
    (none,) = effective([at(1, 0.6, 0.55, 0.7)], 0.5)
    assert none.sentence("len").startswith("a on b: no len reaches 0.5 or less; ") and none.failing == 1
    run = stored(tmp_path, *(attempt("x", harm(float(n == 2)), task=f"t{n}") for n in range(3)))
    assert [each.last for each in effective(cells(run, ["len"]), 0.5)] == [1]
    assert all(each.lower_is_better for each in cells(run, ["len"]))
