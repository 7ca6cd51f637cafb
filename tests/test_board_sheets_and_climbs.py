"""The folder of a blind grading, file by file, and the plot of a climb, whole; and scores of a run by agent."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.boards.board_results import BoardResult, ColumnKey
from firsthand.boards.climb import Climb, ClimbStep, climb_svg
from firsthand.boards.grading_sheets import (
    _codes,
    _rows,
    is_grading,
    read_sheets,
    write_adjudication,
    write_sheets,
)  # fmt: skip
from firsthand.errors import ConfigError, DataError
from firsthand.runs import store
from firsthand.task import Task
from firsthand.trace import Trace

HEADING = ["item", "model", "grader", "role", "criterion", "prompt", "answer", "grade"]


def table(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def refusal(call: Any) -> str:
    with pytest.raises((ConfigError, DataError)) as told:
        call()
    return str(told.value)


def test_the_sheets_of_a_run_whole(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "quiz") as run:
        run.add_tasks("quiz", [Task("t1", "Qé1?"), Task("t2", "Q2?")])
        for agent, task, answer in (
            ("ada", "t1", "1"),
            ("bo", "t1", "one"),
            ("bo", "t2", "é\n2"),
            ("ada", "t3", ""),
            ("cy", "t3", None),
        ):
            run.append(Trace(f"{agent}{task}", "quiz", task, {"name": agent}, 0, 0, "", 1.0, answer=answer))
        counts = write_sheets(run, tmp_path / "g", ["ann", "bob", "cyd"], ["right", "clear"], seed=9)
        order = [("t1", "ada", "1"), ("t1", "bo", "one"), ("t2", "bo", "é\n2"), ("t3", "ada", "")]
        found = [(trace.task_id, trace.agent_name, trace.answer) for trace in run.traces() if trace.answer is not None]
        assert sorted(found) == order
        # codes are given in the drawn order, and each answer to the two least busy graders, ties drawn
        draw, load = random.Random(9), dict.fromkeys(("ann", "bob", "cyd"), 0)
        draw.shuffle(found)
        sheets: dict[str, list[list[str]]] = {name: [HEADING] for name in load}
        prompts = {"t1": "Qé1?", "t2": "Q2?", "t3": ""}
        for number, (item, _, answer) in enumerate(found, 1):
            drawn = {name: (load[name], draw.random()) for name in load}
            for name in sorted(drawn, key=drawn.__getitem__)[:2]:
                load[name] += 1
                sheets[name] += [
                    [item, f"answer-000{number}", name, "grader", each, prompts[item], answer, ""]
                    for each in ("right", "clear")
                ]
        assert {name: table(tmp_path / "g" / f"{name}.csv") for name in load} == sheets and counts == load
        assert sorted(load.values()) == [2, 3, 3]
        assert (tmp_path / "g" / "codes.json").read_text(encoding="utf-8") == json.dumps(
            {
                "run": run.id, "when": run.created_at[:19] + "+00:00", "commit": str(run.about.get("commit") or ""),
                "models": {f"answer-000{number}": agent for number, (_, agent, _) in enumerate(found, 1)},
            },
            indent=1,
        ) + "\n"  # fmt: skip
        assert sorted(path.name for path in (tmp_path / "g").iterdir()) == [
            "ann.csv",
            "bob.csv",
            "codes.json",
            "cyd.csv",
        ]
        assert is_grading(tmp_path / "g") and not is_grading(tmp_path)
        assert refusal(lambda: write_sheets(run, tmp_path / "g", ["a", "b"], ["x"])) == (
            f"{tmp_path}/g exists: grading would overwrite it; name a new folder"
        )
        assert refusal(lambda: write_sheets(run, tmp_path / "h", ["a", "-b"], ["x"])) == (
            "the grader is '-b': give a name of letters, digits, dots and hyphens"
        )
        assert refusal(lambda: write_sheets(run, tmp_path / "h", ["a"], ["x"])) == (
            "blind double grading needs two graders and a criterion: name them"
        )
        assert not (tmp_path / "h").exists()
    with store.create(tmp_path, {}, "none") as empty:
        assert refusal(lambda: write_sheets(empty, tmp_path / "h", ["a", "b"], ["x"])) == (
            f"run {empty.id} has no answer to grade: name a run with finished attempts"
        )


def grading(folder: Path, **sheets: list[list[str]]) -> Path:
    """A folder with these sheets, and codes of the answers x, y and z."""
    folder.mkdir()
    codes = {"run": "r1", "when": "2026-01-02T00:00:00+00:00", "commit": "c0", "models": {"x": "m", "y": "n", "z": "m"}}
    (folder / "codes.json").write_text(json.dumps(codes))
    for name, rows in sheets.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([HEADING, *rows])
    return folder


def test_an_adjudicator_has_the_disputed_answers_with_both_grades(tmp_path: Path) -> None:
    def row(item: str, code: str, grader: str, criterion: str, grade: str) -> list[str]:
        return [item, code, grader, "grader", criterion, f"P{item}", f"A{code}", grade]

    folder = grading(
        tmp_path / "g",
        bob=[row("1", "x", "bob", "c1", "0"), row("1", "x", "bob", "c2", "0.25"), row("1", "y", "bob", "c1", "1"),
             row("2", "z", "bob", "", "0.75")],
        ann=[row("1", "x", "ann", "c1", "1"), row("1", "x", "ann", "c2", "0.5"), row("1", "y", "ann", "c1", "1"),
             row("2", "z", "ann", "", "0.25")],
    )  # fmt: skip
    assert write_adjudication(folder, "eve") == 2
    given = [*HEADING[:-1], "given", "grade"]
    assert table(folder / "eve.csv") == [
        given,
        ["1", "x", "eve", "adjudicator", "c1", "P1", "Ax", "ann 1; bob 0", ""],
        ["1", "x", "eve", "adjudicator", "c2", "P1", "Ax", "ann 0.5; bob 0.25", ""],
        ["2", "z", "eve", "adjudicator", "", "P2", "Az", "ann 0.25; bob 0.75", ""],
    ]
    graded = read_sheets(folder)
    about = BoardResult("", "g", 0.0, when="2026-01-02T00:00:00+00:00", source=str(folder), run="r1", commit="c0")
    assert graded.items.models == ("n",) and graded.items.tasks == ("1",) and graded.items.abouts == (about,)
    assert graded.items.scores.tolist() == [[1.0]] and (graded.answers, graded.open) == (3, 2)
    assert refusal(lambda: write_adjudication(folder, "eve")) == (
        "the adjudicator 'eve' has a sheet already: name somebody else"
    )
    assert refusal(lambda: write_adjudication(folder, "e e")) == (
        "the adjudicator 'e e' is no name of letters, digits, dots and hyphens: name somebody else"
    )
    rows = [[*row[:-1], grade] for row, grade in zip(table(folder / "eve.csv")[1:], ("1", "0.5", "0"), strict=True)]
    with (folder / "eve.csv").open("w", newline="") as file:
        csv.writer(file).writerows([given, *rows])
    done = read_sheets(folder)
    assert done.items.models == ("m", "n") and done.items.tasks == ("1", "2") and done.adjudicated == 2
    assert np.array_equal(done.items.scores, [[0.75, 0], [1, np.nan]], equal_nan=True)
    assert refusal(lambda: write_adjudication(folder, "zoe")) == (
        f"{folder} has no answer that two graders disagree on: there is nothing to adjudicate"
    )


def test_a_folder_of_sheets_that_was_changed_is_refused(tmp_path: Path) -> None:
    folder = grading(tmp_path / "g")
    assert refusal(lambda: _rows(folder)) == (
        f"{folder} has no grading sheets beside codes.json: put the graders' .csv files back"
    )
    (folder / "b.csv").write_text("item,model,grader,grade\n1,x,b,1\n")
    (folder / "a.csv").write_text("item,model,grader,grade\n1,y,a,1\n1,x,a,0\n")
    assert [(row.columns["model"], row.columns["grader"]) for row in _rows(folder)] == [
        ("y", "a"),
        ("x", "a"),
        ("x", "b"),
    ]
    assert tuple(_codes(folder)) == ({"x": "m", "y": "n", "z": "m"}, "r1", "2026-01-02T00:00:00+00:00", "c0")
    for number in range(8):  # whatever order the folder lists them in
        (folder / f"c{number}.csv").write_text(f"item,model,grader,grade\n{number},x,c,1\n")
    assert [row.columns["item"] for row in _rows(folder)] == [*"111", *"01234567"]
    (folder / "b.csv").write_text("item,model,grader,grade\n1,x,b,1\n1,w,b,1\n")
    assert refusal(lambda: _rows(folder)) == f"{folder}/b.csv, line 3: 'w' is no code of {folder}/codes.json"
    (folder / "c.csv").write_text("item,model,grader\n1,x,b\n")
    assert refusal(lambda: _rows(folder)) == (
        f"{folder}/c.csv is no grading sheet: it lacks the columns item, model, grader and grade"
    )
    whole = {"run": "r", "when": "", "commit": "", "models": {}}
    for body in ({**whole, "run": 1}, {**whole, "when": None}, {**whole, "commit": []}, {**whole, "models": {"x": 1}},
                 {**whole, "models": []}, {"run": "r", "when": "", "commit": ""}, []):  # fmt: skip
        (folder / "codes.json").write_text(json.dumps(body))
        assert refusal(lambda: _codes(folder)) == (
            f"{folder}/codes.json does not hold the models of codes: restore the file as it was written"
        ), body
    (folder / "codes.json").write_text(json.dumps(whole))
    assert _codes(folder).models == {}


def test_the_plot_of_a_climb_whole() -> None:
    # days 1, 2, 5 of 1 to 5: x = 60 + 0, 161, 644; scores .5 to 1 and a margin of .04: y = 24 + (1.04 - s) / .58 * 296
    when = {day: f"2026-03-{day:02}T00:00:00+00:00" for day in (1, 2, 5)}
    climb = Climb(
        "q & a", (ClimbStep(when[1], "a", 0.5, 0.5), ClimbStep(when[2], "<b>", 1.0, 0.5)),
        ((when[1], "a", 0.5), (when[2], "<b>", 1.0), (when[5], "c", 0.56789)), 3,
    )  # fmt: skip
    y = {score: f"{24 + (1.04 - score) / 0.58 * 296:.1f}" for score in (0.5, 1.0, 0.56789)}
    assert y == {0.5: "299.6", 1.0: "44.4", 0.56789: "264.9"}
    ticks = "".join(
        f'<line x1="60" x2="704" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>'
        f'<text x="54" y="{at + 4:.1f}" text-anchor="end" fill="#333">{told}</text>'
        for at, told in ((320, "0.46"), (246, "0.605"), (172, "0.75"), (98, "0.895"), (24, "1.04"))
    )
    assert climb_svg(climb) == (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 360" role="img" font-family="sans-serif" '
        'font-size="12">'
        '<title>q &amp; a: best score by date</title><rect width="100%" height="100%" fill="#fff"/>' + ticks +
        '<text x="60" y="346" text-anchor="start" fill="#333">2026-03-01</text>'
        '<text x="704" y="346" text-anchor="end" fill="#333">2026-03-05</text>'
        '<path d="M60.0 299.6H221.0V44.4H704" fill="none" stroke="#0b62a4" stroke-width="2"/>'
        '<circle cx="60.0" cy="299.6" r="4" fill="#0b62a4"><title>a: 0.5, 2026-03-01</title></circle>'
        '<circle cx="221.0" cy="44.4" r="4" fill="#0b62a4"><title>&lt;b&gt;: 1, 2026-03-02</title></circle>'
        '<circle cx="704.0" cy="264.9" r="4" fill="#999"><title>c: 0.5679, 2026-03-05</title></circle></svg>\n'
    )  # fmt: skip
    twice = Climb("t", climb.steps[:1], ((when[1], "a", 0.5), (when[2], "a", 0.25)), 0)
    assert [part.split('"')[0] for part in climb_svg(twice).split('r="4" fill="')[1:]] == ["#0b62a4", "#999"], (
        "a record is one date's"
    )
    low = climb_svg(Climb("t", (ClimbStep(when[1], "a", -2.0, -2.0),), ((when[1], "a", -2.0),), 0))
    assert '<path d="M382.0 172.0H704"' in low and ">-2.2<" in low and ">-1.8<" in low, (
        "a tenth of the size on each side"
    )


def test_items_named_in_a_key() -> None:
    assert BoardResult("m", "b", 0.5, "p", "x").key == ColumnKey("b", "p", "x") == ("b", "p", "x")
    one = BoardResult("m", "b", 0.5, source="s", verified=True)
    same, other = BoardResult("m", "b", 0.5, source="t"), BoardResult("m", "b", 0.5, run="r")
    assert one.identity == same.identity != other.identity
