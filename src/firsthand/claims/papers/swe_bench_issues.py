"""Size of SWE-bench."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="Evaluates LLMs on 2,294 real GitHub issues requiring code changes to pass existing tests.",
    source="Jimenez et al. 2023, arXiv:2310.06770",
    kind="arithmetic",
    cost_s=1,
    needs=("data swe/SWE-bench_Verified_test.parquet",),
)


def measure(lab: Lab) -> Measurement:
    """Sizes of the sets by their papers, and the Verified issues, which are counted here."""
    from firsthand import catalog
    from firsthand.boards.result_formats.code_reports import SPLITS

    rows = [(name, float(size)) for size, name in SPLITS.items()]
    hidden = 0
    tasks = catalog.benchmark("swe_bench_verified").tasks(0)
    for task in tasks:
        hidden += bool(task.secret.get("FAIL_TO_PASS") or task.secret.get("fail_to_pass") or task.secret)
    rows.append(("Verified issues whose tests are hidden from the agent", float(hidden)))
    size = next(size for size, name in SPLITS.items() if name == "swe_bench")
    return Measurement(
        size,
        f"issues of the full set, by the figures of Jimenez et al. 2023; {len(tasks)} of Verified were counted here",
        columns=("set", "issues"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """The size holds; that the tests exist before is not so."""
    if m.value == 2294:
        why = "2,294 is the full set by the figures of its paper; the tests that decide are the pull request's own, hidden"
        return ruling(
            "holds in part", f"{why} from the agent: they did not exist before, so `existing tests` is imprecise"
        )
    return ruling("does not hold here", f"the full set has {m.value:.0f} by the figures of its paper")
