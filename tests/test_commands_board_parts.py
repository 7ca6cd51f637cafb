"""The parts of `firsthand board`: where votes are found, what is refused, boards that are followed, sheets for graders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.arena.battle_table import BattleTable
from firsthand.arena.rank_intervals import RatedModel
from firsthand.arena.ratings import Ratings
from firsthand.arena.vote_files import VoteFile
from firsthand.arena.vote_stuffing import StuffingAttack
from firsthand.boards import cross_reference
from firsthand.boards.board_results import BoardResult, ResultSet
from firsthand.boards.board_spec import BoardSpec
from firsthand.boards.make_board import BoardLine, BoardSection, MadeBoard
from firsthand.commands import board, board_grading, board_of_results, board_of_votes
from firsthand.commands.board import Config
from firsthand.errors import ConfigError, UnknownName
from firsthand.preference import Preference
from firsthand.runs import store
from firsthand.runs.store import Run
from printed_tables import right_cells, widen, words
from scored_runs import scored_run


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    widen(monkeypatch, board_of_votes, board_of_results, board_grading)
    return tmp_path / "home"


# -- votes --


def table(*rows: tuple[str, str, str], voters: str = "") -> BattleTable:
    """Battles; `voters` has a letter for each."""
    return BattleTable.from_columns(*(list(each) for each in zip(*rows, strict=True)), voters=list(voters) or None)


THETA = np.array([0.5, -0.25, -0.25])
RATINGS = Ratings(("x", "y", "z"), THETA, np.eye(3), np.array([3, 2, 1]), "davidson", ties=0.25)
ROWS = [RatedModel("x", 1100.4, 1000.6, 1200.5, 1, 1, 1234), RatedModel("y", 950.5, 900, 1001, 2, 3, 2),
        RatedModel("z", 949.4, -20.4, 1002.5, 2, 3, 1)]  # fmt: skip


def test_a_board_of_votes_has_a_row_for_each_model_and_what_must_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    battles = table(("x", "y", "a"), ("y", "x", "tie"), ("z", "x", "b"), voters="ppq")
    board_of_votes._print("some/votes.csv", "90%", VoteFile(battles, 0, 0), battles, RATINGS, ROWS, [])
    out = capsys.readouterr().out
    assert out.splitlines()[2:5:2] == [
        "rank  model  rating  90% CI        battles  win rate", "   1  x        1100  [1001, 1200]    1,234      0.83"
    ]  # fmt: skip
    told = words(out)
    # x won twice and had a tie, y had a tie of two
    assert told == [
        "votes.csv: 3 battles, davidson", "rank model rating 90% CI battles win rate",
        "1 x 1100 [1001, 1200] 1,234 0.83", "2-3 y 950 [900, 1001] 2 0.25", "2-3 z 949 [-20, 1002] 1 0.00",
        "Ranks hold together at 90%: models that share a rank cannot be told apart.",
        "2 voters are too few to cluster by: the intervals hold for these people.",
        "One voter cast 67% of the votes: the intervals rest on few people.",
    ]  # fmt: skip
    ties = table(("x", "y", "tie"), ("y", "z", "both_bad"), ("x", "z", "tie"), voters="pqr")
    ratings = replace(
        RATINGS, covariates={"length": (0.5, 0.1234), "bold": (-0.25, 1)}, clustered_by=("voter", "question")
    )
    board_of_votes._print("v", "95%", VoteFile(ties, 1, 2, 3, 4), ties, ratings,
                          [replace(ROWS[0], rank_low=2, rank_high=2)], ["w", "a"])  # fmt: skip
    assert words(capsys.readouterr().out)[2:] == [
        "2 x 1100 [1001, 1200] 1,234 0.50",
        "Ranks hold together at 95%: models that share a rank cannot be told apart.",
        "Held equal (log-odds per standard deviation, ± standard error): length +0.500 ± 0.123, bold -0.250 ± 1.000.",
        "Not rated, because no chain of wins leads both to and from the others: a, w.",
        "1 repeated row counted once.", "3 votes not counted, because an answer named its model.",
        "4 votes without a voter: each counts as a voter of its own.", "2 rows left out by --where.",
        "Every vote is a tie: nothing tells these models apart.",
        "Intervals are clustered by voter and question.",
    ]  # fmt: skip
    one = table(("x", "y", "a"), ("x", "y", "b"), voters="pp")
    board_of_votes._print("v", "95%", VoteFile(one, 0, 0), one, RATINGS, ROWS[:1], [])
    assert len(words(capsys.readouterr().out)) == 4, "of a single voter nothing is said"
    assert board_of_votes._as_json(VoteFile(battles, 1, 2, 3, 5), battles.only(["x", "y"]), ratings, ROWS[1:2], ["w"]) == {
        "method": "davidson", "unrated": ["w"], "battles": 3, "rated_battles": 2, "duplicates": 1, "filtered": 2, "void": 3,
        "anonymous": 5, "ties_parameter": 0.25,
        "models": [{"model": "y", "rating": 950.5, "low": 900, "high": 1001, "rank_low": 2, "rank_high": 3, "games": 2}],
        "covariates": {"length": {"coefficient": 0.5, "error": 0.1234}, "bold": {"coefficient": -0.25, "error": 1}},
    }  # fmt: skip


def test_only_the_largest_group_of_models_that_can_be_compared_is_rated(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("x", "y", "a")] * 3 + [("x", "y", "b"), ("w", "x", "a"), ("w", "x", "a"), ("z", "w", "b")]
    votes = VoteFile(table(*rows), 0, 0)  # type: ignore[arg-type]
    given: dict[str, Any] = {"method": "bradley-terry", "anchor": "y=500", "confidence": 0.9, "level": "90%"}
    board_of_votes.print_votes("v", votes, **given, json=True)
    body = json.loads(capsys.readouterr().out)
    # three wins of four are odds of 3: 400 log10 3 = 191 points
    assert [(each["model"], round(each["rating"]), each["games"]) for each in body["models"]] == [
        ("x", 691, 4),
        ("y", 500, 4),
    ]
    assert sorted(body["unrated"]) == ["w", "z"] and body["battles"] == 7 and body["method"] == "bradley-terry"
    apart = VoteFile(table(*rows, ("u", "v", "a"), ("v", "u", "a")), 0, 0)  # type: ignore[arg-type]
    board_of_votes.print_votes("v", apart, **given, json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["models"] == body["models"] and sorted(told["unrated"]) == ["u", "v", "w", "z"], "both of a pair"
    wide = body["models"][0]["high"]
    board_of_votes.print_votes("v", votes, **{**given, "confidence": 0.5}, json=True)
    assert json.loads(capsys.readouterr().out)["models"][0]["high"] < wide
    board_of_votes.print_votes("v", votes, **given, json=False)
    told = words(capsys.readouterr().out)
    assert told[0] == "v: 4 battles, bradley-terry" and "90% CI" in told[1] and told[2].split()[1:3] == ["x", "691"]
    with pytest.raises(ConfigError) as refused:
        board_of_votes.print_votes("v.csv", VoteFile(table(("x", "y", "a")), 0, 0), **given, json=False)
    assert str(refused.value) == (
        "no two models of v.csv can be compared: each has only won or only lost against the others; more battles are needed"
    )


def test_suspect_votes_are_left_out_before_models_are_rated(capsys: pytest.CaptureFixture[str]) -> None:
    honest = [("x", "y", "ab"[n % 2]) for n in range(40)]
    voters = [f"v{n % 10}" for n in range(40)] + ["liar"] * 30
    battles = BattleTable.from_columns(
        *(list(each) for each in zip(*honest, *[("x", "y", "b")] * 30, strict=True)), voters=voters
    )
    votes = VoteFile(battles, 4, 5, 6)
    checked = board_of_votes._checked(votes, 3)
    assert len(checked.kept) == 33, "three of each of eleven, among which nobody is suspect"
    checked = board_of_votes._checked(votes, 0)
    assert (len(checked.kept), checked.left_out, [name for name, _ in checked.voters]) == (40, 30, ["liar"])
    assert capsys.readouterr().out == ""
    board_of_votes._print_checks(votes, checked)
    out = capsys.readouterr().out
    assert [right_cells(out, name) for name in ("battles", "won")] == [["30"], ["30"]]
    assert "" not in right_cells(out, "expected") + right_cells(out, "p corrected")
    told = words(out)
    assert told[2].split()[:4] == ["liar", "y", "30", "30"]
    assert told[3:5] == [
        "57% of the votes are by voters with fewer than 5, who are looked at together alone.",
        "30 votes left out by the checks (1 finding).",
    ]
    board_of_votes.print_votes("v", votes, method="bradley-terry", anchor="", confidence=0.95, level="95%", json=True,
                               checks=True, cap=2)  # fmt: skip
    body = json.loads(capsys.readouterr().out)
    assert (body["battles"], body["duplicates"], body["filtered"], body["void"]) == (22, 4, 5, 6)
    # with --stuffing that alone is printed
    more = BattleTable.from_columns(
        *(list(each) for each in zip(*honest, ("x", "y", "a"), strict=True)), voters=voters[:41]
    )
    board_of_votes.print_votes("v", replace(votes, battles=more), method="bradley-terry", anchor="=", confidence=0.95,
                               level="95%", json=True, checks=True, stuffing="y")  # fmt: skip
    out = capsys.readouterr().out
    told = words(out)
    assert right_cells(out, "votes") == [line.split()[-1] for line in told[2:4]]
    assert told[:2] == ["forged votes that move y up a rank", "ratings votes"]
    needed = [int(line.split()[-1].replace(",", "")) for line in told[2:4]]
    assert [line.rsplit(" ", 1)[0] for line in told[2:4]] == ["no checks", "checks"] and 1 <= needed[0] <= needed[1]
    attack = StuffingAttack("y")
    assert told[4] == (
        f"The attacker recognises answers with {attack.accuracy:.0%}, casts {attack.votes_per_account} votes an account, "
        "and votes honestly where the model is not seen."
    )


# -- where votes are --


@pytest.fixture
def arena(home: Path) -> Iterator[Run]:
    """A run of the arena with two attempts and a vote between them."""
    run = scored_run(home, "arena", {"x": {"arena": {"t": [{}]}}, "y": {"arena": {"t": [{}]}}})
    one, two = run.traces()
    run.add_preference(Preference("t", one.id, two.id, "a", "human:ada", "2025-01-02T00:00:00+00:00", {"dwell_s": 1.0}))
    yield run


def test_votes_are_in_a_table_or_a_run_and_results_in_anything_else(arena: Run, home: Path) -> None:
    Path("v.csv").write_text("model_a,model_b,winner,language\nx,y,model_a,en\nx,y,tie,de\n")
    Path("r.csv").write_text("model,benchmark,score\nx,b,1\n")
    Path("r.toml").write_text("")
    Path("folder.csv").mkdir()

    def found(source: str, **more: Any) -> Any:
        read = board._votes(Config((source,), **more), (source,))
        return None if read is None else read()

    votes = found("v.csv")
    assert len(votes.battles) == 2 and len(found("v.csv", where=("language=de",)).battles) == 1
    assert [found(each) for each in ("r.csv", "r.toml", "folder.csv", ".")] == [None] * 4
    # who asks for votes is told what such a table lacks
    for more in ({"where": ("a=b",)}, {"style": ("length",)}, {"anchor": "x=1"}):
        with pytest.raises(Exception, match=r"a|model_a|length"):
            found("r.csv", **more)
    with pytest.raises(ConfigError, match="where is 'x': write COLUMN=VALUE"):
        found("v.csv", where=("x",))
    assert len(found(arena.id).battles) == 1 and len(found(str(arena.path)).battles) == 1
    with pytest.raises(ConfigError, match=r"^--where is for files of votes: leave it out for a run$"):
        found(arena.id, where=("a=b",))
    plain = scored_run(home, "plain", {"x": {"sums": {"t": [{"exact": 1.0}]}}})
    assert found(plain.id) is None
    told = f"run {plain.id} holds no votes: `firsthand arena MODEL MODEL` makes some"
    with pytest.raises(ConfigError) as refused:
        board._votes_of_run(plain.id, ())
    assert str(refused.value) == told
    with store.create(home, {"arena": {}}, "empty") as empty, pytest.raises(ConfigError, match="holds no votes:"):
        found(empty.id)
    first = next(plain.traces())
    plain.add_preference(
        Preference(
            "t", first.id, first.id, "a", "human:ada", "2025-01-02T00:00:00+00:00", {"void": "A names itself: x"}
        )
    )
    with pytest.raises(ConfigError) as refused:
        found(plain.id)
    assert str(refused.value) == told.replace("no votes", "no votes that count")


def test_votes_of_a_run_are_written_and_those_of_a_file_are_written_already(arena: Run) -> None:
    board._write(arena.id, Path("w.csv"))
    with Path("w.csv").open() as file:
        head, row = file.read().splitlines()
    assert head.startswith("question_id,model_a,model_b,winner") or "model_a" in head
    assert "x" in row and "model_a" in row
    Path("v.csv").write_text("x")
    with pytest.raises(ConfigError, match=r"^write_votes is for a run of the arena: a file of votes is one already$"):
        board._write("v.csv", Path("w2.csv"))


def test_a_source_is_a_file_or_a_run_and_the_first_word_may_be_a_board(arena: Run, home: Path) -> None:
    Path("r.csv").write_text("")
    board._check_sources(["r.csv", arena.id, "last", "."], "r.csv")
    for sources, named, told in (
        (["helmm"], "helmm",
         "no board, file or run 'helmm': did you mean 'helm'? `firsthand list boards` and `firsthand runs` show all"),
        (["zzzz"], "zzzz", "no board, file or run 'zzzz': `firsthand list boards` and `firsthand runs` show all"),
        (["r.csv", "helmm"], "r.csv", "no file or run 'helmm'; `firsthand runs` shows the runs"),
        (["x" * 90], "", f"no file or run {'x' * 80!r}; `firsthand runs` shows the runs"),
    ):  # fmt: skip
        with pytest.raises(UnknownName) as refused:
            board._check_sources(sources, named)
        assert str(refused.value) == told
    arena.close()
    (home / "runs").rename(home / "gone")
    with pytest.raises(UnknownName) as none:
        board._check_sources(["last"], "last")
    assert "no board, file or run" not in str(none.value), "no board has that name"


def test_nothing_runs_before_the_files_to_write_can_be(tmp_path: Path) -> None:
    board._check_outputs(Config(("x",)))
    board._check_outputs(Config(("x",), export=("a.html", "b.md", "c.json", "d.csv"), climb="-", save="e.results"))
    for given, told in (
        ({"export": ("a.md", "b.svg")}, "export is 'b.svg': a board is written as .html, .md, .json, .csv"),
        ({"climb": "c.html"}, "climb is 'c.html': a plot ends in .svg"),
        ({"save": "r.csv"}, "save is 'r.csv': a file of results ends in .results"),
        ({"export": ("no/a.md",)}, "the folder of 'no/a.md' does not exist: make it, or name another file"),
        ({"climb": "no/c.svg"}, "the folder of 'no/c.svg' does not exist: make it, or name another file"),
    ):
        with pytest.raises(ConfigError) as refused:
            board._check_outputs(Config(("x",), **given))  # type: ignore[arg-type]
        assert str(refused.value) == told


def test_columns_that_are_cross_referenced_are_chosen_by_metric_and_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_reference, "cross_reference", lambda columns: columns)
    values = {("acc", "0-shot"): 0.25, ("acc", "5-shot"): 0.5, ("em", "0-shot"): 0.75, ("em", "5-shot"): 1.0}
    results = ResultSet(tuple(
        BoardResult(model, "quiz", value, metric=metric, protocol=protocol, verified=True)
        for model in ("a", "b") for (metric, protocol), value in values.items()
    ))  # fmt: skip
    for (metric, protocol), value in values.items():
        columns: Any = board._crossed(results, BoardSpec(), {"quiz": protocol}, {"quiz": metric})
        assert [{name: each.value for name, each in column.cells.items()} for column in columns] == [
            {"a": value, "b": value}
        ]


# -- a board that is followed --


def test_a_followed_board_is_printed_when_a_run_has_grown_and_ends_with_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(board_of_results, "LOOK_S", 0.25)
    made: list[int] = []
    source = scored_run(home, "source", {"x": {"sums": {f"t{n}": [{"exact": 1.0}] for n in range(3)}}})
    attempts = list(source.traces())
    with store.create(home, {"seed": 0}, "growing") as run, ExitStack() as working:
        working.enter_context(run.working())
        run.add_agent("x", {"name": "x"})
        looks: list[float] = []

        def grow(seconds: float) -> None:
            """In place of waiting: an attempt at the first look, none at the second, one more and the end at the third."""
            looks.append(seconds)
            if len(looks) in (1, 3):
                run.append(attempts[len(looks) - 1])
            if len(looks) == 3:
                working.close()

        monkeypatch.setattr(board_of_results.time, "sleep", grow)

        def make() -> MadeBoard:
            made.append(len(list(run.traces())))
            return MadeBoard(
                BoardSpec("own"), (BoardSection("s", "acc", (BoardLine("x", 1, 1, 0.5, 0.25, 0.75, {}),), ()),), ()
            )

        board_of_results.follow((run.id,), make)
    out = words(capsys.readouterr().out)
    assert out[0] == "No attempt is finished yet: the board follows." and made == [1, 2] and looks == [0.25] * 3
    assert out.count("1 x 0.500 [0.250, 0.750]") == 2
    # of a run that is done, and of a file alone, it is printed once; a file beside a run is read from the first
    Path("r.csv").write_text("")
    for sources in ((source.id,), ("r.csv",), ("r.csv", str(source.path))):
        made.clear()
        board_of_results.follow(sources, make)
        assert len(made) == 1 and len(looks) == 3


# -- sheets for graders --


def test_sheets_are_written_for_graders_and_the_adjudicator(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = scored_run(home, "quiz", {"qwen": {"quiz": {f"t{n}": [{"exact": 1.0}] for n in range(3)}},
                                    "chat": {"quiz": {"t0": [{"exact": 1.0}]}}})  # fmt: skip
    assert board_grading.write_grading([run.id], "g", ["ann", "ben"], ["correct"], "") == 0
    assert capsys.readouterr().out.splitlines() == [
        "g/ann.csv: 4 answers", "g/ben.csv: 4 answers",
        "3 answers may tell the grader which model wrote it, by its name or its maker's.",
        "Give each grader their file: the column grade takes 0 to 1. Then: firsthand board seal g",
    ]  # fmt: skip
    plain = scored_run(home, "plain", {"chat": {"quiz": {"t0": [{"exact": 1.0}]}}})
    assert board_grading.write_grading([plain.id], "h", ["ann", "ben"], ["correct", "clear"], "") == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["h/ann.csv: 1 answer", "h/ben.csv: 1 answer"]
    for name, grade in (("ann", "1"), ("ben", "0")):
        file = Path("h") / f"{name}.csv"
        lines = file.read_text().splitlines()
        column = lines[0].split(",").index("grade")
        rows = [line.split(",") for line in lines[1:]]
        for row in rows[: 1 if name == "ben" else 2]:
            row[column] = grade
        for row in rows[1:] if name == "ben" else []:
            row[column] = "1"
        file.write_text("\n".join([lines[0], *(",".join(row) for row in rows)]) + "\n")
    assert board_grading.write_grading(["h"], "", [], [], "dee") == 0
    assert capsys.readouterr().out == "h/dee.csv: 1 answer to adjudicate.\n" and (Path("h") / "dee.csv").is_file()
    for sources, adjudicator, told in (
        (["a", "b"], "", "2 sources are given: name one run or one folder of grading sheets"),
        ([], "", "0 sources are given: name one run or one folder of grading sheets"),
        ([plain.id], "dee", f"{plain.id} is no folder of grading sheets: `--grade FOLDER` makes one"),
    ):
        with pytest.raises(ConfigError) as refused:
            board_grading.write_grading(sources, "i", ["ann", "ben"], ["q"], adjudicator)
        assert str(refused.value) == told
