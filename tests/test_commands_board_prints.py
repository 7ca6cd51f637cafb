"""What `firsthand board` prints of votes and of results, line by line, and which options go together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firsthand.boards.board_results import BoardResult, ResultSet
from firsthand.boards.board_spec import BoardSpec
from firsthand.boards.climb import Climb
from firsthand.boards.cross_reference import CrossReference, OutOfLine
from firsthand.boards.make_board import BoardLine, BoardSection, MadeBoard, UnrankedModel
from firsthand.commands import board_of_results, board_of_votes
from firsthand.commands.board import Config, _conditions, _only
from firsthand.errors import ConfigError
from printed_tables import words

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -- results --


def result(model: str, value: float, **more: Any) -> BoardResult:
    return BoardResult(model, "quiz", value, **more)


def test_a_board_is_printed_with_what_is_missing_and_what_is_to_be_said(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unranked = tuple(UnrankedModel(f"u{n}", tuple(f"b{k}" for k in range(n % 6 + 1))) for n in range(14))
    parts = {f"p{n}": 0.5 for n in range(8)}
    sections = (
        BoardSection(
            "one",
            "score",
            (
                BoardLine("a", 1, 2, 0.5, 0.25, 0.75, parts),
                BoardLine("b", 1, 2, 0.4, 0.1, 0.6, {"p0": 0.25, "p7": 0.0}),
            ),
            unranked,
        ),
        BoardSection("two", "acc", (BoardLine("a", 1, 1, 0.5, 0.25, 0.75, {**parts, "p8": 1.0}),), unranked[:12]),
        BoardSection("three", "acc", (), unranked[:13]),
    )
    board_of_results.print_board(MadeBoard(BoardSpec("own", "Own"), sections, ("a remark.",), 0.9))
    out = words(capsys.readouterr().out)
    names = " ".join(parts)
    assert out[:3] == [
        "Own: one",
        f"rank model score 90% CI {names}",
        "1-2 a 0.500 [0.250, 0.750] " + " ".join(["0.500"] * 8),
    ]
    assert out[3] == "1-2 b 0.400 [0.100, 0.600] 0.250 - - - - - - 0.000"
    assert out[4] == "Not ranked, because results are missing (nothing is put in their place):"
    assert (
        out[5] == "u0 lacks b0"
        and out[8] == "u3 lacks b0, b1, b2, b3"
        and out[9] == "u4 lacks b0, b1, b2, b3 and 1 more"
    )
    assert out[16:18] == ["u11 lacks b0, b1, b2, b3 and 2 more", "and 2 more models"]
    assert out[18:21] == ["Own: two", "rank model acc 90% CI", "1 a 0.500 [0.250, 0.750]"]
    assert out[33] == "u11 lacks b0, b1, b2, b3 and 2 more", "twelve are all shown, and none is left"
    assert out[34] == "9 columns are not shown: --export board.html or .csv has them." and out[-3] == "and 1 more model"
    assert out[-2:] == [
        "Ranks hold together at 90% in each table: models that share a rank cannot be told apart.", "a remark.",
    ]  # fmt: skip
    board_of_results.print_board(MadeBoard(BoardSpec("own"), sections[2:], ()))
    board_of_results.print_board(MadeBoard(BoardSpec("own", rule="borda"), (BoardSection("", "acc", ()),), ()))
    out = words(capsys.readouterr().out)
    assert out[0] == "three" and "own" in out


def test_origins_say_where_each_number_comes_from(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = result("a", 0.5, protocol="p", verified=True, source="s", run="r", commit="0123456789abcdef", data_hash="h")
    section = BoardSection("t", "s", (BoardLine("a", 1, 1, 0.5, 0.4, 0.6, {}, {"quiz": one}),),
                           (UnrankedModel("b", ("x",), {"q": result("b", 0.25, source="f.csv")}),))  # fmt: skip
    board_of_results.print_origins(MadeBoard(BoardSpec(), (section,), ()))
    assert words(capsys.readouterr().out) == [
        "origins", "model benchmark value status protocol run or file commit data",
        "a quiz 0.500 verified p r 0123456789ab h", "b q 0.250 reported not stated f.csv",
    ]  # fmt: skip


def test_scores_out_of_line_are_printed_or_the_nearest_to_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(count: int, flagged: int, heavy: bool = False, left: int = 0) -> list[str]:
        scores = tuple(
            OutOfLine(f"m{n}", "quiz", 0.9, 0.5, 0.25, 0.75, 4.0 - n, 0.0125, n < flagged) for n in range(count)
        )
        names = tuple(f"x{n}" for n in range(left))
        board_of_results.print_cross_reference(CrossReference(scores, 3.5, 0.1, 50, ("normal", "t5"), heavy, names))
        return words(capsys.readouterr().out)

    some = printed(5, 2, left=7)
    assert some[:4] == [
        "cross-reference",
        "model benchmark score expected range z p corrected",
        "m0 quiz 0.900 0.500 [0.250, 0.750] +4.0 0.013",
        some[3],
    ]
    assert some[4:] == [
        "2 of 5 scores out of line.",
        "Expected from the model's other benchmarks; the range holds all scores of a table without outliers at 90%, by 50 "
        "simulated tables for each kind of deviation: normal, t5. A score out of line may be a leak, another protocol, a "
        "special skill or a mistake.",
        "Too few results to judge: x0, x1, x2, x3, x4, x5 and 1 more.",
    ]
    none = printed(5, 0, heavy=True, left=6)
    assert (
        len(none) == 8
        and none[2].endswith("+4.0 -")
        and none[5] == "None of 5 scores is out of line with its model's other benchmarks."
    )
    assert none[6].startswith(
        "Expected from the model's other benchmarks. The deviations have heavier tails than Student's t with 5"
    )
    assert none[7] == "Too few results to judge: x0, x1, x2, x3, x4, x5."
    many = printed(14, 13)
    assert len(many) == 2 + 12 + 2 and many[14] == "13 of 14 scores out of line; 1 more are in --json."


def test_a_climb_is_printed_and_one_table_is_plotted(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def section(title: str) -> BoardSection:
        lines = tuple(
            BoardLine(name, 1, 1, score, 0, 1, {}, {"q": result(name, score, when=when)})
            for name, score, when in (
                ("a", 0.5, "2025-01-02T00:00:00+00:00"),
                ("b", 0.75, "2025-02-03T00:00:00+00:00"),
                ("c", 0.9, ""),
            )
        )
        return BoardSection(title, "s", lines)

    one, two = (MadeBoard(BoardSpec(), tuple(section(f"t{n}") for n in range(count)), ()) for count in (1, 2))
    board_of_results.print_climbs(one, home / "c.svg")
    assert words(capsys.readouterr().out) == [
        "climb: t0",
        "date model best score gain",
        "2025-01-02 a 0.5 +0.5",
        "2025-02-03 b 0.75 +0.25",
        "1 model without a date left out.",
    ]
    assert (home / "c.svg").read_text().startswith("<svg")
    board_of_results.print_climbs(two, None)
    assert capsys.readouterr().out.count("climb: ") == 2
    for board, path, told in ((one, "c.png", "give a file name that ends in .svg"), (two, "c.svg", "the board has 2 tables"),
                              (one, "no/c.svg", "cannot be written: No such file")):  # fmt: skip
        with pytest.raises(ConfigError, match=told):
            board_of_results.print_climbs(board, home / path)
    assert Climb("t", (), (), 0).undated == 0


def test_options_of_a_board_that_do_not_go_together() -> None:
    for given, told in (
        ({"watch": True, "json": True}, "watch and json"),
        ({"watch": True, "cross_reference": True}, "watch and cross_reference"),
        ({"grade": "g", "graders": ("a", "a")}, "grade needs two graders"),
        ({"graders": ("a",)}, "graders are for new grading"),
        ({"grade": "g", "graders": ("a", "b"), "adjudicator": "c"}, "grade and adjudicator"),
        ({"cap": -1}, "cap is -1"),
        ({"cap": 1}, "give --checks too"),
    ):
        with pytest.raises(ConfigError, match=told):
            Config(("x",), **given)
    assert Config(("x",), cap=1, checks=True).cap == 1
    assert _conditions(("a=b=c", "d="), "where") == {"a": "b=c", "d": ""}
    for flag, told in (
        ("where", "where is 'x': write COLUMN=VALUE"),
        ("metric", "metric is 'x': write BENCHMARK=VALUE"),
    ):
        with pytest.raises(ConfigError, match=told):
            _conditions(("a=b", "x"), flag)
    results = ResultSet((result("ada-1", 0.5), result("ada-2", 0.6), result("bo", 0.7)))
    assert [each.model for each in _only(results, ("ada*", "b?")).results] == ["ada-1", "ada-2", "bo"]
    assert [each.model for each in _only(results, ("*-2",)).results] == ["ada-2"] and _only(results, ()) is results
    with pytest.raises(ConfigError, match="no model is named Ada, x: the models are ada-1, ada-2, bo"):
        _only(results, ("Ada", "x"))


def test_a_board_of_a_table_by_the_command_line(home: Path, cli: Cli) -> None:
    rows = [("a", "b1", 0.9), ("a", "b2", 0.8), ("bo", "b1", 0.5), ("bo", "b2", 0.25), ("c", "b1", 0.75)]
    Path("r.csv").write_text(
        "model,benchmark,score,n,metric,date\n" + "".join(f"{m},{b},{s},100,acc,2025-01-02\n" for m, b, s in rows)
    )
    Path("own.toml").write_text('title = "Own"\nrule = "weighted"\nreported = "together"\nresults = ["r.csv"]\n')
    code, out, _ = cli(
        "board",
        "own.toml",
        "--confidence",
        "90%",
        "--models",
        "a,b*",
        "--export",
        "o.md,o.json",
        "--save",
        "o.results",
        "--origins",
        "--climb",
    )
    assert code == 0
    told = words(out)
    assert (
        told[0] == "Own"
        and told[1].startswith("rank model score 90% CI")
        and [line.split()[1] for line in told[2:4]] == ["a", "bo"]
    )
    assert (
        told[2].split()[2] == "0.850" and told[3].split()[2] == "0.375" and "origins" in told and "climb: score" in told
    )
    assert json.loads(Path("o.json").read_text())["confidence"] == 0.9 and Path("o.md").read_text().startswith("# Own")
    code, out, _ = cli("board", "own.toml", "o.results", "--json")
    body = json.loads(out)
    assert code == 0 and body["board"] == "own" and body["remarks"][-1] == "4 repeated results counted once."
    assert [each["model"] for each in body["sections"][0]["unranked"]] == ["c"] and body["confidence"] == 0.95
    code, out, _ = cli("board", "r.csv")
    assert (
        code == 0
        and words(out)[:3] == ["b1", "rank model acc 95% CI n", words(out)[2]]
        and words(out)[2].endswith(" 100")
    )
    for line, told_ in (
        ("r.csv --method davidson", "--method is for votes: leave it out for results"),
        ("r.csv --write-votes x.csv", "--write-votes is for votes"),
        ("r.csv --export x.txt", "export is 'x.txt': a board is written as .html, .md, .json, .csv"),
        ("r.csv --climb x.png", "climb is 'x.png': a plot ends in .svg"),
        ("r.csv --save x", "save is 'x': a file of results ends in"),
        ("r.csv --save no/x.results", "the folder of 'no/x.results' does not exist"),
        ("arena r.csv", "r.csv holds no votes: give one file of votes"),
        ("borad", "no board, file or run 'borad'"),
        ("arena arena", "no file or run 'arena'; `firsthand runs` shows the runs"),
        ("r.csv x.csv", "no file or run 'x.csv'; `firsthand runs` shows the runs"),
        ("helm", "the board helm has no results to read"),
        ("r.csv --adjudicator a", "is no folder of grading sheets"),
        ("r.csv own.toml --grade g --graders a,b", "2 sources are given"),
    ):
        code, _, err = cli("board", *line.split())
        assert code == 2 and told_ in err, (line, err)


# -- votes --


def votes(home: Path, *rows: str) -> str:
    path = home / "votes.csv"
    path.write_text(
        "model_a,model_b,winner,question_id,judge,language,tstamp\n" + "".join(f"{row},7\n" for row in rows)
    )
    return str(path)


def test_a_board_of_votes_line_by_line(home: Path, cli: Cli) -> None:
    rows = [f"x,y,model_a,q{n},ada,en" for n in range(6)] + [f"x,y,model_b,q{n},bo,en" for n in range(6, 8)]
    rows += ["x,z,model_a,r1,cy,de", "z,w,model_b,r2,cy,en", "x,y,model_a,q0,ada,en"]
    path = votes(home, *rows)
    code, out, _ = cli("board", path, "--where", "language=en", "--anchor", "y=1200", "--confidence", "90%")
    told = words(out)
    assert code == 0 and told[0] == "votes.csv: 8 battles, bradley-terry"
    assert told[1] == "rank model rating 90% CI battles win rate"
    # x won six of eight: log odds ln 3 is 191 Elo points
    assert told[2].split()[1:3] == ["x", "1391"] and told[2].split()[-2:] == ["8", "0.75"]
    assert told[3].split()[1:3] == ["y", "1200"] and told[3].split()[-2:] == ["8", "0.25"]
    rest = "\n".join(told[4:])
    assert told[4] == "Ranks hold together at 90%: models that share a rank cannot be told apart."
    assert "1 repeated row counted once." in rest and "1 row left out by --where." in rest
    assert "Not rated, because no chain of wins leads both to and from the others: w, z." in rest, (
        "a win alone is no comparison"
    )
    assert "1 battle with models that are not rated left out." in rest
    code, out, _ = cli("board", path, "--where", "language=en", "--json")
    body = json.loads(out)
    assert body["rated_battles"] == 8 and "checks" not in body
    assert (body["method"], body["battles"], body["duplicates"], body["filtered"], body["void"]) == (
        "bradley-terry",
        9,
        1,
        1,
        0,
    )
    assert sorted(body["unrated"]) == ["w", "z"] and body["ties_parameter"] is None and body["covariates"] == {}
    assert [(each["model"], round(each["rating"]), each["games"]) for each in body["models"]] == [
        ("x", 1095, 8),
        ("y", 905, 8),
    ]
    for line, said in (
        (("--anchor", "y=z"), "anchor is 'y=z': write MODEL=RATING"),
        (("--anchor", "y=inf"), "anchor is 'y=inf'"),
        (("--origins",), "--origins is for results: leave it out for votes"),
        (("--watch",), "leave it out for a file of votes"),
        (("--write-votes", "x.csv"), "write_votes is for a run of the arena"),
    ):
        code, _, err = cli("board", path, *line)
        assert code == 2 and said in err, err
    code, _, err = cli("board", votes(home, "x,y,model_a,1,a,en"))
    assert code == 2 and "no two models of" in err and "more battles are needed" in err
    code, out, _ = cli("board", votes(home, *[f"x,y,tie,{n},a,en" for n in range(3)]))
    assert code == 0 and "Every vote is a tie: nothing tells these models apart." in out
    assert board_of_votes._anchor("", 1000.0) == (None, 1000.0) and board_of_votes._anchor("m", 7.0) == ("m", 7.0)
    assert board_of_votes._anchor("a=b=12.5", 7.0) == ("a=b", 12.5)
    assert board_of_votes._anchor("=5", 7.0) == ("", 5.0)


def test_a_win_rate_is_of_the_battles_beside_it(home: Path, cli: Cli) -> None:
    rows = [f"ada,bob,model_{'a' if n < 12 else 'b'},q{n},v{n},en" for n in range(20)]
    _, out, _ = cli("board", votes(home, *rows, *[f"ada,weak,model_a,w{n},v{n},en" for n in range(180)]))
    told = words(out)
    assert told[0].startswith("votes.csv: 20 battles") and told[2].split()[-2:] == ["20", "0.60"]
    assert told[3].split()[-2:] == ["20", "0.40"] and "180 battles with models that are not rated left out." in told


def test_few_voters_are_said_and_one_who_cast_most(home: Path, cli: Cli) -> None:
    rows = [f"x,y,model_{'ab'[n % 2]},q{n},ada,en" for n in range(6)] + [
        f"x,y,model_{'ab'[n % 2]},q{n},bo,en" for n in range(6, 9)
    ]
    _, out, _ = cli("board", votes(home, *rows))
    assert "2 voters are too few to cluster by: the intervals hold for these people." in out
    assert "One voter cast 67% of the votes: the intervals rest on few people." in out
    some = [
        f"x,y,model_{'ab'[n % 2]},q{n},{name},en" for name in ("ada", "bo", "cy") for n in range(3 + (name == "bo"))
    ]
    assert "One voter cast 40% of the votes: the intervals rest on few people." in cli("board", votes(home, *some))[1]
    half = [f"x,y,model_{'ab'[n % 2]},q{n},{'ada' if n < 2 else 'bo'},en" for n in range(4)]
    assert "One voter cast 50% of the votes" in cli("board", votes(home, *half))[1]
    many = [f"x,y,model_{'ab'[n % 2]},q{n},v{n // 3},en" for n in range(10)]
    assert "One voter cast" not in cli("board", votes(home, *many))[1], (
        "three tenths are more than one's share, not a third"
    )
    even = [f"x,y,model_{'ab'[n % 2]},q{n},{name},en" for name in ("ada", "bo", "cy") for n in range(2)]
    assert "One voter cast" not in cli("board", votes(home, *even))[1], "a third each"


def test_forged_votes_are_counted_and_suspect_voters_left_out(home: Path, cli: Cli) -> None:
    honest = [f"x,y,model_{'ab'[n % 2]},q{n},v{n % 10},en" for n in range(40)]
    code, out, _ = cli("board", votes(home, *honest, *[f"x,y,model_b,f{n},liar,en" for n in range(30)]), "--checks")
    told = words(out)
    assert (
        code == 0
        and told[0] == "voters who are for or against a model beyond chance"
        and told[1] == "voter model battles won expected p corrected"
    )
    assert (
        told[2].split()[:4] == ["liar", "y", "30", "30"]
        and told[3].startswith("57% of the votes are by voters with fewer than 5")
        and told[4] == "30 votes left out by the checks (1 finding)."
    )
    numbered = [f"x,y,model_b,f{n},38,en" for n in range(30)]
    body = json.loads(cli("board", votes(home, *honest, *numbered), "--checks", "--json")[1])
    [found] = body["checks"]["voters"]
    assert (found["voter"], found["model"], found["won"], found["battles"]) == ("38", "y", 30, 30)
    assert (body["battles"], body["checks"]["left_out"], body["checks"]["small_accounts"]) == (40, 30, [])
    code, out, _ = cli("board", votes(home, *honest), "--checks", "--cap", "3")
    assert code == 0 and words(out)[1] == "10 votes left out by the checks (0 findings)." and "30 battles" in out
    code, out, err = cli("board", votes(home, *honest, "x,y,model_a,z,v1,en"), "--stuffing", "y")
    told = words(out)
    assert code == 0, err
    assert told[:2] == ["forged votes that move y up a rank", "ratings votes"]
    assert [line.split()[0] for line in told[2:4]] == ["no", "checks"] and told[4].startswith(
        "The attacker recognises answers with"
    )
