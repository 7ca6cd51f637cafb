"""Reads reports of code benchmarks: SWE-bench's, EvalPlus's, and those of bigcode-evaluation-harness."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores
from firsthand.errors import DataError
from firsthand.message import Json

SPLITS = {500: "swe_bench_verified", 300: "swe_bench_lite", 2294: "swe_bench"}
"""The split by its number of instances, where the report does not name it."""


def is_swe_report(body: Any) -> bool:
    """True for a report of SWE-bench's harness."""
    return isinstance(body, dict) and ("resolved_ids" in body or "resolved_instances" in body)


def swe_results(body: Json, path: Path) -> Iterator[BoardResult | ItemScores]:
    """The share of all instances of the split that were resolved; what was not submitted is not resolved.

    DataError if lists and counts of the report contradict each other.
    """
    _check_instances(body, path)
    resolved = body.get("resolved_ids")
    submitted = body.get("submitted_ids")
    total = body.get("total_instances") or (len(submitted) if isinstance(submitted, list) else 0)
    count = len(resolved) if isinstance(resolved, list) else body.get("resolved_instances")
    if not isinstance(total, int) or not isinstance(count, int) or not 0 <= count <= total or not total:
        raise DataError(f"{path}: {count!r} resolved of {total!r} instances: a report with both numbers was expected")
    model, _, run = path.stem.rpartition(".") if "." in path.stem else (path.stem, "", "")  # gpt-4.1.RUN.json
    model = str(body.get("model") or body.get("model_name_or_path") or model).replace("__", "/")
    benchmark = str(body.get("benchmark") or SPLITS.get(total, f"swe_bench_{total}"))
    cost = body.get("total_cost_usd", body.get("cost_usd"))
    each = cost / total if isinstance(cost, int | float) and not isinstance(cost, bool) else None
    base = BoardResult(
        model=model,
        benchmark=benchmark,
        value=count / total,
        protocol=f"SWE-bench harness, {total} instances",
        metric="resolved",
        n=total,
        cost_usd=each,
        source=str(path),
        run=run,
    )
    every = _ids(submitted) | _ids(body.get("incomplete_ids"))
    if isinstance(resolved, list) and len(every) == total:
        won = _ids(resolved)
        yield ItemScores.of(base.key, {model: {task: float(task in won) for task in sorted(every)}}, [base])
    else:
        yield base


def _ids(listed: Any) -> set[str]:
    """The ids of a list, as texts; none if it is no list."""
    return set(map(str, listed)) if isinstance(listed, list) else set()


def _check_instances(body: Json, path: Path) -> None:
    """DataError if an instance is listed twice or resolved without being submitted, or a count is not that of its list."""
    listed, counts = dict[str, set[str]](), dict[str, int]()
    for kind in ("submitted", "resolved"):
        ids, stated = body.get(f"{kind}_ids"), body.get(f"{kind}_instances")
        if isinstance(ids, list):
            listed[kind] = _ids(ids)
            if len(listed[kind]) < len(ids):
                twice = next(each for each, count in Counter(map(str, ids)).items() if count > 1)
                raise DataError(f"{path}: {twice!r:.100} is {kind} more than once: give each instance one verdict")
            if stated is not None and stated != len(ids):
                raise DataError(
                    f"{path}: {stated!r:.20} {kind} instances are stated and {len(ids)} listed: is the report edited?"
                )
            counts[kind] = len(ids)
        elif isinstance(stated, int):
            counts[kind] = stated
    if len(listed) == 2 and (stray := listed["resolved"] - listed["submitted"]):
        raise DataError(f"{path}: {min(stray)!r:.100} is resolved and was not submitted: is the report edited?")
    if len(counts) == 2 and counts["resolved"] > counts["submitted"]:
        raise DataError(
            f"{path}: {counts['resolved']} instances are resolved and {counts['submitted']} submitted: is the report edited?"
        )


def is_evalplus(body: Any) -> bool:
    """True for EvalPlus's `*_eval_results.json`."""
    return isinstance(body, dict) and isinstance(body.get("eval"), dict) and "hash" in body


def evalplus_results(body: Json, path: Path) -> Iterator[ItemScores]:
    """pass@1 on the base tests and, if they ran, on all tests; of several samples of a task the mean.

    `evalplus.evaluate --base-only` writes no `plus_status`: there is no score of all tests then.
    """
    model = (
        path.stem.removesuffix("_eval_results").removesuffix(".eval_results").partition("_temp_")[0].replace("--", "/")
    )
    tasks = tuple(sorted(body["eval"]))
    if not tasks:
        raise DataError(f"{path}: it evaluates no task: is the file cut short?")
    every = [(task, each) for task in tasks for each in _samples(body["eval"][task], task, path)]
    lacking = [task for task, each in every if each.get("plus_status") is None]
    if lacking and len(lacking) < len(every):
        raise DataError(
            f"{path}: {lacking[0]} has no plus_status and others have one: evaluate all samples on all tests"
        )
    name = "mbpp" if tasks[0].startswith("Mbpp") else "humaneval"
    columns = {name: ("base_status",), f"{name}_plus": ("base_status", "plus_status")}
    if lacking:
        del columns[f"{name}_plus"]
    for benchmark, fields in columns.items():
        scores: dict[str, float] = {}
        for task in tasks:
            samples = _samples(body["eval"][task], task, path)
            passed = sum(all(each.get(key) == "pass" for key in fields) for each in samples)
            scores[task] = passed / len(samples)
        key = ColumnKey(benchmark, "EvalPlus", "pass@1")
        about = BoardResult(model, *key[:1], 0.0, source=str(path), data_hash=str(body["hash"]))
        yield ItemScores.of(key, {model: scores}, [about])


def _samples(found: Any, task: str, path: Path) -> list[Json]:
    """The samples of a task, each with its result on the base tests."""
    samples = found if isinstance(found, list) else [found]
    if not samples or not all(isinstance(each, dict) and isinstance(each.get("base_status"), str) for each in samples):
        raise DataError(f"{path}: {task} has no base_status: EvalPlus 0.2 or later was expected")
    return samples


def is_evalplus_board(body: Any) -> bool:
    """True for `results.json` of EvalPlus's leaderboard: model -> its pass@1 in percent."""
    return isinstance(body, dict) and bool(body) and all(
        isinstance(each, dict) and isinstance(each.get("pass@1"), dict) for each in body.values()
    )  # fmt: skip


def evalplus_board_results(body: Json, where: str) -> Iterator[BoardResult]:
    """pass@1 of each model on HumanEval(+) and MBPP(+); a null is a missing result."""
    for model, each in body.items():
        for name, percent in each["pass@1"].items():
            if percent is not None:
                yield BoardResult(
                    model=model,
                    benchmark=name.replace("+", "_plus"),
                    value=float(percent) / 100,
                    protocol="EvalPlus leaderboard",
                    metric="pass@1",
                    source=where,
                )


def is_bigcode(body: Any) -> bool:
    """True for metrics of bigcode-evaluation-harness."""
    return isinstance(body, dict) and isinstance(body.get("config"), dict) and any(
        isinstance(each, dict) and "pass@1" in each for each in body.values()
    )  # fmt: skip


def bigcode_results(body: Json, where: str) -> Iterator[BoardResult]:
    """Each task's pass@k, under the temperature and number of samples that the file states."""
    config = body["config"]
    for task, metrics in body.items():
        if task == "config" or not isinstance(metrics, dict):
            continue
        for metric, value in metrics.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield BoardResult(
                    model=str(config.get("model") or ""),
                    benchmark=task,
                    value=float(value),
                    protocol=f"bigcode-evaluation-harness, temperature {config.get('temperature')}, "
                    f"{config.get('n_samples')} samples",
                    metric=metric,
                    source=where,
                    commit=str(config.get("revision") or ""),
                )
