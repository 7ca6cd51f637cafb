"""Gates and comparisons of runs whose attempts are missing or unequal in number; bare drops, plans and votes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from firsthand.arena.vote_files import VoteFile, read_votes
from firsthand.cli import main
from firsthand.commands.bench import check_writable
from firsthand.errors import ConfigError, DataError, StoreError
from firsthand.runs.pairing import compare, scores_of
from firsthand.runs.store import Run, create
from firsthand.runs.unmade_attempts import unmade
from firsthand.task import Task
from made_traces import trace


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    return tmp_path


def made(home: Path, tasks: list[list[float]], planned: int | None = None, config: Any = None) -> Run:
    """A run of agent `a` with these scores by task and epoch."""
    run = create(home, config or {}, "b")
    run.add_tasks("b", [Task(f"t{number}", "?", metadata={"x": 1}) for number in range(len(tasks))])
    run.add_agent("a", {"name": "a"})
    for number, values in enumerate(tasks):
        for epoch, value in enumerate(values):
            run.append(trace(f"{number}-{epoch}", f"t{number}", value, epoch=epoch))
    if planned is not None:
        run.plan(planned)
    return run


def test_attempts_that_a_run_has_yet_to_make_fail_the_gate_and_count_as_zero_if_asked(home: Path, capsys: Any) -> None:
    whole, cut = made(home, [[1.0] * 4] * 3, 12), made(home, [[1.0] * 4, [1.0], [1.0]], 12)
    assert unmade(whole) == (0, {}, 0) and unmade(cut) == (4, {("b", "a"): 6}, 6)
    for a, b, sides in ((whole, cut, [0, 6]), (cut, whole, [6, 0])):
        assert main(["gate", a.id, b.id, "--json"]) == 1
        (check,) = json.loads(capsys.readouterr().out)["checks"]
        assert list(check["unmade"].values()) == sides and "6 attempts that the" in check["reason"]
    main(["gate", whole.id, cut.id, "--errors", "zero", "--json"])
    assert json.loads(capsys.readouterr().out)["checks"][0]["candidate"] == pytest.approx(0.5)
    main(["gate", whole.id, cut.id, "--errors", "drop", "--json"])
    assert json.loads(capsys.readouterr().out)["checks"][0]["candidate"] == 1
    for words in (["compare", whole.id, cut.id], ["compare", whole.id, cut.id, whole.id], ["summary", cut.id]):
        assert main(words) == 0
        assert "6 attempts of " in capsys.readouterr().out
    assert made(home, [[1.0]], None) and unmade(made(home, [[1.0]])) == (0, {}, 0)


def test_the_json_of_scores_counts_the_attempts_that_a_run_has_yet_to_make(home: Path, capsys: Any) -> None:
    def printed(*words: str) -> Any:
        assert main([*words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    cut, whole = made(home, [[1.0] * 2, [1.0]]), made(home, [[1.0] * 2] * 2, 4)
    cut.add_agent("late", {"name": "late"})
    cut.append(trace("late", "t0", 0.0, agent="late"))
    cut.add_tasks("c", [Task("t0", "?")])
    cut.plan(12)
    assert [(row["unmade"], row["run_unmade"]) for row in printed("summary", cut.id)] == [(1, 8), (3, 8)]
    assert [(row["unmade"], row["run_unmade"]) for row in printed("summary", whole.id)] == [(0, 0)]
    for run, count in ((cut, 8), (whole, 0)):
        assert printed("summary", run.id, "--by", "x")["run_unmade"] == count
        assert main(["summary", run.id, "--by", "x"]) == 0
        assert (f"8 attempts of {run.id} not made yet" in capsys.readouterr().out) == bool(count)
    assert [(row["a"], row["b"], row["unmade"]) for row in printed("compare", cut.id)] == [
        ("a", "late", {"a": 1, "b": 3})
    ]
    several = {(row["a"], row["b"]): row["unmade"] for row in printed("compare", whole.id, cut.id, cut.id)}
    assert several == {
        (f"{whole.id}/a", f"{cut.id}/a"): {"a": 0, "b": 1},
        (f"{whole.id}/a", f"{cut.id}/late"): {"a": 0, "b": 3},
        (f"{cut.id}/a", f"{cut.id}/late"): {"a": 1, "b": 3},
    }
    for words in (["summary", cut.id], ["compare", cut.id, cut.id, whole.id], ["gate", cut.id, whole.id]):
        main(words)
        assert "if it goes on, or finish it with" in " ".join(capsys.readouterr().out.split())


def test_a_reducer_that_grows_takes_as_many_attempts_of_each_side(home: Path, capsys: Any) -> None:
    few, many = made(home, [[0.0, 1.0], [0.0, 0.0]]), made(home, [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    for a, b, expected in ((few, many, [(1, 0), (0, 0)]), (many, few, [(0, 1), (0, 0)])):
        found = compare(a, b, reduce="max")
        assert [(pair.a.value, pair.b.value) for pair in found.pairs] == expected and len(found.evened) == 2
    for unbiased in ("mean", "pass_at_1"):
        found = compare(few, many, reduce=unbiased)
        assert [pair.b.value for pair in found.pairs] == [0.5, 0.5] and found.evened == ()
    assert compare(many, many, reduce="max").evened == ()
    even = scores_of([few, many], reduce="max", even=True)["b"][f"{many.id}/a"]
    assert even == {"t0": (0.0,), "t1": (0.0,)}
    assert scores_of([few, many], reduce="max")["b"][f"{many.id}/a"] == {"t0": (1.0,), "t1": (1.0,)}
    main(["gate", few.id, many.id, "--reduce", "max"])
    assert "2 tasks reduced over as many attempts as both sides have" in capsys.readouterr().out


def test_a_drop_of_one_without_a_percent_sign_is_refused_for_shares(home: Path, capsys: Any) -> None:
    base, bad, points = made(home, [[1.0]] * 9), made(home, [[0.0]] * 9), made(home, [[50.0]] * 9)
    for text in ("1", "b=5"):
        assert main(["gate", base.id, bad.id, "--max-drop", text]) == 2
        assert "is meant" in capsys.readouterr().err
    assert main(["gate", base.id, bad.id, "--max-drop", "100%"]) != 2
    assert main(["gate", base.id, bad.id, "--max-drop", "0.99"]) != 2
    assert main(["gate", base.id, bad.id, "--max-drop", "100% "]) != 2
    assert main(["gate", points.id, points.id, "--max-drop", "5"]) != 2
    none = made(home, [[]] * 9)
    assert main(["gate", points.id, none.id, "--max-drop", "5"]) == 1, "nothing tells that the scores are shares"
    capsys.readouterr()
    for drops in ("b=5,1%", "b/s=1,b=1%"):
        assert main(["gate", base.id, bad.id, "--max-drop", drops]) == 2
    assert "max_drop is 1, which is 100% and allows any drop of b, s, whose" in capsys.readouterr().err
    assert main(["gate", base.id, bad.id, "--max-drop", "b=1%,1"]) == 1


def test_scores_that_are_all_0_or_all_1_may_be_of_another_scale_and_a_bare_drop_rules_with_a_remark(
    home: Path, capsys: Any
) -> None:
    for value in (0.0, 1.0):
        run = made(home, [[value]] * 9)
        assert main(["gate", run.id, run.id, "--max-drop", "b/s=2"]) == 0
        said = (
            f"max_drop is 2, and all scores of b, s are {value:g}: if they are from 0 to 1, this allows any drop, so "
        )
        assert said + "write 2%" in " ".join(capsys.readouterr().err.split())
    half, points = made(home, [[0.5]] * 9), made(home, [[1.0]] * 8 + [[7.0]])
    assert main(["gate", half.id, half.id, "--max-drop", "2"]) == 2
    capsys.readouterr()
    assert main(["gate", points.id, points.id, "--max-drop", "2"]) != 2 and not capsys.readouterr().err


def test_a_plan_of_some_tasks_or_agents_lacks_no_more_than_the_plan_says(home: Path, capsys: Any) -> None:
    run = made(home, [[1.0]] * 9 + [[]] * 11, 10)
    run.add_agent("z", {"name": "z"})
    assert unmade(run).counts == {("b", "a"): 1, ("b", "z"): 1} and unmade(run).total == 1
    assert main(["summary", run.id]) == 0 and "1 attempt of " in capsys.readouterr().out
    whole = made(home, [[1.0]] * 20, 20)
    assert main(["compare", run.id, whole.id, run.id]) == 0 and "1 attempt of " in capsys.readouterr().out
    cut = made(home, [[1.0] * 4, [1.0], [1.0]], 12)
    assert unmade(cut).total == 6 and unmade(made(home, [[1.0]], 1)).total == 0 == unmade(made(home, [[1.0]])).total


@pytest.mark.parametrize(
    "words",
    [
        "--between-sd 0.3 --effect 1e-200",
        "--between-sd 1e200",
        "--disagreement 15% --effect 1e-160",
        "--between-sd 1e149 --effect 1e-9",
        f"--between-sd 0.3 --epochs {'9' * 400}",
        f"--between-sd 0.3 --epochs {'9' * 5000}",
        "--between-sd 0.3 --epochs 1000000000001",
        "--between-sd 0.3 --within-sd 1e151",
        "--between-sd 0.3 --effect 9e-10",
    ],
)
def test_a_plan_beyond_all_numbers_is_one_sentence(capsys: Any, words: str) -> None:
    assert main(["power", *words.split()]) == 2
    assert capsys.readouterr().err.startswith("firsthand: ")


def test_a_folder_as_the_file_of_a_bench_is_refused_before_it_is_measured(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["bench", "no-such-model", "--out", str(tmp_path)]) == 2
    assert "is a folder: name a file" in capsys.readouterr().err
    check_writable("/dev/null")
    check_writable(str(tmp_path / "new.md"))
    check_writable("-")
    monkeypatch.setattr(os, "access", lambda path, mode: mode & os.X_OK == 0)
    check_writable("/dev/null")
    (old := tmp_path / "old.md").write_text("")
    for file in (old, tmp_path / "new.md"):
        with pytest.raises(ConfigError, match="cannot be written: name a file elsewhere"):
            check_writable(str(file))


def test_one_vote_with_two_verdicts_is_refused_and_one_written_twice_counts_once(tmp_path: Path, capsys: Any) -> None:
    rows = [{"id": n, "model_a": "x", "model_b": "y", "winner": "ab"[n % 2], "time": n} for n in range(6)]
    file = tmp_path / "votes.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in [*rows, {**rows[0], "time": 9}]))
    assert main(["board", str(file)]) == 0 and "6 battles" in capsys.readouterr().out
    file.write_text("\n".join(json.dumps(row) for row in [*rows, {**rows[0], "winner": "tie", "time": 9}]))
    assert main(["board", str(file)]) != 0
    assert "line 1 and " in (said := capsys.readouterr().err) and "two verdicts" in said


PAIR = {"model_a": "x", "model_b": "y", "winner": "a"}


def votes(folder: Path, *rows: dict[str, Any]) -> VoteFile:
    """What is read of a file of these rows."""
    file = folder / "rows.jsonl"
    file.write_text("\n".join(json.dumps({**PAIR, **row}) for row in rows))
    return read_votes(file)


@pytest.mark.parametrize(
    "other", [{name: "z"} for name in ("judge", "question", "model_a", "model_b", "generator_1", "generator_2")]
)
def test_an_id_of_several_voters_questions_or_pairs_is_no_vote_s(tmp_path: Path, other: dict[str, Any]) -> None:
    one = {"id": 7, "judge": "m", "question": "q", "generator_1": "g", "generator_2": "h"}
    rows: list[dict[str, Any]] = [{**one, "time": 1}, {**one, "time": 2}, {**one, "time": 4, "winner": "b"}]
    with pytest.raises(DataError, match="line 3 are one vote with two verdicts"):
        votes(tmp_path, *rows)
    found = votes(tmp_path, *rows, {**one, "time": 3, **other})
    assert (len(found.battles), found.duplicates) == (4, 0)
    # an id of another kind, or none, is another's
    assert (
        votes(tmp_path, {"id": 7}, {"id": "7", **other}, {"id": "", **other}, {"id": None}, {"id": 7}).duplicates == 1
    )


def test_an_id_of_a_question_says_nothing_of_the_other_ids(tmp_path: Path) -> None:
    rows = [{"id": n, "judge": "j", "question": "q"} for n in range(5)] * 2
    assert votes(tmp_path, *rows).duplicates == 5
    found = votes(tmp_path, *rows, {**rows[0], "judge": "k"})
    assert (found.duplicates, len(found.battles)) == (4, 7)
    each = [{**row, "judge": f"j{row['id']}"} for row in rows]
    assert votes(tmp_path, *each).duplicates == 5, "each id has one voter, and not the same"


@pytest.mark.parametrize("empty", [None, "", " ", float("nan")])
@pytest.mark.parametrize("column", ["judge", "question"])
def test_a_vote_that_stands_twice_is_one_if_a_copy_names_no_voter_or_question(
    tmp_path: Path, empty: Any, column: str
) -> None:
    rows = [{"id": n, "judge": "j", "question": "q"} for n in range(5)] * 2
    for place in (0, 9):
        changed = [{**row, column: empty} if at == place else row for at, row in enumerate(rows)]
        found = votes(tmp_path, *changed)
        assert (found.duplicates, len(found.battles)) == (5, 5)


def test_a_verdict_is_what_it_means_and_not_how_it_is_written(tmp_path: Path) -> None:
    for one, other in (("a", "model_a"), ("b", "model_b"), ("both_bad", "bothbad"), ("bothbad", "tie (bothbad)")):
        rows = [{"id": 1, "winner": each, "preference": value} for each, value in ((one, 1), (other, float("nan")))]
        assert votes(tmp_path, *rows).duplicates == 1
    for one, other in (("a", "b"), ("tie", "bothbad"), ("model_b", "tie")):
        with pytest.raises(DataError, match="two verdicts"):
            votes(tmp_path, {"id": 1, "winner": one}, {"id": 1, "winner": other})


def test_a_voter_s_time_and_question_are_one_vote_and_without_a_question_two_verdicts_are_two(tmp_path: Path) -> None:
    one = {"judge": "m", "time": "2026-01-01"}
    assert (found := votes(tmp_path, one, {**one, "winner": "b"}, one)).duplicates == 1 and len(found.battles) == 2
    asked = {**one, "question": "q"}
    assert votes(tmp_path, asked, {**asked, "time": "2026-01-02", "winner": "b"}).duplicates == 0
    with pytest.raises(DataError, match="two verdicts"):
        votes(tmp_path, asked, {**asked, "winner": "b"})
    with pytest.raises(DataError, match="the winner is nan"):
        votes(tmp_path, {"winner": float("nan")})


def test_a_plan_is_of_each_agent_and_one_beyond_all_runs_is_refused(home: Path) -> None:
    run = made(home, [[1.0] * 2] * 3, 12)
    run.add_agent("z", {"name": "z"})
    assert unmade(run) == (2, {("b", "z"): 6}, 6)
    found = compare(run, made(home, [[1.0] * 2] * 3), agent_a="a", unmade_value=0.0)
    assert found.unmade == ({}, {}) and len(found.pairs[0].a.values) == 2
    run.plan(11)
    assert unmade(run).epochs == 2, "rounded up: an attempt may be left out of a plan"
    assert unmade(run).counts == {("b", "z"): 5}, "no more than the plan lacks"
    run.plan(10_000_000)
    assert unmade(run).epochs > 2
    run.plan(10_000_001)
    with pytest.raises(StoreError, match="10,000,001 attempts were planned"):
        unmade(run)
    empty = create(home, {}, "none")
    empty.plan(3)
    assert unmade(empty) == (0, {}, 0)
