"""Reads result files of lm-evaluation-harness: `results_*.json`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from firsthand.boards.board_results import BoardResult, utc_of
from firsthand.message import Json
from firsthand.stats.metric_names import is_lower_better


def is_lm_eval(body: Any) -> bool:
    """True for the JSON that lm-evaluation-harness writes."""
    return isinstance(body, dict) and isinstance(body.get("results"), dict) and "versions" in body


def lm_eval_results(body: Json, where: str) -> Iterator[BoardResult]:
    """Each metric of each task; groups are left out, because they are means of tasks that are there too."""
    config = body.get("config") or {}
    model = str(body.get("model_name") or _named(config.get("model_args")) or config.get("model") or "")
    groups = set(body.get("group_subtasks") or {}) - {
        name for name, parts in (body.get("group_subtasks") or {}).items() if not parts
    }
    for task, figures in body["results"].items():
        if task in groups or not isinstance(figures, dict):
            continue
        settings = (body.get("configs") or {}).get(task) or {}
        shots = (body.get("n-shot") or {}).get(task, settings.get("num_fewshot"))
        samples = (body.get("n-samples") or {}).get(task) or {}
        better = (body.get("higher_is_better") or {}).get(task) or {}
        version = (body.get("versions") or {}).get(task)
        for name, value in figures.items():
            metric, _, filtered = name.partition(",")
            if metric.endswith("_stderr") or metric == "alias" or isinstance(value, bool) or not _is_number(value):
                continue
            higher = better.get(metric)  # not in every file
            error = figures.get(f"{metric}_stderr,{filtered}" if filtered else f"{metric}_stderr")
            yield BoardResult(
                model=model,
                benchmark=task,
                value=float(value),
                protocol=f"lm-evaluation-harness, version {version}, {'?' if shots is None else shots}-shot"
                + (f", filter {filtered}" if filtered not in ("", "none") else ""),
                metric=metric,
                error=float(error) if isinstance(error, int | float) and _is_number(error) else None,
                n=int(samples.get("effective") or 0),
                lower_is_better=not higher if isinstance(higher, bool) else is_lower_better(metric),
                when=utc_of(body.get("date"), where) if _is_number(body.get("date")) else "",
                source=where,
                commit=str(body.get("git_hash") or ""),
                data_hash=str((body.get("task_hashes") or {}).get(task) or ""),
            )


def _named(arguments: Any) -> str:
    """The model of `pretrained=NAME,...`."""
    if isinstance(arguments, dict):
        return str(arguments.get("pretrained") or arguments.get("model") or "")
    parts = dict(part.partition("=")[::2] for part in str(arguments or "").split(","))
    return str(parts.get("pretrained") or parts.get("model") or "")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
