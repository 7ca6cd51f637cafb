"""The two baseline players of AgentBench's card game, from what a player may see, and a player that sees everything.

`baseline1` takes its first living fish, prefers its active ability, and guesses its first hidden enemy at random.
`baseline2` guesses from the abilities it has seen, finishes off what it can, prefers to hit all enemies, and else strikes
back.
"""

from __future__ import annotations

from random import Random
from typing import Protocol

from firsthand.worlds.aquawar.aquawar_rules import KINDS, AquawarGame, FishMove

ACTIVE_CHANCE = 0.8
"""baseline1's probability of the active ability, where it is possible."""
_CLUES = {
    "spray": {"AOE", "Counter"},
    "flame": {"Infight", "Counter"},
    "eel": {"AOE", "Deflect"},
    "sunfish": {"Infight", "Deflect"},
}
_ABILITY = {"spray": "AOE", "eel": "AOE", "flame": "Infight", "sunfish": "Infight"}


class FishPlayer(Protocol):
    """Plays the team whose turn it is."""

    def guess(self, game: AquawarGame) -> tuple[int, str]:
        """A hidden enemy's position and a kind; asked only if one is hidden."""

    def move(self, game: AquawarGame) -> FishMove:
        """A legal action."""

    def saw(self, game: AquawarGame, move: FishMove | None) -> None:
        """The enemy's action, and the passive abilities of the last phase."""


class Baseline1:
    """The simple one."""

    def __init__(self, rng: Random):
        self.rng = rng

    def guess(self, game: AquawarGame) -> tuple[int, str]:
        """The first hidden enemy, and any kind."""
        return game.hidden(game.turn ^ 1)[0].position, self.rng.choice(KINDS)

    def move(self, game: AquawarGame) -> FishMove:
        """The first living fish: as a rule its active ability, else a normal attack; any target."""
        first = game.living(game.turn)[0].position
        moves = [move for move in game.legal_moves() if move.fish == first]
        active = [move for move in moves if move.action == "active"]
        if active and self.rng.random() < ACTIVE_CHANCE:
            return self.rng.choice(active)
        return self.rng.choice([move for move in moves if move.action == "normal"])

    def saw(self, game: AquawarGame, move: FishMove | None) -> None:
        """Remember nothing."""


class Baseline2:
    """The one that draws conclusions."""

    def __init__(self, rng: Random, team: int):
        self.rng, self.team = rng, team
        self.clues: dict[int, set[str]] = {place: set() for place in range(4)}
        self.struck: int | None = None

    def guess(self, game: AquawarGame) -> tuple[int, str]:
        """A kind that was given away, else any hidden enemy and any kind that was not revealed."""
        hidden = [fish.position for fish in game.hidden(game.turn ^ 1)]
        for place in hidden:
            for kind, clues in _CLUES.items():
                if clues <= self.clues[place]:
                    return place, kind
        known = {fish.kind for fish in game.teams[game.turn ^ 1] if fish.exposed}
        return self.rng.choice(hidden), self.rng.choice([kind for kind in KINDS if kind not in known])

    def move(self, game: AquawarGame) -> FishMove:
        """A last blow, an attack on all, or a blow at the fish that acted last."""
        mine, theirs = game.living(game.turn), game.living(game.turn ^ 1)
        strongest = max(mine, key=lambda fish: fish.atk)
        weakest = min(theirs, key=lambda fish: fish.hp)
        if strongest.atk // 2 >= weakest.hp:
            return FishMove(strongest.position, "normal", weakest.position)
        if len(theirs) >= 2:
            for kind in ("spray", "eel"):
                for fish in mine:
                    if fish.kind == kind:
                        return FishMove(fish.position, "active", 0)
        places = [fish.position for fish in theirs]
        return FishMove(strongest.position, "normal", self.struck if self.struck in places else places[0])

    def saw(self, game: AquawarGame, move: FishMove | None) -> None:
        """Remember what the enemy's fish gave away."""
        enemies = game.teams[self.team ^ 1]
        if move is not None:
            self.struck = move.fish
            if move.action == "active":
                self.clues[move.fish].add(_ABILITY[enemies[move.fish].kind])
        for team, place, passive in game.passives:
            if team == self.team ^ 1:
                self.clues[place].add(passive)


class SeeingPlayer:
    """A player that knows every kind, and takes the action that leaves it furthest ahead."""

    def guess(self, game: AquawarGame) -> tuple[int, str]:
        """The first hidden enemy's kind."""
        enemy = game.hidden(game.turn ^ 1)[0]
        return enemy.position, enemy.kind

    def move(self, game: AquawarGame) -> FishMove:
        """The action after which the enemy's living fish and health are fewest against its own."""
        team = game.turn

        def lead(move: FishMove) -> tuple[float, ...]:
            after = game.copy()
            after.act(move)
            mine, theirs = (after.living(each) for each in (team, team ^ 1))
            health = sum(fish.hp for fish in mine) - 1.5 * sum(fish.hp for fish in theirs)
            return (after.winner == team, 120.0 * (len(mine) - 1.5 * len(theirs)) + health, -move.fish, -move.target)

        return max(game.legal_moves(), key=lead)

    def saw(self, game: AquawarGame, move: FishMove | None) -> None:
        """Remember nothing: it sees all."""
