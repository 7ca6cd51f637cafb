"""A team of three agents over documents, with a failure put into each of them."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote=(
        "Three-agent architecture (Coordinator → Retrieval → Reasoning), failure modes, latency tradeoffs, and when "
        "to use RAG vs. fine-tuning."
    ),
    source="Building production-ready multi-agent RAG systems",
    kind="sim",
    cost_s=4,
    needs=("model minilm",),
)
RIGHT, WRONG = "The mill was built in 1871. [1]", "The mill was built by monks near the river in 1412. [1]"
NEAR = "The mill was built in 1872. [1]"
PLAN, REPORT = "You coordinate a team", "The search for"
FAILURES = {
    "no failure": ("mill built", "READY", RIGHT),
    "coordinator asks the same again": ("mill built", "mill built", RIGHT),
    "coordinator writes nothing": ("", "", RIGHT),
    "retrieval finds nothing": ("zeppelin", "zeppelin", WRONG),
    "retrieval finds the wrong document": ("bridges", "READY", WRONG),
    "reasoning ignores the passages": ("mill built", "READY", WRONG),
    "reasoning misreads a number": ("mill built", "READY", NEAR),
}
"""Failure -> the coordinator's plan and its reply to a report, and the reasoning agent's answer."""


def measure(lab: Lab) -> Measurement:
    """The pattern `team` under scripted agents, and one agent (`naive`) with the same reader, both by terms alone.

    An attempt is safe if its answer is right, or says that the documents do not answer.
    """
    from firsthand.claims.scripted_rag import answered
    from firsthand.loop.critical_path import critical_calls
    from firsthand.retrieval.answers.answering import NOT_IN_DOCUMENTS
    from firsthand.stats.intervals import proportion_interval

    def safe(text: str) -> float:
        return float("1871" in text or text == NOT_IN_DOCUMENTS)

    rows = []
    for name, (plan, report, said) in FAILURES.items():
        terms = {"search": "lexical"}
        team = answered(lab, "team", {PLAN: plan, REPORT: report, "": said}, settings=terms)
        alone = answered(lab, "naive", {"": said}, settings=terms)
        waits = float(critical_calls(team)), float(critical_calls(alone))
        rows.append((name, safe(str(team.answer)), safe(str(alone.answer)), *waits))
    broken = rows[1:]
    caught = int(sum(row[1] for row in broken))
    low, high = proportion_interval(caught, len(broken))
    return Measurement(
        caught / len(broken),
        "failures after which the team's answer is right, or says that the documents do not answer",
        low,
        high,
        len(broken),
        columns=("failure", "team is safe", "one agent is safe", "team: calls in a row", "one agent: calls in a row"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """All injected failures are caught; more than half of them is part of it."""
    waits, alone = m.cell("no failure", "team: calls in a row"), m.cell("no failure", "one agent: calls in a row")
    cost = f"the team waits for {waits:.0f} calls in a row, one agent for {alone:.0f}"
    told = f"{m.value:.0%} of {m.n} injected failures end safely; {cost}"
    if m.value == 1:
        return ruling("holds here", told)
    return ruling("holds in part" if m.value > 0.5 else "does not hold here", told)
