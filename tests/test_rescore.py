"""A stored run is scored again: new scores beside the old, nothing twice, nothing lost, failures as errors."""

import asyncio
import json
import math
import sqlite3

import pytest

from firsthand import cli
from firsthand.errors import ConfigError, ModelError, StoreError
from firsthand.experiment.rescore import rescore
from firsthand.loop.concurrency import Retry
from firsthand.providers.scripted import Scripted
from firsthand.runs.store import Run, open_run
from firsthand.scorers.match import flexible, normalised
from firsthand.scorers.model_judge import judged_by, pairwise, reference, rubric
from firsthand.stats.run_summary import summary
from firsthand.system.home import data_home
from firsthand.trace import Score, Trace


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Eight attempts at four sums by two patterns; cot says 32 to one of them and fails at another."""
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.json").write_text(json.dumps({"step by step": "I think that the answer is 32", "": "42"}))
    command = [
        "run",
        "arithmetic:levels=1",
        "--pattern",
        "direct,cot",
        "--model",
        "scripted:script.json",
        "--limit",
        "4",
    ]
    assert cli.main(command) == 0
    with open_run("last", data_home()) as opened:
        yield opened


def leans(label, share=0.9):
    """A judge that gives one verdict that chance, and shares the rest out."""
    return Scripted(score=lambda prompt, each: math.log(share if each == label else (1 - share) / 2))


def score(run, scorer, **options):
    return asyncio.run(rescore(run, scorer, **options))


def by(scorer, model):
    return judged_by(scorer, model, retry=Retry(1))


@pytest.mark.slow
def test_new_scores_stand_beside_the_old_and_are_given_once(run: Run):
    before = {trace.place: trace.scores for trace in run.traces()}
    found = score(run, flexible)
    assert (found.name, found.scored, found.kept, found.failed) == ("flexible", 8, 0, 0)
    for trace in run.traces():
        assert trace.scores[:-1] == before[trace.place] and trace.scores[-1].name == "flexible"
    again = score(run, flexible)
    assert (again.scored, again.kept) == (0, 8) and all(len(trace.scores) == 3 for trace in run.traces())
    assert run.score_names() == {"flexible": "flexible"}
    assert next(run.rows()).score == next(iter(before.values()))[0].value  # the figure of the run stays what it was
    trace = next(run.traces())
    assert run.trace(trace.place).scores == trace.scores == run.tries(trace.place)[0].scores


@pytest.mark.slow
def test_a_summary_sums_up_a_score_given_later(run: Run, capsys):
    def long(task, trace):
        if trace.agent_name == "cot" and trace.epoch == 0 and trace.task_id.endswith("0"):
            raise KeyError("x")
        return Score("long", len(trace.answer or "") / 10)

    score(run, long)
    for line in summary(run, score="long"):
        traces = list(run.traces(agent=line.agent))
        means = [0.0 if trace.score("long").failed else trace.score("long").value for trace in traces]
        assert math.isclose(line.score.value, sum(means) / 4)
        assert line.errors == sum(trace.score("long").failed for trace in traces)
    assert sum(line.errors for line in summary(run, score="long")) == 1
    assert [line.score.value for line in summary(run)] != [line.score.value for line in summary(run, score="long")]
    assert cli.main(["summary", "--score", "lung"]) == 2 and "did you mean 'long'" in capsys.readouterr().err


@pytest.mark.slow
def test_where_attempts_have_no_score_of_their_own_the_later_one_is_summed_up(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "open.py").write_text(
        "from firsthand.benchmark import Benchmark\nfrom firsthand.task import Task\n"
        "def open() -> Benchmark:\n    return Benchmark('open', lambda seed: [Task('a', 'x'), Task('b', 'y')], ())\n"
    )
    assert cli.main(["run", "open.py", "--model", "scripted:echo"]) == 0
    with open_run("last", data_home()) as run:
        score(run, lambda task, trace: Score("asked", float(trace.answer == "x")), name="asked")
        (line,) = summary(run)
        assert (line.score.value, line.errors) == (0.5, 0)


@pytest.mark.slow
def test_one_name_is_for_one_scorer_and_not_for_the_runs_own(run: Run):
    score(run, flexible, name="right")
    with pytest.raises(StoreError, match="given by right"):
        score(run, normalised, name="right", described="normalised")
    with pytest.raises(ConfigError, match="have a score 'numeric' of their own"):
        score(run, flexible, name="numeric")


@pytest.mark.slow
def test_a_scorer_that_raises_is_an_error_that_can_be_tried_again(run: Run):
    broken = True

    def fussy(task, trace):
        if broken and trace.agent_name == "cot":
            raise KeyError("x")
        return Score("fussy", 1.0)

    found = score(run, fussy)
    assert (found.scored, found.failed) == (4, 4)
    broken = False
    assert (kept := score(run, fussy)).scored == 0 and kept.kept == 8
    found = score(run, fussy, redo_errors=True)
    assert (found.scored, found.kept, found.failed) == (4, 4, 0)
    assert all(trace.score("fussy").value == 1 and not trace.score("fussy").failed for trace in run.traces())


@pytest.mark.slow
def test_a_judges_words_and_cost_are_kept_and_another_judge_has_a_name_of_its_own(run: Run):
    scorer = reference(judge="scripted:echo")
    assert score(run, by(scorer, leans("[[yes]]"))).scored == 8
    trace = next(run.traces())
    kept = Trace.from_json(trace.score("reference").detail["trace"])
    assert kept.nodes[-1].message.text.endswith("and nothing else.") and trace.score("reference").detail["tokens"] > 50
    with pytest.raises(StoreError, match="another name"):
        score(run, by(scorer, Scripted(fingerprint="another")))
    assert score(run, by(scorer, leans("[[no]]")), name="stern").scored == 8
    assert {s.name for s in next(run.traces()).scores} == {"numeric", "exact", "reference", "stern"}


@pytest.mark.slow
def test_an_interrupted_scoring_goes_on_and_repeats_no_call(run: Run):
    class Dies(Scripted):
        """Its process is killed in the middle of the third judgement, after the explanation."""

        async def score(self, prompt, continuations):
            if len(self.asked) >= 5:
                raise KeyboardInterrupt
            return await super().score(prompt, continuations)

    scorer = rubric(judge="scripted:echo", reasoning="on")
    first = Dies(["because"] * 20, fingerprint="same")
    with pytest.raises(KeyboardInterrupt):
        score(run, by(scorer, first), concurrency=1)
    done = len(run.scored("rubric"))
    assert done == 2
    second = Scripted(["because"] * 20, fingerprint="same")
    assert score(run, by(scorer, second), concurrency=1).scored == 8 - done
    assert len(second.asked) == 2 * (8 - done) - 1  # the explanation that was paid for is not asked for again


@pytest.mark.slow
def test_a_dead_judge_is_an_error_for_each_and_later_a_score(run: Run):
    scorer = reference(judge="scripted:echo")
    found = score(run, by(scorer, Scripted(error=ModelError("gone"), fingerprint="same")))
    assert (found.scored, found.failed) == (0, 8)
    assert all(trace.score("reference").unjudged and trace.value("reference") is None for trace in run.traces())
    found = score(run, by(scorer, Scripted(score=lambda p, x: -0.5, fingerprint="same")), redo_errors=True)
    assert (found.scored, found.failed) == (8, 0)


@pytest.mark.slow
def test_pairs_leave_preferences_and_need_the_agent_they_are_compared_with(run: Run):
    scorer = pairwise(judge="scripted:echo", against="direct", orders="first")
    found = score(run, by(scorer, leans("[[A]]")))
    assert (found.kept, found.failed, found.skipped) == (0, 0, 0), "the rivals of the judge are no errors"
    assert found.scored == 4 and {trace.agent_name for trace in run.traces() if trace.score("pairwise")} == {"cot"}
    preferences = run.preferences()
    assert len(preferences) == 4 and {each.winner for each in preferences} == {"a"}
    assert preferences[0].by == "judge:scripted"
    assert score(run, by(scorer, leans("[[A]]"))).kept == 4 and len(run.preferences()) == 4
    with pytest.raises(ConfigError, match=r"no agent 'react': it has direct, cot$"):
        score(run, pairwise(judge="scripted:echo", against="react"))


@pytest.mark.slow
def test_attempts_that_failed_have_nothing_to_score(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    (tmp_path / "few.json").write_text('["42"]')
    assert cli.main(["run", "arithmetic", "--model", f"scripted:{tmp_path}/few.json", "--limit", "3"]) == 3
    with open_run("last", tmp_path) as opened:
        found = score(opened, flexible)
    assert (found.scored, found.skipped) == (1, 2)


@pytest.mark.slow
def test_the_command_prints_a_board_costs_and_bias_and_its_exit_code_tells(run: Run, capsys):
    capsys.readouterr()
    assert cli.main(["score", "last", "--with", "rubric:judge=scripted:echo:low=1:high=5", "--as", "kind"]) == 0
    out = capsys.readouterr().out
    assert (
        "arithmetic: kind, 4 tasks" in out and "8 by logprob" in out and "'kind' of" in out and "8 new, 0 kept" in out
    )
    assert cli.main(["show", "last", next(run.traces()).id, "--judge", "kind"]) == 0
    assert "You rate an answer to a question by a rubric" in capsys.readouterr().out
    assert cli.main(["show", "last", next(run.traces()).id, "--judge", "numeric"]) == 2
    assert "it has kind" in capsys.readouterr().err
    assert cli.main(["score", "last", "--with", "pairwise:judge=scripted:echo:against=direct"]) == 0
    assert "the answer shown first is preferred with probability" in capsys.readouterr().out
    assert cli.main(["score", "last", "--with", "flexible,normalised", "--json"]) == 0
    assert cli.main(["score", "last", "--with", "reference:judge=scripted:script.json:how=words"]) == 3
    out = capsys.readouterr().out
    assert "8 failed" in out and "--retry-errors" in out
    fails = "reference:judge=scripted:script.json:how=words"
    for both in (f"{fails},flexible", f"flexible,{fails}"):
        assert cli.main(["score", "last", "--with", both]) == 3
    capsys.readouterr()
    assert cli.main(["score", "last"]) == 2 and "--with SCORER" in capsys.readouterr().err
    assert cli.main(["score", "last", "--with", "rubrik:judge=x"]) == 2
    assert "did you mean 'rubric'" in capsys.readouterr().err
    assert cli.main(["compare", "last", "last", "--agent", "direct", "--score", "kind"]) in (0, 2)


@pytest.mark.slow
def test_agreement_with_people_is_printed_of_a_run_on_votes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    rows = [
        {"instruction": f"i{n // 2}", "input": "", "response1": "a " * (n + 1), "response2": "b", "cmp_key": "x_y",
         "annotator1": 1 + n % 2, "annotator2": 1, "annotator3": 1 + n % 2}
        for n in range(12)
    ]  # fmt: skip
    (tmp_path / "testset-v1.json").write_text(json.dumps(rows))
    assert (
        cli.main(["run", f"judge_pandalm:data={tmp_path}", "--model", "scripted:echo", "--pattern", "judge,direct"])
        == 0
    )
    capsys.readouterr()
    assert cli.main(["agreement", "last"]) == 0
    out = capsys.readouterr().out
    assert "people with people" in out and "12, 36" in out and "length bias" in out
    assert cli.main(["agreement", "last", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert [each["agent"] for each in body] == ["judge"] and body[0]["items"] == 12, "an echo names every label"
    assert body[0]["with_humans"]["clusters"] == 6
    (tmp_path / "says.json").write_text('{"": "The first is better.\\n[[A]]"}')
    asked = [
        "run",
        f"judge_pandalm:data={tmp_path}",
        "--model",
        f"scripted:{tmp_path}/says.json",
        "--pattern",
        "direct",
    ]
    assert cli.main(asked) == 0
    capsys.readouterr()
    assert cli.main(["agreement", "last", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert [(each["agent"], each["items"]) for each in body] == [("direct", 12)]
    assert cli.main(["run", "arithmetic", "--model", "scripted:echo", "--limit", "1"]) == 0
    assert cli.main(["agreement", "last"]) == 2 and "holds no verdicts" in capsys.readouterr().err


@pytest.mark.slow
def test_scorings_are_told_as_they_are_stored_of_one_agent_or_all_and_few_at_a_time(run: Run):
    told, running, most = [], 0, 0

    class Slow:
        name, described = "slow", "a slow one"

        async def __call__(self, task, trace):
            nonlocal running, most
            running, most = running + 1, max(most, running + 1)
            await asyncio.sleep(0.002)
            running -= 1
            return Score("other", float(trace.agent_name == "cot"))

    def keep(trace, given):
        kept = run.trace(trace.place).score("slow")
        told.append((trace.agent_name, given.name, given.value, kept == given))

    found = score(run, Slow(), agent="cot", concurrency=2, on_score=keep)
    assert told == [("cot", "slow", 1.0, True)] * 4 and most == 2
    assert (found.name, found.scored, found.kept, found.failed, found.skipped) == ("slow", 4, 0, 0, 0)
    assert run.score_names()["slow"] == "a slow one"
    assert score(run, Slow(), benchmark="other").scored == 0
    found = score(run, Slow(), benchmark="arithmetic", concurrency=0)
    assert (found.scored, found.kept) == (4, 4) and most == 2
    with pytest.raises(StoreError) as refused:
        score(run, Slow(), described="another")
    assert str(refused.value) == (
        f"run {run.id} has scores named 'slow' already, given by a slow one: give the new ones another name, --as NAME"
    )


def test_a_score_of_a_pair_and_its_preference_are_kept_both_or_neither(run: Run):
    scorer = by(pairwise(judge="scripted:echo", against="direct", orders="first"), leans("[[A]]"))
    with run.database.write() as connection:
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON preferences BEGIN SELECT RAISE(ABORT, 'full'); END")
    with pytest.raises((StoreError, sqlite3.Error), match="full"):
        score(run, scorer)
    assert run.preferences() == [] and run.scored("pairwise") == {}
    with run.database.write() as connection:
        connection.execute("DROP TRIGGER full")
    assert score(run, scorer).scored == 4 == len(run.preferences())


SEVERAL = """
from pathlib import Path
from firsthand import Score
def two(task, trace):
    if trace.task_id.endswith("1") and Path("ill").exists():
        raise ValueError("ill")
    return (Score("precision", 1.0), Score("recall", 0.25), Score("recall", 0.5), Score("step", 0.1, node=1))
def none(task, trace):
    return ()
"""


def test_all_scores_of_a_scorer_that_gives_several_are_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.py").write_text(SEVERAL)
    (tmp_path / "ill").touch()
    assert cli.main(["run", "arithmetic:levels=1", "--model", "scripted:echo", "--limit", "3", "--json"]) == 0
    command = ["score", "last", "--with", "two.py", "--json"]
    capsys.readouterr()
    assert cli.main(command) == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["scored"], told["failed"], told["further"]) == (2, 1, ["two.recall", "two.recall#2"])
    assert [board["metric"] for board in told["boards"]] == ["two", "two.recall", "two.recall#2"]
    assert [board["rows"][0]["errors"] for board in told["boards"]] == [1, 1, 1]
    with open_run("last", data_home()) as opened:
        names = {"two.recall", "two.recall#2", "two"}
        for trace in opened.traces():
            later = {score.name: score for score in trace.scores if score.name.startswith("two")}
            assert {each.failed for each in later.values()} == {trace.task_id.endswith("1")}
            assert {*later} == (names if trace.task_id.endswith("1") else names | {"two.step[message 1]"})
    (tmp_path / "ill").unlink()
    assert cli.main([*command, "--retry-errors"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["scored"], told["kept"]) == (1, 2)
    assert [board["rows"][0]["score"]["value"] for board in told["boards"]] == [1.0, 0.25, 0.5]
    assert cli.main(["score", "last", "--with", "two.py:none", "--json"]) == 3
    assert "returned an empty tuple" in open_failures()


def test_further_scores_of_an_interrupted_scoring_fail_with_the_first_and_given_ones_are_kept(run: Run):
    """What a scoring that was interrupted before its end left out, the next one adds."""

    def first_fails(task, trace):
        return (Score("precision", 0.0, failure="ill"), Score("recall", 0.5))

    assert (found := score(run, first_fails, name="a")).further == ("a.recall",) and found.failed == 8
    assert {each.value for trace in run.traces() for each in trace.scores if each.name == "a.recall"} == {0.5}

    def some_fail(task, trace):
        if trace.place == first.place:
            raise ValueError("ill")
        return (Score("precision", 1.0), Score("recall", 0.25))

    first, *_ = run.traces()
    told: list[Score] = []

    def interrupted(trace: Trace, each: Score) -> None:
        told.append(each)
        if len(told) > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(run, some_fail, name="b", concurrency=1, on_score=interrupted)
    assert (again := score(run, some_fail, name="b")).further == ("b.recall",) and again.kept == 2
    failed = {trace.place: each.failed for trace in run.traces() for each in trace.scores if each.name == "b.recall"}
    assert failed == {trace.place: trace.place == first.place for trace in run.traces()}


def open_failures() -> str:
    with open_run("last", data_home()) as opened:
        return str([score.failure for trace in opened.traces() for score in trace.scores])


def test_a_scorer_that_gives_no_score_is_an_error(run: Run):
    def nothing(task, trace):
        return ()

    assert (found := score(run, nothing)).failed == 8 and found.scored == 0
    assert all("empty tuple" in (trace.score("nothing").failure or "") for trace in run.traces())
