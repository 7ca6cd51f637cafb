"""Carries claims out as a Run: a claim is a task, its measurement the answer, its verdict the score.

A run of claims is resumed, watched, shown, compared and gated like any other; one failing claim does not end the rest.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.claims.all_claims import NamedClaim, all_claims
from firsthand.claims.claim import POINTS, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.context import Context
from firsthand.errors import StoreError
from firsthand.experiment.experiment import Experiment
from firsthand.experiment.foreign_settings import is_own
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.runs.run_folder import Run
from firsthand.task import Task
from firsthand.trace import Score, Trace

BENCHMARK = "claims"
AGENT = "measured"


@dataclass(frozen=True)
class Outcome:
    """A claim, what was measured, and the verdict; of the run that measured it last."""

    claim: NamedClaim
    measurement: Measurement | None
    """None if nothing could be measured."""
    verdict: Verdict
    run: str
    cpu_s: float | None
    """CPU seconds that the measurement took, without those of processes that it started."""

    def to_json(self) -> dict[str, object]:
        """The outcome as a JSON object."""
        about = self.claim.claim
        return {
            "claim": self.claim.name,
            "section": self.claim.section,
            "quote": about.quote,
            "source": about.source,
            "kind": about.kind,
            "verdict": self.verdict.word,
            "why": self.verdict.why,
            "measurement": None if self.measurement is None else self.measurement.to_json(),
            "run": self.run,
            "cpu_s": self.cpu_s,
        }


async def measured(task: Task, ctx: Context, *, seed: int = 0) -> str:
    """Measure the claim of a task in a thread of its own; returns the measurement as JSON."""
    claim = all_claims()[task.id]
    if claim.measure is None:
        return json.dumps(None)
    started = time.process_time()
    body = (await _in_thread(claim.measure, Lab(seed))).to_json()
    return json.dumps(body | {"cpu_s": round(time.process_time() - started, 2)})


def verdict(task: Task, trace: Trace) -> Score:
    """The judge's verdict on the measurement; a claim that cannot be tested is no part of a mean."""
    given = verdict_of(all_claims()[task.id], trace)[1]
    detail = {"verdict": given.word, "why": given.why}
    if (points := POINTS[given.word]) is None:
        return Score("verdict", 0.0, detail, failure=f"{given.word}: {given.why}", unjudged=True)
    return Score("verdict", points, detail)


def verdict_of(claim: NamedClaim, trace: Trace) -> tuple[Measurement | None, Verdict]:
    """The measurement of an attempt, and the verdict on it."""
    if (error := trace.error) is not None:
        fault = f"the measurement has a fault, {error.kind}: " if error.traceback else ""
        return None, ruling("cannot be tested here", fault + error.message)
    if claim.measure is None:
        return None, claim.judge(Measurement(0.0))
    measurement = Measurement.from_json(json.loads(trace.answer or "null"))
    if fault := measurement.fault:
        return measurement, ruling("cannot be tested here", fault)
    return measurement, claim.judge(measurement)


def claims_benchmark(claims: Sequence[NamedClaim]) -> Benchmark:
    """The claims as tasks of a benchmark."""
    tasks = [
        Task(
            each.name,
            each.claim.quote,
            metadata={"source": each.claim.source, "kind": each.claim.kind, "stratum": each.section},
        )
        for each in claims
    ]
    return Benchmark(
        BENCHMARK,
        lambda seed: tasks,
        (verdict,),
        "claims of the reading list, measured here",
        "each claim is a small experiment; 1 if it holds here, 0.5 in part, 0 if not",
    )


def claims_experiment(claims: Sequence[NamedClaim], seed: int) -> Experiment:
    """The experiment that measures claims one after the other."""
    agent = Agent(AGENT, Scripted([], name="scripted:none"), measured, {"seed": seed})
    return Experiment([agent], claims_benchmark(claims), seed=seed, concurrency=1, name=BENCHMARK)


def run_of(ref: str, home: Path) -> tuple[Run, list[NamedClaim], int]:
    """A stored run of claims with what it was to measure. StoreError if it is a run of something else."""
    run = store.open_run(ref, home)
    names = [task for benchmark, task in run.tasks() if benchmark == BENCHMARK]
    known = all_claims()
    if not names or any(name not in known for name in names):
        run.close()
        raise StoreError(f"run {run.id} holds no claims of this version: `firsthand claims run all` makes one")
    order = list(known)
    return run, [known[name] for name in sorted(names, key=order.index)], int(run.config.get("seed") or 0)


def outcomes_of(run: Run) -> Iterator[Outcome]:
    """The outcome of each claim that the run has measured."""
    known = all_claims()
    for trace in run.traces(benchmark=BENCHMARK):
        if (claim := known.get(trace.task_id)) is not None:
            yield _outcome(claim, trace, run.id)


def _outcome(claim: NamedClaim, trace: Trace, run: str) -> Outcome:
    """The outcome of a stored attempt, which may be of another version or of somebody else: one more claim that is open."""
    try:
        cpu_s = (json.loads(trace.answer or "null") or {}).get("cpu_s")
        measurement, given = verdict_of(claim, trace)
        if isinstance(cpu_s, int | float | None) and (measurement is None or measurement.is_plain()):
            return Outcome(claim, measurement, given, run, cpu_s)
        reason = "it holds other values"
    except Exception as error:  # of reading it, or of a judge that expects other rows
        reason = type(error).__name__
    why = f"the measurement in run {run} cannot be read ({reason}): `firsthand claims run {claim.name}` makes it again"
    return Outcome(claim, None, ruling("cannot be tested here", why), run, None)


def last_outcomes(home: Path) -> dict[str, Outcome]:
    """Claim -> its outcome in the newest run that measured it; of runs that were made elsewhere, if no other did."""
    found: dict[str, Outcome] = {}
    elsewhere: dict[str, Outcome] = {}
    for info in store.list_runs(home):
        if not info.problem and BENCHMARK in info.benchmarks:
            with store.open_run(info.path, home) as run:
                into = found if is_own(run) else elsewhere
                for outcome in outcomes_of(run):
                    into.setdefault(outcome.claim.name, outcome)
    return {name: _told_as_foreign(each) for name, each in elsewhere.items()} | found


def _told_as_foreign(outcome: Outcome) -> Outcome:
    """The outcome of a run that another data home made, or somebody wrote: no verdict of this machine."""
    why = f"run {outcome.run} was made elsewhere and says: {outcome.verdict.word}, {outcome.verdict.why}"
    return replace(outcome, verdict=ruling("cannot be tested here", why))


async def _in_thread(measure: Callable[[Lab], Measurement], lab: Lab) -> Measurement:
    """The measurement, made in a daemon thread: an interrupted process need not wait for it."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Measurement] = loop.create_future()

    def settle(result: Measurement | None, error: BaseException | None) -> None:
        if not done.done():
            done.set_result(result) if error is None and result is not None else done.set_exception(
                error or AssertionError("a claim measured nothing")
            )

    def work() -> None:
        result: Measurement | None = None
        failed: BaseException | None = None
        try:
            result = measure(lab)
        except BaseException as error:
            failed = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failed)

    threading.Thread(target=work, name="claim", daemon=True).start()
    return await done
