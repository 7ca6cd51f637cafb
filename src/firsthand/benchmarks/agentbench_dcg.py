"""AgentBench's digital card game: Aquawar against two baseline players, seeded (Liu et al., 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Literal

from firsthand.benchmark import Benchmark
from firsthand.errors import ConfigError
from firsthand.loop.concurrency import derive_seed
from firsthand.task import Task
from firsthand.trace import Score, Trace
from firsthand.worlds.aquawar.aquawar_rules import KINDS, MAX_HP
from firsthand.worlds.aquawar.aquawar_world import AquawarSetup, AquawarWorld
from firsthand.worlds.outcomes import world_score
from firsthand.worlds.world import Actions, WorldEnvironment

VERSION = 1
"""Goes up when the same seed gives other games."""
GAMES = {"dev": 3, "standard": 5}
"""Games for each baseline and each order of moves, as in the paper: 12 and 20 in all."""
ROUNDS = 100
RULES = """This is a two-player battle game with four pet fish in each team. Each fish has 400 initial health, 200 attack \
power, an active ability, and a passive ability. The kinds of all fish are initially hidden from the other team, and each \
team has one of each kind, in an order of its own.

In each round of yours you first guess the kind of one living hidden enemy fish. If you guess right, it is revealed, and \
each of the enemy's fish loses 50 health; the enemy guesses likewise. Then you choose a live fish to use its active ability \
or a normal attack, which causes half of its attack power as damage to one enemy fish. Passive abilities trigger by \
themselves. Who has no fish alive loses; at the end of a long game, who has fewer alive.

- spray. Passive, Counter: deals 30 damage to the attacker when a teammate's health falls below 30%. Active, AOE: 70 damage \
to all enemies.
- flame. Passive, Counter: the same. Active, Infight: one living teammate takes 75 damage, and its own attack power grows \
by 140.
- eel. Passive, Deflect: takes 70% of the damage when attacked, and its teammates share 30%; gains 40 attack power for each \
200 damage. Active, AOE: 35% of its attack power as damage to all enemies.
- sunfish. Passive, Deflect: the same. Active, Infight: as flame.
{form}
{state}"""
FORMS: dict[Actions, str] = {
    "text": """
Write each turn as two lines, Thought: and your reasoning, then Action: and one JSON object. To guess:
Action: {"guess_type": "eel", "target_position": 2}
To act, with action normal or active and the target's position from 0 to 3 (a teammate's for Infight, 0 for AOE):
Action: {"pick_fish": "spray", "action": "normal", "target_position": 1}
""",
    "native": "\nCall guess, then move, in each of your rounds.\n",
}


def agentbench_dcg(
    *, split: Literal["dev", "standard"] = "standard", actions: Actions = "text", rounds: int = ROUNDS
) -> Benchmark:
    """Return the benchmark: 20 (standard) or 12 (dev) games from a seed, half against each baseline, half as the first.

    A game has `rounds` guesses and actions at most.
    """
    if split not in GAMES:
        raise ConfigError(f"split is {split!r}: give dev or standard")
    return Benchmark(
        name="agentbench_dcg",
        tasks=lambda seed: make_games(seed, GAMES[split], actions),
        scorers=(reward,),
        description="AgentBench's digital card game: Aquawar against two baseline players.",
        protocol=f"version {VERSION}, generated: {4 * GAMES[split]} games by the paper's rules for its four fish, the "
        f"enemy's order from the seed (the paper's is fixed); {actions} actions; {rounds} rounds; reward 0.7 for a win and "
        "0.3 times the share of damage dealt, as in the paper",
        licence="none needed: generated",
        environment=lambda task: WorldEnvironment(AquawarWorld(_setup(task)), rounds=rounds, actions=actions),
        options={"version": VERSION, "split": split, "actions": actions, "rounds": rounds},
    )


def make_games(seed: int, each: int, actions: Actions = "text") -> Sequence[Task]:
    """Return the games of a seed, the same on any machine."""
    made = []
    for baseline in (1, 2):
        for first in (0, 1):
            for number in range(each):
                rng = Random(derive_seed("aquawar", VERSION, seed, baseline, first, number))
                setup = {
                    "enemy": rng.sample(KINDS, 4),
                    "baseline": baseline,
                    "first": first,
                    "seed": rng.getrandbits(32),
                }
                order = "first" if first == 0 else "second"
                task = Task(f"seed{seed}-baseline{baseline}-{order}-{number}", "", secret={"setup": setup})
                made.append(_described(task, actions))
    return made


def reward(task: Task, trace: Trace) -> Score:
    """0.7 for a win, and 0.3 times the share of the enemy's 1600 health that was taken."""
    result = trace.final_state["result"]
    share = min(result["damage"] / (4 * MAX_HP), 1.0)
    value = 0.7 * result["won"] + 0.3 * share
    return world_score("reward", min(value, 1.0), trace, won=result["won"], damage=share)


def _described(task: Task, actions: Actions) -> Task:
    """The task with its prompt, which shows the first state."""
    world = AquawarWorld(_setup(task))
    world.begin()
    prompt = RULES.format(form=FORMS[actions], state=world.opening())
    level = {"stratum": f"baseline{world.setup.baseline}", "level": world.setup.baseline}
    return Task(task.id, prompt, metadata=level, secret=task.secret)


def _setup(task: Task) -> AquawarSetup:
    body = task.secret["setup"]
    return AquawarSetup(tuple(body["enemy"]), body["baseline"], body["first"], body["seed"])
