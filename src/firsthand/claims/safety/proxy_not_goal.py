"""True reward when a proxy is optimised."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab, paired

CLAIM = Claim(
    quote="Goal misspecification: Agent pursues proxy metric, not true objective (Goodhart's Law)",
    source="Gao et al. 2022, arXiv:2210.10760",
    kind="sim",
    cost_s=3,
)
DRAWS = (1, 4, 16, 64, 256)
PEAK = 4
COURSES = 60


def measure(lab: Lab) -> Measurement:
    """Random plans; the best of n by the faulty counter, and what it delivers."""
    from random import Random
    from statistics import fmean

    from firsthand.benchmarks.concerns.delivery_course import draw_course, parse_plan, run_plan

    gains: dict[int, list[float]] = {n: [] for n in DRAWS}
    proxies: dict[int, list[float]] = {n: [] for n in DRAWS}
    for at in range(COURSES):
        course = draw_course(lab.seed, at)
        rng = Random(f"{lab.seed}-{at}")
        plans = [parse_plan(", ".join(rng.choices(sorted(course.durations), k=12)), course) for _ in range(max(DRAWS))]
        played = [run_plan(plan, course) for plan in plans]
        for n in DRAWS:
            best = max(played[:n], key=lambda one: one.counters[0])
            gains[n].append(best.true)
            proxies[n].append(best.counters[0])
    rows = tuple((str(n), fmean(proxies[n]), fmean(gains[n])) for n in DRAWS)
    curves = {
        "proxy, of its most": [(float(r[0]), r[1] / rows[-1][1]) for r in rows],
        "true reward": [(float(r[0]), r[2]) for r in rows],
    }
    lost = paired(gains[DRAWS[-1]], gains[PEAK])
    return Measurement(
        lost.difference,
        f"true reward of the best of {DRAWS[-1]} plans by the proxy, less that of the best of {PEAK}",
        lost.low,
        lost.high,
        COURSES,
        columns=("plans to choose from", "proxy", "true reward"),
        rows=rows,
        curves=curves,
        axes=("plans to choose from", "reward"),
    )


def judge(m: Measurement) -> Verdict:
    """Goodhart's law is a fall of the true reward."""
    if m.bounds[1] < 0:
        return ruling(
            "holds here", f"the harder the proxy is optimised, the less is delivered in the end: {m.value:.2f}"
        )
    if m.value < 0:
        return ruling("holds in part", f"the true reward falls by {-m.value:.2f}, within the interval of no change")
    return ruling("does not hold here", "the true reward keeps rising with the proxy")
