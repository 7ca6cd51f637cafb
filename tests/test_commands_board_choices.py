"""What `firsthand board` makes of its words: votes or results, whose options they are, the order of its parts."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from firsthand.boards import cross_reference
from firsthand.boards.cross_reference import CrossReference
from firsthand.boards.result_file import RESULT_FILE
from firsthand.commands import board, board_grading, board_of_results, board_of_votes
from firsthand.commands.board import Config
from firsthand.errors import ConfigError, UnknownName
from firsthand.preference import Preference
from firsthand.runs import store
from printed_tables import widen, words
from scored_runs import scored_run


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    widen(monkeypatch, board_of_votes, board_of_results, board_grading)
    rows = [("a", "b1", 0.9), ("a", "b2", 0.8), ("bo", "b1", 0.5), ("bo", "b2", 0.25)]
    Path("r.csv").write_text(
        "model,benchmark,score,n,metric,date\n" + "".join(f"{m},{b},{s},100,acc,2025-01-02\n" for m, b, s in rows)
    )
    Path("more.csv").write_text(
        "model,benchmark,score,n,metric,date\nc,b1,0.7,100,acc,2025-03-04\nc,b2,0.6,100,acc,2025-03-04\n"
    )
    Path("own.toml").write_text('title = "Own"\nrule = "weighted"\nreported = "together"\nresults = ["r.csv"]\n')
    wins = "".join(f"x,y,model_{'aab'[n % 3]},{n}\n" for n in range(9))
    Path("v.csv").write_text(f"model_a,model_b,winner,question_id\n{wins}")
    return tmp_path / "home"


def refused(**given: Any) -> str:
    with pytest.raises((ConfigError, UnknownName)) as found:
        board.main(Config(**given))
    return str(found.value)


def test_options_of_results_are_refused_for_votes_and_those_of_votes_for_results() -> None:
    for name, value in (("protocol", ("b=x",)), ("metric", ("b=x",)), ("models", ("a",)), ("origins", True),
                        ("export", ("x.md",)), ("climb", "-"), ("save", "x.results")):  # fmt: skip
        assert refused(sources=("v.csv",), **{name: value}) == f"--{name} is for results: leave it out for votes"
    for name, value in (("method", "davidson"), ("style", ("length",)), ("where", ("a=b",)), ("anchor", "a"), ("checks",
    True),
                        ("stuffing", "a"), ("write_votes", "w.csv")):  # fmt: skip
        told = f"--{name.replace('_', '-')} is for votes: leave it out for results"
        assert refused(sources=("own.toml",), **{name: value}) == told
    assert refused(sources=("own.toml",), checks=True, cap=2) == "--checks is for votes: leave it out for results"
    assert (
        refused(sources=("v.csv",), watch=True) == "--watch is for runs and results: leave it out for a file of votes"
    )
    assert refused(sources=("v.csv",), write_votes="w.csv").startswith("write_votes is for a run of the arena")
    assert refused(sources=("arena",)) == "the board arena has no results to read: name files, folders or runs after it"
    for two in (("r.csv", "v.csv"), ("v.csv", "r.csv")):
        told = f"{two[0]}, {two[1]} holds no votes: give one file of votes, or a run of `firsthand arena`"
        assert refused(sources=("arena", *two)) == told
    assert refused(sources=("own.toml", "nope")) == "no file or run 'nope'; `firsthand runs` shows the runs"
    assert refused(sources=("r.csv",), confidence="0.3").startswith("confidence is ")


def test_every_option_of_votes_reaches_the_ratings(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(board_of_votes, "print_votes", lambda *given, **named: asked.append((given, named)))
    config = Config(("v.csv",), "davidson", anchor="x=5", checks=True, cap=3, stuffing="y", confidence="90%", json=True)
    assert board.main(config) == 0 and board.main(Config(("arena", "v.csv"))) == 0
    (source, votes), named = asked[0]
    assert source == "v.csv" and len(votes.battles) == 9 and named == {
        "method": "davidson", "anchor": "x=5", "confidence": 0.9, "level": "90%", "json": True, "checks": True, "cap": 3,
        "stuffing": "y",
    }  # fmt: skip
    assert asked[1][1] == {
        "method": "bradley-terry", "anchor": "", "confidence": 0.95, "level": "95%", "json": False, "checks": False,
        "cap": 0,
        "stuffing": "",
    }  # fmt: skip
    followed: list[Any] = []
    monkeypatch.setattr(board_of_votes, "follow_votes", lambda source, show: followed.append((source, show())))
    run = scored_run(Path("home"), "votes", {"x": {"arena": {"t": [{}]}}})
    monkeypatch.setattr(board, "_votes", lambda config, sources: lambda: f"votes of {sources[0]}")
    assert board.main(Config((run.id,), watch=True)) == 0
    assert followed == [(run.id, None)] and asked[2][0] == (run.id, f"votes of {run.id}")
    assert board.main(Config((str(run.path),), watch=True)) == 0, "its folder is no file of votes"
    assert followed.pop() == (str(run.path), None) and asked.pop()[0][0] == str(run.path)
    written: list[Any] = []
    monkeypatch.setattr(board, "_write", lambda source, path: written.append((source, path, len(asked))))
    assert board.main(Config((run.id,), write_votes="w.csv")) == 0
    assert written == [(run.id, Path("w.csv"), 3)] and len(asked) == 4, "first written, then shown"


def test_grading_takes_the_sources_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(board_grading, "write_grading", lambda *given: asked.append(given) or 7)
    assert board.main(Config(("r.csv",), grade="g", graders=("ann", "ben"), criteria=("x", "y"))) == 7
    assert board.main(Config(("own.toml", "v.csv"), adjudicator="dee")) == 7
    assert asked == [
        (("r.csv",), "g", ("ann", "ben"), ("x", "y"), ""),
        (("r.csv", "v.csv"), "", (), ("quality",), "dee"),
    ]


def lines(out: str) -> list[str]:
    """The titles of what was printed, in order."""
    return [line for line in words(out) if line in ("Own", "origins", "cross-reference") or line.startswith("climb: ")]


def test_a_board_of_results_is_printed_in_parts_and_written_to_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = CrossReference((), 3.5, 0.1, 50, ("t5",), False, ())
    monkeypatch.setattr(cross_reference, "cross_reference", lambda columns: found)
    saved = f"all{RESULT_FILE}"
    assert board.main(Config(("own.toml", "more.csv"), origins=True, climb="-", cross_reference=True, save=saved,
                             export=("o.json", "o.md"))) == 0  # fmt: skip
    out = capsys.readouterr().out
    assert lines(out) == ["Own", "origins", "climb: score", "cross-reference"]
    raw = [line.rstrip() for line in out.splitlines()]
    # numbers end where their column does
    assert raw[2] == "rank  model  score  95% CI             b1     b2" and raw[4].startswith("   1  a      0.850  [")
    climb = raw.index("climb: score")
    assert raw[climb + 2] == "date        model  best score   gain" and raw[climb + 4].endswith(
        "  a            0.85  +0.85"
    )
    told = words(out)
    assert [line.split()[1:3] for line in told[2:5]] == [["a", "0.850"], ["c", "0.650"], ["bo", "0.375"]]
    body = json.loads(Path("o.json").read_text())
    assert [each["model"] for each in body["sections"][0]["lines"]] == ["a", "c", "bo"] and Path("o.md").exists()
    assert Path(saved).stat().st_size
    assert board.main(Config(("own.toml", saved), models=("c", "b*"), json=True, confidence="80%")) == 0
    body = json.loads(capsys.readouterr().out)
    assert [each["model"] for each in body["sections"][0]["lines"]] == ["c", "bo"] and body["confidence"] == 0.8
    assert "cross_reference" not in body
    assert board.main(Config(("own.toml",), json=True, cross_reference=True, origins=True)) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["cross_reference"] == found.to_json() and body["board"] == "own"
    assert board.main(Config(("own.toml",))) == 0 and lines(capsys.readouterr().out) == ["Own"]
    assert board.main(Config(("own.toml",), climb="c.svg")) == 0
    assert lines(capsys.readouterr().out) == ["Own", "climb: score"] and Path("c.svg").read_text().startswith("<svg")
    assert refused(sources=("own.toml",), metric=("b1",)) == "metric is 'b1': write BENCHMARK=VALUE"
    assert refused(sources=("own.toml",), protocol=("b1",)) == "protocol is 'b1': write BENCHMARK=VALUE"
    assert refused(sources=("own.toml",), models=("z",)) == "no model is named z: the models are a, bo"


def test_a_board_that_was_followed_is_not_printed_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    followed: list[Any] = []
    monkeypatch.setattr(board_of_results, "follow", lambda sources, make: followed.append((sources, make().spec.name)))
    assert board.main(Config(("own.toml", "more.csv"), watch=True, origins=True, export=("o.md",))) == 0
    assert followed == [(("r.csv", "more.csv"), "own")] and lines(capsys.readouterr().out) == ["origins"]
    assert Path("o.md").exists()


def test_a_followed_board_of_votes_stays_with_its_run(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks: list[float] = []
    told: list[str] = []
    with ExitStack() as working:
        run = working.enter_context(store.create(home, {"arena": {}}, "arena"))
        working.enter_context(run.working())

        def wait(seconds: float) -> None:
            """In place of waiting: another run at the first look, a vote at the second, one and the end at the third."""
            looks.append(seconds)
            if len(looks) == 1:
                scored_run(home, "later", {"x": {"sums": {"t": [{"exact": 1.0}]}}})
            if len(looks) == 2:
                run.add_preference(Preference("t", "a", "b", "tie", "human:ada", "2025-01-02T00:00:00+00:00", {}))
            if len(looks) == 3:
                run.add_preference(Preference("t", "a", "c", "tie", "human:ada", "2025-01-02T00:00:01+00:00", {}))
                working.close()

        def show() -> None:
            told.append(f"look {len(looks)}")
            if not looks:
                raise ConfigError("more battles are needed")

        monkeypatch.setattr(board_of_votes.time, "sleep", wait)
        board_of_votes.follow_votes("last", show)
    # shown when its votes are new alone: none, one, two
    assert told == ["look 0", "look 2", "look 3"] and looks == [board_of_votes.LOOK_S] * 3
    assert capsys.readouterr().out == "0 votes: more battles are needed\n"
    looks.clear()
    with pytest.raises(ConfigError, match="more battles are needed"):
        board_of_votes.follow_votes("last", show)


def test_a_followed_board_of_files_and_a_run_that_has_nothing_yet_shows_the_files_at_once(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(board_of_results, "print_board", made.append)
    with ExitStack() as working:
        run = working.enter_context(store.create(home, {"seed": 0}, "growing"))
        working.enter_context(run.working())
        monkeypatch.setattr(board_of_results.time, "sleep", lambda seconds: working.close())
        board_of_results.follow(("r.csv", run.id), lambda: f"board {len(made)}")  # type: ignore[arg-type, return-value]
    assert made == ["board 0", "board 1"], "once at the beginning, and once more since the run has ended"
    Path("results").mkdir()
    board_of_results.follow(("results", "r.csv"), lambda: "of files")  # type: ignore[arg-type, return-value]
    assert made[2:] == ["of files"], "a folder of files is no run"


def test_the_metric_and_the_protocol_that_count_are_chosen_by_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    values = {("acc", "0-shot"): 0.25, ("acc", "5-shot"): 0.5, ("em", "0-shot"): 0.75, ("em", "5-shot"): 1.0}
    rows = "".join(f"{m},quiz,{v},100,{metric},{protocol}\n" for m in "ab" for (metric, protocol), v in values.items())
    Path("q.csv").write_text(f"model,benchmark,score,n,metric,protocol\n{rows}")
    for (metric, protocol), value in values.items():
        chosen = {"metric": (f"quiz={metric}",), "protocol": (f"quiz={protocol}",)}
        assert board.main(Config(("q.csv",), json=True, **chosen)) == 0  # type: ignore[arg-type]
        sections = json.loads(capsys.readouterr().out)["sections"]
        assert [[line["score"] for line in section["lines"]] for section in sections] == [[value, value]]
