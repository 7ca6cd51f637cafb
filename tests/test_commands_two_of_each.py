"""Commands with two of a thing: claims, figures, runs with agents of one name, runs that are followed, errors, tracks."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.benchmark import Benchmark, Figure
from firsthand.boards.board_spec import BoardSpec
from firsthand.boards.make_board import BoardLine, BoardSection, MadeBoard
from firsthand.claims import claim_run, claim_text
from firsthand.claims.all_claims import all_claims
from firsthand.claims.claim import KINDS, SECTIONS, Measurement, Verdict
from firsthand.claims.claim_run import Outcome
from firsthand.commands import board_of_results, claims, compare, play, sides, track
from firsthand.errors import ConfigError, UnknownName
from firsthand.runs import store
from firsthand.runs.pairing import Comparison
from firsthand.runs.store import Run
from firsthand.runs.track import start
from firsthand.stats.figures import micro_f1
from firsthand.stats.paired import PairedDifference
from firsthand.trace import Failure, Score, Trace
from printed_tables import widen, words
from scored_runs import scored_run


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    widen(monkeypatch, claim_text, board_of_results, compare, track, play)
    return tmp_path / "home"


# -- claims --


def test_claims_that_are_named_in_order_are_shown_whole_each_with_its_own_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    every = all_claims()
    names = [name for name, each in every.items() if each.measure is not None][:3]
    outcomes = {
        name: Outcome(every[name], Measurement(number, f"thing {number}", unit="s"), Verdict("confirmed", f"why {number}."),
                      f"run{number}", 0.5)
        for number, name in enumerate(names[:2], 1)
    }  # fmt: skip
    asked: list[Path] = []
    monkeypatch.setattr(claim_run, "last_outcomes", lambda home: asked.append(home) or outcomes)

    def shown(*of: str) -> list[str]:
        assert claims.main(claims.Config(of)) == 0
        return words(capsys.readouterr().out)

    def whole(name: str, *last: str) -> list[str]:
        about = every[name].claim
        needs = [f"needs: {', '.join(about.needs)}"] if about.needs else []
        head = [f"{name} ({SECTIONS[every[name].section]})", *f'"{about.quote}"'.split("\n"),
                f"source: {about.source}; measured on: {KINDS[about.kind]}"]  # fmt: skip
        return words("\n".join([*head, *needs, *last]))

    first = whole(names[0], "measured: thing 1: 1 s", "confirmed: why 1.")
    second = whole(names[1], "measured: thing 2: 2 s", "confirmed: why 2.")
    third = whole(
        names[2], f"not run yet: `firsthand claims run {names[2]}` takes about {every[names[2]].cost_s:.0f} s"
    )

    def joined(*parts: list[str]) -> str:
        """The words of lines, which are folded where they are long."""
        return " ".join(word for part in parts for word in part)

    assert joined(shown(*names[:2])) == joined(first, second)
    assert joined(shown(*names)) == joined(first, second, third)
    assert joined(shown(names[1])) == joined(second) and joined(shown(names[2])) == joined(third)
    for listed in (
        names[1::-1],
        [names[0], names[0]],
        ["all"],
        [every[names[0]].section],
        [names[0], every[names[0]].section],
    ):
        assert not joined(shown(*listed)).startswith(first[0]), "a list is a table of each section"
    assert claims.main(claims.Config(tuple(names), json=True)) == 0
    assert [(each["claim"], each["last"] and each["last"]["run"]) for each in json.loads(capsys.readouterr().out)] == [
        (names[0], "run1"), (names[1], "run2"), (names[2], None),
    ]  # fmt: skip
    assert set(asked) == {Path("home").absolute()}


# -- comparisons --


def test_every_figure_of_a_benchmark_stands_below_its_first_score() -> None:
    def difference(value: float) -> PairedDifference:
        return PairedDifference(value, value - 1, value + 1, 0.5, 2, 1, 0, 1, "inconclusive", 0.5)

    found = {place: difference(number / 8) for number, place in enumerate((
        ("tags", "exact"), ("tags", "labels"), ("sums", "f1"), ("tags", "topics"), ("sums", "bleu"), ("tags", "ece"),
        ("more", "exact"),
    ))}  # fmt: skip
    none = Comparison("one/ada", "two/ada", (), only_a=(), only_b=(), changed=())
    told = {place: each.to_json() for place, each in found.items()}
    assert compare.to_json(none, found) == {
        "a": "one/ada", "b": "two/ada",
        "benchmarks": {
            "tags": {"score": "exact", **told["tags", "exact"],
                     "figures": {name: told["tags", name] for name in ("labels", "topics", "ece")}},
            "sums": {"score": "f1", **told["sums", "f1"], "figures": {"bleu": told["sums", "bleu"]}},
            "more": {"score": "exact", **told["more", "exact"], "figures": {}},
        },
        "tasks": [], "only_a": [], "only_b": [], "changed": [], "unscored": {"a": {}, "b": {}}, "flaky": [],
        "unmade": {"a": {}, "b": {}}, "evened": [], "retried": {"a": {}, "b": {}},
    }  # fmt: skip
    assert compare.to_json(none, {})["benchmarks"] == {}


def test_two_figures_of_two_runs_are_compared_and_written(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def made(name: str, *given: tuple[float, str, str]) -> str:
        tries = {f"t{n}": [{"exact": exact, "labels": micro_f1("labels", {label}, {"x"}),
                            "topics": micro_f1("topics", {topic}, {"x"})}]
                 for n, (exact, label, topic) in enumerate(given)}  # fmt: skip
        with scored_run(home, name, {"ada": {"tags": tries}}) as run:
            return run.id

    one = made("one", (1, "x", "y"), (0, "x", "y"), (0, "y", "y"), (1, "x", "y"))
    two = made("two", (1, "y", "x"), (1, "x", "y"), (0, "y", "x"), (1, "x", "x"))
    assert compare.main(compare.Config((one, two), json=True)) == 0
    [body] = json.loads(capsys.readouterr().out)
    tags = body["benchmarks"].pop("tags")
    assert body["benchmarks"] == {} and (tags["score"], tags["difference"]) == ("exact", 0.25)
    assert {name: each["difference"] for name, each in tags["figures"].items()} == {"labels": -0.25, "topics": 0.75}
    assert compare.main(compare.Config((one, two))) == 0
    assert [line.split()[:4] for line in words(capsys.readouterr().out) if line.startswith("tags ")] == [
        ["tags", "exact", "4", "+0.250"], ["tags", "labels", "4", "-0.250"], ["tags", "topics", "4", "+0.750"],
    ]  # fmt: skip


def test_benchmarks_and_figures_of_either_run_are_found_though_their_agents_have_one_name(home: Path) -> None:
    def made(name: str, *benchmarks: str, **scores: Any) -> Run:
        return scored_run(
            home, name, {agent: {each: {"t": [scores]} for each in benchmarks} for agent in ("ada", "bob")}
        )

    def whole(traces: Any) -> list[Figure]:
        """A figure that is made of the attempts of the run `one` alone."""
        own = [trace for trace in traces if trace.id.startswith("one-")]
        return [Figure("macro", ("t",), lambda counts: np.ones(len(counts)))] if own else []

    one, two = made("one", "sums", "tags", exact=1.0), made("two", "sums", "words", exact=0.0, style=0.5)
    for runs in ((one, two), (two, one)):
        assert list(sides.benchmarks_with(None, *runs, own={}).items()) == [
            ("sums", None), ("tags", None), ("words", None),
        ]  # fmt: skip
        assert list(sides.benchmarks_with("style", *runs, own={}).items()) == [("sums", "style"), ("words", "style")]
        assert sides.benchmarks_with("macro", *runs, own={"sums": whole}) == {"sums": None}
        assert sides.benchmarks_with("macro", *runs, own={"tags": whole, "words": whole}) == {"tags": None}
        assert list(sides.benchmarks_with("macro", *runs, own={"tags": whole, "sums": whole}).items()) == [
            ("sums", None), ("tags", None),
        ]  # fmt: skip
        with pytest.raises(UnknownName) as refused:
            sides.benchmarks_with("macr", *runs, own={"sums": whole})
        assert str(refused.value) == f"no score 'macr'; did you mean 'macro'? `firsthand show {runs[0].id}` shows all"
    assert sides.benchmarks_with(None, two, own={}) == {"sums": None, "words": None}
    with pytest.raises(UnknownName):
        sides.benchmarks_with("macro", two, own={"sums": whole})
    one.close()
    two.close()


# -- a board that is followed --


def test_a_board_is_followed_until_the_last_of_its_runs_has_ended(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks: list[float] = []
    made: list[int] = []
    with scored_run(home, "ended", {"x": {"sums": {"t": [{"exact": 1.0}]}}}) as ended:
        attempt = next(iter(ended.traces()))
    with ExitStack() as left:
        runs, working = [], []
        for name in ("first", "second"):
            run = left.enter_context(store.create(home, {"seed": 0}, name))
            working.append(left.enter_context(ExitStack()))
            working[-1].enter_context(run.working())
            run.add_agent("x", {"name": "x"})
            runs.append(run)

        def wait(seconds: float) -> None:
            """In place of waiting: the first run ends, then nothing, an attempt of the second, its end."""
            looks.append(seconds)
            if len(looks) == 1:
                working[0].close()
            if len(looks) == 3:
                runs[1].append(attempt)
            if len(looks) == 4:
                working[1].close()
            if len(looks) > 4:
                raise AssertionError("followed after the end")

        def make() -> MadeBoard:
            made.append(len(looks))
            line = BoardLine("x", 1, 1, 0.5, 0.25, 0.75, {})
            return MadeBoard(BoardSpec("own"), (BoardSection("s", "acc", (line,), ()),), ())

        monkeypatch.setattr(board_of_results, "LOOK_S", 0.125)
        monkeypatch.setattr(board_of_results.time, "sleep", wait)
        board_of_results.follow(tuple(run.id for run in runs), make)
        out = words(capsys.readouterr().out)
        assert looks == [0.125] * 4 and made == [3, 4], "when there is an attempt, and when the run has ended"
        assert out[:2] == ["No attempt is finished yet: the board follows."] * 2, "told again as a run has ended"
        assert sum(line.startswith("1 x 0.500") for line in out) == 2
        looks[:] = [0.0] * 4
        for sources in (("r.csv",), (ended.id,), (ended.id, runs[1].id), ("r.csv", ended.id)):
            Path("r.csv").touch()
            made.clear()
            board_of_results.follow(sources, make)
            assert len(made) == 1 and len(looks) == 4, f"{sources}: none is running, so it is shown once"


# -- play --


def test_an_error_of_several_attempts_is_told_once_and_counted_as_no_rounds(capsys: pytest.CaptureFixture[str]) -> None:
    def attempt(error: str | None = None, rounds: int | None = None) -> Trace:
        return Trace(
            "id", "lm", "t", {"name": "ada"}, 0, 0, "", 1.0, scores=() if error else (Score("won", 1.0, {}),),
            error=None if error is None else Failure("ModelError", error),
            final_state={} if rounds is None else {"rounds": rounds},
        )  # fmt: skip

    traces = [
        attempt("late"),
        attempt(rounds=5),
        attempt("gone"),
        attempt("late", rounds=2),
        attempt("gone"),
        attempt("late"),
    ]
    benchmark = Benchmark("doors", lambda seed: [], ())
    played = play._PlayedWorld("idle", traces)
    assert played.errors == ["late", "gone", "late", "gone", "late"] and played.rounds == [0, 5, 0, 2, 0, 0]
    assert played.to_json(benchmark, 0, 0.95)["errors"] == played.errors
    played.print(benchmark, 0, 0.95)
    assert capsys.readouterr().out.splitlines()[3:] == [
        "1.2 rounds for each task, 5 at most", "  error: late", "  error: gone",
    ]  # fmt: skip
    play._PlayedWorld("idle", traces[:1]).print(benchmark, 0, 0.95)
    assert capsys.readouterr().out.splitlines()[3:] == ["0.0 rounds for each task, 0 at most", "  error: late"]
    play._PlayedWorld("idle", []).print(benchmark, 0, 0.95)
    assert capsys.readouterr().out.splitlines()[3:] == ["0.0 rounds for each task, 0 at most"]


# -- track --


def test_tracks_stand_beside_each_other_by_their_ids_however_they_are_named(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids, paths = [], []
    for number, more in enumerate(({}, {"acc": 0.5})):
        with start(f"m{number}", config={}) as made:
            made.log({"loss": 4.0 + number, **more}, step=0)
            made.log({"loss": 2.0 + number, **more}, step=1)
            ids.append(made.run.id)
            paths.append(str(made.run.path))
    for refs in ((paths[0], "last"), (ids[0], paths[1]), (ids[0], ids[1])):
        assert track.main(track.Config(refs)) == 0
        assert words(capsys.readouterr().out) == [
            "last values", f"metric {ids[0]} {ids[1]}", "acc 0.5", "loss 2 3",
        ], refs  # fmt: skip
        assert track.main(track.Config(refs, json=True)) == 0
        assert json.loads(capsys.readouterr().out) == {
            "loss": {ids[0]: "2", ids[1]: "3"}, "acc": {ids[1]: "0.5"},
        }, refs  # fmt: skip
    assert track.main(track.Config(("last", paths[0]), metric=("loss",))) == 0
    assert words(capsys.readouterr().out) == ["last values", f"metric {ids[1]} {ids[0]}", "loss 3 2"]
    with pytest.raises(ConfigError) as refused:
        track.main(track.Config((paths[0], "last"), metric=("acc",)))
    assert str(refused.value) == f"{ids[0]} has no metric 'acc': it has loss"
    with start("odd", config={}) as made:
        made.log({"loss": math.inf}, step=0)
    assert track.main(track.Config(("last", "last", ids[0]), json=True)) == 0
    assert json.loads(capsys.readouterr().out) == {"loss": {made.run.id: "inf", ids[0]: "2"}}
