"""Reads records of Every Eval Ever: one model's results on the benchmarks of one leaderboard (schema 0.0.1 to 0.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from firsthand.boards.board_results import BoardResult
from firsthand.boards.result_formats.helm_results import AGGREGATES
from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.stats.metric_names import is_lower_better


def is_every_eval(body: Any) -> bool:
    """True for a record of Every Eval Ever."""
    return isinstance(body, dict) and "schema_version" in body and isinstance(body.get("evaluation_results"), list)


def every_eval_results(body: Json, where: str) -> Iterator[BoardResult]:
    """The numbers of a record; means that its leaderboard computed over other columns are left out.

    A score of -1 where the least is 0 stands for a missing one.
    Of HELM's tables the one it ranks by is read, "Accuracy"; the others repeat each scenario under other metrics.

    Raises:
        DataError: A record that names no model, or a score that is no number.
    """
    about, model = body.get("source_metadata") or {}, body.get("model_info") or {}
    name = model.get("id") or model.get("name")
    if not isinstance(name, str):
        raise DataError(f"{where}: model_info names no model: an id was expected")
    board = about.get("source_name") or (body.get("evaluation_source") or {}).get("evaluation_source_name") or ""
    for each in body["evaluation_results"]:
        title, config = str(each["evaluation_name"]), each.get("metric_config") or {}
        found = each.get("score_details") or {}
        score, tab = found.get("score"), (found.get("details") or {}).get("tab", "Accuracy")
        if title in AGGREGATES or score is None or tab != "Accuracy":
            continue
        if isinstance(score, bool) or not isinstance(score, int | float):
            raise DataError(f"{where}: the score on {title} is {score!r:.40}: a number was expected")
        if score == -1 and config.get("min_score") == 0:
            continue
        lower = config.get("lower_is_better")
        benchmark, _, metric = title.rpartition(" - ")  # HELM's columns carry their metric
        if board == "HF Open LLM v2":
            title += " (not normalised)"  # the board open_llm takes IFEval, BBH and so on as normalised
        links = each.get("source_data") or body.get("source_data") or ""
        links = links.get("url") or links.get("hf_repo") or "" if isinstance(links, dict) else links
        yield BoardResult(
            model=name,
            benchmark=benchmark or title,
            value=float(score),
            protocol=str(board),
            metric=metric if benchmark else str(config.get("evaluation_description") or ""),
            lower_is_better=is_lower_better(metric or title) if lower is None else bool(lower),
            source=where,
            run=str(body.get("evaluation_id") or ""),
            data_hash=", ".join(map(str, links)) if isinstance(links, list) else str(links),
        )
