"""AgentBench's digital card game as a world: guess an enemy fish, then act, turn by turn against a baseline player."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from typing import Any

from firsthand.message import Json
from firsthand.worlds.aquawar.aquawar_baselines import Baseline1, Baseline2, FishPlayer, SeeingPlayer
from firsthand.worlds.aquawar.aquawar_rules import KINDS, MAX_HP, AquawarGame, FishMove
from firsthand.worlds.world import InvalidAction, WorldCall

US, THEM = 0, 1
_OBJECT = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True)
class AquawarSetup:
    """A game: the enemy's order, its strategy and its seed, and who begins."""

    enemy: tuple[str, ...]
    baseline: int
    first: int
    seed: int


class AquawarWorld:
    """A World of one game."""

    form = None
    examples = (
        '{"guess_type": "eel", "target_position": 2}',
        '{"pick_fish": "spray", "action": "normal", "target_position": 1}',
    )

    def __init__(self, setup: AquawarSetup):
        self.setup = setup
        self.game = AquawarGame.between(KINDS, setup.enemy, setup.first)
        rng = Random(setup.seed)
        self.enemy: FishPlayer = Baseline1(rng) if setup.baseline == 1 else Baseline2(rng, THEM)
        self.log: list[str] = []

    @property
    def ending(self) -> str | None:
        """`won` or `lost`."""
        return None if self.game.winner is None else ("won" if self.game.winner == US else "lost")

    @property
    def moves(self) -> Sequence[Callable[..., Awaitable[str]]]:
        """The guess and the action."""
        return (self.guess, self.move)

    async def guess(self, guess_type: str, target_position: int) -> str:
        """Guess the kind of a hidden enemy fish. Do this first in each of your turns.

        Args:
            guess_type: spray, flame, eel or sunfish.
            target_position: The enemy's position, 0 to 3.
        """
        hidden = [fish.position for fish in self.game.hidden(THEM)]
        if self.game.phase != "guess":
            raise InvalidAction(f"you have guessed in this turn: act now, as in {self.admissible()[0]}")
        if guess_type not in KINDS or target_position not in hidden:
            raise InvalidAction(
                f"{guess_type!r:.40} at {target_position} cannot be guessed: give one of {', '.join(KINDS)} and a hidden "
                f"living enemy's position ({', '.join(map(str, hidden))})"
            )
        right = self.game.guess(target_position, guess_type)
        told = (
            f"right: position {target_position} holds the {guess_type}, and each enemy fish loses 50 health"
            if right
            else "wrong"
        )
        return f"Your guess was {told}.\n{self._state()}"

    async def move(self, pick_fish: str, action: str, target_position: int) -> str:
        """Act with one of your living fish; then the enemy has its turn.

        Args:
            pick_fish: The name of your fish: spray, flame, eel or sunfish.
            action: normal (half of its attack as damage to one enemy) or active (its ability).
            target_position: An enemy's; for the ability of flame and sunfish a teammate's, for that of spray and eel 0.
        """
        if self.game.phase != "act":
            raise InvalidAction(f"guess first: {self.admissible()[0]}")
        made = self._legal(pick_fish, action, target_position)
        if made is None:
            raise InvalidAction(
                f"{pick_fish!r:.40} {action!r:.40} at {target_position} is not possible: give one of your living fish, and "
                "normal at a living enemy, or active at a living teammate (flame, sunfish) or 0 (spray, eel)"
            )
        self.log.clear()
        self._play(made)
        return "\n".join([*self.log, self._state()])

    async def open(self) -> None:
        """Begin, with the enemy's turn if it is first."""
        self.begin()

    async def close(self) -> None:
        """Do nothing: a game holds nothing open."""

    def read(self, action: str) -> WorldCall:
        """The first JSON object, as a guess or an action."""
        for found in _OBJECT.findall(action[:4000]):
            body = _parsed(found)
            if isinstance(body, dict) and "target_position" in body:
                place = str(body["target_position"]).strip()
                if place.isdecimal() and len(place) < 4:
                    if "guess_type" in body:
                        return WorldCall(
                            "guess", {"guess_type": str(body["guess_type"]), "target_position": int(place)}
                        )
                    if {"pick_fish", "action"} <= body.keys():
                        named = {"pick_fish": str(body["pick_fish"]), "action": str(body["action"])}
                        return WorldCall("move", {**named, "target_position": int(place)})
        listed = self.admissible()
        raise InvalidAction(f"this is no move: write a JSON object such as {listed[0] if listed else '{}'}")

    def admissible(self) -> Sequence[str]:
        """All guesses or all actions that are possible now."""
        if self.game.winner is not None:
            return []
        if self.game.phase == "guess":
            return [
                json.dumps({"guess_type": kind, "target_position": fish.position})
                for fish in self.game.hidden(THEM)
                for kind in KINDS
            ]
        return [self._written(move) for move in self.game.legal_moves()]

    def render(self) -> str:
        """Both teams with bars of health, and what happened last."""
        lines = []
        for team, name in ((US, "you"), (THEM, "enemy")):
            for fish in self.game.teams[team]:
                known = fish.kind if team == US or fish.exposed else "?"
                bar = "#" * (max(fish.hp, 0) * 20 // MAX_HP)
                lines.append(
                    f"{name:>5} {fish.position} {known:<8} {bar:<20} {max(fish.hp, 0):>3}{' dead' if fish.dead else ''}"
                )
        return "\n".join([*lines, *self.log])

    async def result(self) -> Json:
        """The winner, and the damage that was dealt."""
        return {"won": self.game.winner == US, "damage": self.game.damage_dealt(US), "states": self.game.states}

    def optimal(self) -> str:
        """The move of a player that sees every kind, and plays games to their end in its head until one is won."""
        seeing = SeeingPlayer()
        if self.game.phase == "guess":
            place, kind = seeing.guess(self.game)
            return json.dumps({"guess_type": kind, "target_position": place})
        greedy = seeing.move(self.game)
        tried = [greedy, *(move for move in self.game.legal_moves() if move != greedy)]
        return self._written(next((move for move in tried if self._wins_after(move)), greedy))

    def random(self, rng: Random) -> str:
        """One of the possible moves."""
        return rng.choice(self.admissible())

    def begin(self) -> None:
        """Play the enemy's first turn, if it moves first."""
        if self.setup.first == THEM and self.game.states == 0:
            self._enemy_turn()

    def opening(self) -> str:
        """The state before the first move, and what the enemy did if it began."""
        return "\n".join([*self.log, self._state()])

    def _wins_after(self, move: FishMove) -> bool:
        """True if the seeing player wins from there on, against the same enemy with the same luck."""
        twin, seeing = AquawarWorld(self.setup), SeeingPlayer()
        twin.game, twin.enemy = self.game.copy(), deepcopy(self.enemy)
        twin._play(move)
        while twin.game.winner is None:
            if twin.game.phase == "guess":
                twin.game.guess(*seeing.guess(twin.game))
            else:
                twin._play(seeing.move(twin.game))
        return twin.game.winner == US

    def _play(self, move: FishMove) -> None:
        """Our action, and then the enemy's turn."""
        self._carry_out(move, "You")
        self.enemy.saw(self.game, move)
        if self.game.winner is None:
            self._enemy_turn()

    def _enemy_turn(self) -> None:
        """The enemy's guess and action; then our guess is due, or our action if nothing is hidden."""
        game = self.game
        if game.hidden(US):
            place, kind = self.enemy.guess(game)
            right = game.guess(place, kind)
            self.log.append(f"The enemy guessed {kind} for your fish {place}: {'right' if right else 'wrong'}.")
        else:
            game.no_guess()
        if game.winner is None:
            self._carry_out(self.enemy.move(game), "The enemy")
            self.enemy.saw(game, None)
        if game.winner is None and not game.hidden(THEM):
            game.no_guess()

    def _carry_out(self, move: FishMove, who: str) -> None:
        game = self.game
        fish = game.teams[game.turn][move.fish]
        shown = fish.kind if game.turn == US or fish.exposed else "a hidden fish"
        what = "attacks" if move.action == "normal" else "uses its ability"
        target = "" if move.action == "active" and fish.kind in ("spray", "eel") else f", target {move.target}"
        game.act(move)
        self.log.append(f"{who}: {shown} at {move.fish} {what}{target}.")
        for team, place, passive in game.passives:
            self.log.append(f"Passive ability of {'your' if team == US else 'the enemy'} fish {place}: {passive}.")

    def _legal(self, name: str, action: str, target: int) -> FishMove | None:
        place = next((fish.position for fish in self.game.living(US) if fish.kind == name), None)
        if place is None:
            return None
        wanted = FishMove(place, action, 0 if action == "active" and name in ("spray", "eel") else target)
        return wanted if wanted in list(self.game.legal_moves()) else None

    def _written(self, move: FishMove) -> str:
        name = self.game.teams[self.game.turn][move.fish].kind
        return json.dumps({"pick_fish": name, "action": move.action, "target_position": move.target})

    def _state(self) -> str:
        """The state as the paper shows it, and what is due."""
        shown = {
            name: [
                {
                    "POSITION": str(fish.position),
                    "ID": fish.kind if team == US or fish.exposed else "unknown",
                    "HP": str(max(fish.hp, 0)),
                    "ATK": str(fish.atk) if team == US else "unknown",
                }
                for fish in self.game.teams[team]
            ]
            for team, name in ((US, "You"), (THEM, "Enemy"))
        }
        due = "" if self.game.winner is not None else f"\nNow {'guess' if self.game.phase == 'guess' else 'act'}."
        return json.dumps(shown) + due


def _parsed(text: str) -> Any:
    for candidate in (text, text.replace("'", '"')):
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError):
            continue
    return None
