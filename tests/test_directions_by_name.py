"""Scores of other tools whose name says that lower is better: imports, bridges, and a sentence on scorers of one's own."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from firsthand.boards.board_spec import BoardSpec
from firsthand.boards.make_board import make_board
from firsthand.boards.read_results import read_results
from firsthand.boards.result_formats.inspect_logs import inspect_results
from firsthand.bridges.inspect.eval_logs import import_eval
from firsthand.bridges.lm_eval.result_models import ResultModels
from firsthand.bridges.lm_eval.sample_lines import import_samples
from firsthand.cli import main
from firsthand.runs.store import create, open_run
from firsthand.show.board import leaderboard
from firsthand.stats.metric_names import is_higher_better, is_lower_better, unstated_direction
from firsthand.stats.task_scores import harm_benchmarks, unstated_directions
from firsthand.task import Task
from firsthand.trace import Score, Trace


def samples(folder: Path, metric: str, *values: Any, **results: Any) -> Path:
    """A file of lm-eval's samples, with results beside it if there are any."""
    folder.mkdir(parents=True)
    rows = [
        {"doc_id": n, "doc": {"q": n}, "filtered_resps": ["x"], "filter": "none", "metrics": [metric], metric: value}
        for n, value in enumerate(values)
    ]
    path = folder / "samples_speech_2026-01-01T00-00-00.0.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    if results:
        (folder / "results_2026.json").write_text(json.dumps(results))
    return path


def harms(made: tuple[str, int], home: Path) -> list[list[bool]]:
    with open_run(made[0], home) as run:
        return [[score.is_harm for score in trace.scores] for trace in run.traces()]


def test_imported_samples_of_an_error_rate_rank_the_lowest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    good, bad = (
        import_samples(samples(tmp_path / name, "wer", *[value + n / 100 for n in range(12)]), tmp_path)[0]
        for name, value in (("good", 0.2), ("bad", 0.6))
    )
    board = make_board(read_results([good, bad], tmp_path), BoardSpec("mine"))
    assert [line.model for line in board.sections[0].lines] == ["good", "bad"]
    assert any("Lower is better" in remark for remark in board.remarks)
    sides = ["--agent-a", "good", "--agent-b", "bad"]
    assert main(["compare", good, bad, *sides, "--json"]) == 0
    out = capsys.readouterr().out
    assert '"verdict": "worse"' in out and '"verdict": "better"' not in out
    assert main(["gate", good, bad, *sides]) == 1
    assert main(["gate", bad, good, "--agent-a", "bad", "--agent-b", "good"]) == 0
    assert "Higher counts as better" not in capsys.readouterr().err


def test_results_beside_samples_state_the_direction_before_the_name(tmp_path: Path) -> None:
    lacking = harms(import_samples(samples(tmp_path / "a", "wer", 0.5, None), tmp_path), tmp_path)
    assert lacking == [[True], [True]], "a failed one too"
    assert harms(import_samples(samples(tmp_path / "b", "acc", 1), tmp_path), tmp_path) == [[False]]
    stated: list[tuple[str, Any, bool]] = [
        ("wer", {"speech": {"wer": True}}, False), ("acc", {"speech": {"acc": False}}, True),
        ("wer", {"other": {"wer": True}}, True), ("wer", {"speech": {"acc": True}}, True),
        ("wer", {"speech": {"wer": "yes"}}, True), ("wer", {"speech": [True]}, True), ("wer", [1], True),
        ("acc", None, False),
    ]  # fmt: skip
    for number, (metric, better, lower) in enumerate(stated):
        path = samples(tmp_path / f"s{number}", metric, 0.5, model_name="told", higher_is_better=better)
        assert ResultModels().of(path) == "told"
        assert harms(import_samples(path, tmp_path), tmp_path) == [[lower]], (metric, better)


def test_a_newer_file_of_results_goes_before_an_older_one(tmp_path: Path) -> None:
    path = samples(tmp_path / "a", "wer", 0.5, higher_is_better={"speech": {"wer": False}})
    (path.parent / "results_2027.json").write_text(json.dumps({"higher_is_better": {"speech": {"wer": True}}}))
    assert not ResultModels().is_lower_better(path, "speech", "wer")
    (path.parent / "results_2028.json").write_text("[]")
    assert not ResultModels().is_lower_better(path, "speech", "wer"), "that one says nothing"
    assert ResultModels().is_lower_better(path, "else", "wer") and not ResultModels().is_lower_better(
        path, "else", "f1"
    )


def test_logs_of_inspect_have_the_direction_of_a_number_and_none_of_a_grade(tmp_path: Path) -> None:
    given: list[tuple[str, Any, bool]] = [
        ("wer", 0.5, True), ("wer", "0.5", True), ("match", 0.5, False), ("exact_error", "C", False),
        ("exact_error", "I", False), ("exact_error", True, False), ("exact_error", "yes", False), ("error", 1, True),
    ]  # fmt: skip
    for number, (name, value, lower) in enumerate(given):
        path = tmp_path / f"{number}.eval"
        sample = {"id": 1, "epoch": 1, "input": "q", "target": "x", "messages": [], "scores": {name: {"value": value}}}
        about = {"status": "success", "eval": {"model": "m", "task": "t"}}
        with zipfile.ZipFile(path, "w") as log:
            log.writestr("header.json", json.dumps(about))
            log.writestr("samples/1_epoch_1.json", json.dumps(sample))
        assert harms(import_eval(path, tmp_path), tmp_path) == [[lower]], (name, value)
        [items] = inspect_results(about | {"samples": [sample]}, "f", [])
        assert items.results()[0].lower_is_better is lower, "a board of the log says the same"


def test_a_reciprocal_and_an_error_that_is_found_are_better_when_higher() -> None:
    higher = ["1/perplexity", "1/(1+wer)", "finds_error", "detects the error", "without_error"]
    assert not any(map(is_lower_better, higher)) and is_lower_better("word error") and is_lower_better("wer/1")


def own_run(home: Path, name: str, detail: dict[str, Any], later: dict[str, Any] | None = None) -> str:
    with create(home, {}, "own") as run:
        run.add_tasks("b", [Task(f"t{n}", "?") for n in range(6)])
        for agent, value in (("low", 0.2), ("high", 0.6)):
            run.add_agent(agent, {"name": agent})
            for n in range(6):
                scores = (Score(name, value + n / 100, dict(detail)),)
                run.append(Trace(f"{agent}{n}", "b", f"t{n}", {"name": agent}, 0, 0, "", 1.0, scores=scores))
        return run.id


def test_a_scorer_of_ones_own_that_states_no_direction_keeps_it_and_each_table_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    id = own_run(tmp_path, "wer", {})
    with open_run(id, tmp_path) as run:
        [told] = unstated_directions(run)
        [board] = leaderboard(run.traces())
        assert not harm_benchmarks(run) and told == f"{board.unstated}." and told in board.to_json()["caveats"]
    assert told.startswith("Higher counts as better for wer, whose name says that lower is")
    made = make_board(read_results([id], tmp_path), BoardSpec("mine"))
    assert [line.model for line in made.sections[0].lines] == ["high", "low"] and told in made.remarks
    for words in (["compare", id], ["compare", id, id], ["summary", id], ["gate", id, id], ["show", id]):
        main(words)
        out, err = capsys.readouterr()
        assert "wer, whose name says that lower is" in " ".join((err + out).split()), words


@pytest.mark.parametrize(
    ("name", "detail"),
    [("wer", {"is_harm": True}), ("wer", {"is_harm": False}), ("acc", {}), ("calibration_error", {"corpus": {}})],
)
def test_a_stated_direction_or_another_name_has_no_such_sentence(
    tmp_path: Path, name: str, detail: dict[str, Any]
) -> None:
    with open_run(own_run(tmp_path, name, detail), tmp_path) as run:
        assert unstated_directions(run) == [] and unstated_directions(run, score="none") == []
        assert not leaderboard(run.traces())[0].unstated
    assert unstated_direction("wer", []) and not unstated_direction("wer", [{}, {"is_harm": False}])


@pytest.mark.skipif(importlib.util.find_spec("inspect_ai") is None, reason="needs pip install 'firsthand[inspect]'")
def test_a_task_of_inspect_marks_numbers_and_figures_by_their_names() -> None:
    from inspect_ai.scorer import Score as Verdict

    from firsthand.bridges.inspect.sample_scores import _scores

    assert [each.is_harm for each in _scores("wer", Verdict(value=0.5))] == [True]
    assert [each.is_harm for each in _scores("error", Verdict(value="C"))] == [False]
    both = _scores("parts", Verdict(value={"acc": 1, "cer": 0.25}))
    assert [(each.name, each.is_harm) for each in both] == [("parts/acc", False), ("parts/cer", True)]
    assert both[0].detail["scorer"] == "parts" and both[1].detail == {"is_harm": True}


def test_a_name_that_ends_in_a_metric_of_which_higher_is_better_may_still_not_say_so() -> None:
    for name in (
        "steps_to_success", "time_to_first_success", "cost_per_success", "false_match_rate", "no_match", "1-accuracy",
        "1 - accuracy", "std_reward", "attack_success_rate", "delta_accuracy", "inverse_accuracy",
    ):  # fmt: skip
        assert not is_higher_better(name) and not is_lower_better(name), name
    for name in ("1-shot error", "1-best WER", "1 step loss", "1-gram perplexity"):
        assert is_lower_better(name) and not is_higher_better(name), name
    for name in (
        "1-WER", "1 - wer", "1/perplexity", "1-nnlm_loss", "1-shot accuracy", "pass@1", "top-1 accuracy"
    ):  # fmt: skip
        assert is_higher_better(name) and not is_lower_better(name), name
