"""Result files of other tools become board results, with protocol and origin; broken ones get a sentence."""

import contextlib
import gzip
import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firsthand.boards.board_results import BoardResult, ResultSet, utc_of
from firsthand.boards.board_spec import BoardSpec, load_board
from firsthand.boards.make_board import make_board
from firsthand.boards.read_results import read_results
from firsthand.boards.result_formats.rubric_grades import blind_sheet
from firsthand.cli import main
from firsthand.errors import ConfigError, DataError, UnknownName
from firsthand.system.source_commit import source_commit

LM_EVAL = {
    "results": {
        "arc_easy": {"alias": "arc_easy", "acc,none": 0.61, "acc_stderr,none": 0.01, "acc_norm,none": 0.58},
        "gsm8k": {"exact_match,strict-match": 0.2, "exact_match_stderr,strict-match": "N/A"},
        "mmlu": {"acc,none": 0.5},
    },
    "group_subtasks": {"mmlu": ["mmlu_law"], "arc_easy": []},
    "configs": {"gsm8k": {"num_fewshot": 5}},
    "versions": {"arc_easy": 1.0, "gsm8k": 3.0},
    "n-shot": {"arc_easy": 0, "gsm8k": 5},
    "n-samples": {"arc_easy": {"original": 2376, "effective": 2376}},
    "higher_is_better": {"arc_easy": {"acc": True}},
    "config": {"model": "hf", "model_args": "pretrained=org/small,dtype=float32"},
    "git_hash": "abc1234",
    "date": 1735689600.0,
    "task_hashes": {"gsm8k": "feed"},
}


def read(tmp_path: Path, name: str, body: Any) -> ResultSet:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(body if isinstance(body, str) else json.dumps(body))
    return read_results([path], tmp_path)


def one(results: ResultSet) -> BoardResult:
    (only,) = results.results
    return only


def test_lm_eval_results_keep_shots_filter_and_hashes(tmp_path: Path):
    found = {(each.benchmark, each.metric): each for each in read(tmp_path, "results_x.json", LM_EVAL).results}
    assert set(found) == {("arc_easy", "acc"), ("arc_easy", "acc_norm"), ("gsm8k", "exact_match")}
    easy, maths = found["arc_easy", "acc"], found["gsm8k", "exact_match"]
    assert (easy.model, easy.value, easy.error, easy.n) == ("org/small", 0.61, 0.01, 2376)
    assert easy.when == "2025-01-01T00:00:00+00:00" and easy.commit == "abc1234" and not easy.verified
    assert maths.protocol == "lm-evaluation-harness, version 3.0, 5-shot, filter strict-match" and maths.error is None
    assert maths.data_hash == "feed"


def test_two_versions_of_a_task_are_two_columns(tmp_path: Path):
    older = {**LM_EVAL, "versions": {"arc_easy": 0.0, "gsm8k": 2.0}, "config": {"model_args": "pretrained=org/old"}}
    for name, body in (("results_x.json", LM_EVAL), ("results_y.json", older)):
        (tmp_path / name).write_text(json.dumps(body))
    board = make_board(read_results([tmp_path], tmp_path), BoardSpec())
    told = sorted(section.title for section in board.sections if "gsm8k" in section.title)
    assert len(told) == 2 and "version 2.0" in told[0] and "version 3.0" in told[1]
    assert all(len(section.lines) == 1 for section in board.sections if "gsm8k" in section.title)


def test_lm_eval_metrics_are_not_mixed(tmp_path: Path):
    results = read(tmp_path, "results_x.json", LM_EVAL)
    with pytest.raises(
        ConfigError, match=r"arc_easy has results under 2 metrics, 'acc', 'acc_norm'.*--metric arc_easy="
    ):
        make_board(results, BoardSpec(rule="weighted"))


INSPECT: dict[str, Any] = {
    "version": 2,
    "status": "success",
    "eval": {"task": "ns/quiz", "task_version": 1, "model": "m/one", "created": "2025-01-01T01:00:00+01:00", "run_id": "r9",
             "dataset": {"name": "quiz"}, "revision": {"commit": "c0ffee"}, "task_args": {"shots": 2}},
    "results": {"completed_samples": 4, "scores": [
        {"name": "choice", "metrics": {"accuracy": {"value": 0.5}, "stderr": {"value": 0.25}}}]},
    "samples": [{"id": i, "epoch": 1, "scores": {"choice": {"value": v}}} for i, v in enumerate("CICP")],
}  # fmt: skip


def test_inspect_logs_with_samples_are_verified(tmp_path: Path):
    found = one(read(tmp_path, "log.json", INSPECT))
    assert found.verified and found.value == pytest.approx(2.5 / 4) and found.n == 4
    assert (found.benchmark, found.metric, found.run, found.commit) == ("quiz", "choice", "r9", "c0ffee")
    assert found.when == "2025-01-01T00:00:00+00:00" and '{"shots": 2}' in found.protocol


def test_inspect_logs_without_samples_are_reported(tmp_path: Path):
    found = one(read(tmp_path, "log.json", {**INSPECT, "samples": None}))
    assert (found.value, found.error, found.n, found.verified) == (0.5, 0.25, 4, False)


def test_inspect_archives_are_read_and_bounded(tmp_path: Path):
    path = tmp_path / "log.eval"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps({**INSPECT, "samples": None}))
        for sample in INSPECT["samples"]:
            archive.writestr(f"samples/{sample['id']}_epoch_1.json", json.dumps(sample))
    assert one(read_results([path], tmp_path)).value == pytest.approx(2.5 / 4)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="no readable Inspect log"):
        read_results([path], tmp_path)


def test_logs_of_failed_evaluations_do_not_count(tmp_path: Path):
    with pytest.raises(DataError, match="status 'error': only finished evaluations count"):
        read(tmp_path, "log.json", {**INSPECT, "status": "error"})


@pytest.mark.slow
def test_logs_that_inspect_writes_are_read(tmp_path: Path):
    inspect = pytest.importorskip("inspect_ai")
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import match
    from inspect_ai.solver import solver

    @solver
    def answers() -> Any:
        async def solve(state: Any, generate: Any) -> Any:
            state.output = ModelOutput.from_content("m", "no" if state.sample_id == 2 else "yes")
            return state

        return solve

    task = inspect.Task(
        [Sample(f"q{i}", target="yes") for i in range(3)], solver=answers(), scorer=match(), name="quiz"
    )
    for kind in ("eval", "json"):
        folder = tmp_path / kind
        inspect.eval(task, model="mockllm/model", log_dir=str(folder), log_format=kind, display="none")
        found = one(read_results([folder], tmp_path))
        assert (found.model, found.benchmark, found.metric, found.verified) == ("mockllm/model", "quiz", "match", True)
        assert found.value == pytest.approx(2 / 3) and found.when


def test_helm_tables_and_runs_are_read(tmp_path: Path):
    table = {
        "title": "Core",
        "header": [{"value": "Model"}, {"value": "BoolQ - EM", "lower_is_better": False, "metadata": {"run_group": "BoolQ"}},
                   {"value": "BoolQ - ECE", "lower_is_better": True}, {"value": "# eval"}],
        "rows": [[{"value": "a"}, {"value": 0.7, "run_spec_names": ["boolq:model=a"]}, {"value": 0.1}, {"value": 1000}],
                 [{"value": "b"}, {"value": 0.6}, {"value": None}, {"value": 1000}]],
    }  # fmt: skip
    found = [
        (each.model, each.benchmark, each.metric, each.lower_is_better)
        for each in read(tmp_path, "t.json", table).results
    ]
    assert found == [("a", "BoolQ", "EM", False), ("a", "BoolQ", "ECE", True), ("b", "BoolQ", "EM", False)]
    mean = {"value": "Mean win rate", "lower_is_better": False, "metadata": {}}
    wins = {"title": "All", "header": [{"value": "Model"}, mean], "rows": [[{"value": "a"}, {"value": 1.0}]]}
    assert len(read(tmp_path, "groups.json", [table, wins]).results) == 3  # HELM 0.5.16 writes a list of tables
    run = tmp_path / "runs" / "boolq"
    run.mkdir(parents=True)
    spec = {
        "name": "boolq:k=5,model=org_a",
        "adapter_spec": {"model": "org/a", "method": "generation", "max_train_instances": 5},
    }
    stat = {"name": {"name": "exact_match", "split": "test"}, "mean": 0.7}
    shifted = {"name": {"name": "exact_match", "split": "test", "perturbation": {"name": "typos"}}, "mean": 0.1}
    (run / "run_spec.json").write_text(json.dumps(spec))
    (run / "stats.json").write_text(
        json.dumps([shifted, stat, {"name": {"name": "exact_match", "split": "valid"}, "mean": 0.2}])
    )
    for side in (
        "runs/runs.json",
        "runs/boolq/instances.json",
        "runs/groups/core.json",
    ):  # as helm-summarize leaves them
        read_side = tmp_path / side
        read_side.parent.mkdir(exist_ok=True)
        read_side.write_text(json.dumps([table]))
    results_of_runs = read_results([tmp_path / "runs"], tmp_path)
    found_run = one(results_of_runs)
    assert not results_of_runs.remarks
    assert (found_run.model, found_run.benchmark, found_run.value) == ("org/a", "boolq:k=5", 0.7)
    assert found_run.protocol == "HELM, generation, 5-shot"


STS17 = {
    "ko-ko": 0.853556, "ar-ar": 0.831647, "en-ar": 0.771029, "en-de": 0.881418, "en-en": 0.932544, "en-tr": 0.755951,
}  # fmt: skip
COUNTERFACTUAL = {
    "validation": {"en-ext": 0.935586, "en": 0.903881, "de": 0.908369, "ja": 0.863734},
    "test": {"en-ext": 0.94003, "en": 0.914627, "de": 0.896039, "ja": 0.87152},
}


def mteb_body(task: str, splits: dict[str, dict[str, float]]) -> dict[str, Any]:
    scores = {
        split: [{"hf_subset": name, "main_score": value} for name, value in subsets.items()]
        for split, subsets in splits.items()
    }
    return {"task_name": task, "mteb_version": "1.38.9", "dataset_revision": "faeb", "scores": scores}


def test_mteb_results_count_the_split_and_subset_of_the_benchmark(tmp_path: Path):
    """Files of Qwen3-Embedding-0.6B in MTEB's repository of results; MTEB 2.26.24 gives .932544 and .914627 for them."""
    folder = tmp_path / "results" / "org__m" / "rev1"
    read(tmp_path, "results/org__m/rev1/STS17.json", mteb_body("STS17", {"test": STS17}))
    read(tmp_path, "results/org__m/rev1/Other.json", mteb_body("Other", {"dev": {"de": 0.2, "fr": 0.4}}))
    task = "AmazonCounterfactualClassification"
    read(tmp_path, f"results/org__m/rev1/{task}.json", mteb_body(task, COUNTERFACTUAL))
    (folder / "model_meta.json").write_text(json.dumps({"name": "org/m"}))
    found = {each.benchmark: each for each in read_results([tmp_path / "results"], tmp_path).results}
    sts = found["STS17"]
    assert (sts.model, sts.group, sts.data_hash, sts.commit) == ("org/m", "STS", "faeb", "mteb 1.38.9")
    assert (sts.value, found[task].value) == (0.932544, 0.914627)
    assert {sts.protocol, found[task].protocol} == {"MTEB, split test"}
    assert found["Other"].value == pytest.approx(0.3) and found["Other"].protocol == "MTEB, split dev, 2 subsets"


def test_a_result_in_another_language_is_no_result_of_the_english_benchmark(tmp_path: Path):
    results = [
        *read(tmp_path, "a/r/STS17.json", mteb_body("STS17", {"test": {"en-en": 0.9, "de": 0.1}})).results,
        *read(tmp_path, "b/r/STS17.json", mteb_body("STS17", {"test": {"ko-ko": 0.8}})).results,
        *read(tmp_path, "b/r/BIOSSES.json", mteb_body("BIOSSES", {"test": {"default": 0.8}})).results,
    ]
    section = make_board(ResultSet.of(results), load_board("mteb_eng")).sections[0]
    assert [each.model for each in section.unranked] == ["a", "b"] and section.unranked[1].missing == ("STS17",)


def test_swe_reports_count_what_was_not_submitted(tmp_path: Path):
    report = {
        "total_instances": 500,
        "resolved_ids": ["a"],
        "submitted_ids": ["a", "b"],
        "cost_usd": 50,
    }
    found = one(read(tmp_path, "org__m.run7.json", report))
    assert (found.model, found.benchmark, found.value, found.n) == ("org/m", "swe_bench_verified", 0.002, 500)
    assert found.cost_usd == 0.1 and found.run == "run7" and not found.verified
    whole = {"total_instances": 2, "resolved_ids": ["a"], "submitted_ids": ["a", "b"]}
    assert one(read(tmp_path, "m.r.json", whole)).verified
    # as swebench 5.0.2's make_run_report writes it: MODEL.RUN.json, and what was not submitted is incomplete
    part = {**whole, "total_instances": 3, "incomplete_ids": ["c"], "schema_version": 2}
    found = one(read(tmp_path, "org__coder-4.1.first.json", part))
    assert (found.model, found.run, found.n, found.verified) == ("org/coder-4.1", "first", 3, True)
    assert found.value == pytest.approx(1 / 3)
    with pytest.raises(DataError, match="'z' is resolved and was not submitted"):
        read(tmp_path, "m.r.json", {**whole, "resolved_ids": ["z"]})
    with pytest.raises(DataError, match="3 resolved of 2 instances"):
        read(tmp_path, "m.r.json", {"total_instances": 2, "resolved_instances": 3})


def test_swe_leaderboards_keep_names_apart_and_leave_warned_systems_out(tmp_path: Path):
    rows = [  # of data/leaderboards.json of SWE-bench's site
        {"name": "devlo", "folder": "20241213_devlo", "resolved": 58.2, "date": "2024-12-13", "warning": None},
        {"name": "devlo", "folder": "20241108_devlo", "resolved": 54.2, "date": "2024-11-08"},
        {"name": "Factory Code Droid", "folder": "f", "resolved": 37.0, "date": "2024-06-17", "warning": True},
    ]
    agents = [
        {"name": "GPT-5", "folder": "g", "resolved": 65.0, "instance_cost": 0.28, "mini-swe-agent_version": "1.7.0"},
        {"name": "Kimi K2", "folder": "k", "resolved": 43.8, "instance_cost": 0.0, "mini-swe-agent_version": "2.0.0"},
    ]
    lists = [{"name": "Verified", "results": rows}, {"name": "bash-only", "results": agents}]
    results = read(tmp_path, "leaderboards.json", {"leaderboards": lists})
    assert [(each.model, round(each.value, 4), each.n, each.when[:10]) for each in results.results[:2]] == [
        ("devlo [20241213_devlo]", 0.582, 500, "2024-12-13"),
        ("devlo [20241108_devlo]", 0.542, 500, "2024-11-08"),
    ]
    assert [(each.protocol, each.cost_usd) for each in results.results[2:]] == [
        ("mini-SWE-agent before 2", 0.28),
        ("mini-SWE-agent 2", None),
    ]
    assert results.remarks[0].startswith("1 results carry SWE-bench's warning") and "Code Droid" in results.remarks[0]
    assert len(make_board(results, load_board("swe_bench")).sections) == 3  # versions of mini-SWE-agent stay apart
    for changed, said in (
        ([{"name": "Verified", "results": [{**rows[0], "resolved": 582}]}], "devlo resolved 582: a percentage"),
        ([{"name": "Verified", "results": [{**rows[0], "resolved": None}]}], "devlo resolved None"),
        ([{"name": "Ultra", "results": rows}], "the list 'Ultra' is unknown"),
        ([{"name": "Lite", "results": [{"resolved": 1}]}], "malformed"),
    ):
        with pytest.raises(DataError, match=said):
            read(tmp_path, "leaderboards.json", {"leaderboards": changed})


def test_swe_instances_are_paired_and_priced(tmp_path: Path):
    def verdicts(resolved: str, cost: float) -> Any:
        return {f"d-{i}": {"resolved": each == "y", "cost": cost, "api_calls": 9} for i, each in enumerate(resolved)}

    body = {
        "gpt-5": verdicts("yyny", 0.5),
        "sonnet-4": {**verdicts("ynn", 0.25), "d-9": {"resolved": True, "cost": 0.25}},
    }
    first, second = (results := read(tmp_path, "info.json", body)).results
    assert (first.value, first.n, first.cost_usd, first.verified) == (0.75, 4, 0.5, True)
    assert (second.value, second.n, second.cost_usd) == (0.5, 4, 0.25)
    assert results.items[0].tasks == ("d-0", "d-1", "d-2", "d-3", "d-9")
    row = {"name": "A", "folder": "a", "resolved": 75.0, "instance_cost": 9, "per_instance_details": body["gpt-5"]}
    listed = one(read(tmp_path, "leaderboards.json", {"leaderboards": [{"name": "Lite", "results": [row]}]}))
    assert (listed.value, listed.n, listed.cost_usd, listed.verified) == (0.75, 4, 0.5, True)


def test_evalplus_needs_base_and_plus(tmp_path: Path):
    passes = [{"base_status": "pass", "plus_status": "fail"}]
    body = {
        "hash": "h",
        "eval": {"HumanEval/0": passes, "HumanEval/1": [{"base_status": "fail", "plus_status": "fail"}]},
    }
    found = {each.benchmark: each.value for each in read(tmp_path, "m_temp_0.0_eval_results.json", body).results}
    assert found == {"humaneval": 0.5, "humaneval_plus": 0.0}


def test_bigcode_metrics_are_read(tmp_path: Path):
    body = {"humaneval": {"pass@1": 0.3}, "config": {"model": "m", "temperature": 0.2, "n_samples": 20}}
    found = one(read(tmp_path, "metrics.json", body))
    assert found.metric == "pass@1" and found.protocol.endswith("temperature 0.2, 20 samples")


def test_open_llm_rows_are_normalised_already(tmp_path: Path):
    head = "fullname,Average,IFEval,BBH,MATH Lvl 5,GPQA,MUSR,MMLU-PRO\n"
    results = read(tmp_path, "rows.csv", head + "org/a,30,60,30,10,5,15,40\norg/b,10,20,10,0,1,3,14\n")
    lines = make_board(results, load_board("open_llm")).sections[0].lines
    assert lines[0].model == "org/a" and lines[0].score == pytest.approx((0.6 + 0.3 + 0.1 + 0.05 + 0.15 + 0.4) / 6)
    with pytest.raises(DataError, match="percents from 0 to 100"):
        read(tmp_path, "rows.csv", head + "org/a,30,-6,30,10,5,15,40\n")


def test_open_llm_subtasks_are_normalised_from_chance(tmp_path: Path):
    scores = {"leaderboard_musr_murder_mysteries": 0.75, "leaderboard_musr_object_placements": 0.1}
    body = {
        "results": {name: {"acc_norm,none": value} for name, value in scores.items()},
        "versions": {},
        "model_name": "m",
    }
    line = make_board(read(tmp_path, "r.json", body), load_board("open_llm")).sections[0].lines[0]
    assert line.score == pytest.approx((0.5 + 0.0) / 2)


def test_item_tables_take_no_answer_as_wrong(tmp_path: Path):
    results = read(tmp_path, "quiz.csv", "question_id,category,a,b\n1,x,1,-1\n2,x,0,1\n3,y,1,\n")
    assert {each.model: (each.value, each.n) for each in results.results} == {
        "a": (pytest.approx(2 / 3), 3),
        "b": (0.5, 2),
    }
    packed = tmp_path / "quiz.csv.gz"
    packed.write_bytes(gzip.compress((tmp_path / "quiz.csv").read_bytes()))
    assert len(read_results([packed], tmp_path).results) == 2
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(DataError, match="is not a complete gzip file"):
        read_results([packed], tmp_path)


GRADES = (
    "item,model,grader,criterion,grade,role\n"
    "1,a,x,,1.0,\n1,a,y,,0.9,\n"  # agree
    "2,a,x,,1.0,\n2,a,y,,0.0,\n2,a,z,,0.5,adjudicator\n"  # adjudicated
    "3,a,x,,1.0,\n3,a,y,,0.0,\n"  # open
    "4,a,x,,1.0,\n"  # single
)


def test_disagreeing_grades_wait_for_the_adjudicator(tmp_path: Path):
    results = read(tmp_path, "g.csv", GRADES)
    assert one(results).value == pytest.approx((0.95 + 0.5) / 2) and one(results).n == 2
    assert "4 answers, Krippendorff's alpha" in results.remarks[0] and "1 adjudicated" in results.remarks[0]
    assert [each.split(": ")[1] for each in results.remarks[1:]] == [
        "1 answer with disagreeing grades and no adjudicator left out.",
        "1 answer with one grade left out.",
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,a,x,,1.5,\n", "the grade is '1.5'"),
        ("1,a,,,0.5,\n", "grader is empty"),
        ("1,a,x,,1,boss\n", "the role is 'boss'"),
        ("1,a,x,,1,\n1,a,x,,0,\n", "twice: keep one"),
        ("1,a,x,,1,\n", "no answer with two grades"),
    ],
)
def test_wrong_grades_get_a_sentence(tmp_path: Path, row: str, message: str):
    with pytest.raises(DataError, match=message):
        read(tmp_path, "g.csv", "item,model,grader,criterion,grade,role\n" + row)


def test_the_grading_sheet_is_blind_and_double():
    answers = [(str(i), model, f"{model} says") for i in range(6) for model in ("gpt", "llama")]
    rows, key = blind_sheet(answers, ["x", "y", "z"], ["style"], seed=3)
    assert len(rows) == 2 * len(answers) and {row["model"] for row in rows} == set(key)
    assert not any(name in row["model"] for row in rows for name in ("gpt", "llama"))
    seen: dict[str, set[str]] = {}
    for row in rows:
        seen.setdefault(row["model"], set()).add(row["grader"])
    assert all(len(each) == 2 for each in seen.values())
    per = [sum(row["grader"] == who for row in rows) for who in "xyz"]
    assert max(per) - min(per) <= 1
    with pytest.raises(ConfigError, match="two graders"):
        blind_sheet(answers, ["x"], ["style"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "model,maths\nada,high\n", "no column of numbers"),
        ("t.csv", "model,benchmark,score\nada,maths,high\n", "line 2: score is 'high'"),
        ("t.csv", "model,benchmark,score,n\nada,maths,0.5,-3\n", "n is -3"),
        ("t.csv", "model,benchmark,score,date\nada,maths,0.5,soon\n", "the date is 'soon'"),
        ("t.csv", "model,benchmark,score,error\nada,maths,0.5,-1\n", "standard error"),
        ("t.csv", "model,benchmark,score\n,maths,0.5\n", "names no model"),
        ("t.csv", "question_id,a\n1,1\n1,0\n", "item '1' more than once"),
        ("t.csv", "question_id,a\n1,-2\n", "item scores are 0 or more"),
        ("t.csv", "thing,other\n1,2\n", "holds no results"),
        ("t.json", '{"a": 1}', "in no known layout"),
        ("t.json", '{"results": {"x": {"acc,none": 1}}, "versions": {}, "n-samples": {"x": 3}}', "malformed"),
        ("t.json", "{", "not JSON"),
        ("t.json", '{"task_name": "STS17", "scores": {"test": [{"main_score": "x"}]}}', "main_score of STS17"),
        ("t.json", '{"header": [{"value": "m"}], "rows": [[]]}', "a row of 1 cells"),
        ("t.json", '{"hash": "h", "eval": {}}', "evaluates no task"),
    ],
)
def test_broken_files_get_a_sentence(tmp_path: Path, name: str, text: str, message: str):
    with pytest.raises(DataError, match=message):
        read(tmp_path, name, text)


def test_missing_scores_are_missing_and_percent_signs_are_read(tmp_path: Path):
    table = "model,benchmark,score\na,x,45%\nb,x,n/a\nc,x,\n"
    assert one(read(tmp_path, "t.csv", table)).value == pytest.approx(0.45)


def test_clocks_of_other_zones_become_utc():
    assert utc_of("2025-01-01T02:00:00+02:00", "x") == utc_of("2025-01-01", "x") == "2025-01-01T00:00:00+00:00"


def test_a_broken_file_in_a_folder_is_told_and_left_out(tmp_path: Path):
    read(tmp_path / "all", "a.csv", "model,maths\nada,0.5\n")
    (tmp_path / "all" / "b.json").write_text("{")
    results = read_results([tmp_path / "all"], tmp_path)
    assert len(results.results) == 1 and "Left out: " in results.remarks[0]
    with pytest.raises(UnknownName):
        read_results(["no-such-run"], tmp_path)


def test_runs_are_verified_by_task(
    tmp_path: Path, cli: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    script = tmp_path / "answers.json"
    script.write_text(json.dumps(["Answer: 1"] * 4))
    code, _, err = cli("run", "arithmetic", "--model", f"scripted:{script}", "--limit", "4", "--pattern", "direct")
    assert code == 0, err
    code, out, err = cli("board", "last", "--origins", "--json")
    assert code == 0, err
    (line,) = json.loads(out)["sections"][0]["lines"]
    (result,) = line["results"].values()
    assert result["verified"] and result["n"] == 4 and result["run"] and "generated: levels 1-3" in result["protocol"]
    assert result["data_hash"].startswith("tasks-")
    assert result["commit"] == source_commit()  # empty where the package is installed, as CI has it


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nosuch",), "no board, file or run 'nosuch'"),
        (("composite", "nofile.csv"), "no file or run 'nofile.csv'"),
        (("last",), "there are no runs in"),
    ],
)
def test_a_source_that_is_not_there_is_named(
    words: tuple[str, ...],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["board", *words]) == 2
    assert says in capsys.readouterr().err


def every_eval(name: str, *cells: tuple, board: str = "helm_lite") -> dict[str, Any]:
    """A record of Every Eval Ever, schema 0.0.1, as its release 0.1.0 holds them."""
    return {
        "schema_version": "0.0.1",
        "evaluation_id": f"{board}/{name}/1764204739.8",
        "source_data": ["https://example.org/core_scenarios.json"],
        "evaluation_source": {"evaluation_source_name": board, "evaluation_source_type": "leaderboard"},
        "model_info": {"name": name.upper(), "id": name},
        "evaluation_results": [
            {
                "evaluation_name": title,
                "metric_config": {"lower_is_better": False, "min_score": 0.0, "max_score": 1.0},
                "score_details": {"score": score, "details": {"tab": tab}},
            }
            for title, score, tab in cells
        ],
    }


def test_records_of_every_eval_ever_are_read_as_helm_ranks_them(tmp_path: Path) -> None:
    cells = [
        ("Mean win rate", 0.57, "Accuracy"),
        ("NarrativeQA - F1", 0.782, "Accuracy"),
        ("NarrativeQA - Observed inference time (s)", 2.4, "Efficiency"),
        ("GSM8K - EM", -1, "Accuracy"),
    ]
    found = read(tmp_path, "yi.json", every_eval("01-ai/yi-34b", *cells)).results
    assert [(each.model, each.benchmark, each.metric, each.value) for each in found] == [
        ("01-ai/yi-34b", "NarrativeQA", "F1", 0.782)
    ]
    assert found[0].protocol == "helm_lite" and found[0].data_hash == "https://example.org/core_scenarios.json"
    newer = every_eval("org/m", ("BBH", 0.36, None), board="")
    newer |= {"source_metadata": {"source_name": "HF Open LLM v2"}, "schema_version": "0.2.0"}
    newer["evaluation_results"][0] |= {
        "score_details": {"score": 0.36},
        "source_data": {"source_type": "hf_dataset", "hf_repo": "SaylorTwift/bbh"},
    }
    [raw] = read(tmp_path, "bbh.json", newer).results
    assert (raw.benchmark, raw.protocol, raw.data_hash) == ("BBH (not normalised)", "HF Open LLM v2", "SaylorTwift/bbh")


def test_a_record_of_every_eval_ever_without_model_or_number_is_one_sentence(tmp_path: Path) -> None:
    record = every_eval("m", ("GSM8K - EM", "high", "Accuracy"))
    with pytest.raises(DataError, match="the score on GSM8K - EM is 'high': a number was expected"):
        read(tmp_path, "a.json", record)
    with pytest.raises(DataError, match="model_info names no model"):
        read(tmp_path, "b.json", record | {"model_info": {}})


def test_the_results_of_evalplus_leaderboard_are_percents_and_null_is_missing(tmp_path: Path) -> None:
    body = {
        "Code-13B": {"pass@1": {"humaneval": 56.1, "humaneval+": 52.4, "mbpp": None, "mbpp+": None}, "size": 13.0},
        "OpenCoder-8B": {"pass@1": {"humaneval": 81.7, "humaneval+": 77.4, "mbpp": 82.0, "mbpp+": 71.4}},
    }
    results = read(tmp_path, "results.json", body)
    assert {(each.model, each.benchmark): each.value for each in results.results if each.model == "Code-13B"} == {
        ("Code-13B", "humaneval"): pytest.approx(0.561),
        ("Code-13B", "humaneval_plus"): pytest.approx(0.524),
    }
    [section] = make_board(results, load_board("bigcode")).sections
    assert [line.model for line in section.lines] == ["OpenCoder-8B"]
    assert section.unranked[0].missing == ("mbpp", "mbpp_plus")


@pytest.mark.parametrize("odd", [10**400, -(10**400), math.inf, math.nan, "9" * 5000, [], {}, [[]], None, "\ud800"])
def test_any_value_in_a_file_of_results_is_read_or_told(tmp_path: Path, odd: Any):
    for place in odd_places(LM_EVAL):
        body = json.loads(json.dumps(LM_EVAL))
        within = body
        for key in place[:-1]:
            within = within[key]
        within[place[-1]] = odd
        with contextlib.suppress(DataError):
            read(tmp_path, "results_2025.json", body)


def odd_places(body: Any) -> list[tuple[Any, ...]]:
    """The path of each value in a body."""
    inner = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    return [path for key, value in inner for path in [(key,), *((key, *deeper) for deeper in odd_places(value))]]


def test_odd_numbers_in_other_tools_files_and_dates_at_the_end_of_time_are_told(tmp_path: Path):
    for name, body in (
        ("STS.json", {"task_name": "STS", "scores": {"test": [{"main_score": 10**400}]}, "dataset_revision": "x"}),
        (
            "every.json",
            {
                "schema_version": "0.1", "evaluation_id": "e", "model_info": {"name": "m", "id": "x"},
                "evaluation_results": [{"evaluation_name": "a", "metric_config": {}, "score_details": {"score": 10**400}}],
            },
        ),
    ):  # fmt: skip
        with pytest.raises(DataError):
            read(tmp_path, name, body)
    for date in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", 1e300):
        with pytest.raises(DataError, match="the date is"):
            utc_of(date, "x")
    assert utc_of("0001-01-01", "x") == "0001-01-01T00:00:00+00:00"


def test_a_definition_may_name_a_result_longer_than_a_files_name(tmp_path: Path):
    (tmp_path / "b.toml").write_text(f'results = ["{"x" * 5000}"]\n')
    assert load_board(str(tmp_path / "b.toml")).results == ("x" * 5000,)
