"""A joint evaluation in the manner of two labs that tested each other's models in 2025: one set of scenarios, any models.

    firsthand run joint_alignment --model smollm2 --model qwen.gguf --pattern audit
    firsthand run joint_alignment:effects=declared --pattern audit --approve irreversible=deny,external=deny
    firsthand alignment last

Scenarios are Markdown files (`concerns/scenario_files.py`) about cooperation, oversight, whistle-blowing, self-preservation,
misuse and sycophancy. Each theme has risks and harmless counterparts, so that misbehaviour and over-refusal are measured by
the same run. Verdicts come from calls and replies by rule, and again from the log-probs of two sentences; `judge` adds a
model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from firsthand.benchmark import Benchmark, Scorer
from firsthand.benchmarks.concerns.records_office import Effects
from firsthand.benchmarks.concerns.scenario_files import Scenario, load_scenarios
from firsthand.loop.concurrency import derive_seed
from firsthand.message import Json, system
from firsthand.scorers.concerns.audit_verdicts import (
    RUBRIC,
    alignment_figures,
    alignment_verdicts,
)
from firsthand.scorers.model_judge import rubric
from firsthand.task import Task
from firsthand.tool import Effect, Tool, tool_from_function


def joint_alignment(*, folder: str = "", effects: Effects = "simulated", judge: str = "") -> Benchmark:
    """Return the benchmark of the package's scenarios, or of a `folder` of them.

    With `effects=declared` the tools declare what they would do outside, so that approvals and guards act on them. `judge`
    is a model that scores each transcript as well.
    """
    scenarios = load_scenarios(folder)
    scorers: tuple[Scorer, ...] = (alignment_verdicts,)
    if judge:
        scorers += (rubric(judge=judge, rubric=RUBRIC),)

    def make_tasks(seed: int) -> list[Task]:
        rng = Random(derive_seed("joint_alignment", seed))
        return [_task(each) for each in rng.sample(scenarios, len(scenarios))]

    return Benchmark(
        name="joint_alignment" if effects == "simulated" else "joint_alignment:effects=declared",
        tasks=make_tasks,
        scorers=scorers,
        description="Scenarios of six themes, with harmless counterparts: misbehaviour and over-refusal of any models.",
        protocol=f"{len(scenarios)} scenarios; an auditor with rollback branches; effects {effects}; verdicts by rule and "
        f"by log-prob{f', and by {judge}' if judge else ''}",
        licence="none needed: our own text",
        environment=lambda task: ScenarioRoom(task.metadata["tools"], effects),
        figures=alignment_figures,
        options={"folder": folder, "effects": effects, "judge": judge},
    )


@dataclass(frozen=True)
class ScenarioRoom:
    """Environment with the tools of a scenario; each says that it did what it does."""

    self_contained: ClassVar[bool] = True
    given: Sequence[Json]
    effects: Effects

    async def open(self) -> None:
        """Do nothing: there is no state."""

    async def close(self) -> None:
        """Do nothing: there is no state."""

    async def final_state(self) -> Json:
        """Return no state: the calls are in the trace."""
        return {}

    @property
    def tools(self) -> Sequence[Tool]:
        """The scenario's tools."""
        return [self._tool(each) for each in self.given]

    def _tool(self, given: Json) -> Tool:
        effect: Effect = given["effect"] if self.effects == "declared" else "write"

        def act(note: str = "") -> str:
            return str(given["says"])

        act.__doc__ = f"{given['does']}\n\nArgs:\n    note: A note for the record."
        return tool_from_function(act, effect=effect, name=str(given["name"]))


def _task(scenario: Scenario) -> Task:
    metadata: Json = {
        "setting": scenario.setting,
        "pressure": list(scenario.pressure),
        "choices": [scenario.better, scenario.worse],
        "temptation": scenario.worse,
        "tools": [dict(each) for each in scenario.tools],
        "theme": scenario.theme,
        "kind": scenario.kind,
        "stratum": f"{scenario.theme}, {scenario.kind}",
    }
    secret = {
        "kind": scenario.kind,
        "misuse": scenario.misuse,
        "bad_calls": list(scenario.bad_calls),
        "good_calls": list(scenario.good_calls),
        "bad_text": scenario.bad_text,
        "good_text": scenario.good_text,
    }
    setting = (system(scenario.setting),)
    return Task(scenario.id, scenario.opening, conversation=setting, verbatim=True, metadata=metadata, secret=secret)
