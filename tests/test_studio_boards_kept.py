"""Boards of a run in the Studio: by its budget, clusters and order of agents, made again once it has changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.model import Usage
from firsthand.runs import store
from firsthand.runs.attempts import insert_trace
from firsthand.runs.run_folder import Run
from firsthand.studio.views.run_views import KeptBoards, boards_of
from firsthand.task import Task
from firsthand.trace import Call, Score, Trace
from studio_page_outline import outline
from studio_small_home import entered, post, said

TOKENS = {"zed": 200, "ann": 50, "mid": 100}


def attempt(agent: str, task: str, score: float) -> Trace:
    call = Call(":0", "generate", None, 0.0, 0.5, "r", usage=Usage(TOKENS[agent], 0, 0, 0.0))
    return Trace(f"{agent}-{task}", "quiz", task, {"name": agent}, 0, 0, "", 1.0, calls=(call,),
                 scores=(Score("exact", score),), place=f"{agent}{task}")  # fmt: skip


def made(home: Path, name: str, config: dict[str, Any], cluster: str | None = None) -> Run:
    """A run whose agents were named in another order than that in which they ended."""
    run = store.create(home, config, name, command=["firsthand"])
    metadata = [{} if cluster is None else {"cluster": f"{cluster}{n // 2}"} for n in range(6)]
    run.add_tasks("quiz", [Task(f"t{n}", "Q", metadata=metadata[n]) for n in range(6)])
    for agent in TOKENS:
        run.add_agent(agent, {"name": agent})
    scores = {"ann": (1, 0.5, 0, 1, 0.25, 0), "mid": (0,) * 6, "zed": (0, 0.5, 1, 1, 0.75, 1)}
    with run.database.write() as connection:
        for agent, each in scores.items():
            for n, score in enumerate(each):
                insert_trace(connection, attempt(agent, f"t{n}", score))
    return run


def test_a_budget_that_was_fitted_is_none_and_the_first_agent_named_is_the_baseline(tmp_path: Path) -> None:
    for given, budget, baseline in (
        ("auto", None, "zed"), (None, None, "zed"), ("120", 120.0, "ann"), (90, 90.0, "ann"),
    ):  # fmt: skip
        with made(tmp_path, "b", {"equal_budget": given}) as run:
            (board,), problems = boards_of(run)
        assert (board.budget, board.baseline, problems) == (budget, baseline, []), given
        assert [row.agent for row in board.rows] == ["zed", "ann", "mid"], "the best first"
    for figures, told in (
        (None, []),
        ({"quiz": "nosuch"}, ["quiz has figures of its own, which cannot be computed here: "]),
    ):
        with store.create(tmp_path, {}, "none", command=["firsthand"], figures=figures) as empty:
            boards, problems = boards_of(empty)
        assert boards == [] and [each[: len(said)] for each, said in zip(problems, told, strict=True)] == told


def test_the_epochs_of_a_task_are_reduced_as_its_benchmark_declares_or_as_the_run_was_asked(tmp_path: Path) -> None:
    scores = {"t0": (1.0, 0.0), "t1": (0.5, 0.0, 0.25), "t2": (1.0, 0.5)}
    for declared, config, reduce, value in (
        ({"quiz": "max"}, {}, "max", (1 + 0.5 + 1) / 3),
        ({"quiz": "max"}, {"reduce": "pass_at_1"}, "pass_at_1", (0.5 + 0 + 0.5) / 3),
        ({"other": "max"}, {}, "mean", (0.5 + 0.25 + 0.75) / 3),
    ):  # fmt: skip
        protocols = {"quiz": "5-shot"}
        with store.create(tmp_path, config, "e", command=["firsthand"], reducers=declared, protocols=protocols) as run:
            run.add_tasks("quiz", [Task(task, "Q") for task in scores])
            for task, each in scores.items():
                for epoch, score in enumerate(each):
                    made = attempt("ann", task, score)
                    run.append(replace(made, id=f"{task}{epoch}", epoch=epoch, place=f"{task}{epoch}"))
            (board,), problems = boards_of(run)
        assert (board.benchmark, board.protocol, board.reduce, problems) == ("quiz", "5-shot", reduce, [])
        assert board.rows[0].score.value == pytest.approx(value), (declared, config)
        assert (board.tasks, board.epochs, board.rows[0].attempts) == (3, 3, 7)


def test_tasks_of_one_cluster_are_no_independent_draws(tmp_path: Path) -> None:
    for cluster, method, clusters in (("c", "clustered t", 3), (None, "paired t", 0)):
        with made(tmp_path, "c", {}, cluster) as run:
            (board,), _ = boards_of(run)
        ann = board.row("ann")
        assert ann is not None and ann.versus is not None
        assert (ann.versus.method, ann.versus.clusters, ann.versus.n) == (method, clusters, 6)
        assert abs(ann.versus.difference - (2.75 - 4.25) / 6) < 1e-12


def test_the_board_that_was_made_first_goes_first_and_one_made_again_is_new(tmp_path: Path) -> None:
    kept = KeptBoards(most=2)
    with made(tmp_path, "one", {}) as one, made(tmp_path, "two", {}) as two, made(tmp_path, "three", {}) as three:
        first, second = kept.of(one), kept.of(two)
        one.append(
            Trace("late", "other", "t0", {"name": "ann"}, 0, 0, "", 1.0, scores=(Score("exact", 0.5),), place="l")
        )
        again = kept.of(one)
        assert [each.benchmark for each in first[0]] == ["quiz"] and [each.benchmark for each in again[0]] == [
            "quiz", "other",
        ]  # fmt: skip
        kept.of(three)
        assert list(kept._kept) == [one.id, three.id] and kept.of(one) is again and kept.of(two) is not second
        with store.open_run(two.id, tmp_path) as other:
            assert kept.of(other) is not kept.of(two), "of another opening of the run they are made anew"


def test_a_note_that_is_refused_is_shown_as_it_was_typed(tmp_path: Path) -> None:
    with made(tmp_path, "n", {}) as run:
        id = run.id
    with entered(tmp_path) as client:
        answer = post(client, f"/runs/{id}/note", text="  two\n lines  ", version="7")
        assert answer.status_code == 400 and ">  two\n lines  </textarea>" in answer.text
        assert "was changed in the meantime" in said(answer)
        for text, kept, version in (("  two\r\n lines  ", "two\n lines", "0"), ("x" * 10_000 + " ", "x" * 10_000, "1")):
            assert post(client, f"/runs/{id}/note", text=text, version=version).status_code == 303
            assert f">{kept}</textarea>" in client.get(f"/runs/{id}").text
        for odd in ("٢", "", "1" * 9):
            refused = said(post(client, f"/runs/{id}/note", text="x", version=odd))
            assert f"version is {odd!r}: a whole number was expected" in refused
        terms = ("has:note", "note:xxxx", "xxxx", "-note:xxxx", "note:y")
        found = [outline(client.get(f"/?filter={term}")) for term in terms]
        assert [id in each for each in found] == [True, True, True, False, False], "by what people wrote on it"
        long = post(client, f"/runs/{id}/note", text="x" * 10_001, version="2")
        assert long.status_code == 400 and "the note has 10,001 characters: at most 10,000 are kept" in said(long)
        assert post(client, f"/runs/{id}/note", text=" \n ", version="2").status_code == 303
        found = [outline(client.get(f"/?filter={sign}has:note")) for sign in ("", "-")]
        assert [id in each for each in found] == [False, True]
        part = client.get(f"/runs/{id}?filter=agent:mid", headers={"hx-request": "true"})
        text = outline(part)
        assert "mid6" in text and "zed" not in text and "agent ann" not in text
        hx = {"hx-request": "true"}
        first, rows = (outline(client.get(f"/runs/{id}{start}", headers=hx)) for start in ("?start=0", "?start=1"))
        assert "agent ann" in first and "agent ann" not in rows and rows in first and rows != first, (
            "the next rows alone"
        )
