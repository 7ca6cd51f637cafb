"""Readers of result files at their edges: which layout a file is read in, what is left out, and each sentence "
"of refusal."""

from __future__ import annotations

import gzip
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import pytest

from firsthand.benchmarks.sources.tables import TableRow, read_table
from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores
from firsthand.boards.read_results import _of_json, _raw, read_results
from firsthand.boards.result_formats.code_reports import evalplus_board_results, evalplus_results, swe_results
from firsthand.boards.result_formats.every_eval_results import every_eval_results
from firsthand.boards.result_formats.helm_results import helm_run_results, helm_table_results
from firsthand.boards.result_formats.inspect_logs import inspect_results
from firsthand.boards.result_formats.lm_eval_results import lm_eval_results
from firsthand.boards.result_formats.mteb_results import mteb_results
from firsthand.boards.result_formats.score_tables import item_rows, long_rows, wide_rows
from firsthand.boards.result_formats.swe_leaderboards import swe_instance_results, swe_leaderboard_results
from firsthand.errors import ConfigError, DataError, StoreError
from firsthand.stats.metric_names import is_lower_better


def refusal(found: Any) -> str:
    """The sentence with which a reader refuses."""
    with pytest.raises((DataError, ConfigError, StoreError)) as told:
        list(found() if callable(found) else found)
    return str(told.value)


def rows(*given: dict[str, Any]) -> list[TableRow]:
    return [TableRow(each, f"t.csv, line {number}") for number, each in enumerate(given, 2)]


def test_each_layout_of_json_is_told_by_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "org__m" / "rev" / "x.json"
    path.parent.mkdir(parents=True)
    (path.parent / "model_meta.json").write_text('{"name": "named"}')
    score = {"score_details": {"score": 0.5}, "evaluation_name": "b"}
    for body, model, benchmark in (
        ({"results": {"b": {"acc": 1}}, "versions": {}, "model_name": "lm"}, "lm", "b"),
        ({"eval": {"task": "b", "model": "i"}, "status": "success", "samples": [{"id": 1, "scores": {"s": 1}}]},
        "i", "b"),
        ({"header": [{"value": "M"}, {"value": "b", "lower_is_better": False}],
        "rows": [[{"value": "h"}, {"value": 1}]]},
         "h", "b"),
        ({"task_name": "b", "scores": {"test": [{"main_score": 1}]}}, "named", "b"),
        ({"resolved_instances": 1, "total_instances": 2, "model": "s"}, "s", "swe_bench_2"),
        ({"leaderboards": [{"name": "Lite", "results": [{"name": "l", "resolved": 5}]}]}, "l", "swe_bench_lite"),
        ({"v": {"t": {"resolved": True, "cost": 1}}}, "v", "swe_bench_bash_only"),
        ({"eval": {"Mbpp/1": {"base_status": "pass"}}, "hash": "x"}, "x", "mbpp"),
        ({"schema_version": "1", "model_info": {"id": "e"}, "evaluation_results": [score]}, "e", "b"),
        ({"p": {"pass@1": {"b": 50}}}, "p", "b"),
        ({"config": {"model": "c"}, "b": {"pass@1": 0.5}}, "c", "b"),
    ):  # fmt: skip
        first = next(_of_json(body, path, []))
        found = first.results()[0] if isinstance(first, ItemScores) else first
        assert (found.model, found.benchmark, found.source) == (model, benchmark, str(path)), body
    assert refusal(_of_json({"x": 1}, path, [])) == (
        f"{path} is in no known layout of results: a file of lm-evaluation-harness, Inspect, HELM, MTEB, SWE-bench, "
        "EvalPlus, bigcode-evaluation-harness or Every Eval Ever was expected"
    )
    (path.parent / "model_meta.json").unlink()
    assert next(_of_json({"task_name": "b", "scores": {"t": [{"main_score": 1}]}}, path, [])).model == "org/m"  # type: ignore[union-attr]


def test_a_packed_file_unpacks_to_at_most_what_a_plain_one_may_have(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b"x" * 3000))
    assert _raw(path, 3000) == b"x" * 3000 == _raw(path)
    assert refusal(lambda: _raw(path, 2999)) == f"{path} unpacks to more than 0 MiB: is it the right file?"
    for raw in (gzip.compress(b"x" * 3000)[:-1], b"{}", b""):
        path.write_bytes(raw)
        assert refusal(lambda: _raw(path)) == f"{path} is not a complete gzip file: fetch it again"
    (tmp_path / "b.json").write_bytes(gzip.compress(b"x"))
    assert _raw(tmp_path / "b.json") == gzip.compress(b"x")


def test_a_folder_holds_runs_of_helm_beside_files_and_a_folder_of_sheets_is_one_benchmark(tmp_path: Path) -> None:
    suite = tmp_path / "all" / "suite"
    stats = [{"name": {"name": "exact_match", "split": "test"}, "mean": 0.5}]
    for name, mean in (("b:model=x", 0.5), ("a:model=x", 0.25)):
        run = suite / name.replace(":", "_")
        (run / "deep").mkdir(parents=True)
        (run / "run_spec.json").write_text(json.dumps({"name": name, "adapter_spec": {"model": "m"}}))
        (run / "stats.json").write_text(json.dumps([{**stats[0], "mean": mean}]))
        (run / "deep" / "x.csv").write_text("model,benchmark,score\nno,no,1\n")
    (suite / "summary.csv").write_text("model,benchmark,score\nno,no,1\n")
    assert [each.model for each in read_results([tmp_path / "all"], tmp_path).results] == ["m", "m"], (
        "runs alone will do"
    )
    (tmp_path / "all" / "bad.csv").write_text("x\n1\n")
    (tmp_path / "all" / "own.csv").write_text("model,benchmark,score\no,c,0.75\n")
    found = read_results([tmp_path / "all"], tmp_path)
    assert [(each.model, each.benchmark, each.value, each.source) for each in found.results] == [
        ("m", "a", 0.25, str(suite / "a_model=x")), ("m", "b", 0.5, str(suite / "b_model=x")),
        ("o", "c", 0.75, f"{tmp_path}/all/own.csv, line 2"),
    ]  # fmt: skip
    assert found.remarks == (
        f"Left out: {tmp_path}/all/bad.csv holds no results: it has the columns x; model, benchmark and score, "
        f"or model and "
        "a column for each benchmark, were expected.",
    )
    (suite / "a_model=x" / "stats.json").write_text('[{"name": 3}]')
    assert refusal(lambda: read_results([tmp_path / "all"], tmp_path).results) == (
        f"{suite}/a_model=x begins as a file of results and is malformed "
        "(AttributeError: 'int' object has no attribute 'get')"
    )
    sheets = tmp_path / "sheets"
    sheets.mkdir()
    assert refusal(lambda: read_results([sheets], tmp_path).results) == (
        f"{sheets} holds no file of results: .csv, .tsv, .jsonl, .json or .eval was expected"
    )
    (sheets / "codes.json").write_text('{"run": "r", "when": "", "commit": "", "models": {"x": "m"}}')
    (sheets / "a.csv").write_text("item,model,grader,grade\n1,x,a,1\n1,x,b,0.75\n")
    graded = read_results([sheets], tmp_path)
    assert [(each.model, each.benchmark, each.value, each.run) for each in graded.results] == [
        ("m", "sheets", 0.875, "r")
    ]
    assert len(graded.remarks) == 1 and graded.remarks[0].startswith("sheets: 1 answer, Krippendorff's alpha ")


def test_tables_in_a_list_of_helm_and_rows_of_json_are_told_apart(tmp_path: Path) -> None:
    table = {
        "header": [{"value": "Model"}, {"value": "b", "lower_is_better": False}],
        "rows": [[{"value": "h"}, {"value": 1}]],
    }
    (tmp_path / "g.json").write_text(json.dumps([table, table | {"rows": [[{"value": "k"}, {"value": 0.25}]]}]))
    (tmp_path / "t.json").write_text('[{"item": "q1", "m": 1, "n": 0.5}]')
    (tmp_path / "w.tsv").write_text("name\tquiz\nm\t0.5\n")
    found = read_results([tmp_path / name for name in ("g.json", "t.json", "w.tsv")], tmp_path)
    assert [(each.model, each.benchmark, each.value) for each in found.results] == [
        ("m", "t", 1.0), ("n", "t", 0.5), ("h", "b", 1.0), ("k", "b", 0.25), ("m", "quiz", 0.5),
    ]  # fmt: skip
    (tmp_path / "e.json").write_text("[]")
    assert refusal(lambda: read_results([tmp_path / "e.json"], tmp_path).results) == (
        f"{tmp_path}/e.json holds no rows: is it truncated, or only a header?"
    )
    (tmp_path / "bad.csv").write_text("x,y\n1,2\n")
    assert refusal(lambda: read_results([tmp_path / "bad.csv"], tmp_path).results) == (
        f"{tmp_path}/bad.csv holds no results: it has the columns x, y; model, benchmark and score, or model and "
        f"a column "
        "for each benchmark, were expected"
    )
    (tmp_path / "a.txt").touch()
    assert refusal(lambda: read_results([tmp_path / "a.txt"], tmp_path).results) == (
        f"{tmp_path}/a.txt is no table of votes: give a file .csv, .tsv, .jsonl, .json, another tool's file of "
        "results, or a run"
    )
    (tmp_path / "cut.json").write_text('{"a": "' + "é" * 99)
    assert refusal(lambda: read_results([tmp_path / "cut.json"], tmp_path).results) == (
        f"{tmp_path}/cut.json: not JSON (is the file cut short?)"
    )


def test_lm_eval_files_that_lack_parts() -> None:
    body: dict[str, Any] = {
        "results": {
            "solo": {"acc": 0.5, "acc_stderr": "N/A", "acc_stderr,none": 0.1, "f1,none": 0.25,
            "f1_stderr,none": math.nan},
            "whole": {"acc,none": 0.75},
        },
        "versions": {"solo": 1, "whole": 2}, "group_subtasks": {"whole": [], "gone": ["solo"]},
        "configs": {"solo": {"num_fewshot": 4}, "whole": {"num_fewshot": 5}}, "n-shot": {"whole": 0},
        "higher_is_better": {"solo": {"acc": None, "f1": False}}, "date": "today", "model_name": "",
        "n-samples": {"solo": None},
        "config": {"model": "hf", "model_args": "dtype=x,pretrained=org/p=q,model=z"},
    }  # fmt: skip
    protocol = "lm-evaluation-harness, version {}, {}-shot"
    assert list(lm_eval_results(body, "f")) == [
        BoardResult("org/p=q", "solo", 0.5, protocol.format(1, 4), "acc", source="f"),
        BoardResult("org/p=q", "solo", 0.25, protocol.format(1, 4), "f1", lower_is_better=True, source="f"),
        BoardResult("org/p=q", "whole", 0.75, protocol.format(2, 0), "acc", source="f"),
    ]
    for arguments, model in (
        ({"model": "m"}, "m"),
        ({"pretrained": "p", "model": "m"}, "p"),
        ("x=1", "hf"),
        (None, "hf"),
    ):
        config = {"model": "hf", "model_args": arguments}
        assert next(lm_eval_results({**body, "config": config}, "f")).model == model, arguments


def test_logs_of_inspect_without_samples_or_parts() -> None:
    body: dict[str, Any] = {
        "status": "success", "eval": {"task": "quiz", "model": "m", "task_args": {}, "revision": None, "dataset": None},
        "samples": [{"id": 1, "scores": {"s": {"value": "?"}}}],
        "results": {
            "completed_samples": 7,
            "scores": [
                {"name": "a", "metrics": {"mean": {"value": 0.5}, "std": {"value": 2}, "stderr": {"value": "x"}}},
                {"name": "b", "metrics": {"mean": {"value": None}, "stderr": {"value": 0}, "max": {"value": 1}}},
                {"name": "c", "metrics": None},
            ],
        },
    }  # fmt: skip
    protocol = "Inspect, task version None"
    assert list(inspect_results(body, "f", [])) == [
        BoardResult("m", "quiz", value, protocol, f"{name}", error, 7, source="f")
        for name, value, error in (("a/mean", 0.5, None), ("a/std", 2.0, None), ("b/max", 1.0, 0.0))
    ]
    assert list(inspect_results({**body, "results": None}, "f", [])) == []
    assert refusal(inspect_results({**body, "status": "started"}, "f", [])) == (
        "f: the log ended with the status 'started': only finished evaluations count"
    )


def test_a_log_of_another_form_is_refused_by_name_as_json_and_in_an_archive(tmp_path: Path) -> None:
    body: dict[str, Any] = {"status": "success", "eval": {"task": "quiz", "model": "m"}, "results": {"scores": 7}}
    packed, plain = tmp_path / "log.eval", tmp_path / "log.json"
    plain.write_text(json.dumps(body))
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("header.json", json.dumps(body))
    for path in (packed, plain):
        assert refusal(lambda path=path: read_results([path], tmp_path).results) == (
            f"{path} begins as a file of results and is malformed (TypeError: 'int' object is not iterable)"
        )


def test_reports_of_swe_bench_by_their_counts() -> None:
    for total, benchmark in (
        (500, "swe_bench_verified"),
        (300, "swe_bench_lite"),
        (2294, "swe_bench"),
        (299, "swe_bench_299"),
    ):
        [found] = swe_results({"resolved_instances": 3, "total_instances": total}, Path("a__b.json"))
        assert isinstance(found, BoardResult) and (found.benchmark, found.model, found.run, found.cost_usd) == (
            benchmark, "a/b", "", None,
        )  # fmt: skip
    costs = {"resolved_instances": 1, "total_instances": 4}
    for cost, each in (({"cost_usd": 8}, 2.0), ({"cost_usd": 8, "total_cost_usd": 2}, 0.5), ({"cost_usd": True}, None),
                       ({"total_cost_usd": None, "cost_usd": 8}, None), ({"cost_usd": 0}, 0.0)):  # fmt: skip
        [found] = swe_results({**costs, **cost, "model_name_or_path": "n"}, Path("x.json"))
        assert isinstance(found, BoardResult) and (found.cost_usd, found.model, found.value) == (each, "n", 0.25), cost
    said = "f.json: {} resolved of {} instances: a report with both numbers was expected"
    for body, told in (
        ({"resolved_instances": 5, "total_instances": 4}, said.format(5, 4)), ({"resolved_ids": []}, said.format(0, 0)),
        ({"resolved_ids": ["a"], "submitted_ids": 3}, said.format(1, 0)),
        ({"resolved_instances": "1", "total_instances": 4}, said.format("'1'", 4)),
    ):  # fmt: skip
        assert refusal(swe_results(body, Path("f.json"))) == told
    stray = {"resolved_ids": ["z", "y"], "submitted_ids": ["a", "b"]}
    assert refusal(swe_results(stray, Path("f.json"))) == (
        "f.json: 'y' is resolved and was not submitted: is the report edited?"
    )


def test_runs_of_evalplus_are_means_over_samples() -> None:
    both = [("pass", "pass"), ("pass", "fail"), ("fail", "pass"), ("pass", "timeout")]
    samples = [{"base_status": base, "plus_status": plus} for base, plus in both]
    body = {"hash": 7, "eval": {"Mbpp/2": samples, "Mbpp/10": {"base_status": "fail", "plus_status": "fail"}}}
    base, plus = evalplus_results(body, Path("a--b--c_temp_0.8.eval_results.json"))
    about = BoardResult("a/b/c", "mbpp", 0.0, source="a--b--c_temp_0.8.eval_results.json", data_hash="7")
    assert (base.key, base.models, base.tasks, base.abouts) == (
        ColumnKey("mbpp", "EvalPlus", "pass@1"), ("a/b/c",), ("Mbpp/10", "Mbpp/2"), (about,),
    )  # fmt: skip
    assert base.scores.tolist() == [[0.0, 0.75]] and plus.scores.tolist() == [[0.0, 0.25]]
    assert plus.abouts[0].benchmark == "mbpp_plus" == plus.key.benchmark
    assert (
        refusal(evalplus_results({"hash": 1, "eval": {}}, Path("f")))
        == "f: it evaluates no task: is the file cut short?"
    )
    assert refusal(evalplus_results({"hash": 1, "eval": {"a": [{"plus_status": "pass"}]}}, Path("f"))) == (
        "f: a has no base_status: EvalPlus 0.2 or later was expected"
    )
    board = {"m": {"pass@1": {"humaneval+": 0, "mbpp+": "12.5"}}}
    assert [(each.benchmark, each.value) for each in evalplus_board_results(board, "f")] == [
        ("humaneval_plus", 0.0), ("mbpp_plus", 0.125),
    ]  # fmt: skip


def test_records_of_every_eval_ever_at_their_edges() -> None:
    def cell(name: str, score: Any, **more: Any) -> dict[str, Any]:
        return {"evaluation_name": name, "score_details": {"score": score}, **more}

    body: dict[str, Any] = {
        "model_info": {"name": "n"}, "source_data": {"url": "u", "hf_repo": "r"},
        "source_metadata": {"source_name": "src"},
        "evaluation_source": {"evaluation_source_name": "other"},
        "evaluation_results": [
            cell("A - B - C", 0), cell("low", -1, metric_config={"min_score": -1}), cell("Mean win rate", 0.5),
            {"evaluation_name": "other", "score_details": {"score": 1, "details": {"tab": "Efficiency"}}},
            cell("own", 0.5, source_data={"hf_repo": "mine"}), cell("text", 0.25, source_data="plain"),
            cell("zero", -1.0, metric_config={"min_score": 0.0}), cell("less", 1, metric_config={"lower_is_better": 1}),
        ],
    }  # fmt: skip
    base = {"model": "n", "protocol": "src", "source": "f"}
    assert list(every_eval_results(body, "f")) == [
        BoardResult(benchmark="A - B", value=0.0, metric="C", data_hash="u", **base),
        BoardResult(benchmark="low", value=-1.0, data_hash="u", **base),
        BoardResult(benchmark="own", value=0.5, data_hash="mine", **base),
        BoardResult(benchmark="text", value=0.25, data_hash="plain", **base),
        BoardResult(benchmark="less", value=1.0, lower_is_better=True, data_hash="u", **base),
    ]
    assert (
        refusal(every_eval_results({**body, "model_info": {"id": 3}}, "f"))
        == "f: model_info names no model: an id was expected"
    )
    assert refusal(every_eval_results({**body, "evaluation_results": [cell("q", "x" * 60)]}, "f")) == (
        f"f: the score on q is '{'x' * 39}: a number was expected"
    )


def test_runs_and_tables_of_helm_at_their_edges() -> None:
    def stat(name: str, mean: Any, split: str = "test") -> dict[str, Any]:
        return {"name": {"name": name, "split": split}, "mean": mean}

    stats = [
        stat("rouge_2", 0.125),
        stat("ndcg_10", 0.25),
        stat("math_equiv_chain_of_thought", 0.5),
        stat("ndcg_10", 0.75),
    ]
    assert list(helm_run_results({"name": "s:model_deployment=a/b,k=1,model=c,j=2"}, stats, "f")) == [
        BoardResult("", "s:k=1,j=2", 0.75, "HELM, None, None-shot", "ndcg_10", source="f",
                    run="s:model_deployment=a/b,k=1,model=c,j=2"),
    ]  # fmt: skip
    names = "exact_match, quasi_exact_match, f1_score, ndcg_10, rouge_2, math_equiv_chain_of_thought"
    assert refusal(helm_run_results({}, {"a": 1}, "f")) == f"f: its stats hold none of {names} on the test split"
    assert (
        refusal(helm_run_results({}, [stat("rouge_2", "1")], "f"))
        == "f: the mean of rouge_2 is '1': a number was expected"
    )
    table = {
        "header": [{"value": "M"}, {"value": "X - Y - Z", "lower_is_better": False}],
        "rows": [[{"value": None}, {"value": "0.5"}]],
    }
    assert list(helm_table_results(table, "f")) == [BoardResult("", "X - Y", 0.5, "HELM", "Z", source="f")]
    assert refusal(helm_table_results({**table, "rows": [[{"value": "m"}]]}, "f")) == (
        "f: a row of 2 cells was expected: is the file cut short?"
    )


def test_mteb_files_without_a_score_are_refused() -> None:
    body = {"task_name": "STS12", "scores": {"test": [{"main_score": None}], "dev": 3}}
    assert refusal(mteb_results(body, Path("a/b/c.json"), {})) == (
        "a/b/c.json: a main_score of STS12 on test is None: a number was expected"
    )
    assert refusal(mteb_results({**body, "scores": {"test": []}}, Path("c"), {})) == (
        "c: the task STS12 has no scores: is the file cut short?"
    )
    en = {
        "test": [
            {"main_score": 1, "hf_subset": "en"},
            {"main_score": 0, "hf_subset": "default"},
            {"main_score": 0.75},
            {"main_score": 0.5, "hf_subset": None},
            {"main_score": 9, "hf_subset": "None"},
            {"main_score": 0.125, "hf_subset": "de"},
        ]
    }
    [found] = mteb_results(
        {"task_name": "STS22.v2", "scores": en, "dataset_revision": None}, Path("o__m/r/x"), {"name": ""}
    )
    assert found == BoardResult("o/m", "STS22.v2", 0.5625, "MTEB, split test", "main_score", group="STS",
    source="o__m/r/x",
                                commit="mteb None")  # fmt: skip


def test_hidden_systems_of_swe_bench_are_told_together() -> None:
    def row(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "resolved": 10, **more}

    lists = [{"name": "Test", "results": [row("a", warning="w"), row("a", folder="f")]},
             {"name": "Verified", "results": [row("b", warning="w"),
                                              row("c", **{"mini-swe-agent_version": "0.1"})]}]  # fmt: skip
    remarks: list[str] = []
    first, last = swe_leaderboard_results({"leaderboards": lists}, "f", remarks)
    assert isinstance(first, BoardResult) and isinstance(last, BoardResult)
    assert (first.model, first.benchmark, first.n, first.run) == ("a [f]", "swe_bench", 2294, "f")
    assert (last.model, last.benchmark, last.n, last.protocol) == (
        "c",
        "swe_bench_verified",
        500,
        "mini-SWE-agent before 2",
    )
    assert remarks == [
        "2 results carry SWE-bench's warning and are left out, as on its page: a on swe_bench, b on swe_bench_verified."
    ]
    costs = {
        "m": {
            "t1": {"resolved": True, "cost": 3},
            "t2": {"resolved": False, "cost": None},
            "t3": {"resolved": True, "cost": 0},
        }
    }
    [items] = swe_instance_results(costs, "f")
    assert [each.cost_usd for each in items.abouts] == [1.0] and items.scores.tolist() == [[1, 0, 1]], (
        "of all instances"
    )
    wrong = {"leaderboards": [{"name": "Lite", "results": [{"name": "q", "resolved": 100.5}]}]}
    assert refusal(swe_leaderboard_results(wrong, "f", [])) == "f: q resolved 100.5: a percentage was expected"
    assert refusal(swe_leaderboard_results({"leaderboards": [{"name": "New", "results": []}]}, "f", [])) == (
        "f: the list 'New' is unknown: Test, Verified, Lite, Multimodal, Multilingual, bash-only were expected"
    )


@pytest.mark.parametrize(
    ("name", "lower"),
    [
        ("perplexity", True), ("word_perplexity", True), ("bits_per_byte", True), ("Eval Loss", True), ("WER", True),
        ("error_rate", True), ("rate of errors made", True), ("mean squared error", True), ("rmse", True), ("ECE", True),
        ("brier_score", True), ("acc", False), ("", False), ("error_detection", False), ("error detection F1", False),
        ("neg_loss", False), ("negative log perplexity", False), ("brier skill score", False), ("lossless", False),
        ("pass rate", False), ("win rate", False), ("answer", False), ("wer", True), ("WordErrorRate", True),
        ("negative_log_likelihood", True), ("neg loglikelihood", True), ("cross entropy", True), ("entropy", False),
        ("neg_mean_squared_error", False), ("negative mean squared error", False), ("no_error", False),
        ("non_english_perplexity", True), ("no cot loss", True), ("error_correction", False),
        ("loss_of_consciousness_accuracy", False), ("error_detection_rate", False), ("error correction success rate", False),
        ("MAE accuracy", False), ("4 bits accuracy", False), ("8 bits", False), ("bits/byte", True), ("Loss (nats)", True),
        ("mean", False), ("error (%)", True), ("error_mean", True), ("1 - error", False), ("accuracy (1-WER)", False),
        ("Task 1 - error", True), ("top-1-error", True), ("error reduction", False), ("loss", True), ("rate", False),
    ],
)  # fmt: skip
def test_the_names_of_errors_and_losses_say_that_lower_is_better(name: str, lower: bool) -> None:
    assert is_lower_better(name) is lower


def test_what_a_table_says_of_its_direction_goes_before_the_name() -> None:
    def lower(**cells: Any) -> bool:
        [found] = long_rows(rows({"model": "m", "benchmark": "wiki ppl", "score": 0.5, **cells}), Path("t.csv"))
        return found.lower_is_better

    assert lower() and lower(metric="loss") and not lower(metric="acc") and lower(lower_is_better=" ")
    assert not any(lower(lower_is_better=said) for said in (False, 0, 0.0, "false", " No ", "0"))
    assert all(lower(metric="acc", lower_is_better=said) for said in (True, 1, 1.0, "TRUE", "yes", "1"))
    given = rows({"model": "m", "benchmark": "b", "score": 1, "lower_is_better": "lower"})
    assert refusal(long_rows(given, Path("t"))) == (
        "t.csv, line 2: lower_is_better is 'lower': true or false was expected"
    )
    wide = wide_rows(rows({"model": "m", "acc": 1, "val_loss": 2}), Path("t.csv"), [])
    assert [each.lower_is_better for each in wide] == [False, True]
    [items] = item_rows(rows({"item": "q", "m": 1}), Path("wer.csv"))
    assert [each.lower_is_better for each in items.results()] == [True]


def test_results_of_other_tools_that_state_no_direction_have_that_of_the_metric() -> None:
    figures = {"word_perplexity,none": 12.0, "bits_per_byte,none": 0.9, "acc,none": 0.5}
    body: dict[str, Any] = {"results": {"wikitext": figures}, "versions": {}, "config": {"model": "m"}}
    assert [each.lower_is_better for each in lm_eval_results(body, "f")] == [True, True, False]
    body["higher_is_better"] = {"wikitext": {"word_perplexity": True, "acc": False}}
    assert [each.lower_is_better for each in lm_eval_results(body, "f")] == [False, True, True]

    def ever(title: str, config: dict[str, Any]) -> bool:
        result = {"evaluation_name": title, "score_details": {"score": 0.5}, "metric_config": config}
        [found] = every_eval_results({"model_info": {"name": "n"}, "evaluation_results": [result]}, "f")
        return found.lower_is_better

    assert ever("LibriSpeech - WER", {}) and not ever("LibriSpeech - WER", {"lower_is_better": False})
    assert ever("QA - EM", {"lower_is_better": True}) and not ever("QA - EM", {})
    scores = [{"name": "wer", "metrics": {"mean": {"value": 0.5}}}, {"name": "match", "metrics": {"rmse": {"value": 1}}},
              {"name": "match", "metrics": {"mean": {"value": 0.5}}}]  # fmt: skip
    log: dict[str, Any] = {"eval": {"model": "m", "task": "t"}, "status": "success", "results": {"scores": scores}}
    assert [each.lower_is_better for each in inspect_results(log, "f", [])] == [True, True, False]
    log["samples"] = [{"id": 1, "scores": {"wer": {"value": 0.5}, "match": {"value": 0.5}}}]
    assert [each.results()[0].lower_is_better for each in inspect_results(log, "f", [])] == [True, False]


def test_a_table_may_have_a_suffix_in_capitals_and_blanks_around_names(tmp_path: Path) -> None:
    (tmp_path / "S.CSV").write_text("model,benchmark,score\nA , x,0.5\n A,z ,0.25\n")
    (tmp_path / "w.Tsv").write_text("model\ty\n A \t0.5\n")
    found = read_results([tmp_path], tmp_path).results
    assert sorted((each.model, each.benchmark, each.value) for each in found) == [
        ("A", "x", 0.5), ("A", "y", 0.5), ("A", "z", 0.25),
    ]  # fmt: skip
    (tmp_path / "L.CSV.GZ").write_bytes(gzip.compress(b"model,benchmark,metric,score\nA,v,acc,0.5\nB,v,acc ,0.25\n"))
    assert len({each.key for each in read_results([tmp_path / "L.CSV.GZ"], tmp_path).results}) == 1
    (tmp_path / "semi.CSV").write_text("model;score\nA;1\n")
    with pytest.raises(DataError, match="has semicolons between its columns"):
        read_table(tmp_path / "semi.CSV")
