"""AgentBench's web shopping: WebShop's actions, pages and reward in a generated shop with a search engine of its own."""

from __future__ import annotations

from functools import partial

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.long_context.lengths import LazyTasks
from firsthand.errors import ConfigError
from firsthand.system.plurals import count_of
from firsthand.task import Task
from firsthand.trace import Score, Trace
from firsthand.worlds.outcomes import world_result, world_score
from firsthand.worlds.shop.shop_generator import SHOP_LEVELS, SHOP_VERSION, make_shop, make_shopping_goal
from firsthand.worlds.shop.shop_world import ShopWorld
from firsthand.worlds.world import Actions, WorldEnvironment

INSTRUCTIONS = """You shop on a web site by text actions, one in a turn:
search[words]: search for products; only at the search page
click[text]: click a button, a product's id, or an option's value, as it stands on the page
Find a product that fits the instruction, choose the options that it asks for, and click[Buy Now], which ends the task. The
reward is the share of what is asked for: kind, attributes, options, and price.

"""


def agentbench_ws(*, level: int = 2, tasks: int = 100, rounds: int = 10, actions: Actions = "text") -> Benchmark:
    """Return the benchmark: `tasks` errands of a `level` (1 to 3) in the shop of the seed."""
    if level not in SHOP_LEVELS or not 1 <= tasks <= 10_000:
        raise ConfigError(f"level is {level} and tasks {tasks}: give level 1 to 3 and 1 to 10,000 tasks")
    return Benchmark(
        name="agentbench_ws",
        tasks=lambda seed: LazyTasks(range(tasks), partial(_task, seed, level)),
        scorers=(shop_reward, shop_success),
        description="Web shopping by search[...] and click[...] in a generated shop (AgentBench, WebShop).",
        protocol=f"generated, version {SHOP_VERSION}, level {level}; {count_of(rounds, 'round')}; WebShop's reward; "
        f"{actions} actions",
        licence="none needed: generated; the openings of the instructions are WebShop's (MIT)",
        environment=lambda task: WorldEnvironment(_world(task), rounds=rounds, actions=actions),
        options={"level": level, "tasks": tasks, "rounds": rounds, "actions": actions, "version": SHOP_VERSION},
    )


def shop_reward(task: Task, trace: Trace) -> Score:
    """Score WebShop's reward, from 0 to 1; 0 without a purchase."""
    result = world_result(trace)
    return world_score("reward", result.get("reward", 0.0), trace, **result.get("parts", {}))


def shop_success(task: Task, trace: Trace) -> Score:
    """Score 1 if the reward is 1, WebShop's success rate."""
    return Score("success", float(world_result(trace).get("reward", 0.0) == 1))


def _world(task: Task) -> ShopWorld:
    seed, index, level = (task.secret[key] for key in ("seed", "index", "level"))
    return ShopWorld(make_shop(seed, level), make_shopping_goal(seed, index, level))


def _task(seed: int, level: int, index: int) -> Task:
    goal = make_shopping_goal(seed, index, level)
    first = f"Instruction: {goal.instruction} [SEP] Search\nPossible actions: search[words]"
    secret = {"seed": seed, "index": index, "level": level}
    return Task(f"seed{seed}-level{level}-{index:04d}", INSTRUCTIONS + first, secret=secret)
