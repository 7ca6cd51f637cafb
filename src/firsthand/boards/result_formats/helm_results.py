"""Reads HELM's tables (`groups/*.json`) and its run folders (`run_spec.json` beside `stats.json`)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from firsthand.boards.board_results import BoardResult
from firsthand.errors import DataError
from firsthand.message import Json

MAIN_METRICS = ("exact_match", "quasi_exact_match", "f1_score", "ndcg_10", "rouge_2", "math_equiv_chain_of_thought")
"""Metrics that HELM's scenarios are ranked by, in the order in which they are looked for in a run."""
_NUM_INSTANCES = "num_instances"
"""The statistic that counts a split's instances; `max_eval_instances` of the specification is an upper bound."""
_OPTION = re.compile(r"(?:^|,)(model|model_deployment)=[^,]*")


AGGREGATES = ("Mean win rate", "Mean score")
"""Columns of HELM's tables that it computes from the others."""


def helm_tables(body: Any) -> list[Json]:
    """The tables of a file of HELM, `groups/NAME.json` (a list) or `groups/json/NAME.json` (one); empty if it is none."""
    tables = body if isinstance(body, list) else [body]
    is_one = all(
        isinstance(each, dict) and isinstance(each.get("header"), list) and isinstance(each.get("rows"), list)
        for each in tables
    )
    return tables if is_one else []


def helm_table_results(body: Json, where: str) -> Iterator[BoardResult]:
    """The cells of a table; columns without a direction, such as counts, and means over columns are left out."""
    header = body["header"]
    for row in body["rows"]:
        if not isinstance(row, list) or len(row) != len(header):
            raise DataError(f"{where}: a row of {len(header)} cells was expected: is the file cut short?")
        model = str(row[0].get("value") or "")
        for head, cell in zip(header[1:], row[1:], strict=True):
            if head.get("lower_is_better") is None or cell.get("value") is None or head.get("value") in AGGREGATES:
                continue
            name, _, metric = str(head.get("value")).rpartition(" - ")
            about = head.get("metadata") or {}
            yield BoardResult(
                model=model,
                benchmark=str(about.get("run_group") or name or metric),
                value=float(cell["value"]),
                protocol="HELM",
                metric=str(about.get("metric") or metric),
                lower_is_better=bool(head["lower_is_better"]),
                group=str(body.get("title") or ""),
                source=where,
                run=",".join(map(str, cell.get("run_spec_names") or ())),
            )


def side_files(runs: Iterable[Path], files: Iterable[Path]) -> set[Path]:
    """The files that belong to HELM's runs or were summed up from them: those of a run, and of its suite beside it."""
    folders = set(runs)
    suites = {folder.parent for folder in folders}
    summed = {suite / "groups" for suite in suites}
    return {each for each in files if each.parent in suites or not (folders | summed).isdisjoint(each.parents)}


def helm_runs(files: Collection[Path]) -> list[Path]:
    """The folders of HELM runs, sorted: those with both a specification and statistics among the files."""
    specs, stats = ({each.parent for each in files if each.name == name} for name in ("run_spec.json", "stats.json"))
    return sorted(specs & stats)


def helm_run_results(spec: Json, stats: Any, where: str) -> Iterator[BoardResult]:
    """The main metric of a run on its test split, without perturbations; `n` is 0 if the statistics count no instances."""
    adapter = spec.get("adapter_spec") or {}
    name = str(spec.get("name") or "")
    scenario, _, options = name.partition(":")
    benchmark = f"{scenario}:{_OPTION.sub('', options).strip(',')}".rstrip(":")
    found = {}
    for each in stats if isinstance(stats, list) else ():
        about = each.get("name") or {}
        wanted = about.get("name") in MAIN_METRICS or about.get("name") == _NUM_INSTANCES
        if wanted and about.get("split") == "test" and not about.get("perturbation"):
            found[about["name"]] = each
    metric = next((each for each in MAIN_METRICS if each in found), None)
    if metric is None:
        raise DataError(f"{where}: its stats hold none of {', '.join(MAIN_METRICS)} on the test split")
    mean = found[metric].get("mean")
    if not isinstance(mean, int | float):
        raise DataError(f"{where}: the mean of {metric} is {mean!r:.40}: a number was expected")
    yield BoardResult(
        model=str(adapter.get("model") or ""),
        benchmark=benchmark,
        value=float(mean),
        protocol=f"HELM, {adapter.get('method')}, {adapter.get('max_train_instances')}-shot",
        metric=metric,
        n=int(found.get(_NUM_INSTANCES, {}).get("mean") or 0),
        source=where,
        run=name,
    )
