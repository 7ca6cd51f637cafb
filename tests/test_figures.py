"""Figures of a whole corpus in tables and comparisons: beside the packages', with intervals that hold what they should."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.benchmark import Figure
from firsthand.boards import read_results
from firsthand.boards.board_results import BoardResult, ColumnKey
from firsthand.boards.read_results import run_results
from firsthand.cli import main
from firsthand.commands.sides import difference_cells
from firsthand.commands.summary import print_lines
from firsthand.errors import ConfigError, DataError
from firsthand.runs.store import Run, create
from firsthand.scorers.embedded import bitext_figures, spearman_figures
from firsthand.scorers.instructions import instruction_strict
from firsthand.scorers.text import bleu, chrf, corpus_bleu, corpus_chrf
from firsthand.show.board import caveats, leaderboard
from firsthand.show.board_table import render_text
from firsthand.show.board_words import figure_text
from firsthand.stats.corpus_formulas import FORMULAS, rms_calibration_error
from firsthand.stats.figure_stats import FigureDifference, figure_interval, figure_value
from firsthand.stats.figures import calibration, figure_detail, figures, micro_f1, slow_figure
from firsthand.stats.multiple_comparisons import compare_to_baseline
from firsthand.stats.run_summary import summary
from firsthand.stats.score_statistics import judged
from firsthand.task import Task
from firsthand.trace import Failure, Score, Trace

EMPTY = Trace("t", "letters", "a", {"name": "one"}, 0, 0, "2026-01-01T00:00:00+00:00", 1.0)
WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "it", "was", "not", "there", "when", "he", "came", "home")


def sentences(number: int, rng: random.Random) -> tuple[str, str]:
    reference = [rng.choice(WORDS) for _ in range(rng.randrange(1, 14))]
    answer = [word if rng.random() < 0.8 else rng.choice(WORDS) for word in reference if rng.random() < 0.9]
    return " ".join(answer), " ".join(reference)


def trace(task: str, agent: str, *scores: Score, epoch: int = 0, failed: bool = False) -> Trace:
    error = Failure("ModelError", "it could not answer") if failed else None
    return replace(
        EMPTY, id=f"{task}{agent}{epoch}", task_id=task, agent={"name": agent}, epoch=epoch, scores=scores, error=error
    )


def scored(scorer: Any, task: str, agent: str, answer: str, reference: str) -> Trace:
    attempt = replace(trace(task, agent), answer=answer)
    return attempt.scored((scorer(Task(task, "?", secret={"references": [reference]}), attempt),))


@pytest.mark.slow
@pytest.mark.parametrize(("scorer", "whole"), [(bleu, corpus_bleu), (chrf, corpus_chrf)])
@pytest.mark.parametrize("size", [1, 3, 40])
def test_bleu_and_chrf_of_sums_are_those_of_texts(scorer: Any, whole: Any, size: int) -> None:
    pytest.importorskip("sacrebleu")
    rng = random.Random(size)
    for _ in range(8):
        pairs = [sentences(number, rng) for number in range(size)]
        pairs += [("", "nothing was said")] * rng.randrange(2) + [("apples", "pears")] * rng.randrange(2)
        traces = [scored(scorer, str(n), "one", *pair) for n, pair in enumerate(pairs)]
        (found,) = figures({"one": traces})[scorer.__name__].values()
        expected = whole([answer for answer, _ in pairs], [[reference] for _, reference in pairs])
        assert figure_interval(found).value == pytest.approx(expected, abs=1e-9)
        assert [each.scores[0].value for each in traces] == [each.value() for each in traces]


@pytest.mark.slow
def test_a_table_shows_the_figure_of_the_corpus_with_a_bootstrap_interval() -> None:
    pytest.importorskip("sacrebleu")
    rng, traces = random.Random(0), []
    for number in range(60):
        answer, reference = sentences(number, rng)
        traces.append(scored(bleu, str(number), "plain", answer, reference))
        traces.append(scored(bleu, str(number), "copies", reference, reference))
    (board,) = leaderboard(traces)
    row, first = board.row("copies"), board.row("plain")
    assert row is not None and first is not None and row.versus is not None
    assert row.score.value == pytest.approx(1.0) and first.score.method == "BCa bootstrap"
    assert first.score.low < first.score.value < first.score.high < 1
    assert row.versus.method == "paired bootstrap" and row.versus.verdict == "better" and row.versus.better > 40
    assert row.versus.difference == pytest.approx(row.score.value - first.score.value)
    assert "bleu is a corpus-level figure, with bootstrap CIs." in render_text([board])
    clusters = {str(number): str(number // 10) for number in range(60)}
    (clustered,) = leaderboard(traces, clusters={"letters": clusters})
    again = clustered.row("plain")
    assert again is not None and again.score.clusters == 6 and again.score.value == first.score.value
    assert clustered.rows[0].agent == "copies"


def test_epochs_add_up_and_failed_attempts_are_empty_answers() -> None:
    traces = {
        "one": [trace("a", "one", micro_f1("labels", "xy", "xz")), trace("a", "one", micro_f1("labels", "z", "xz"), epoch=1),
                trace("b", "one", micro_f1("labels", "", ""))],
        "two": [trace("a", "two", failed=True), trace("b", "two", micro_f1("labels", "q", ""))],
    }  # fmt: skip
    found = figures(traces)["labels"]
    assert found["one"].tasks == found["two"].tasks == ("a", "b")
    assert figure_interval(found["one"]).value == pytest.approx(2 * 2 / (2 * 2 + 1 + 2))
    assert figure_interval(found["two"]).value == 0.0
    without = figures(traces, errors=False)["labels"]
    assert without["two"].tasks == ("b",) and found["one"].values["a"] == pytest.approx([0.5, 2 / 3])
    once = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])  # a alone, b alone, a drawn twice
    assert found["one"].of(once) == pytest.approx([4 / 7, 1.0, 4 / 7])


@pytest.mark.parametrize("scorer", [bleu, chrf, instruction_strict])
def test_a_failed_attempt_that_nobody_else_made_counts_as_an_empty_answer(scorer: Any) -> None:
    if scorer is not instruction_strict:
        pytest.importorskip("sacrebleu")

    def made(task: str, answer: str) -> Trace:
        secret = {"references": ["the cat sat on a mat"], "instructions": [["punctuation:no_comma", {}]] * 2}
        attempt = replace(trace(task, "one"), answer=answer)
        return attempt.scored((scorer(Task(task, "?", secret=secret), attempt),))

    right = made("0", "the cat sat on a mat")
    silent = figures({"one": [right, *(made(str(n), "") for n in (1, 2, 3))]})[scorer.__name__]["one"]
    failed = figures({"one": [right, *(trace(str(n), "one", failed=True) for n in (1, 2, 3))]})[scorer.__name__]["one"]
    assert failed.tasks == silent.tasks and figure_value(silent) < 1
    assert figure_value(failed) == pytest.approx(figure_value(silent))
    dropped = {"one": [right, trace("1", "one", failed=True)]}
    assert figures(dropped, errors=False)[scorer.__name__]["one"].tasks == ("0",)


def test_a_failed_attempt_has_the_mean_empty_answer_only_of_a_score_that_all_tasks_have() -> None:
    made = [trace("a", "one", micro_f1("labels", "x", "x")), trace("b", "one", micro_f1("labels", "", "xyz"))]
    lost = trace("c", "one", failed=True)
    assert figure_value(figures({"one": [*made, lost]})["labels"]["one"]) == pytest.approx(2 / (2 + 3 + 2))
    other = trace("d", "one", Score("other", 1.0))
    assert figures({"one": [*made, other, lost]})["labels"]["one"].tasks == ("a", "b")


def test_a_failed_bitext_attempt_is_a_wrong_translation() -> None:
    def made(at: int, found: int) -> Trace:
        return trace(f"t{at}", "one", Score("bitext_weighted_f1", float(found == at), {"found": found, "gold": at}))

    right, failed = [made(at, at) for at in range(3)], [trace(f"t{at}", "one", failed=True) for at in range(3, 6)]
    (found,) = bitext_figures([*right, *failed])
    (wrong,) = bitext_figures([*right, *(made(at, 90 + at) for at in range(3, 6))])
    assert len(found.tasks) == 6 and figure_value(found) == figure_value(wrong) == 0.5
    (again,) = bitext_figures([*right, replace(failed[0], task_id="t0", epoch=1)])
    assert figure_value(again) == pytest.approx((2 / 3 * 2 + 2) / 4)  # of the target that its task has
    (none,) = bitext_figures(failed)
    assert figure_value(none) == 0


def test_a_correlation_leaves_failed_pairs_out_and_the_table_says_how_many() -> None:
    made = [trace(f"t{at}", "one", Score("cosine_spearman", at / 9, {"gold": float(at)})) for at in range(6)]
    lost = [trace(f"u{at}", "one", failed=True) for at in range(4)]
    (board,) = leaderboard([*made, *lost], figures={"letters": spearman_figures})
    assert board.rows[0].score.value == 1 and board.rows[0].left_out == 4
    assert "cosine_spearman leaves out 4 tasks of one, and each counts as 0 in a mean" in " ".join(caveats(board))
    (board,) = leaderboard(made, figures={"letters": spearman_figures})
    assert board.rows[0].left_out == 0
    (alone,) = spearman_figures(lost)
    assert alone.tasks == () and math.isnan(figure_value(alone))


def test_a_failed_attempt_is_no_part_of_a_benchmarks_own_figure_where_errors_are_dropped() -> None:
    right = [trace(f"t{at}", "one", Score("bitext_weighted_f1", 1.0, {"found": at, "gold": at})) for at in range(3)]
    mute = trace("u", "one", Score("bitext_weighted_f1", 0.0, failure="no number"))
    made = {"one": [*right, mute, trace("v", "one", failed=True)]}
    counted = figures(made, bitext_figures)["bitext_weighted_f1"]["one"]
    assert len(counted.tasks) == 5 and figure_value(counted) == pytest.approx(3 / 5)
    dropped = figures(made, bitext_figures, errors=False)["bitext_weighted_f1"]["one"]
    assert dropped.tasks == ("t0", "t1", "t2") and figure_value(dropped) == 1
    seen: list[Trace] = []
    plain, half = trace("w", "one"), trace("x", "one", Score("a", 1.0), Score("b", 0.0, failure="no number"))
    figures({"one": [plain, half, mute]}, lambda traces: seen.extend(traces) or [], errors=False)  # type: ignore[func-returns-value]
    assert seen == [plain, half]


def test_the_table_does_not_say_that_a_failed_attempt_beside_one_that_did_not_counts_as_0_in_a_figure() -> None:
    made = [trace(f"t{at}", "one", Score("cosine_spearman", at % 4 / 9, {"gold": float(at)})) for at in range(6)]
    lost = [trace(f"t{at}", "one", failed=True, epoch=1) for at in range(6)]
    (board,) = leaderboard([*made, *lost], figures={"letters": spearman_figures})
    assert "Each counts as 0 in a mean, and in a figure as an empty answer or not at all; one" in " ".join(
        caveats(board)
    )
    (board,) = leaderboard([trace("a", "one", Score("x", 1.0)), trace("b", "one", failed=True)])
    assert "Each counts as 0; one" in " ".join(caveats(board))


def test_a_table_counts_the_tasks_that_a_figure_leaves_out_and_no_others() -> None:
    made = [trace(f"t{at}", "one", Score("cosine_spearman", at / 9, {"gold": float(at)})) for at in range(6)]
    lost = [trace("u", "one", failed=True, epoch=at) for at in range(3)]
    mute = trace("v", "one", Score("cosine_spearman", 0.0, failure="no number"))
    beside = trace("t0", "one", failed=True, epoch=1)
    other = trace("w", "one", Score("other", 1.0))
    (board,) = leaderboard([*made, *lost, mute, beside, other], figures={"letters": spearman_figures})
    assert board.metric == "cosine_spearman" and board.rows[0].left_out == 2
    (board,) = leaderboard([*made, *lost])
    assert board.rows[0].left_out == 0  # a mean counts them


def run_of(home: Path, traces: list[Trace], own: dict[str, str] | None = None) -> Run:
    run = create(home, {}, "letters", figures=own)
    run.add_tasks("letters", [Task(name, "?") for name in dict.fromkeys(each.task_id for each in traces)])
    for name in dict.fromkeys(each.agent_name for each in traces):
        run.add_agent(name, {"name": name})
    for each in traces:
        run.append(replace(each, place=each.id))
    return run


def cosines(agent: str, wrong: int = 0) -> list[Trace]:
    values = [((at + wrong) % 6 / 9, float(at)) for at in range(6)]
    return [
        trace(f"t{at}", agent, Score("cosine_spearman", value, {"gold": gold}))
        for at, (value, gold) in enumerate(values)
    ]


def test_a_summary_says_how_many_tasks_that_failed_its_score_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = [trace("u", "one", failed=True, epoch=at) for at in range(2)]
    with run_of(tmp_path, [*cosines("one", 1), *lost, *cosines("two")]) as run:
        lines = summary(run, own={"letters": spearman_figures})
        assert [(line.agent, line.left_out, line.score.n) for line in lines] == [("one", 1, 6), ("two", 0, 6)]
        assert [line.left_out for line in summary(run)] == [0, 0]  # means count them
    print_lines("letters", lines, "95%")
    told = " ".join(capsys.readouterr().out.split())
    assert "one: the score leaves out 1 task that failed" in told and "two: the score" not in told


def test_a_figure_of_some_tasks_leaves_out_no_more_than_failed(tmp_path: Path) -> None:

    def of_some(traces: Any) -> list[Figure]:
        return spearman_figures([each for each in traces if each.task_id in ("t0", "t1", "t2")])

    with run_of(tmp_path, [*cosines("one", 1), trace("u", "one", failed=True)]) as run:
        (line,) = summary(run, own={"letters": of_some})
    assert line.score.n == 3 and line.left_out == 1


def test_a_board_of_a_run_names_means_as_such_and_leaves_out_who_has_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = [trace(f"t{at}", "lost", failed=True) for at in range(6)]
    told: list[str] = []
    with run_of(tmp_path, [*cosines("one", 1), *lost], {"letters": "./gone.py:made"}) as run:
        found = list(run_results(run, told.append))
        assert [each.key.metric for each in found] == ["cosine_spearman, mean of tasks"] * 2
        assert ["letters has figures of its own, which cannot be computed here" in each for each in told] == [True]
        told.clear()
        monkeypatch.setattr(read_results, "own_figures", lambda tell, *runs: {"letters": spearman_figures})
        (result,) = run_results(run, told.append)
        assert isinstance(result, BoardResult) and (result.model, result.metric) == ("one", "cosine_spearman")
        assert result.value == pytest.approx(1 / 7) and result.n == 6 and result.verified and result.seconds == 1
        assert told == ["lost has no cosine_spearman on letters: it has no value for the tasks that were answered."]
        told.clear()
        monkeypatch.setattr(read_results, "own_figures", lambda tell, *runs: {"letters": lambda traces: []})
        assert {each.key.metric for each in run_results(run, told.append)} == {"cosine_spearman"} and told == []


def test_a_board_does_not_take_a_figure_whose_error_is_unknown_for_a_share_of_its_tasks() -> None:
    key = ColumnKey("letters", "", "f")
    unsure = Figure("f", ("a", "b"), lambda counts: np.where(counts[:, 0] == 1, 0.5, np.nan), lower_is_better=True)
    found = read_results._of_figure(key, "one", unsure, None, BoardResult("", "letters", 0.0))
    assert (found.value, found.error, found.n) == (0.5, None, 0) and math.isnan(found.standard_error)
    assert found.lower_is_better and found.verified
    equal = Figure("f", ("a", "b", "c"), lambda counts: np.ones(len(counts)))
    found = read_results._of_figure(key, "one", equal, None, BoardResult("", "letters", 0.0))
    assert (found.value, found.error, found.n, found.lower_is_better) == (
        1,
        None,
        3,
        False,
    ) and found.standard_error > 0


def test_a_board_ranks_by_the_figure_that_the_run_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f.py").write_text(
        "from firsthand.stats.figures import micro_f1\n"
        "def f(task, trace):\n    return micro_f1('f', trace.answer.split(), task.secret['answer'].split())\n"
    )
    (tmp_path / "b.csv").write_text("q,a\nlong,a b c d e f g h\nshort,x\n")
    (tmp_path / "b.toml").write_text('data = "b.csv"\nprompt = "{q}"\ntarget = "{a}"\nscorer = ["f.py:f"]\n')
    (tmp_path / "long.json").write_text('{"long": "a b c d e f g h", "short": "none"}')
    (tmp_path / "short.json").write_text('{"long": "none", "short": "x"}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    assert main(["run", "./b.toml", "--model", "scripted:short.json,scripted:long.json"]) == 0, capsys.readouterr().err
    capsys.readouterr()
    main(["board", "last", "--json"])
    (section,) = json.loads(capsys.readouterr().out)["sections"]
    assert [line["score"] for line in section["lines"]] == pytest.approx([16 / 18, 2 / 11])
    assert [line["model"].partition(".json")[0][-4:] for line in section["lines"]] == ["long", "hort"]
    (result,) = section["lines"][0]["results"].values()
    assert result["metric"] == "f" and result["n"] == 2 and result["error"] > 0


def test_an_attempt_without_a_verdict_is_no_part_of_a_figure() -> None:
    mute = Score("labels", 0.0, failure="no verdict", unjudged=True)
    made = {
        "one": [trace("a", "one", micro_f1("labels", "x", "x")), trace("b", "one", mute)],
        "two": [trace("b", "two", micro_f1("labels", "x", "x"))],
    }
    assert figures(made)["labels"]["one"].tasks == ("a",)
    made["one"][1] = replace(made["one"][1], error=Failure("ModelError", "down"))
    assert figures(made)["labels"]["one"].tasks == ("a", "b")


def test_scores_that_are_only_partly_of_a_corpus_stay_means() -> None:
    mixed = {"one": [trace("a", "one", micro_f1("f1", "x", "x")), trace("b", "one", Score("f1", 1.0))]}
    assert figures(mixed) == {} == figures({"one": [trace("a", "one")]})
    (board,) = leaderboard([each for traces in mixed.values() for each in traces])
    assert board.rows[0].score.method == "Wilson"


@pytest.mark.parametrize(
    "detail",
    [
        {"corpus": None},
        {"corpus": {"figure": "other", "sums": [1.0]}},
        {"corpus": {"figure": "micro_f1", "sums": [1.0]}},
        {"corpus": {"figure": "micro_f1", "sums": ["1", 2, 3]}},
        {"corpus": {"figure": "micro_f1", "sums": [math.nan, 2, 3]}},
        {"corpus": {"figure": "micro_f1"}},
        {"corpus": [1, 2, 3]},
        {"corpus": {"figure": ["micro_f1"], "sums": [1, 2, 3]}},
    ],
)
def test_a_stored_share_that_is_damaged_is_no_share(detail: dict[str, Any]) -> None:
    traces = [trace("a", "one", Score("f1", 0.5, detail)), trace("b", "one", Score("f1", 0.5, detail))]
    assert figures({"one": traces}) == {}
    assert leaderboard(traces)[0].rows[0].score.value == 0.5


def test_a_figure_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'bleu' with 3 sums is no figure of a corpus: there are bleu \(10 sums\)"):
        figure_detail("bleu", (1, 2, 3))
    with pytest.raises(ConfigError, match="a confidence is 90: 0 to 1 was expected"):
        calibration("calibration", 90, True)


@pytest.mark.slow
def test_of_a_calibration_error_the_lower_is_the_better() -> None:
    rng = random.Random(1)
    honest, boastful = [], []
    for number in range(200):
        sure = rng.random()
        right = rng.random() < sure
        honest.append(trace(str(number), "honest", calibration("calibration_error", sure, right)))
        boastful.append(trace(str(number), "boastful", calibration("calibration_error", 0.99, right)))
    (board,) = leaderboard([*honest, *boastful])
    assert [row.agent for row in board.rows] == ["honest", "boastful"]
    row = board.row("boastful")
    assert row is not None and row.versus is not None
    assert row.versus.difference > 0.2 and row.versus.verdict == "worse" and row.versus.low > 0
    mean = sum(each.scores[0].value for each in boastful) / 200
    share = sum(each.scores[0].value < 0.5 for each in boastful) / 200
    assert row.score.value == pytest.approx(0.99 - share) and mean == pytest.approx(0.99 * (1 - share) + 0.01 * share)


def test_every_figure_is_a_number_for_any_sums() -> None:
    rng = np.random.default_rng(0)
    for formula in FORMULAS.values():
        sums = rng.integers(0, 3, size=(500, formula.columns)).astype(float)
        found = formula.of(sums)
        assert found.shape == (500,) and np.isfinite(found).all() and np.isfinite(formula.of(0 * sums)).all()


def test_comparisons_are_corrected_and_agree_with_their_intervals() -> None:
    rng = np.random.default_rng(2)
    agents = {str(n): corpus_of(rng.random(50) < 0.3 + 0.05 * n, rng.random(50) < 0.5) for n in range(4)}
    for found in compare_to_baseline(agents, agents["0"]).values():
        assert (found.verdict == "inconclusive") == (found.p_value >= 0.05) == (found.low <= 0 <= found.high)
    nothing = judged(FigureDifference.between(agents["0"], f1_of({})))
    assert nothing.n == 0 and nothing.verdict == "inconclusive"
    single = judged(FigureDifference.between(*(f1_of({"a": (n, 1, 1)}) for n in (1, 2))))
    assert (single.n, single.low, single.high, single.verdict) == (1, -math.inf, math.inf, "inconclusive")


def f1_of(sums: dict[str, tuple[int, int, int]]) -> Figure:
    parts = np.array(list(sums.values()), dtype=float).reshape(len(sums), 3)
    return Figure(
        "f1", tuple(sums), lambda counts: FORMULAS["micro_f1"].of(counts @ parts), values={task: [0.0] for task in sums}
    )


def corpus_of(found: Any, wanted: Any) -> Figure:
    pairs = enumerate(zip(found, wanted, strict=True))
    return f1_of({str(n): (int(f and w), int(f and not w), int(w and not f)) for n, (f, w) in pairs})


@pytest.mark.slow
def test_run_and_compare_show_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    pytest.importorskip("sacrebleu")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    rng = random.Random(3)
    pairs = [sentences(number, rng) for number in range(12)]
    rows = [{"source": f"sentence {number:02d}", "target": reference} for number, (_, reference) in enumerate(pairs)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "translate.toml").write_text(
        'data = "rows.jsonl"\nprompt = "Translate: {source}"\ntarget = "{target}"\nscorer = ["bleu", "chrf"]\n'
    )
    (tmp_path / "script.json").write_text(
        json.dumps({row["source"]: a or "none" for row, (a, _) in zip(rows, pairs, strict=True)})
    )
    (tmp_path / "good.py").write_text(
        "async def good(task, ctx):\n    return (await ctx.say(task.prompt).generate()).text\n"
    )
    (tmp_path / "bad.py").write_text("async def bad(task, ctx):\n    return 'the cat'\n")
    words = ["run", "translate.toml", "--model", "scripted:script.json", "--pattern", "good.py,bad.py", "--json"]
    assert main(words) == 0
    (board,) = json.loads(capsys.readouterr().out)["boards"]
    expected = corpus_bleu([a or "none" for a, _ in pairs], [[reference] for _, reference in pairs])
    assert board["rows"][0]["score"]["value"] == pytest.approx(expected)
    assert board["rows"][0]["score"]["method"] == "BCa bootstrap" == board["rows"][0]["secondary"]["chrf"]["method"]
    for more in (["last", "--agent-a", "good.py", "--agent-b", "bad.py"], []):
        assert main(["compare", "last", *more, "--json"]) == 0
        bodies = json.loads(capsys.readouterr().out)
        found = next(iter(bodies[0]["benchmarks"].values())) if more else bodies[0]
        also = found["figures"]["chrf"] if more else bodies[1]
        assert found["score"] == "bleu" and (more or also["score"] == "chrf")
        for each in (found, also):
            assert each["method"] == "paired bootstrap" and each["verdict"] == "worse"
        assert found["difference"] == pytest.approx(board["rows"][1]["score"]["value"] - expected)
    for command in ("show", "summary"):
        assert main([command, "last", "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        rows = shown[0]["rows"] if command == "show" else shown
        for row, ours in zip(rows, board["rows"], strict=True):
            assert row["score"] == ours["score"]
            assert row["secondary" if command == "show" else "figures"]["chrf"] == ours["secondary"]["chrf"]
    words = ["gate", "last", "last", "--agent-a", "good.py", "--agent-b", "bad.py", "--score", "bleu,chrf", "--json"]
    assert main(words) != 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert [each["ruling"] for each in checks] == ["fail", "fail"]
    assert checks[0]["baseline"] == pytest.approx(expected) and checks[0]["high"] < 0
    itself = [*words[:4], "good.py", *words[5:6], "good.py", "--json"]
    assert main(itself) != 0  # 12 equal sentences do not exclude a drop of 1%
    assert {each["ruling"] for each in json.loads(capsys.readouterr().out)["checks"]} == {"inconclusive"}
    assert main([*itself, "--max-drop", "30%"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("clustered", [False, True])
def test_paired_bootstrap_intervals_cover_at_their_rate(clustered: bool) -> None:
    """400 simulated pairs of agents with equal micro F1 in truth: 0 is left out of about 5 % of intervals."""
    rng, missed, count = np.random.default_rng(4), 0, 400
    for _ in range(count):
        size, per = (300, 5) if clustered else (120, 1)
        hard = np.repeat(rng.random(size // per), per)
        wanted = rng.random(size) < 0.4
        luck = np.repeat(rng.random((2, size // per)), per, axis=1) if clustered else rng.random((2, size))
        a, b = (corpus_of(np.where(side < 0.7 - 0.4 * hard, wanted, ~wanted), wanted) for side in luck)
        labels = {str(n): str(n // per) for n in range(size)} if clustered else None
        found = judged(FigureDifference.between(a, b, labels, draws=1000))
        missed += not found.low <= 0 <= found.high
    assert 0.02 <= missed / count <= 0.085


@pytest.mark.slow
def test_the_interval_of_a_corpus_covers_the_true_figure() -> None:
    """Micro F1 of 150 tasks drawn 400 times; its true value is known from the rates."""
    rng, held, count = np.random.default_rng(5), 0, 400
    truth = 2 * 0.4 * 0.7 / (2 * 0.4 * 0.7 + 0.6 * 0.2 + 0.4 * 0.3)
    for _ in range(count):
        wanted = rng.random(150) < 0.4
        found = np.where(wanted, rng.random(150) < 0.7, rng.random(150) < 0.2)
        interval = figure_interval(corpus_of(found, wanted))
        held += interval.low <= truth <= interval.high
    assert 0.91 <= held / count <= 0.98


def test_repeated_attempts_have_the_chance_that_any_and_that_all_are_right() -> None:
    rights = {"a": (1, 1, 1), "b": (1, 0, 1), "c": (0, 0, 0), "d": (0, 0, 1)}
    traces = [
        trace(task, "one", Score("exact", value), epoch=epoch)
        for task, values in rights.items()
        for epoch, value in enumerate(values)
    ]
    also = leaderboard(traces)[0].rows[0].secondary
    assert (also["pass@3"].value, also["pass^3"].value, also["pass^3"].method) == (0.75, 0.25, "Wilson")
    assert [*also] == ["pass@2", "pass@3", "pass^2", "pass^3"]
    assert also["pass@2"].value == pytest.approx((1 + 1 + 0 + 2 / 3) / 4)  # 2 of 3 pairs of (0, 0, 1) hold the 1
    assert also["pass^2"].value == pytest.approx((1 + 1 / 3 + 0 + 0) / 4)
    many = [trace("a", "one", Score("exact", 1.0), epoch=epoch) for epoch in range(20)]
    assert [*leaderboard(many)[0].rows[0].secondary][:5] == ["pass@2", "pass@4", "pass@8", "pass@16", "pass@20"]
    assert leaderboard([each for each in traces if each.epoch == 0])[0].rows[0].secondary == {}
    halves = [trace("a", "one", Score("exact", 0.5), epoch=epoch) for epoch in range(3)]
    assert leaderboard(halves)[0].rows[0].secondary == {}


@pytest.mark.slow
def test_a_scorer_that_raises_is_an_error_that_is_told(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    (tmp_path / "rows.jsonl").write_text('{"q": "x", "a": "y"}\n')
    (tmp_path / "boom.py").write_text("def boom(task, trace):\n    raise ValueError('no such unit')\n")
    (tmp_path / "own.toml").write_text(
        'data = "rows.jsonl"\nprompt = "{q}"\ntarget = "{a}"\nscorer = ["boom.py:boom"]\n'
    )
    assert main(["run", "./own.toml", "--model", "scripted:echo"]) == 3
    shown = capsys.readouterr()
    assert "1 of 1 attempt could not be scored, the first by boom: ValueError: no such unit" in shown.err
    assert "Errors: 1 attempt failed" in shown.out


def figure_of(n: int, wrong: int = 0) -> Figure:
    """The micro-F1 of n documents of 4 labels, in the last `wrong` of which nothing was found."""
    made = [trace(f"{i}", "a", micro_f1("f1", "" if i >= n - wrong else "abcd", "abcd")) for i in range(n)]
    return figures({"a": made})["f1"]["a"]


@pytest.mark.slow
@pytest.mark.parametrize(("n", "low"), [(3, 0.292), (20, 0.832), (100, 0.964)])
def test_a_perfect_figure_is_as_uncertain_as_that_many_perfect_scores(n: int, low: float) -> None:
    found = figure_interval(figure_of(n))
    assert (found.value, found.high, found.method) == (1.0, 1.0, "equal draws")
    assert found.low == pytest.approx(low, abs=1e-3)
    nothing = figure_interval(figure_of(n, wrong=n))
    assert (nothing.value, nothing.low) == (0.0, 0.0) and nothing.high == pytest.approx(1 - low, abs=1e-3)


def test_two_perfect_figures_do_not_exclude_a_drop() -> None:
    found = FigureDifference.between(figure_of(20), figure_of(20))
    assert found.mean == 0 and found.method == "equal draws" and found.p_value == 1.0
    assert found.bounds(0.9).low == pytest.approx(-(1 - 0.05 ** (1 / 20)), abs=1e-9)
    assert found.p_above(-0.001) > 0.9 and found.p_above(-0.14) < 0.05 < found.p_above(-0.13)
    assert found.p_below(0.14) < 0.05 < found.p_below(0.13) and found.reversed.p_above(-0.14) < 0.05
    worse = FigureDifference.between(figure_of(20, wrong=20), figure_of(20))
    assert (
        worse.mean == -1
        and worse.p_value < 1e-5
        and worse.bounds().high == pytest.approx(-1 + 2 * (1 - 0.025 ** (1 / 20)))
    )


@pytest.mark.slow
@pytest.mark.parametrize(("n", "share"), [(5, 0.02), (10, 0.02), (20, 0.02), (50, 0.05)])
def test_the_interval_of_micro_f1_covers_a_rare_collapse(n: int, share: float) -> None:
    rng, covered = np.random.default_rng(7), 0
    truth = 2 * (1 - share) / (2 * (1 - share) + share)
    for _ in range(200):
        found = figure_interval(figure_of(n, wrong=int(rng.binomial(n, share))))
        covered += found.low - 1e-9 <= truth <= found.high + 1e-9
    assert covered >= 188  # 94 %; 19, 34, 67 and 178 without


def test_a_figure_that_measures_uncertainty_has_no_interval() -> None:
    spread = slow_figure("match stderr", ("a", "b", "c"), lambda chosen: 0.1 * len(set(chosen)), uncertainty=True)
    found = figure_interval(spread)
    assert (
        found.value == pytest.approx(0.3)
        and found.method == "none"
        and figure_text("match stderr", found) == "match stderr 0.30"
    )
    assert figure_text("f1", figure_interval(figure_of(3))) == "f1 1.00 [0.29, 1.00]"


def test_calibration_does_not_depend_on_the_order_of_equal_confidences() -> None:
    rng = random.Random(5)
    pairs = [(rng.choice([0.5, 0.8, 0.9]), float(rng.random() < 0.7)) for _ in range(250)]
    found = {
        round(rms_calibration_error(*zip(*shuffled, strict=True)), 12)
        for shuffled in (rng.sample(pairs, len(pairs)) for _ in range(20))
    }
    assert len(found) == 1
    apart = [(0.9, 1.0), (0.9, 0.0), (0.9, 1.0), (0.9, 0.0)]
    # in both bins, whichever of the equals are in them
    assert rms_calibration_error(*zip(*apart, strict=True), bin_size=2) == pytest.approx(0.4)


def test_instruction_accuracy_is_a_mean_over_instructions_not_prompts() -> None:
    one, three = [["punctuation:no_comma", {}]], [["punctuation:no_comma", {}]] * 3
    answers = [("no comma", one, "a"), ("a, b", three, "b")]
    made = []
    for answer, instructions, task in answers:
        attempt = replace(trace(task, "one"), answer=answer)
        this = Task(task, "?", secret={"instructions": instructions})
        made.append(attempt.scored((instruction_strict(this, attempt),)))
    assert [each.scores[0].value for each in made] == [1.0, 0.0]
    assert figure_value(figures({"one": made})["instruction_strict"]["one"]) == 1 / 4
    made[0] = replace(made[0], error=Failure("ModelError", "down"), scores=())
    again = replace(made[1], epoch=1, error=made[0].error, scores=())
    found = figures({"one": [*made, again]})["instruction_strict"]["one"]
    assert found.tasks == ("a", "b") and figure_value(found) == 0  # a failed attempt followed none of its three


def test_a_figure_whose_function_fails_is_unknown_logged_once_and_ends_no_table(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def binary(chosen: Any) -> float:
        raise ValueError("Target is multiclass but average='binary'")

    tasks = ("a", "b", "c")
    interval = figure_interval(slow_figure("f1 of three", tasks, binary))
    assert math.isnan(interval.value)
    between = FigureDifference.between(
        slow_figure("f1 of three", tasks, binary), slow_figure("f1 of three", tasks, len)
    )
    assert math.isnan(between.mean) and between.draws == ()
    assert [each.getMessage() for each in caplog.records] == [
        "f1 of three is unknown: ValueError: Target is multiclass but average='binary'"
    ]
    assert difference_cells(judged(between)) == ["unknown", "-", "-", "unknown"]


def test_a_function_that_fails_on_some_draws_alone_gives_a_value_without_bounds_or_note(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def needs_both(chosen: Any) -> float:
        return 1 / (len({*chosen}) - 1)

    interval = figure_interval(slow_figure("auc", ("a", "b"), needs_both))
    assert (interval.value, interval.low, interval.high) == (1, -math.inf, math.inf) and not caplog.records

    def refused(chosen: Any) -> float:
        raise DataError("no")

    with pytest.raises(DataError):
        figure_value(slow_figure("auc", ("a", "b"), refused))


def test_figures_of_its_own_that_fail_are_left_out_and_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    def sound(traces: Any) -> list[Any]:
        ids = tuple(each.task_id for each in traces)
        return [
            Figure("good", ids, lambda counts: counts.sum(axis=1)),
            Figure("ill", ids, lambda counts: counts["x"]),
            "no figure",
        ]

    def refusing(traces: Any) -> list[Any]:
        raise ConfigError("no")

    attempts = {"a": [replace(EMPTY, scores=(Score("s", 1.0),))]}
    for _ in range(2):
        assert {*figures(attempts, sound)} == {"good"}
        assert figures(attempts, lambda traces: None) == {}  # type: ignore[arg-type, return-value]
        assert figures(attempts, lambda traces: [][1]) == {}
    with pytest.raises(ConfigError, match=r"^no$"):
        figures(attempts, refusing)
    assert [each.getMessage().partition(":")[0] for each in caplog.records] == [
        "the figure ill is left out", "the figure no figure is left out", "figures of its own are left out",
        "figures of its own are left out",
    ]  # fmt: skip
