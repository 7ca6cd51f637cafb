"""The card game as a world: texts that are read as moves, where a turn ends, and the state that is told."""

import asyncio
import json
from random import Random

import pytest

from firsthand.worlds.aquawar.aquawar_baselines import Baseline1
from firsthand.worlds.aquawar.aquawar_rules import KINDS, AquawarGame, FishMove
from firsthand.worlds.aquawar.aquawar_world import THEM, US, AquawarSetup, AquawarWorld
from firsthand.worlds.world import InvalidAction

ENEMY = ("eel", "spray", "sunfish", "flame")


class Told(Baseline1):
    """The first baseline, which may be told its guess and action, and notes what it saw and after how many states."""

    def __init__(self, guessed: tuple[int, str] | None = None, made: FishMove | None = None) -> None:
        super().__init__(Random(0))
        self.guessed, self.made = guessed, made
        self.seen: list[tuple[FishMove | None, int]] = []

    def guess(self, game: AquawarGame) -> tuple[int, str]:
        return self.guessed or super().guess(game)

    def move(self, game: AquawarGame) -> FishMove:
        return self.made or super().move(game)

    def saw(self, game: AquawarGame, move: FishMove | None) -> None:
        self.seen.append((move, game.states))


def last_two(ours: int, theirs: int, enemy: Told) -> AquawarWorld:
    """A game of our sunfish against their revealed flame, of this health; it is our turn to act."""
    world = AquawarWorld(AquawarSetup(ENEMY, 1, US, 5))
    world.enemy = enemy
    for team, hp in ((US, ours), (THEM, theirs)):
        for fish in world.game.teams[team][:3]:
            fish.hp, fish.dead = 0, True
        world.game.teams[team][3].hp = hp
    world.game.teams[THEM][3].exposed = True
    world.game.no_guess()
    return world


def shown(said: str) -> dict[str, list[dict[str, str]]]:
    """The state in an observation, without what is due."""
    return json.loads(next(line for line in said.split("\n") if line.startswith("{")))  # type: ignore[no-any-return]


def test_the_first_object_that_is_a_move_is_read_and_only_near_the_beginning():
    world = AquawarWorld(AquawarSetup(ENEMY, 1, US, 5))
    eel = '{"guess_type": "eel", "target_position": 1}'
    for text, call in [
        (f"{eel} or {eel.replace('1', '2')}", ("guess", {"guess_type": "eel", "target_position": 1})),
        (
            '{"target_position": 3} {"guess_type": "eel"}\n{"guess_type":\n"o\'x", "target_position": " 03\\n"}',
            ("guess", {"guess_type": "o'x", "target_position": 3}),
        ),
        (
            "{'guess_type': 'don't', 'target_position': 1} "
            "{'pick_fish': 'eel', 'action': 'normal', 'target_position': ' 2 '}",
            ("move", {"pick_fish": "eel", "action": "normal", "target_position": 2}),
        ),
        (
            '{"action": "a", "pick_fish": "p", "guess_type": "g", "target_position": 999}',
            ("guess", {"guess_type": "g", "target_position": 999}),
        ),
        (
            '{"action": "a", "target_position": 1} {"pick_fish": "p", "target_position": 2} '
            '{"pick_fish": 7, "action": null, "target_position": "4"}',
            ("move", {"pick_fish": "7", "action": "None", "target_position": 4}),
        ),
        (f'{{"think": {eel}}}', ("guess", {"guess_type": "eel", "target_position": 1})),
        (eel.rjust(4000), ("guess", {"guess_type": "eel", "target_position": 1})),
    ]:  # fmt: skip
        assert world.read(text) == call
    for text in (
        eel.rjust(4001), *(eel.replace("1", place) for place in ("1.0", "true", '"1 2"', '""', '" "', "null", "1000", "-1")),
        '{"pick_fish": "eel", "target_position": 1}', '{"action": "normal", "target_position": 1}', "[1]", "",
    ):  # fmt: skip
        with pytest.raises(InvalidAction) as refused:
            world.read(text)
        assert str(refused.value) == (
            'this is no move: write a JSON object such as {"guess_type": "spray", "target_position": 0}'
        )
    world.game.winner = THEM
    with pytest.raises(InvalidAction, match=r"^this is no move: write a JSON object such as \{\}$"):
        world.read("?")


def test_an_action_of_the_enemy_that_ends_the_game_is_the_last_state():
    world = last_two(60, 400, Told())
    world.game.teams[US][2].atk, world.game.teams[US][3].exposed = 240, True
    world.game.teams[THEM][0].exposed = True
    said = asyncio.run(world.move("sunfish", "normal", 3))
    assert said.split("\n")[:2] == ["You: sunfish at 3 attacks, target 3.", "The enemy: flame at 3 attacks, target 3."]
    assert len(said.split("\n")) == 3 and world.ending == "lost"
    assert world.game.teams[US][3].hp == 60 - 100
    assert asyncio.run(world.result()) == {"won": False, "damage": 3 * 400 + 100, "states": 4}
    assert world.enemy.seen == [(FishMove(3, "normal", 3), 2), (None, 4)]
    assert shown(said) == {
        "You": [
            {"POSITION": str(n), "ID": kind, "HP": "0", "ATK": "240" if kind == "eel" else "200"}
            for n, kind in enumerate(KINDS)
        ],
        "Enemy": [
            {"POSITION": "0", "ID": "eel", "HP": "0", "ATK": "unknown"},
            {"POSITION": "1", "ID": "unknown", "HP": "0", "ATK": "unknown"},
            {"POSITION": "2", "ID": "unknown", "HP": "0", "ATK": "unknown"},
            {"POSITION": "3", "ID": "flame", "HP": "300", "ATK": "unknown"},
        ],
    }
    assert world.render().split("\n") == [
        *(f"  you {n} {kind:<8} {'':<20}   0 dead" for n, kind in enumerate(KINDS)),
        *(f"enemy {n} {kind:<8} {'':<20}   0 dead" for n, kind in enumerate(("eel", "?", "?"))),
        f"enemy 3 flame    {'#' * 15:<20} 300",
        *said.split("\n")[:2],
    ]


def test_a_guess_of_the_enemy_that_ends_the_game_is_followed_by_no_action():
    world = last_two(50, 400, Told((3, "sunfish")))
    said = asyncio.run(world.move("sunfish", "normal", 3)).split("\n")
    assert said[:-1] == [
        "You: sunfish at 3 attacks, target 3.", "The enemy guessed sunfish for your fish 3: right."
    ]  # fmt: skip
    assert world.ending == "lost" and world.enemy.seen == [(FishMove(3, "normal", 3), 2)]
    assert asyncio.run(world.result()) == {"won": False, "damage": 3 * 400 + 100, "states": 3}


def test_an_action_that_wins_leaves_the_enemy_no_turn():
    world = last_two(50, 100, Told((3, "sunfish")))
    said = asyncio.run(world.move("sunfish", "normal", 3)).split("\n")
    assert said[0] == "You: sunfish at 3 attacks, target 3." and len(said) == 2
    assert world.ending == "won" and world.admissible() == []
    assert world.enemy.seen == [(FishMove(3, "normal", 3), 2)]
    assert asyncio.run(world.result()) == {"won": True, "damage": 1600, "states": 2}


def test_guesses_are_listed_for_hidden_fish_alone():
    world = AquawarWorld(AquawarSetup(ENEMY, 1, US, 5))
    world.game.teams[THEM][1].exposed = True
    world.game.teams[THEM][2].dead = True
    listed = [json.loads(each) for each in world.admissible()]
    assert listed == [{"guess_type": kind, "target_position": place} for place in (0, 3) for kind in KINDS]


def test_our_guess_is_due_after_the_enemys_turn_unless_nothing_is_hidden():
    for hidden, named, states, due in ((True, "a hidden fish", 4, "guess"), (False, "flame", 5, "act")):
        world = AquawarWorld(AquawarSetup(ENEMY, 1, US, 5))
        world.enemy = Told((1, "eel"), FishMove(3, "active", 1))
        for fish in world.game.teams[THEM]:
            fish.exposed = fish.position != 3 or not hidden
        world.game.no_guess()
        said = asyncio.run(world.move("flame", "active", 2)).split("\n")
        assert said[:3] == [
            "You: flame at 1 uses its ability, target 2.", "The enemy guessed eel for your fish 1: wrong.",
            f"The enemy: {named} at 3 uses its ability, target 1.",
        ]  # fmt: skip
        assert said[4:] == [f"Now {due}."] and (world.game.phase, world.game.states) == (
            due,
            states,
        )
        assert [each["HP"] for each in shown("\n".join(said))["Enemy"]] == ["400", "325", "400", "400"]
        assert [(each["HP"], each["ATK"]) for each in shown("\n".join(said))["You"]] == [
            ("400", "200"), ("400", "340"), ("325", "200"), ("400", "200")
        ]  # fmt: skip
        assert world.enemy.seen == [(FishMove(1, "active", 2), 2), (None, 4)]
