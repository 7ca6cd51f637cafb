"""AgentBench's web browsing: errands on generated sites in a real, headless Chromium, or Mind2Web's choice of elements.

The sites are served on loopback through a proxy that is the browser's only way out. With `data=FOLDER`, where the user has
Mind2Web's files, each step of a recorded session is a choice among elements, as in the paper.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from firsthand.benchmark import Benchmark, needing
from firsthand.benchmarks.long_context.lengths import LazyTasks
from firsthand.errors import ConfigError
from firsthand.system.plurals import count_of
from firsthand.task import Task
from firsthand.trace import Score, Trace
from firsthand.worlds.browsing.browse_world import BrowseWorld
from firsthand.worlds.browsing.browser_pool import BrowserPool
from firsthand.worlds.browsing.chromium import ready
from firsthand.worlds.browsing.errands import ERRAND_LEVELS, ERRAND_VERSION, make_errand
from firsthand.worlds.browsing.mind2web import (
    CHOICES,
    ChoiceStep,
    is_exact,
    operation_f1,
    parse_choice,
    question,
    read_steps,
)
from firsthand.worlds.browsing.pages import SiteVisit
from firsthand.worlds.outcomes import world_result, world_score
from firsthand.worlds.world import Actions, WorldEnvironment

INSTRUCTIONS = """You use a web site in a browser, one action in a turn. The page is shown as text with numbered elements:
click[n]: click link, button or check box n
type[n] text: type a text into field n, in place of what it holds
select[n] option: choose an option of element n
accept or dismiss: answer a dialog
look: show the page; begin with it
The first form that is sent, order placed, row archived or appointment booked ends the errand.

Errand: """


def agentbench_wb(
    *, level: int = 2, tasks: int = 40, rounds: int = 20, actions: Actions = "text", data: str = ""
) -> Benchmark:
    """Return the benchmark: `tasks` errands of a `level` (1 to 3) on generated sites in headless Chromium.

    With `data`, a folder or file of Mind2Web's, the tasks are its steps instead, each a choice among five elements.
    """
    if data:
        return _mind2web(Path(data).expanduser())
    if level not in ERRAND_LEVELS or not 1 <= tasks <= 10_000:
        raise ConfigError(f"level is {level} and tasks {tasks}: give level 1 to 3 and 1 to 10,000 tasks")
    pool = BrowserPool()
    return Benchmark(
        name="agentbench_wb",
        tasks=lambda seed: LazyTasks(range(tasks), partial(_task, seed, level)),
        scorers=(errand_done, errand_share),
        description="Errands on web sites in a headless Chromium: forms, tables, carts, calendars (AgentBench).",
        protocol=f"generated, version {ERRAND_VERSION}, level {level}; {count_of(rounds, 'round')}; what was sent is "
        f"compared; {actions} actions",
        licence="none needed: generated",
        environment=lambda task: WorldEnvironment(_world(task, pool), rounds=rounds, actions=actions),
        options={"level": level, "tasks": tasks, "rounds": rounds, "actions": actions, "version": ERRAND_VERSION},
    )


@needing(ready)
def errand_done(task: Task, trace: Trace) -> Score:
    """Score 1 if exactly the right thing was sent."""
    right = world_result(trace).get("right") is True
    return world_score("done", right, trace, kind=task.metadata.get("kind"))


def errand_share(task: Task, trace: Trace) -> Score:
    """Score the share of fields of what was sent that are right."""
    return Score("share", float(world_result(trace).get("share", 0.0)))


def _mind2web(folder: Path) -> Benchmark:
    return Benchmark(
        name="agentbench_wb",
        tasks=lambda seed: [_choice(step) for step in read_steps(folder, seed)],
        scorers=(step_success, step_exact, element_chosen),
        description="Steps of recorded sessions on real web sites, each a choice among five elements (Mind2Web).",
        protocol=f"Mind2Web in {folder.name}: the right element among {CHOICES} drawn by the seed; step_exact is the "
        "right element, operation and value; step success, as published, an F1 of 1 over the set of their words",
        licence="CC-BY-4.0",
        options={"data": str(folder)},
    )


def step_exact(task: Task, trace: Trace) -> Score:
    """Score 1 if element, operation and value are right and no other is given, where Mind2Web compares sets of words."""
    return Score("step_exact", float(is_exact(trace.answer or "", _step_of(task))))


def step_success(task: Task, trace: Trace) -> Score:
    """Score 1 if the element is right and the words of operation and value are, in any order: Mind2Web's step success."""
    chosen, operation, value = parse_choice(trace.answer or "")
    step = _step_of(task)
    f1 = operation_f1(operation, value, step)
    return Score("step_success", float(chosen == step.right and f1 == 1), {"operation_f1": f1})


def element_chosen(task: Task, trace: Trace) -> Score:
    """Score 1 if the element is right."""
    return Score("element", float(parse_choice(trace.answer or "")[0] == _step_of(task).right))


def _step_of(task: Task) -> ChoiceStep:
    secret = task.secret
    return ChoiceStep(task.id, "", (), (), secret["right"], secret["operation"], secret["value"])


def _choice(step: ChoiceStep) -> Task:
    return Task(
        step.id,
        question(step),
        verbatim=True,
        sampling={"max_tokens": 96},
        metadata={"cluster": step.id.rpartition("-")[0]},
        secret={"right": step.right, "operation": step.operation, "value": step.value},
    )


def _world(task: Task, pool: BrowserPool) -> BrowseWorld:
    errand = make_errand(task.secret["seed"], task.secret["index"], task.secret["level"])
    return BrowseWorld(partial(SiteVisit, errand), pool)


def _task(seed: int, level: int, index: int) -> Task:
    errand = make_errand(seed, index, level)
    return Task(
        f"seed{seed}-level{level}-{index:04d}",
        f"{INSTRUCTIONS}{errand.task}",
        metadata={"kind": errand.kind, "stratum": errand.kind},
        secret={"seed": seed, "index": index, "level": level},
    )
