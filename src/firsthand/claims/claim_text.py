"""Prints claims, plans and verdicts for people; `claim_json` for programs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from firsthand.claims.all_claims import NamedClaim
from firsthand.claims.claim import KINDS, POINTS, SECTIONS, Measurement, Verdict
from firsthand.claims.claim_run import Outcome
from firsthand.message import Json
from firsthand.system.plurals import count_of
from firsthand.system.terminal import console, print_table


def number(value: float) -> str:
    """A number for people: whole numbers with thousands, others to three digits; a dash for NaN."""
    if not math.isfinite(value):
        return "-" if math.isnan(value) else str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def amount(measurement: Measurement) -> str:
    """The value with its unit, interval and number of observations."""
    text = f"{number(measurement.value)} {measurement.unit}".strip()
    if measurement.low is not None and measurement.high is not None:
        text += f" [{number(measurement.low)}, {number(measurement.high)}]"
    return text + (f", n = {measurement.n:,}" if measurement.n > 1 else "")


def print_sections(claims: Sequence[NamedClaim], outcomes: Mapping[str, Outcome]) -> None:
    """A table for each section: claim, kind, cost, last verdict."""
    for section, title in SECTIONS.items():
        own = [each for each in claims if each.section == section]
        if not own:
            continue
        rows = []
        for each in own:
            last = outcomes.get(each.name)
            untested = "cannot be tested here" if each.measure is None else "not run yet"
            cost = f"{each.cost_s:.0f} s" if each.measure else "-"
            rows.append((each.name, each.claim.kind, cost, last.verdict.word if last else untested))
        print_table(f"{title} ({section})", ("claim", "kind", "CPU", "last verdict"), rows, right=("CPU",))
    tested = [each for each in claims if each.measure]
    told = (
        f"{count_of(len(claims), 'claim')}, {len(tested)} testable here in {sum(c.cost_s for c in tested) / 60:.0f} "
        "min of CPU"
    )
    console().print(
        f"{told}. `firsthand claims NAME` shows one, `firsthand claims run NAME` measures it.", markup=False
    )


def print_claim(claim: NamedClaim, last: Outcome | None) -> None:
    """The claim's words and source, what it needs, and its last number and verdict."""
    about, out = claim.claim, console()
    out.print(f"\n{claim.name} ({SECTIONS[claim.section]})", markup=False)
    out.print(f'  "{about.quote}"', markup=False)
    out.print(f"  source: {about.source}; measured on: {KINDS[about.kind]}", markup=False)
    if about.needs:
        out.print(f"  needs: {', '.join(about.needs)}", markup=False)
    if last is not None:
        print_verdict(last.measurement, last.verdict)
    elif about.cannot:
        out.print(f"  cannot be tested here: {about.cannot}", markup=False)
    else:
        out.print(f"  not run yet: `firsthand claims run {claim.name}` takes about {claim.cost_s:.0f} s", markup=False)


def print_plan(claims: Sequence[NamedClaim], left_out: Sequence[NamedClaim]) -> None:
    """The plan that is printed before a run: claims to measure, and those that the budget leaves out."""
    out, cost = console(), sum(each.cost_s for each in claims)
    tested = [each for each in claims if each.measure]
    told = f"{count_of(len(tested), 'claim')} to measure, about {cost:.0f} s of CPU"
    if len(claims) > len(tested):
        told += f"; {len(claims) - len(tested)} cannot be tested here"
    out.print(told, markup=False)
    if left_out:
        names = ", ".join(f"{each.name} ({each.cost_s:.0f} s)" for each in left_out)
        out.print(f"Outside the budget: {names}", markup=False)


def print_outcome(claim: NamedClaim, measurement: Measurement | None, verdict: Verdict) -> None:
    """A claim as it ends: its words, number and verdict."""
    out = console()
    out.print(f"\n{claim.name} [{claim.claim.kind}]", markup=False)
    out.print(f'  "{claim.claim.quote}" ({claim.claim.source})', markup=False)
    print_verdict(measurement, verdict)


def print_verdict(measurement: Measurement | None, verdict: Verdict) -> None:
    """The number and what it is, and the verdict with its reason."""
    out = console()
    if measurement is not None:
        out.print(f"  measured: {measurement.what}: {amount(measurement)}", markup=False)
    out.print(f"  {verdict.word}: {verdict.why}", markup=False)


def print_totals(outcomes: Sequence[Outcome]) -> None:
    """The number of claims with each verdict."""
    counts = Counter(each.verdict.word for each in outcomes)
    out = console()
    out.print("\n" + ", ".join(f"{counts[word]} {word}" for word in POINTS if counts[word]), markup=False)


def claim_json(claim: NamedClaim, last: Outcome | None) -> Json:
    """The claim with its last outcome, or None, as a JSON object."""
    about = claim.claim
    return {
        "claim": claim.name,
        "section": claim.section,
        "quote": about.quote,
        "source": about.source,
        "kind": about.kind,
        "cost_s": claim.cost_s,
        "needs": list(about.needs),
        "cannot": about.cannot or None,
        "last": last and last.to_json(),
    }
