"""Every field of the results that are read from other tools' files, and the edges at which a file is refused."""

from __future__ import annotations

import json
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores
from firsthand.boards.result_formats.code_reports import (
    bigcode_results,
    evalplus_board_results,
    evalplus_results,
    is_bigcode,
    is_evalplus,
    is_evalplus_board,
    is_swe_report,
    swe_results,
)  # fmt: skip
from firsthand.boards.result_formats.every_eval_results import every_eval_results, is_every_eval
from firsthand.boards.result_formats.helm_results import (
    helm_run_results,
    helm_runs,
    helm_table_results,
    helm_tables,
    side_files,
)  # fmt: skip
from firsthand.boards.result_formats.inspect_logs import inspect_results, is_inspect, read_archive
from firsthand.boards.result_formats.lm_eval_results import is_lm_eval, lm_eval_results
from firsthand.boards.result_formats.mteb_results import is_mteb, mteb_results
from firsthand.boards.result_formats.swe_leaderboards import (
    is_swe_instances,
    is_swe_leaderboards,
    swe_instance_results,
    swe_leaderboard_results,
)  # fmt: skip
from firsthand.errors import DataError


def plain(items: ItemScores) -> tuple[Any, ...]:
    """Key, models, tasks, scores and what is told of each model."""
    return items.key, items.models, items.tasks, items.scores.tolist(), items.abouts


def test_lm_eval_every_field() -> None:
    body = {
        "results": {
            "quiz": {"alias": "quiz", "acc,strict": 0.5, "acc_stderr,strict": 0.125, "loss,none": 2.0, "flag,none": True,
                     "nan,none": float("nan"), "text,none": "x", "plain": 0.25, "plain_stderr": 0.5},
            "group": {"acc,none": 0.9}, "broken": 3,
        },
        "group_subtasks": {"group": ["quiz"], "quiz": []},
        "configs": {"quiz": {"num_fewshot": 3}},
        "versions": {"quiz": 2}, "n-samples": {"quiz": {"original": 10, "effective": 7}},
        "higher_is_better": {"quiz": {"acc": True, "loss": False}},
        "config": {"model": "hf", "model_args": {"pretrained": "org/m"}}, "git_hash": "abc", "date": 1735689600.0,
        "task_hashes": {"quiz": "feed"},
    }  # fmt: skip
    assert is_lm_eval(body) and not is_lm_eval({"results": {}}) and not is_lm_eval({"results": [], "versions": {}})
    base = {"model": "org/m", "benchmark": "quiz", "n": 7, "when": "2025-01-01T00:00:00+00:00", "source": "f.json",
            "commit": "abc", "data_hash": "feed"}  # fmt: skip
    protocol = "lm-evaluation-harness, version 2, 3-shot"
    assert list(lm_eval_results(body, "f.json")) == [
        BoardResult(value=0.5, protocol=f"{protocol}, filter strict", metric="acc", error=0.125, **base),
        BoardResult(value=2.0, protocol=protocol, metric="loss", lower_is_better=True, **base),
        BoardResult(value=0.25, protocol=protocol, metric="plain", error=0.5, **base),
    ]
    bare = {
        "results": {"quiz": {"acc": 1}},
        "versions": {},
        "config": {"model_args": "model=org/x,dtype=f"},
        "n-shot": {"quiz": 0},
    }
    [only] = lm_eval_results(bare, "f")
    assert only == BoardResult("org/x", "quiz", 1.0, "lm-evaluation-harness, version None, 0-shot", "acc", source="f")
    named = {**bare, "model_name": "first", "n-shot": {}}
    assert [(each.model, each.protocol[-6:]) for each in lm_eval_results(named, "f")] == [("first", "?-shot")]
    assert next(lm_eval_results({**bare, "config": {"model": "hf"}}, "f")).model == "hf"


def test_inspect_every_field() -> None:
    body: dict[str, Any] = {
        "status": "success",
        "eval": {"task": "ns/quiz", "task_version": 3, "model": "m/one", "created": "2025-01-01T01:00:00+01:00",
                 "run_id": "r9", "dataset": {"name": "data"}, "revision": {"commit": "c0"}, "task_args": {"b": 1, "a": 2}},
        "results": {"completed_samples": 4, "scores": [
            {"name": "choice", "metrics": {"accuracy": {"value": 0.5}, "stderr": {"value": 0.25}, "odd": {"value": "x"}}}]},
        "samples": [
            {"id": 1, "scores": {"choice": {"value": "C"}, "other": 0.5}}, {"id": 2, "scores": {"choice": {"value": "I"}}},
            {"id": 1, "scores": {"choice": {"value": "P"}}}, {"id": 3, "scores": {"choice": {"value": True}}},
            {"id": 4, "scores": {"choice": {"value": "?"}}}, {"id": 5, "scores": {"choice": {"value": "N"}}},
            {"id": 6, "scores": None}, {"id": 7, "scores": {"choice": float("nan")}},
        ],
    }  # fmt: skip
    assert is_inspect(body) and not is_inspect({"eval": {}}) and not is_inspect([body])
    protocol = 'Inspect, task version 3, {"a": 2, "b": 1}'
    about = BoardResult("m/one", "quiz", 0.0, protocol, when="2025-01-01T00:00:00+00:00", source="f", run="r9", commit="c0",
                        data_hash="data")  # fmt: skip
    choice, other = inspect_results(body, "f", [])
    assert isinstance(choice, ItemScores) and isinstance(other, ItemScores)
    assert plain(choice) == (ColumnKey("quiz", protocol, "choice"), ("m/one",), ("1", "2", "3", "5"),
                             [[0.75, 0.0, 1.0, 0.0]], (about,))  # fmt: skip
    assert plain(other)[:4] == (ColumnKey("quiz", protocol, "other"), ("m/one",), ("1",), [[0.5]])
    [stated] = inspect_results({**body, "samples": []}, "f", [])
    assert stated == BoardResult(**vars(about) | {"value": 0.5, "metric": "choice/accuracy", "error": 0.25, "n": 4})
    with pytest.raises(DataError, match=r"f: the log ended with the status None: only finished"):
        list(inspect_results({"eval": body["eval"]}, "f", []))
    raw = BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("header.json", json.dumps({**body, "samples": None}))
        archive.writestr("samples/1.json", json.dumps(body["samples"][0]))
        archive.writestr("other/2.json", json.dumps(body["samples"][1]))
    assert read_archive(raw.getvalue(), "f")["samples"] == body["samples"][:1]


def test_swe_reports_every_field(tmp_path: Path) -> None:
    path = tmp_path / "org__gpt-4.1.run7.json"
    counts = {"resolved_instances": 3, "total_instances": 300, "total_cost_usd": 60}
    assert is_swe_report(counts) and is_swe_report({"resolved_ids": []}) and not is_swe_report({"submitted_ids": []})
    assert list(swe_results(counts, path)) == [
        BoardResult("org/gpt-4.1", "swe_bench_lite", 0.01, "SWE-bench harness, 300 instances", "resolved", n=300,
                    cost_usd=0.2, source=str(path), run="run7"),
    ]  # fmt: skip
    ids = {
        "resolved_ids": ["b"],
        "submitted_ids": ["b", "a"],
        "incomplete_ids": ["c"],
        "total_instances": 3,
        "model": "m__x",
    }
    [items] = swe_results(ids, Path("report.json"))
    assert isinstance(items, ItemScores)
    about = BoardResult(
        "m/x", "swe_bench_3", 1 / 3, "SWE-bench harness, 3 instances", "resolved", n=3, source="report.json"
    )
    assert plain(items) == (about.key, ("m/x",), ("a", "b", "c"), [[0.0, 1.0, 0.0]], (about,))
    [without] = swe_results({**ids, "total_instances": 4}, Path("report.json"))
    assert without == BoardResult(**vars(about) | {"value": 0.25, "n": 4, "benchmark": "swe_bench_4",
                                                   "protocol": "SWE-bench harness, 4 instances"})  # fmt: skip
    [own] = swe_results({"resolved_ids": ["a"], "submitted_ids": ["a", "b"], "benchmark": "mine"}, Path("plain.json"))
    assert isinstance(own, ItemScores) and own.key.benchmark == "mine" and own.models == ("plain",)
    for wrong in (
        {**counts, "resolved_instances": 301},
        {**counts, "resolved_instances": -1},
        {"resolved_instances": 0},
    ):
        with pytest.raises(DataError, match="resolved of"):
            list(swe_results(wrong, path))
    assert [each.value for each in swe_results({**counts, "resolved_instances": 300}, path)] == [1.0]
    with pytest.raises(DataError, match="'z' is resolved and was not submitted"):
        list(swe_results({**ids, "resolved_ids": ["z"]}, path))
    mixed = {"resolved_ids": [1, "x"], "submitted_ids": ["x", "1", 2], "incomplete_ids": [3], "total_instances": 4}
    [numbers] = swe_results(mixed, path)
    assert isinstance(numbers, ItemScores) and plain(numbers)[2:4] == (("1", "2", "3", "x"), [[1.0, 0.0, 0.0, 1.0]])
    for more in ({}, {"total_instances": 9}):
        with pytest.raises(DataError, match="'5' is resolved and was not submitted"):
            list(swe_results({**mixed, **more, "resolved_ids": ["x", 5, 6]}, path))
    with pytest.raises(DataError, match="'1' is resolved more than once"):
        list(swe_results({**mixed, "resolved_ids": [1, "1"]}, path))


def test_evalplus_and_bigcode_every_field() -> None:
    body = {
        "hash": "h1",
        "eval": {
            "HumanEval/1": [
                {"base_status": "pass", "plus_status": "fail"},
                {"base_status": "pass", "plus_status": "pass"},
            ],
            "HumanEval/0": {"base_status": "fail", "plus_status": "pass"},
        },
    }
    assert is_evalplus(body) and not is_evalplus({"eval": {}}) and not is_evalplus({"hash": 1})
    path = Path("org--m_temp_0.0_eval_results.json")
    base, plus = evalplus_results(body, path)
    told = BoardResult("org/m", "humaneval", 0.0, source=str(path), data_hash="h1")
    tasks = ("HumanEval/0", "HumanEval/1")
    assert plain(base) == (ColumnKey("humaneval", "EvalPlus", "pass@1"), ("org/m",), tasks, [[0.0, 1.0]], (told,))
    assert plus.key.benchmark == "humaneval_plus" and plus.scores.tolist() == [[0.0, 0.5]]
    assert (
        next(evalplus_results({"hash": 1, "eval": {"Mbpp/2": {"base_status": "pass"}}}, path)).key.benchmark == "mbpp"
    )
    for wrong in ({"hash": 1, "eval": {}}, {"hash": 1, "eval": {"a": []}}, {"hash": 1, "eval": {"a": [{}]}}):
        with pytest.raises(DataError):
            list(evalplus_results(wrong, path))
    board = {"m": {"pass@1": {"humaneval": 50.0, "humaneval+": 37.5, "mbpp": None}}}
    assert is_evalplus_board(board) and not is_evalplus_board({}) and not is_evalplus_board({**board, "n": {}})
    assert list(evalplus_board_results(board, "f")) == [
        BoardResult("m", name, value, "EvalPlus leaderboard", "pass@1", source="f")
        for name, value in (("humaneval", 0.5), ("humaneval_plus", 0.375))
    ]
    big = {"config": {"model": "m", "temperature": 0.2, "n_samples": 20, "revision": "main"}, "odd": 1,
           "mbpp": {"pass@1": 0.5, "pass@10": 0.75, "ok": True}}  # fmt: skip
    assert is_bigcode(big) and not is_bigcode({"config": {}}) and not is_bigcode({"mbpp": {"pass@1": 1}})
    assert list(bigcode_results(big, "f")) == [
        BoardResult("m", "mbpp", value, "bigcode-evaluation-harness, temperature 0.2, 20 samples", metric, source="f",
                    commit="main")
        for metric, value in (("pass@1", 0.5), ("pass@10", 0.75))
    ]  # fmt: skip


def test_helm_every_field(tmp_path: Path) -> None:
    table = {
        "title": "Accuracy",
        "header": [
            {"value": "Model"},
            {"value": "Mean win rate", "lower_is_better": False},
            {"value": "QuizQA - EM", "lower_is_better": False, "metadata": {"metric": "exact", "run_group": "quiz"}},
            {"value": "Other set - ECE", "lower_is_better": True},
            {"value": "# runs"},
            {"value": "BLEU", "lower_is_better": False},
        ],
        "rows": [
            [
                {"value": "m"},
                {"value": 0.9},
                {"value": 0.5, "run_spec_names": ["r1", "r2"]},
                {"value": 0.1},
                {"value": 3},
                {"value": None},
            ]
        ],
    }
    assert (
        helm_tables(table) == [table] and helm_tables([table, table]) == [table] * 2 and helm_tables({"rows": []}) == []
    )
    assert list(helm_table_results(table, "f")) == [
        BoardResult("m", "quiz", 0.5, "HELM", "exact", group="Accuracy", source="f", run="r1,r2"),
        BoardResult("m", "Other set", 0.1, "HELM", "ECE", lower_is_better=True, group="Accuracy", source="f"),
    ]
    for cells in (table["rows"][0][:5], [*table["rows"][0], {"value": 1}]):
        with pytest.raises(DataError, match="a row of 6 cells was expected"):
            list(helm_table_results({**table, "rows": [cells]}, "f"))
    spec = {
        "name": "mmlu:subject=law,model=org_m,model_deployment=x",
        "adapter_spec": {"model": "org/m", "method": "joint", "max_train_instances": 5, "max_eval_instances": 100},
    }

    def stat(name: str, mean: Any, split: str = "test", **more: Any) -> dict[str, Any]:
        return {"name": {"name": name, "split": split, **more}, "mean": mean}

    stats = [
        stat("f1_score", 0.3),
        stat("exact_match", 0.4, "valid"),
        stat("exact_match", 0.5, perturbation={"x": 1}),
        stat("quasi_exact_match", 0.6),
        stat("latency", 9),
    ]
    assert list(helm_run_results(spec, stats, "f")) == [
        BoardResult("org/m", "mmlu:subject=law", 0.6, "HELM, joint, 5-shot", "quasi_exact_match", n=0, source="f",
                    run="mmlu:subject=law,model=org_m,model_deployment=x"),
    ]  # fmt: skip
    assert next(helm_run_results({"name": "boolq:model=x"}, stats, "f")).benchmark == "boolq"
    assert next(helm_run_results({"name": "a:model=x,k=1"}, stats, "f")).benchmark == "a:k=1"
    with pytest.raises(DataError, match="its stats hold none of"):
        list(helm_run_results(spec, [stat("latency", 1)], "f"))
    with pytest.raises(DataError, match="the mean of f1_score is None"):
        list(helm_run_results(spec, [stat("f1_score", None)], "f"))
    run = tmp_path / "suite" / "run"
    run.mkdir(parents=True)
    (run / "stats.json").touch()
    assert helm_runs([*run.iterdir()]) == []
    (run / "run_spec.json").touch()
    assert helm_runs([*run.iterdir()]) == [run]
    files = [tmp_path / name for name in ("suite/runs.json", "suite/run/a/b.json", "suite/groups/g.json", "suite/x/y.json",
                                          "z.json")]  # fmt: skip
    assert side_files([run], files) == set(files[:3])


def test_mteb_every_field() -> None:
    def read(task: str, scores: Any, meta: Any = None) -> BoardResult:
        body = {"task_name": task, "scores": scores, "mteb_version": "2.0", "dataset_revision": "rev"}
        assert is_mteb(body)
        return next(mteb_results(body, Path("org__m/abc/T.json"), {"name": "named"} if meta is None else meta))

    def part(score: Any, subset: str | None = None) -> dict[str, Any]:
        return {"main_score": score, **({"hf_subset": subset} if subset else {})}

    assert read("STS17", {"test": [part(0.5, "en-en"), part(0.9, "ko-ko")], "dev": [part(0.1)]}) == BoardResult(
        "named", "STS17", 0.5, "MTEB, split test", "main_score", group="STS", source="org__m/abc/T.json",
        commit="mteb 2.0", data_hash="rev",
    )  # fmt: skip
    own = read("Mine", {"test": [part(0.5, "de"), part(0.75)], "dev": [part(0.25, "fr")]}, {})
    assert (own.model, own.value, own.protocol, own.group) == ("org/m", 0.5, "MTEB, split dev+test, 2 subsets", "")
    assert read("Mine", {"test": [part(0.5, "de")]}).protocol == "MTEB, split test, subset de"
    assert read("STS17", {"test": [part(0.5, "ko-ko")]}).protocol == "MTEB, split test, subset ko-ko"
    assert read("STS12", {"dev": [part(0.25)]}).value == 0.25
    assert read("Mine", {"test": [part(0.5, "en"), part(1, "de")]}).value == 0.75
    for wrong in ({"test": [part(True)]}, {"test": [part("x")]}, {"test": []}, {"test": 3}):
        with pytest.raises(DataError):
            read("Mine", wrong)
    assert not is_mteb({"task_name": "x", "scores": []}) and not is_mteb({"scores": {}})


def test_swe_leaderboards_every_field() -> None:
    def row(name: str, resolved: Any = 50.0, **more: Any) -> dict[str, Any]:
        return {"name": name, "resolved": resolved, **more}

    lists = [
        {
            "name": "Lite",
            "results": [
                row("a", 25.0, folder="f1", date="2025-01-02", instance_cost=0.5),
                row("a", 100, folder="f2", instance_cost=0),
                row("w", warning="x"),
            ],
        },
        {
            "name": "bash-only",
            "results": [
                row(
                    "c",
                    0,
                    **{
                        "mini-swe-agent_version": "1.9.1",
                        "per_instance_details": {
                            "i1": {"resolved": True, "cost": 2},
                            "i2": {"resolved": False, "cost": 1},
                        },
                    },
                ),
                row("d", **{"mini-swe-agent_version": "2.3"}),
            ],
        },
    ]
    body = {"leaderboards": lists}
    assert is_swe_leaderboards(body) and not is_swe_leaderboards({"leaderboards": []}) and not is_swe_leaderboards([])
    remarks: list[str] = []
    first, second, items, last = swe_leaderboard_results(body, "f", remarks)
    lite = {
        "benchmark": "swe_bench_lite",
        "protocol": "SWE-bench leaderboard",
        "metric": "resolved",
        "n": 300,
        "source": "f",
    }
    assert first == BoardResult("a [f1]", value=0.25, cost_usd=0.5, when="2025-01-02T00:00:00+00:00", run="f1", **lite)
    assert second == BoardResult("a [f2]", value=1.0, run="f2", **lite)
    bash = {"benchmark": "swe_bench_bash_only", "metric": "resolved", "n": 500, "source": "f"}
    about = BoardResult("c", value=0.0, protocol="mini-SWE-agent before 2", cost_usd=1.5, **bash)
    assert isinstance(items, ItemScores)
    assert plain(items) == (about.key, ("c",), ("i1", "i2"), [[1.0, 0.0]], (about,))
    assert last == BoardResult("d", value=0.5, protocol="mini-SWE-agent 2", **bash)
    assert remarks == ["1 results carry SWE-bench's warning and are left out, as on its page: w on swe_bench_lite."]
    for wrong in (-0.1, 100.1, True, None):
        with pytest.raises(DataError, match="a percentage was expected"):
            list(swe_leaderboard_results({"leaderboards": [{"name": "Lite", "results": [row("a", wrong)]}]}, "f", []))
    with pytest.raises(DataError, match="the list 'Full' is unknown"):
        list(swe_leaderboard_results({"leaderboards": [{"name": "Full", "results": []}]}, "f", []))
    verdicts = {"m": {"i1": {"resolved": True, "cost": 0.0}}, "n": {"i2": {"resolved": False, "cost": 3.0}}}
    assert is_swe_instances(verdicts) and not is_swe_instances({"m": {"i1": {"resolved": 1, "cost": 0}}})
    [both] = swe_instance_results(verdicts, "f")
    assert np.array_equal(both.scores, [[1, np.nan], [np.nan, 0]], equal_nan=True)
    assert [each.cost_usd for each in both.abouts] == [None, 3.0] and both.models == ("m", "n")


def test_every_eval_every_field() -> None:
    def result(name: str, score: Any, details: Any = None, **more: Any) -> dict[str, Any]:
        return {
            "evaluation_name": name,
            "score_details": {"score": score, **({"details": details} if details else {})},
            **more,
        }

    body = {
        "schema_version": "0.2", "evaluation_id": "e1", "model_info": {"id": "org/m", "name": "other"},
        "source_metadata": {"source_name": "HF Open LLM v2"}, "source_data": ["u1", "u2"],
        "evaluation_results": [
            result("IFEval", 0.5, metric_config={"evaluation_description": "strict", "lower_is_better": False}),
            result("Quiz - EM", 0.25, {"tab": "Accuracy"}, metric_config={"lower_is_better": True},
                   source_data={"hf_repo": "r"}),
            result("Quiz - ECE", 0.1, {"tab": "Calibration"}), result("Mean score", 0.9), result("none", None),
            result("missing", -1, metric_config={"min_score": 0}), result("low", -1),
        ],
    }  # fmt: skip
    assert is_every_eval(body) and not is_every_eval({"evaluation_results": []})
    base = {"model": "org/m", "protocol": "HF Open LLM v2", "source": "f", "run": "e1"}
    assert list(every_eval_results(body, "f")) == [
        BoardResult(benchmark="IFEval (not normalised)", value=0.5, metric="strict", data_hash="u1, u2", **base),
        BoardResult(benchmark="Quiz", value=0.25, metric="EM", lower_is_better=True, data_hash="r", **base),
        BoardResult(benchmark="low (not normalised)", value=-1.0, data_hash="u1, u2", **base),
    ]
    other = {
        **body,
        "source_metadata": {},
        "evaluation_source": {"evaluation_source_name": "HELM"},
        "model_info": {"name": "n"},
    }
    first = next(every_eval_results(other, "f"))
    assert (first.protocol, first.model, first.benchmark) == ("HELM", "n", "IFEval")
    for wrong in ({**body, "model_info": {}}, {**body, "evaluation_results": [result("a", True)]}):
        with pytest.raises(DataError):
            list(every_eval_results(wrong, "f"))
