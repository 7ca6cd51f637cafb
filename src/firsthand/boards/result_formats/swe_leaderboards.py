"""Reads SWE-bench's published leaderboards, and its verdicts of single instances, from the files of swebench.com."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from firsthand.boards.board_results import BoardResult, ItemScores, utc_of
from firsthand.errors import DataError
from firsthand.message import Json

BENCHMARKS = {
    "Test": ("swe_bench", 2294),
    "Verified": ("swe_bench_verified", 500),
    "Lite": ("swe_bench_lite", 300),
    "Multimodal": ("swe_bench_multimodal", 517),
    "Multilingual": ("swe_bench_multilingual", 300),
    "bash-only": ("swe_bench_bash_only", 500),
}
"""The benchmark of each published list, and its number of instances."""


def is_swe_leaderboards(body: Any) -> bool:
    """True for `data/leaderboards.json` of swebench.com: lists of systems with the percentage they resolved."""
    lists = body.get("leaderboards") if isinstance(body, dict) else None
    return isinstance(lists, list) and bool(lists) and all(
        isinstance(each, dict) and isinstance(each.get("results"), list) for each in lists
    )  # fmt: skip


def swe_leaderboard_results(body: Json, where: str, remarks: list[str]) -> Iterator[BoardResult | ItemScores]:
    """The systems of each list; one that the leaderboard hides under a warning is left out, and told in `remarks`.

    Systems of one name are told apart by their folders. Where a system has verdicts of single instances, those are read.

    Raises:
        DataError: A percentage that is none, or an unknown list.
    """
    hidden: list[str] = []
    for each in body["leaderboards"]:
        if each["name"] not in BENCHMARKS:
            raise DataError(f"{where}: the list {each['name']!r:.60} is unknown: {', '.join(BENCHMARKS)} were expected")
        benchmark, instances = BENCHMARKS[each["name"]]
        names = Counter(row["name"] for row in each["results"])
        for row in each["results"]:
            name, percent, cost = row["name"], row["resolved"], row.get("instance_cost")
            if row.get("warning"):
                hidden.append(f"{name} on {benchmark}")
                continue
            if isinstance(percent, bool) or not isinstance(percent, int | float) or not 0 <= percent <= 100:
                raise DataError(f"{where}: {name} resolved {percent!r:.40}: a percentage was expected")
            about = BoardResult(
                model=name if names[name] == 1 else f"{name} [{row['folder']}]",
                benchmark=benchmark,
                value=percent / 100,
                protocol=_protocol(row),
                metric="resolved",
                n=instances,
                cost_usd=float(cost) if cost else None,  # 0 where nobody measured
                when=utc_of(row.get("date"), where),
                source=where,
                run=str(row.get("folder") or ""),
            )
            details = row.get("per_instance_details")
            yield _items({about.model: details}, about, [about]) if details else about
    if hidden:
        remarks.append(
            f"{len(hidden)} results carry SWE-bench's warning and are left out, as on its page: {', '.join(hidden)[:300]}."
        )


def _protocol(row: Json) -> str:
    """mini-SWE-agent's versions before 2 are a list of their own on the page."""
    version = row.get("mini-swe-agent_version")
    if not version:
        return "SWE-bench leaderboard"
    return f"mini-SWE-agent {'before 2' if str(version)[0] in '01' else str(version).partition('.')[0]}"


def is_swe_instances(body: Any) -> bool:
    """True for `data/info_for_leaderboard.json`: model -> instance -> whether it was resolved, and its cost."""
    first = next(iter(body.values()), None) if isinstance(body, dict) else None
    verdict = next(iter(first.values()), None) if isinstance(first, dict) else None
    return isinstance(verdict, dict) and isinstance(verdict.get("resolved"), bool) and "cost" in verdict


def swe_instance_results(body: Json, where: str) -> Iterator[ItemScores]:
    """Each model's verdict on each instance, with its mean cost."""
    base = BoardResult("", "swe_bench_bash_only", 0.0, "mini-SWE-agent before 2", "resolved", source=where)
    yield _items(body, base, [base] * len(body))


def _items(verdicts: dict[str, Json], base: BoardResult, abouts: list[BoardResult]) -> ItemScores:
    scores = {model: {task: verdict["resolved"] for task, verdict in each.items()} for model, each in verdicts.items()}
    priced = [
        BoardResult(**vars(about) | {"cost_usd": _mean_cost(each)})
        for about, each in zip(abouts, verdicts.values(), strict=True)
    ]
    return ItemScores.of(base.key, scores, priced)


def _mean_cost(verdicts: Json) -> float | None:
    total = sum(float(each.get("cost") or 0) for each in verdicts.values())
    return total / len(verdicts) if total else None
