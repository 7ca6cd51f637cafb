"""Aquawar: its rules by hand-computed turns, its baselines, and games from a seed."""

import asyncio
import json
from random import Random

import pytest

from firsthand.agent import Agent
from firsthand.benchmarks.agentbench_dcg import agentbench_dcg
from firsthand.errors import ConfigError
from firsthand.patterns.thought_action import thought_action
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.trace import Trace
from firsthand.worlds.aquawar.aquawar_baselines import Baseline1, Baseline2
from firsthand.worlds.aquawar.aquawar_rules import KINDS, AquawarGame, FishMove
from firsthand.worlds.aquawar.aquawar_world import AquawarSetup, AquawarWorld
from firsthand.worlds.players import play
from firsthand.worlds.world import InvalidAction


def acting(*hps: int) -> AquawarGame:
    """A game in which team 0 acts; the enemies have this health."""
    game = AquawarGame.between(KINDS, KINDS)
    game.no_guess()
    for fish, hp in zip(game.teams[1], hps, strict=False):
        fish.hp = hp
    return game


def health(game: AquawarGame, team: int) -> list[int]:
    return [fish.hp for fish in game.teams[team]]


def test_a_normal_attack_takes_half_of_the_attack_power():
    game = acting()
    game.act(FishMove(1, "normal", 0))
    assert health(game, 1) == [300, 400, 400, 400] and game.turn == 1 and game.phase == "guess"


def test_an_eel_passes_three_tenths_of_a_blow_on_and_grows_with_its_wounds():
    game = acting()
    game.act(FishMove(0, "normal", 2))
    assert health(game, 1) == [390, 390, 330, 390] and game.passives == [(1, 2, "Deflect")]
    eel = game.teams[1][2]
    assert (eel.wound, eel.atk) == (70, 200)
    eel.wound = 199
    game.turn, game.phase = 0, "act"
    game.act(FishMove(0, "normal", 2))
    assert (eel.wound, eel.atk) == (69, 240)


def test_a_spray_hits_all_and_the_shares_of_the_deflected_add_up():
    game = acting()
    game.act(FishMove(0, "active", 0))
    assert health(game, 1) == [316, 316, 344, 344]


def test_an_eel_hits_all_by_its_own_attack_power():
    game = acting()
    game.teams[0][2].atk = 241
    game.act(FishMove(2, "active", 0))  # int(241 * 0.35) = 84; an eel keeps 58 and passes 25 // 3 on
    assert health(game, 1) == [400 - 84 - 16, 400 - 84 - 16, 400 - 58 - 8, 400 - 58 - 8]


def test_an_infight_hurts_a_teammate_without_being_deflected_and_adds_to_the_attack():
    game = acting()
    game.act(FishMove(1, "active", 2))
    assert health(game, 0) == [400, 400, 325, 400] and game.teams[0][1].atk == 340 and game.passives == []


def test_sprays_and_flames_strike_back_for_a_teammate_below_three_tenths():
    game = acting(400, 400, 400, 219)
    game.act(FishMove(0, "normal", 3))  # 70 stay with the sunfish: 149
    assert health(game, 0)[0] == 400
    game = acting(400, 219)
    game.act(FishMove(0, "normal", 1))  # 119 of 400: the spray strikes back, the flame does not for itself
    assert health(game, 0)[0] == 370 and game.passives == [(1, 0, "Counter")]
    game = acting(220)
    game.act(FishMove(0, "normal", 0))
    assert health(game, 0)[0] == 400  # 120 is not below


def test_a_right_guess_reveals_and_costs_each_enemy_fifty():
    game = AquawarGame.between(KINDS, KINDS[::-1])
    assert not game.guess(0, "spray") and health(game, 1) == [400] * 4
    game.phase, game.turn = "guess", 0
    game.teams[1][2].hp = 30
    assert game.guess(0, "sunfish") and health(game, 1) == [350, 350, 0, 350]
    assert game.teams[1][0].exposed and game.teams[1][2].dead and [fish.position for fish in game.hidden(1)] == [1, 3]


def test_who_has_no_fish_loses_and_a_long_game_goes_to_who_has_more():
    game = acting(100, 0, 0, 0)
    for fish in game.teams[1][1:]:
        fish.dead = True
    game.act(FishMove(0, "normal", 0))
    assert game.winner == 0 and game.damage_dealt(0) == 1600
    for enemy_health, winner in (((400, 400, 400, 400), 1), ((400, 400, 400, 200), 0)):
        game = acting(*enemy_health)
        game.states = 127
        game.act(FishMove(1, "active", 2))  # a loss of 75 of its own
        assert game.winner == winner


def test_the_second_baseline_concludes_from_what_it_saw_and_finishes_off():
    game = AquawarGame.between(KINDS, KINDS)
    game.turn = 1
    baseline = Baseline2(Random(0), team=1)
    baseline.saw(game, FishMove(2, "active", 0))
    game.passives = [(0, 2, "Deflect")]
    baseline.saw(game, None)
    assert baseline.guess(game) == (2, "eel")
    game.phase = "act"
    assert baseline.move(game) == FishMove(0, "active", 0)
    game.teams[0][3].hp = 100
    assert baseline.move(game) == FishMove(0, "normal", 3)
    assert all(Baseline1(Random(seed)).move(game) in list(game.legal_moves()) for seed in range(20))


def attempt(*replies: str, baseline: int = 1) -> Trace:
    benchmark = agentbench_dcg(split="dev", rounds=6)
    task = benchmark.tasks(0)[0 if baseline == 1 else 6]
    agent = Agent(
        "a", Scripted([f"Thought: go\nAction: {reply}" for reply in replies]), thought_action, {"constrained": False}
    )
    return asyncio.run(rollout(agent, task, benchmark=benchmark))


def test_wrong_moves_are_told_what_is_possible_and_the_reward_counts_damage():
    guess = '{"guess_type": "eel", "target_position": 0}'
    trace = attempt(
        '{"pick_fish": "spray", "action": "normal", "target_position": 0}',
        "attack!",
        '{"guess_type": "whale", "target_position": 9}',
        guess,
        guess,
        "I strike: {'pick_fish': 'spray', 'action': 'active', 'target_position': 3}",
    )
    told = [call.detail["result"] for call in trace.calls if call.kind == "tool"]
    assert "guess first" in told[0] and "write a JSON object" in told[1] and "hidden living enemy" in told[2]
    assert "act now" in told[4] and "You: spray at 0 uses its ability." in told[5]
    assert trace.final_state["invalid_actions"] == 4 and trace.final_state["ended"] == "rounds"
    dealt = trace.final_state["result"]["damage"]
    assert trace.value() == pytest.approx(0.3 * dealt / 1600) and dealt >= 280
    assert trace.scores[0].detail["reason"] == "invalid action"


@pytest.mark.parametrize(
    "text", ["{" * 5000, '{"target_position": "²"}', '{"guess_type": [], "target_position": 0}', "ход"]
)
def test_hostile_texts_are_no_moves(text: str):
    world = AquawarWorld(AquawarSetup(KINDS, 1, 0, 1))
    with pytest.raises(InvalidAction):
        asyncio.run(_played(world, text))


async def _played(world: AquawarWorld, text: str) -> str:
    call = world.read(text)
    return await world.guess(**call.arguments)


def test_what_is_admissible_is_possible_and_nothing_of_the_enemy_is_shown():
    world = AquawarWorld(AquawarSetup(("eel", "spray", "sunfish", "flame"), 2, 1, 7))
    asyncio.run(world.open())
    assert len(world.admissible()) == 16
    first = world.read(world.admissible()[0])
    asyncio.run(world.guess(**first.arguments))
    for text in world.admissible():
        twin = AquawarWorld(world.setup)
        asyncio.run(twin.open())
        asyncio.run(twin.guess(**first.arguments))
        assert asyncio.run(twin.move(**twin.read(text).arguments))
    assert "unknown" in world.opening() and "eel" not in world.opening().split('"Enemy"')[1]


def test_games_are_the_same_for_a_seed_to_the_byte_and_others_for_another():
    benchmark = agentbench_dcg(split="dev")
    first, again, other = (benchmark.tasks(seed) for seed in (3, 3, 4))
    assert json.dumps([task.to_json() for task in first]) == json.dumps([task.to_json() for task in again])
    assert [task.secret for task in first] != [task.secret for task in other]
    assert len(first) == 12 and len(agentbench_dcg().tasks(0)) == 20
    traces = [asyncio.run(play(benchmark, first[7], "random", seed=9)) for _ in range(2)]
    assert json.dumps([n.message.to_json() for n in traces[0].nodes]) == json.dumps(
        [n.message.to_json() for n in traces[1].nodes]
    )


@pytest.mark.parametrize("actions", ["text", "native"])
def test_the_optimal_player_wins(actions: str):
    benchmark = agentbench_dcg(split="dev", actions=actions)  # type: ignore[arg-type]
    traces = [asyncio.run(play(benchmark, task, "optimal")) for task in benchmark.tasks(1)[::3]]
    assert all(trace.final_state["ended"] == "won" and trace.value() == 1 for trace in traces)
    with pytest.raises(ConfigError, match="dev or standard"):
        agentbench_dcg(split="all")  # type: ignore[arg-type]
