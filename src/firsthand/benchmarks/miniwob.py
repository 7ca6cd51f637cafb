"""MiniWoB++: small tasks on real pages in headless Chromium, rewarded by the pages' own scripts (Liu et al., 2018)."""

from __future__ import annotations

from functools import partial

from firsthand.benchmark import Benchmark, needing
from firsthand.benchmarks.long_context.lengths import LazyTasks
from firsthand.errors import ConfigError, nearest
from firsthand.loop.concurrency import derive_seed
from firsthand.system.plurals import count_of
from firsthand.task import Task
from firsthand.trace import Score, Trace
from firsthand.worlds.browsing.browse_world import BrowseWorld
from firsthand.worlds.browsing.browser_pool import BrowserPool
from firsthand.worlds.browsing.chromium import ready
from firsthand.worlds.browsing.miniwob_pages import SCRIPTED, MiniWobVisit, kinds_in, pages_folder
from firsthand.worlds.outcomes import world_result, world_score
from firsthand.worlds.world import Actions, WorldEnvironment

INSTRUCTIONS = """You use a web page in a browser, one action in a turn. The page is shown as text with numbered elements:
click[n]: click element n
type[n] text: type a text into field n, in place of what it holds
select[n] option: choose an option of element n
hover[n]: move the mouse over element n
drag[n] m: drag element n onto element m
press key: press Enter, Tab, Escape, Backspace, Delete, ArrowLeft, ArrowUp, ArrowRight or ArrowDown
accept or dismiss: answer a dialog
look: show the page; begin with it
Its first line is the task. The page ends the task by itself, right or wrong."""


def miniwob(
    *,
    kind: str = "",
    tasks: int = 57,
    rounds: int = 15,
    seconds: float = 600,
    actions: Actions = "text",
    data: str = "",
) -> Benchmark:
    """Return the benchmark: `tasks` episodes of a `kind` such as click-test, or of those that the scripted player reads.

    The page ends an episode after `seconds`; 10 is the package's usual limit, which a slow model cannot keep.
    """
    folder = pages_folder(data)
    if kind and kind not in (known := kinds_in(folder)):
        raise ConfigError(f"kind is {kind!r}: did you mean {nearest(kind, known)}? {len(known)} types are in {folder}")
    if not 1 <= tasks <= 10_000 or not 0 < seconds <= 86_400:
        raise ConfigError(f"tasks is {tasks} and seconds {seconds}: give 1 to 10,000 tasks and at most 86,400 seconds")
    pool, kinds = BrowserPool(), (kind,) if kind else SCRIPTED
    return Benchmark(
        name="miniwob",
        tasks=lambda seed: LazyTasks(range(tasks), partial(_task, seed, kinds)),
        scorers=(miniwob_success, miniwob_reward),
        description="Small tasks on web pages in a headless Chromium, rewarded by the pages (MiniWoB++).",
        protocol=f"MiniWoB++'s pages, {count_of(len(kinds), 'type')} of task; {count_of(rounds, 'round')}, {seconds:g} s; "
        f"elements by number in place of pixels; {actions} actions",
        licence="MIT",
        environment=lambda task: WorldEnvironment(
            BrowseWorld(partial(MiniWobVisit, folder, task.metadata["kind"], task.secret["seed"], seconds), pool),
            rounds=rounds,
            actions=actions,
        ),
        options={"kind": kind, "tasks": tasks, "rounds": rounds, "seconds": seconds, "actions": actions},
    )


@needing(ready)
def miniwob_success(task: Task, trace: Trace) -> Score:
    """Score 1 if the page's reward without its share for time is 1."""
    result = world_result(trace)
    return world_score(
        "success", result.get("raw_reward") == 1, trace, kind=task.metadata["kind"], task=result.get("task")
    )


def miniwob_reward(task: Task, trace: Trace) -> Score:
    """Score the page's own reward, from -1 to 1, less the share of time that it took; 0 if the episode did not end."""
    result = world_result(trace)
    return Score("reward", float(result.get("reward", 0.0)), {"raw_reward": result.get("raw_reward", 0.0)})


def _task(seed: int, kinds: tuple[str, ...], index: int) -> Task:
    kind = kinds[index % len(kinds)]
    return Task(
        f"seed{seed}-{kind}-{index:04d}",
        INSTRUCTIONS,
        metadata={"kind": kind, "stratum": kind},
        secret={"seed": derive_seed("miniwob", seed, kind, index) % 2**31},
    )
