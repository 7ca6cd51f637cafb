"""Aquawar's players where two things nearly balance, and the passive abilities that are told of the last action alone."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import pytest

from firsthand.worlds.aquawar.aquawar_baselines import ACTIVE_CHANCE, Baseline1, Baseline2, SeeingPlayer
from firsthand.worlds.aquawar.aquawar_rules import KINDS, AquawarGame, FishMove

ENEMY = ("eel", "spray", "sunfish", "flame")


def standing(mine: Mapping[int, int], theirs: Mapping[int, int]) -> AquawarGame:
    """A game before an action, with the fish of these places alive at this health."""
    game = AquawarGame.between(KINDS, ENEMY)
    game.phase = "act"
    for team, left in zip(game.teams, (mine, theirs), strict=True):
        for fish in team:
            fish.hp, fish.dead = left.get(fish.position, 0), fish.position not in left
    return game


def test_two_enemies_are_enough_for_an_attack_on_all_and_one_is_struck_alone() -> None:
    player = Baseline2(Random(0), 0)
    all_mine = dict.fromkeys(range(4), 400)
    for theirs in ({1: 400, 3: 400}, {0: 101, 2: 400, 3: 400}):
        assert player.move(standing(all_mine, theirs)) == (0, "active", 0)
        assert player.move(standing({1: 400, 2: 400, 3: 1}, theirs)) == (2, "active", 0), (
            "an eel where no spray is left"
        )
        assert player.move(standing({1: 400, 3: 400}, theirs)) == (1, "normal", min(theirs)), "neither is there"
    assert player.move(standing(all_mine, {2: 400})) == (0, "normal", 2)
    player.struck = 3
    assert player.move(standing({1: 400, 3: 400}, {1: 400, 3: 400})) == (1, "normal", 3)
    assert player.move(standing({1: 400, 3: 400}, {1: 400, 2: 400})) == (1, "normal", 1), "the dead are not struck"
    weak = standing({1: 400, 3: 400}, {0: 300, 1: 100, 2: 100, 3: 400})
    assert player.move(weak) == (1, "normal", 1), "the last blow at the first of the weakest"
    weak.teams[0][3].atk = 203
    assert player.move(weak) == (3, "normal", 1), "by the strongest"
    weak.teams[1][1].hp = weak.teams[1][2].hp = 101
    assert player.move(weak) == (3, "normal", 1), "half of 203 is 101"
    weak.teams[1][1].hp = weak.teams[1][2].hp = 102
    assert player.move(weak) == (3, "normal", 3), "the one that acted last"


@pytest.mark.parametrize(("mine", "theirs", "harder"), [(150, 200, True), (166, 205, False)])
def test_the_seeing_player_pays_a_point_of_health_for_two_thirds_of_the_enemys(
    mine: int, theirs: int, harder: bool
) -> None:
    """A blow of 100 leaves the target below 120, so that its teammate strikes back for 30; the weaker one of 75 or 83 does
    not. 25 more are worth 30 (37.5), and 17 more are not (25.5)."""
    game = standing({1: 400, 3: 400}, {1: theirs, 3: theirs})
    game.teams[0][3].atk = mine
    assert SeeingPlayer().move(game) == (1 if harder else 3, "normal", 1)
    assert ([each.hp for each in game.teams[1]], game.turn, game.phase) == ([0, theirs, 0, theirs], 0, "act")


def test_the_seeing_player_wins_where_it_can_and_counts_a_fish_of_its_own_less_than_an_enemys() -> None:
    last = standing({1: 30, 3: 400}, {3: 100})
    assert SeeingPlayer().move(last) == (1, "normal", 3)
    trade = standing({1: 30, 3: 400}, {1: 100, 3: 400})
    trade.teams[0][3].atk = 0
    assert SeeingPlayer().move(trade) == (1, "normal", 1), "a death of theirs for one of its own"
    trade.teams[1][1].hp = 101
    assert SeeingPlayer().move(trade) == (1, "normal", 3), "none for nothing"
    for kind in KINDS:
        game = AquawarGame.between(KINDS, (kind, *[each for each in KINDS if each != kind]))
        assert SeeingPlayer().guess(game) == (0, kind)
        game.teams[1][0].exposed = True
        assert SeeingPlayer().guess(game) == (1, game.teams[1][1].kind)


def test_the_first_baseline_attacks_by_its_chance_with_its_first_living_fish() -> None:
    class Drawn(Random):
        def __init__(self, chance: float) -> None:
            super().__init__(3)
            self.chance = chance

        def random(self) -> float:
            return self.chance

    game = standing({1: 400, 2: 400}, {0: 400, 3: 400})
    for chance, action in (
        (0.0, "active"),
        (ACTIVE_CHANCE - 1e-9, "active"),
        (ACTIVE_CHANCE, "normal"),
        (0.99, "normal"),
    ):
        move = Baseline1(Drawn(chance)).move(game)
        assert (move.fish, move.action) == (1, action)
        assert move.target in ({2} if action == "active" else {0, 3})
    alone = standing({3: 400}, {0: 400})
    assert Baseline1(Drawn(0.0)).move(alone) == (3, "normal", 0), "nobody is there for an infight"


def test_passive_abilities_are_those_of_the_last_guess_or_action() -> None:
    before = [(0, 0, "Counter"), (1, 2, "Deflect")]
    for move, after in (
        (FishMove(0, "normal", 3), []), (FishMove(0, "normal", 0), [(1, 0, "Deflect")]), (FishMove(1, "active", 3), []),
        (FishMove(0, "active", 0), [(1, 0, "Deflect"), (1, 2, "Deflect")]),
    ):  # fmt: skip
        game = standing(dict.fromkeys(range(4), 400), dict.fromkeys(range(4), 400))
        game.passives = list(before)
        game.act(move)
        assert game.passives == after, move
    for kind in ("spray", "eel"):
        game = AquawarGame.between(KINDS, ENEMY)
        game.passives = list(before)
        assert game.guess(0, kind) == (kind == "eel") and game.passives == []
    game = AquawarGame.between(KINDS, ENEMY)
    game.passives = list(before)
    game.no_guess()
    assert game.passives == []
