"""Renders a gate's checks as JUnit XML for CI servers and as Markdown for people.

Names of tasks and agents come from anywhere: what XML cannot hold is written out, and Markdown's own signs are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree import ElementTree

from firsthand.runs.retried_attempts import retried_text
from firsthand.show.markdown_text import escaped, without_controls
from firsthand.stats.non_inferiority import Check, Ruling
from firsthand.system.plurals import count_of

MAX_TASKS = 50
"""Tasks listed of one check."""


def junit(name: str, checks: Sequence[Check], inconclusive: str = "report") -> str:
    """The checks as a JUnit test suite: `error` where attempts are missing, `skipped` where they are inconclusive."""
    suite = ElementTree.Element("testsuite", name=without_controls(name), tests=str(len(checks)), time="0")
    counts = {"failure": 0, "error": 0, "skipped": 0}
    for check in checks:
        place = {
            "classname": without_controls(check.benchmark),
            "name": without_controls(f"{check.score} ({check.agent})"),
            "time": "0",
        }
        case = ElementTree.SubElement(suite, "testcase", place)
        kind = _kind(check, inconclusive)
        if kind:
            counts[kind] += 1
            said = {"message": without_controls(check.reason)} | ({} if kind == "skipped" else {"type": check.ruling})
            ElementTree.SubElement(case, kind, said).text = (
                None if kind == "skipped" else without_controls(sentence(check))
            )
        ElementTree.SubElement(case, "system-out").text = without_controls(
            "\n".join([sentence(check), *details(check)])
        )
    suite.set("failures", str(counts["failure"]))
    suite.set("errors", str(counts["error"]))
    suite.set("skipped", str(counts["skipped"]))
    suites = ElementTree.Element("testsuites", name="firsthand gate", tests=str(len(checks)), time="0")
    suites.set("failures", str(counts["failure"]))
    suites.set("errors", str(counts["error"]))
    suites.append(suite)
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def markdown(name: str, checks: Sequence[Check], ruling: Ruling) -> str:
    """The checks as a Markdown table with the tasks that got worse and the flaky ones under it."""
    lines = [f"## Gate: {ruling}", "", escaped(name), ""]
    lines += ["| benchmark | score | agent | tasks | baseline | candidate | difference | allowed | ruling |"]
    lines += ["|---|---|---|--:|--:|--:|--:|--:|---|"]
    for check in checks:
        cells = [escaped(check.benchmark), escaped(check.score), escaped(check.agent), str(check.differences.n)]
        allowed = -check.max_drop if check.drop == "drop" else check.max_drop
        cells += [rate(check.baseline), rate(check.candidate), difference_text(check), f"{allowed:+.2%}"]
        lines.append("| " + " | ".join([*cells, f"**{check.ruling}**: {escaped(check.reason)}"]) + " |")
    for check in checks:
        if details(check):
            head = f"{escaped(check.benchmark)}, {escaped(check.score)}, {escaped(check.agent)}"
            lines += ["", f"<details><summary>{head}</summary>", "", *(f"- {escaped(line)}" for line in details(check))]
            lines += ["", "</details>"]
    return "\n".join(lines) + "\n"


def sentence(check: Check) -> str:
    """The check in words."""
    return (
        f"{check.benchmark}, {check.score}, {check.agent}: {rate(check.candidate)} vs. {rate(check.baseline)} on "
        f"{count_of(check.differences.n, 'task')}, {difference_text(check)}. {check.ruling}: {check.reason}."
    )


def details(check: Check) -> list[str]:
    """A line each for missing attempts, those made again, the reducer of epochs, epochs that one side lacks, other scorers,
    tasks that got worse, and flaky tasks."""
    lines = [f"missing: {check.gaps}"] if check.gaps else []
    if told := retried_text(dict(zip(("the baseline", "the candidate"), check.retried, strict=True))):
        lines.append(told)
    if check.reduce != "mean":
        lines.append(f"epochs: the attempts at a task are reduced by {check.reduce} on both sides")
    if check.evened:
        lines.append(f"epochs: {count_of(check.evened, 'task')} reduced over as many attempts as both sides have")
    lines += [f"scorers: {each}" for each in check.other_scorers if each.why not in check.reason]
    lines += _listed("worse", list(check.worse))
    where = {
        "a": "the baseline's attempts",
        "b": "the candidate's attempts",
        "between": "two runs of the same agent and seed",
    }
    flaky = [
        f"{each.task_id}: {' '.join(f'{v:g}' for v in each.values)} in {where[each.where]}" for each in check.flaky
    ]
    return lines + _listed("flaky", flaky)


def rate(value: float) -> str:
    """A score; a dash if there is none."""
    return "-" if math.isnan(value) else f"{value:.4f}"


def difference_text(check: Check) -> str:
    """The difference and its one-sided bounds at the gate's confidence."""
    if check.differences.n == 0:
        return "-"
    low, high = check.bounds
    known = f"[{low:+.2%}, {high:+.2%}]" if math.isfinite(low) and math.isfinite(high) else "[unknown]"
    return f"{check.differences.mean:+.2%} {known}"


def _listed(what: str, tasks: list[str]) -> list[str]:
    more = [f"{what}: {len(tasks) - MAX_TASKS} more"] if len(tasks) > MAX_TASKS else []
    return [f"{what}: {task}" for task in tasks[:MAX_TASKS]] + more


def _kind(check: Check, inconclusive: str) -> str | None:
    if check.ruling == "inconclusive":
        return {"report": "skipped", "pass": None, "fail": "failure"}[inconclusive]
    if check.ruling == "fail":
        return "error" if check.reason.startswith("errors:") else "failure"
    return None
