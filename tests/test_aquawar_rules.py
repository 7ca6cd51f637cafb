"""Aquawar's rules and players in figures: each attack, each passive ability, the end of a game, and what is shown."""

import asyncio
import copy
import json
from random import Random

import pytest

from firsthand.worlds.aquawar.aquawar_baselines import Baseline1, Baseline2, SeeingPlayer
from firsthand.worlds.aquawar.aquawar_rules import KINDS, STATE_LIMIT, AquawarGame, FishMove
from firsthand.worlds.aquawar.aquawar_world import THEM, US, AquawarSetup, AquawarWorld
from firsthand.worlds.world import InvalidAction

ENEMY = ("eel", "spray", "sunfish", "flame")


def fresh(phase: str = "act") -> AquawarGame:
    game = AquawarGame.between(KINDS, ENEMY)
    game.phase = phase
    return game


def health(game: AquawarGame, team: int) -> list[int]:
    return [fish.hp for fish in game.teams[team]]


def test_a_right_guess_reveals_and_costs_every_enemy_fifty_and_a_wrong_one_nothing():
    game = fresh("guess")
    assert not game.guess(1, "eel") and health(game, 1) == [400] * 4 and not game.teams[1][1].exposed
    assert (game.phase, game.turn, game.states) == ("act", 0, 1)
    game.phase = "guess"
    game.teams[1][3].hp = 30
    assert game.guess(0, "eel") and health(game, 1) == [350, 350, 350, 0]
    assert game.teams[1][3].dead and [fish.position for fish in game.hidden(1)] == [1, 2]
    assert [fish.exposed for fish in game.teams[1]] == [True, False, False, False]
    game.passives.append((0, 0, "Counter"))
    game.phase = "guess"
    game.no_guess()
    assert game.passives == [] and (game.phase, game.turn, game.states) == ("act", 0, 3)


def test_a_normal_attack_takes_half_the_attack_and_an_eel_passes_three_tenths_on():
    game = fresh()
    game.act(FishMove(0, "normal", 3))  # the flame: nothing is deflected
    assert health(game, 1) == [400, 400, 400, 300] and (game.turn, game.phase) == (1, "guess")
    game = fresh()
    game.teams[0][0].atk = 221  # 110 at an eel with three others: 77 itself, 33 // 3 each
    game.act(FishMove(0, "normal", 0))
    assert health(game, 1) == [323, 389, 389, 389] and game.passives == [(1, 0, "Deflect")]
    assert [fish.wound for fish in game.teams[1]] == [77, 11, 11, 11]
    alone = fresh()
    for place in (1, 2, 3):
        alone.teams[1][place].dead = True
    alone.act(FishMove(0, "normal", 0))
    assert alone.teams[1][0].hp == 300 and alone.passives == []


def test_a_copy_of_a_game_is_played_without_the_game():
    game = fresh()
    game.passives.append((1, 0, "Deflect"))
    other = game.copy()
    other.passives.append((1, 1, "Counter"))
    other.teams[1][0].hp = 1
    assert game.passives == [(1, 0, "Deflect")] and health(game, 1) == [400] * 4


def test_a_wounded_eel_gets_stronger_at_each_two_hundred():
    game = fresh()
    eel = game.teams[1][0]
    eel.wound = 130
    game.act(FishMove(0, "normal", 0))  # 70 of 100
    assert (eel.atk, eel.wound) == (240, 0)
    eel.wound, eel.atk = 340, 200
    game.turn, game.phase = 0, "act"
    game.act(FishMove(0, "normal", 0))  # 410 in all: two times two hundred
    assert (eel.atk, eel.wound) == (280, 10)
    flame = game.teams[1][3]
    flame.wound = 500
    game = AquawarGame((game.teams[0], game.teams[1]), phase="act")
    game.act(FishMove(0, "normal", 3))
    assert (flame.atk, flame.wound) == (200, 600)


def test_a_spray_hits_all_for_seventy_and_an_eel_for_seven_twentieths_of_its_attack():
    """Each of eel and sunfish keeps 49 of 70 and passes 21 // 3 = 7 to each other; spray and flame get 70 + 14."""
    game = fresh()
    game.act(FishMove(0, "active", 0))
    assert health(game, 1) == [400 - 49 - 7, 400 - 70 - 14, 400 - 49 - 7, 400 - 70 - 14]
    assert game.passives == [(1, 0, "Deflect"), (1, 2, "Deflect")] and health(game, 0) == [400] * 4
    game = fresh()
    game.teams[0][2].atk = 240  # 84: 58 kept, int(25.2) // 3 = 8 passed on
    game.act(FishMove(2, "active", 0))
    assert health(game, 1) == [400 - 58 - 8, 400 - 84 - 16, 400 - 58 - 8, 400 - 84 - 16]


def test_an_infight_hurts_a_teammate_without_source_and_strengthens_the_fish():
    game = fresh()
    game.act(FishMove(3, "active", 2))  # our sunfish at our eel: no deflection without a source
    assert health(game, 0) == [400, 400, 325, 400] and health(game, 1) == [400] * 4
    assert [fish.atk for fish in game.teams[0]] == [200, 200, 200, 340] and game.passives == []


def test_sprays_and_flames_strike_back_for_a_teammate_below_three_tenths():
    game = fresh()
    game.teams[1][2].hp, game.teams[1][1].hp = 190, 400  # the sunfish keeps 70 of 100: 120 is not below 120
    game.act(FishMove(1, "normal", 2))
    assert health(game, 0) == [400] * 4 and game.teams[1][2].hp == 120
    game = fresh()
    game.teams[1][2].hp = 189
    game.act(FishMove(1, "normal", 2))
    assert health(game, 0) == [400, 340, 400, 400]
    assert game.passives == [(1, 2, "Deflect"), (1, 1, "Counter"), (1, 3, "Counter")]
    game = fresh()
    game.teams[1][1].hp, game.teams[1][3].dead = 200, True  # the spray itself: nobody is left to strike back
    game.act(FishMove(0, "normal", 1))
    assert game.teams[1][1].hp == 100 and health(game, 0) == [400] * 4 and game.passives == []


def test_legal_moves_leave_out_the_dead_and_the_fish_itself():
    game = fresh()
    game.teams[0][1].dead = game.teams[1][0].dead = game.teams[1][3].dead = True
    assert list(game.legal_moves()) == [
        (0, "normal", 1), (0, "normal", 2), (0, "active", 0), (2, "normal", 1), (2, "normal", 2), (2, "active", 0),
        (3, "normal", 1), (3, "normal", 2), (3, "active", 0), (3, "active", 2),
    ]  # fmt: skip
    twin = game.copy()
    twin.act(FishMove(0, "normal", 1))
    assert game.teams[1][1].hp == 400 and game.turn == 0 and game.damage_dealt(0) == 0
    assert twin.damage_dealt(0) == 100 and twin.damage_dealt(1) == 0
    twin.teams[1][2].hp = -40
    assert twin.damage_dealt(0) == 500  # no fish loses more than it had


def test_a_game_ends_when_a_team_is_gone_and_the_one_that_acts_wins_if_both_are():
    game = fresh()
    for fish in game.teams[1]:
        fish.hp = fish.hp if fish.position == 3 else 0
    game.teams[1][3].hp = 100
    game.act(FishMove(0, "normal", 3))
    assert game.winner == 0
    both = fresh()
    for fish in (*both.teams[0], *both.teams[1]):
        fish.hp = 0
    both.turn = 1
    both._end_of("act")
    assert both.winner == 1
    lost = fresh()
    for fish in lost.teams[0]:
        fish.hp = 0
    lost._end_of("act")
    assert lost.winner == 1


def test_after_the_last_state_fish_then_health_then_the_healthiest_then_the_second_player_decides():
    def decided(first: int, ours: list[int], theirs: list[int], states: int = STATE_LIMIT - 1) -> int | None:
        game = AquawarGame.between(KINDS, ENEMY, first)
        game.states = states
        for team, given in enumerate((ours, theirs)):
            for fish, hp in zip(game.teams[team], given, strict=True):
                fish.hp = hp
        game.no_guess()
        return game.winner

    assert decided(0, [1, 1, 1, 0], [400, 400, 0, 0]) == 0 and decided(0, [400, 0, 0, 0], [1, 1, 0, 0]) == 1
    assert decided(0, [10, 20, 0, 0], [300, 2, 0, 0]) == 1 and decided(0, [300, 3, 0, 0], [300, 2, 0, 0]) == 0
    assert decided(0, [60, 40, 0, 0], [30, 70, 0, 0]) == 1
    assert decided(0, [60, 40, 0, 0], [40, 60, 0, 0]) == 1 and decided(1, [60, 40, 0, 0], [40, 60, 0, 0]) == 0
    assert decided(0, [60, 40, 0, 0], [40, 60, 0, 0], STATE_LIMIT - 2) is None


def test_the_first_baseline_takes_its_first_living_fish_and_the_first_hidden_enemy():
    game = fresh("guess")
    game.teams[1][0].exposed = game.teams[0][0].dead = True
    player = Baseline1(Random(1))
    guesses = {player.guess(game) for _ in range(60)}
    assert guesses == {(1, kind) for kind in KINDS}
    moves = [player.move(game) for _ in range(400)]
    assert {move.fish for move in moves} == {1} and {move.target for move in moves if move.action == "active"} == {2, 3}
    assert {move.target for move in moves if move.action == "normal"} == {0, 1, 2, 3}
    assert 0.74 < sum(move.action == "active" for move in moves) / 400 < 0.86  # 0.8 is its chance
    for place in (0, 2, 3):
        game.teams[0][place].dead = True
    assert player.move(game).action == "normal"  # a flame alone has no teammate for its ability


def test_the_second_baseline_guesses_what_was_given_away_and_strikes_the_last_blow():
    game = AquawarGame.between(KINDS, ENEMY)
    player = Baseline2(Random(2), 0)
    game.passives = [(1, 2, "Deflect"), (0, 3, "Counter")]
    game.turn = 1
    player.saw(game, FishMove(2, "active", 1))  # their sunfish infights and deflects
    assert player.clues == {0: set(), 1: set(), 2: {"Infight", "Deflect"}, 3: set()} and player.struck == 2
    game.turn, game.passives = 0, []
    assert player.guess(game) == (2, "sunfish")
    player.saw(game, None)
    assert player.struck == 2
    game.teams[1][2].exposed = True
    guesses = {player.guess(game) for _ in range(200)}
    assert guesses == {(place, kind) for place in (0, 1, 3) for kind in KINDS if kind != "sunfish"}
    assert player.move(game) == (0, "active", 0)  # our spray, with several enemies
    game.teams[0][0].dead = True
    assert player.move(game) == (2, "active", 0)  # our eel
    game.teams[0][2].dead = True
    assert player.move(game) == (1, "normal", 2)  # the one that acted last
    game.teams[1][2].dead = True
    assert player.move(game) == (1, "normal", 0)
    game.teams[0][3].atk, game.teams[1][3].hp = 240, 120
    assert player.move(game) == (3, "normal", 3)
    game.teams[1][3].hp = 121
    assert player.move(game) == (3, "normal", 0)
    seen = {kind: Baseline2(Random(0), 0) for kind in KINDS}
    for kind, clues in (("spray", "AOE Counter"), ("flame", "Infight Counter"), ("eel", "AOE Deflect")):
        seen[kind].clues[3] = set(clues.split())
        assert seen[kind].guess(fresh("guess")) == (3, kind)


def test_the_seeing_player_prefers_what_leaves_it_furthest_ahead():
    game = fresh()
    assert SeeingPlayer().guess(game) == (0, "eel")
    assert SeeingPlayer().move(game) == (0, "active", 0)  # 280 of damage in all
    game.teams[0][0].dead = game.teams[0][2].dead = True
    game.teams[1][3].hp = 100
    assert SeeingPlayer().move(game) == (1, "normal", 3)  # a death counts as 120 more
    assert game.teams[1][3].hp == 100 and game.turn == 0
    game.teams[1][3].hp = 150
    assert SeeingPlayer().move(game) == (1, "normal", 0)  # of equal ones the first


def test_a_world_reads_moves_refuses_impossible_ones_and_shows_only_what_is_known():
    world = AquawarWorld(AquawarSetup(ENEMY, 1, US, 5))
    asyncio.run(world.open())
    assert world.admissible()[:2] == [
        '{"guess_type": "spray", "target_position": 0}', '{"guess_type": "flame", "target_position": 0}',
    ]  # fmt: skip
    assert len(world.admissible()) == 16 and world.ending is None
    for text, call in [
        ("I say {'guess_type': 'eel', 'target_position': '2'}", ("guess", {"guess_type": "eel", "target_position": 2})),
        (
            '{"a": 1} {"pick_fish": "eel", "action": "active", "target_position": 0}',
            ("move", {"pick_fish": "eel", "action": "active", "target_position": 0}),
        ),
    ]:
        assert world.read(text) == call
    for text in (
        "{}",
        "nothing",
        '{"guess_type": "eel"}',
        '{"guess_type": "eel", "target_position": -1}',
        '{"guess_type": "eel", "target_position": 1000}',
        '{"pick_fish": "eel", "target_position": 0}',
    ):
        with pytest.raises(InvalidAction, match=r'write a JSON object such as \{"guess_type": "spray"'):
            world.read(text)
    for kind, place in (("eel", 4), ("shark", 0)):
        with pytest.raises(InvalidAction, match=r"hidden living enemy's position \(0, 1, 2, 3\)"):
            asyncio.run(world.guess(kind, place))
    with pytest.raises(InvalidAction, match="guess first"):
        asyncio.run(world.move("spray", "normal", 0))
    said = asyncio.run(world.guess("eel", 0))
    head, state, due = said.split("\n")
    assert (
        head == "Your guess was right: position 0 holds the eel, and each enemy fish loses 50 health."
        and due == "Now act."
    )
    assert json.loads(state) == {
        "You": [{"POSITION": str(n), "ID": kind, "HP": "400", "ATK": "200"} for n, kind in enumerate(KINDS)],
        "Enemy": [
            {"POSITION": str(n), "ID": kind, "HP": "350", "ATK": "unknown"}
            for n, kind in enumerate(("eel", "unknown", "unknown", "unknown"))
        ],
    }
    with pytest.raises(InvalidAction, match="you have guessed in this turn"):
        asyncio.run(world.guess("eel", 1))
    for move in (("shark", "normal", 0), ("spray", "normal", 4), ("flame", "active", 1), ("spray", "jump", 0)):
        with pytest.raises(InvalidAction, match="is not possible"):
            asyncio.run(world.move(*move))
    world.game.teams[US][0].dead = True
    with pytest.raises(InvalidAction, match="'spray' 'normal' at 0 is not possible"):
        asyncio.run(world.move("spray", "normal", 0))
    assert world._legal("eel", "active", 3) == (2, "active", 0) and world._legal("flame", "active", 3) == (
        1,
        "active",
        3,
    )
    assert world.read(world.admissible()[0]) == (
        "move", {"pick_fish": "flame", "action": "normal", "target_position": 0},
    )  # fmt: skip
    assert world.render().split("\n")[4] == "enemy 0 eel      #################    350"
    assert world.render().split("\n")[0] == "  you 0 spray    #################### 400 dead"
    assert world.render().split("\n")[5] == "enemy 1 ?        #################    350"


def test_a_turn_is_told_with_both_actions_and_passives_and_the_enemy_may_begin():
    world = AquawarWorld(AquawarSetup(ENEMY, 2, US, 3))
    asyncio.run(world.open())
    assert world.opening() == world._state() and world.opening().endswith("\nNow guess.")
    asyncio.run(world.guess("spray", 0))
    said = asyncio.run(world.move("flame", "normal", 2)).split("\n")
    assert said[0] == "You: flame at 1 attacks, target 2."
    assert said[1] == "Passive ability of the enemy fish 2: Deflect."
    assert said[2].startswith("The enemy guessed ") and said[2].endswith((": right.", ": wrong."))
    assert said[3] == "The enemy: a hidden fish at 1 uses its ability." and said[-1] == "Now guess."
    assert [line for line in said[4:-2]] == [
        "Passive ability of your fish 2: Deflect.",
        "Passive ability of your fish 3: Deflect.",
    ]
    assert world.enemy.struck == 1 and world.enemy.clues == {0: set(), 1: set(), 2: {"Deflect"}, 3: {"Deflect"}}
    assert asyncio.run(world.result()) == {"won": False, "damage": 70 + 30, "states": 4}
    second = AquawarWorld(AquawarSetup(ENEMY, 1, THEM, 3))
    asyncio.run(second.open())
    assert second.game.states == 2 and second.game.turn == US and len(second.log) >= 2
    begun = second.opening()
    second.begin()
    assert second.opening() == begun and begun.startswith("The enemy guessed")
    second.game.winner = THEM
    assert second.ending == "lost" and second.admissible() == [] and not second._state().endswith("Now guess.")
    second.game.winner = US
    assert second.ending == "won"


def test_with_nothing_hidden_the_guess_is_passed_over_on_both_sides():
    world = AquawarWorld(AquawarSetup(ENEMY, 1, US, 1))
    asyncio.run(world.open())
    for fish in (*world.game.teams[US], *world.game.teams[THEM]):
        fish.exposed = True
    world.game.no_guess()
    said = asyncio.run(world.move("spray", "active", 3)).split("\n")
    assert said[0] == "You: spray at 0 uses its ability." and not any("guessed" in line for line in said)
    assert any(line.startswith("The enemy: eel at 0") for line in said)
    assert world.game.phase == "act" and world.game.states == 5 and said[-1] == "Now act."


def play(world: AquawarWorld, action: str) -> None:
    call = world.read(action)
    asyncio.run(getattr(world, call.name)(**call.arguments))


def wins_from(world: AquawarWorld, action: str) -> bool:
    """Play the action, and then what the seeing player would, on a copy."""
    twin, seeing = copy.deepcopy(world), SeeingPlayer()
    play(twin, action)
    while twin.game.winner is None:
        if twin.game.phase == "guess":
            place, kind = seeing.guess(twin.game)
            play(twin, json.dumps({"guess_type": kind, "target_position": place}))
        else:
            play(twin, twin._written(seeing.move(twin.game)))
    return twin.game.winner == US


def test_the_best_move_is_the_greedy_one_or_else_the_first_that_wins():
    taken = set()
    for enemy, first, seed in ((2, THEM, 26), (2, US, 4)):
        world = AquawarWorld(AquawarSetup(("eel", "sunfish", "flame", "spray"), enemy, first, seed))
        asyncio.run(world.open())
        while world.ending is None:
            before = world.render(), world.game.states
            action = world.optimal()
            assert (world.render(), world.game.states) == before
            if world.game.phase == "guess":
                place, kind = SeeingPlayer().guess(world.game)
                assert json.loads(action) == {"guess_type": kind, "target_position": place}
                assert world.game.teams[THEM][place].kind == kind
            else:
                greedy = world._written(SeeingPlayer().move(world.game))
                tried = [greedy, *(each for each in world.admissible() if each != greedy)]
                winning = next((each for each in tried if wins_from(world, each)), None)
                assert action == (winning or greedy)
                taken.add((action == greedy, winning is not None))
            play(world, action)
    assert {(True, True), (False, True)} <= taken
