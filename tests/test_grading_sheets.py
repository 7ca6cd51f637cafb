"""Blind double grading from a run to a board: sheets for graders, grades, the adjudicator, ranks with their origin."""

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from firsthand.boards.grading_sheets import _make, read_sheets, write_adjudication, write_sheets
from firsthand.boards.read_results import read_results
from firsthand.errors import ConfigError, DataError
from firsthand.runs import store
from firsthand.task import Task
from firsthand.trace import Trace

AGENTS = {name: {"name": name, "model": name} for name in ("adele", "bobby")}


@pytest.fixture
def run(tmp_path: Path):
    """Three tasks answered by two models; one attempt failed, one answer begins like a formula."""
    with store.create(tmp_path, {}, "quiz") as run:
        run.add_tasks("quiz", [Task(str(i), f"Question {i}?") for i in range(3)])
        for model in AGENTS:
            for i in range(3):
                said = "I am Adele: 1." if (model, i) == ("adele", 1) else f"It is {i}."
                answer = None if (model, i) == ("bobby", 2) else "=1+1" if (model, i) == ("adele", 0) else said
                run.append(
                    Trace(f"{model}{i}", "quiz", str(i), AGENTS[model], 0, i, "2026-11-28T00:00:00", 0.1, answer=answer)
                )
        run.finish("done")
        yield run


def sheet(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def fill(folder: Path, name: str, grade: Callable[[dict[str, str]], object]) -> None:
    rows = [{**row, "grade": str(grade(row))} for row in sheet(folder, name)]
    with (folder / f"{name}.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def test_each_answer_is_in_two_sheets_and_no_sheet_names_a_model(run, tmp_path: Path):
    folder = tmp_path / "g"
    assert sum(write_sheets(run, folder, ["ann", "ben", "cy"], ["correct", "clear"]).values()) == 10  # 5 answers
    rows = [row for name in ("ann", "ben", "cy") for row in sheet(folder, name)]
    assert set(Counter((row["model"], row["criterion"]) for row in rows).values()) == {2}
    assert {(row["item"], row["prompt"]) for row in rows} == {(str(i), f"Question {i}?") for i in range(3)}
    assert {row["answer"] for row in rows} == {
        "'=1+1",
        "I am Adele: 1.",
        "It is 0.",
        "It is 1.",
        "It is 2.",
    }
    for name in ("ann", "ben", "cy"):
        assert {row["grader"] for row in sheet(folder, name)} == {name}
        assert not any(model in (folder / f"{name}.csv").read_text() for model in ("adele", "bobby"))
    with pytest.raises(ConfigError, match="g exists: grading would overwrite it"):
        write_sheets(run, folder, ["ann", "ben"], ["correct"])


def test_grades_an_adjudicator_and_the_run_become_a_board(run, tmp_path: Path):
    folder = tmp_path / "g"
    write_sheets(run, folder, ["ann", "ben"], ["correct"])
    with pytest.raises(DataError, match=r"10 grades still to be given; 0 answers with one grade"):
        read_sheets(folder)
    codes = json.loads((folder / "codes.json").read_text())["models"]
    fill(folder, "ann", lambda row: 1 if codes[row["model"]] == "adele" else 0.5)
    fill(folder, "ben", lambda row: 0 if (codes[row["model"]], row["item"]) == ("adele", "2") else 0.5)
    first = read_results([folder], tmp_path)
    assert {each.model: each.value for each in first.results} == {"bobby": 0.5}  # adele's grades are .5 or 1 apart
    assert write_adjudication(folder, "dee") == 3
    given = {row["item"]: row["given"] for row in sheet(folder, "dee")}
    assert given == {"0": "ann 1; ben 0.5", "1": "ann 1; ben 0.5", "2": "ann 1; ben 0"}
    with pytest.raises(ConfigError, match="'dee' has a sheet already"):
        write_adjudication(folder, "dee")
    fill(folder, "dee", lambda row: {"0": 1, "1": 1, "2": 0.25}[row["item"]])
    results = read_results([folder], tmp_path)
    assert {each.model: (each.value, each.n) for each in results.results} == {"adele": (0.75, 3), "bobby": (0.5, 2)}
    assert all((each.run, each.benchmark) == (run.id, "g") and each.verified and each.when for each in results.results)
    assert "5 answers" in results.remarks[0] and "3 adjudicated" in results.remarks[0]
    with pytest.raises(ConfigError, match="nothing to adjudicate"):
        write_adjudication(folder, "eve")


def test_sheets_in_a_folder_below_are_not_counted(run, tmp_path: Path):
    folder = tmp_path / "g"
    write_sheets(run, folder, ["ann", "ben"], ["correct"])
    for name in ("ann", "ben"):
        fill(folder, name, lambda row: 1)
    before = read_sheets(folder)
    (folder / "old").mkdir()
    write_sheets(run, folder / "old" / "g", ["cy", "dee"], ["correct"])
    (folder / "old" / "cy.csv").write_text((folder / "old" / "g" / "cy.csv").read_text())  # without a grade
    again = read_sheets(folder)
    assert again.remarks == before.remarks and "5 answers" in before.remarks[0]
    assert str((again.items.models, again.items.scores)) == str((before.items.models, before.items.scores))


def test_a_grader_of_one_answer_may_adjudicate_another(tmp_path: Path):
    path = tmp_path / "g.csv"
    rows = ["1,a,x,1,", "1,a,y,0,", "1,a,z,0.4,adjudicator", "2,a,x,1,", "2,a,z,0.9,grader"]
    path.write_text("item,model,grader,grade,role\n" + "\n".join(rows))
    results = read_results([path], tmp_path)
    assert results.results[0].value == pytest.approx((0.4 + 0.95) / 2)  # z's grade of item 2 is one of two


def test_equal_grades_have_no_alpha_and_the_board_says_so(tmp_path: Path):
    path = tmp_path / "g.csv"
    path.write_text("item,model,grader,grade\n1,a,x,1\n1,a,y,1\n")
    assert "alpha not defined where all grades are equal" in read_results([path], tmp_path).remarks[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("code", "'answer-9999' is no code of"),
        ("codes", "does not hold the models of codes"),
        ("sheets", "has no grading sheets beside codes.json"),
        ("other", "is no grading sheet"),
    ],
)
def test_a_damaged_folder_of_sheets_is_one_sentence(change: str, says: str, run, tmp_path: Path):
    folder = tmp_path / "g"
    write_sheets(run, folder, ["ann", "ben"], ["correct"])
    path = folder / "ann.csv"
    if change == "code":
        path.write_text(path.read_text().replace("answer-0001", "answer-9999"))
    elif change == "codes":
        (folder / "codes.json").write_text('{"models": {"answer-0001": 3}}')
    elif change == "other":
        path.write_text("name,age\nada,36\n")
    else:
        for each in folder.glob("*.csv"):
            each.unlink()
    with pytest.raises(DataError, match=says):
        read_results([folder], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--grade", "h"), "grade needs two graders or more"),
        (("--graders", "ann,ben"), "name their folder with --grade"),
        (("--grade", "h", "--graders", "ann,../ben"), "the grader is '../ben'"),
        (("--grade", "h", "--graders", "ann,ben", "--adjudicator", "dee"), "do not go together"),
        (("--adjudicator", "dee"), "is no folder of grading sheets"),
    ],
)
def test_wrong_words_about_grading_are_one_sentence(words, says, run, tmp_path: Path, cli, monkeypatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    code, _, err = cli("board", "seal", "last", *words)
    assert code == 2 and says in err
    assert not (tmp_path / "h").exists()


def test_the_command_writes_the_sheets_and_warns_of_answers_that_name_their_model(
    run, tmp_path: Path, cli, monkeypatch
):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("board", "seal", "last", "--grade", "g", "--graders", "ann,ben")
    assert code == 0, err
    assert "ann.csv: 5 answers" in out and "firsthand board seal g" in out and "1 answer may tell" in out
    fill(tmp_path / "g", "ann", lambda row: 1)
    fill(tmp_path / "g", "ben", lambda row: 0)
    assert "dee.csv: 5 answers to adjudicate." in cli("board", "seal", "g", "--adjudicator", "dee")[1]


def test_a_folder_that_came_meanwhile_or_cannot_be_made_is_refused(run, tmp_path: Path):
    folder = tmp_path / "g"
    _make(folder)
    (folder / "ann.csv").write_text("kept")
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")  # it does not exist, and its name is taken
    for path, why in (
        (folder, "File exists"), (tmp_path / "file", "File exists"), (tmp_path / "file" / "g", "Not a directory"),
        (tmp_path / "none" / "g", "No such file or directory"), (tmp_path / "link", "File exists"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            _make(path)
        assert str(refused.value) == f"{path} cannot be made: {why}"
        if path != folder and path.name != "file":
            with pytest.raises(ConfigError, match="cannot be made: "):
                write_sheets(run, path, ["ann", "ben"], ["correct"])
    assert (folder / "ann.csv").read_text() == "kept" and not (tmp_path / "nowhere").exists()


def test_a_sheet_is_written_through_no_link_and_codes_are_read_through_none(run, tmp_path: Path):
    folder = tmp_path / "g"
    write_sheets(run, folder, ["ann", "ben"], ["correct"])
    fill(folder, "ann", lambda row: 0)
    fill(folder, "ben", lambda row: 1)
    (folder / "lee.csv").symlink_to(tmp_path / ".bash_aliases")
    with pytest.raises(ConfigError, match="the adjudicator 'lee' has a sheet already: name somebody else"):
        write_adjudication(folder, "lee")
    assert not (tmp_path / ".bash_aliases").exists()
    assert write_adjudication(folder, "may") == 5 and len(sheet(folder, "may")) == 5
    (folder / "codes.json").rename(tmp_path / "codes.json")
    (folder / "codes.json").symlink_to(tmp_path / "codes.json")
    with pytest.raises(DataError, match=r"codes\.json does not hold the models of codes"):
        read_sheets(folder)
