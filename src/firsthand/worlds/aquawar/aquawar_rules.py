"""The rules of Aquawar for the four fish that AgentBench plays with, as pure state changes.

Two teams of four: spray, flame, eel and sunfish, 400 health and 200 attack each. In its turn a team guesses the kind of one
hidden enemy, and then one of its fish attacks or uses its active ability. A right guess reveals the fish and costs each
enemy fish 50 health. Amounts are cut to whole numbers where the original cuts them; the dead are counted after each guess
and action.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

KINDS = ("spray", "flame", "eel", "sunfish")
MAX_HP, FIRST_ATK = 400, 200
GUESSED = 50
"""Health that each fish of a team loses when one of them is guessed."""
COUNTER, COUNTER_BELOW = 30, 0.3
AOE, INFIGHT, INFIGHT_ATK = 70, 75, 140
DEFLECTED, WOUNDS, WOUNDS_ATK = 0.7, 200, 40
STATE_LIMIT = 128
"""Guesses and actions of both teams together after which the game is decided by what is left."""


@dataclass
class Fish:
    """A fish in its place."""

    kind: str
    position: int
    hp: int = MAX_HP
    atk: int = FIRST_ATK
    wound: int = 0
    dead: bool = False
    exposed: bool = False


class FishMove(NamedTuple):
    """An action: who, `normal` or `active`, and the position of its target (an enemy, or a teammate of an infight)."""

    fish: int
    action: str
    target: int


@dataclass
class AquawarGame:
    """The state of a game. Team 0 and team 1; `turn` is the team whose turn it is, and `phase` guess or act."""

    teams: tuple[tuple[Fish, ...], tuple[Fish, ...]]
    first: int = 0
    turn: int = 0
    phase: str = "guess"
    states: int = 0
    winner: int | None = None
    passives: list[tuple[int, int, str]] = field(default_factory=list)
    """(team, position, `Counter` or `Deflect`) of the last guess or action, in order."""

    @staticmethod
    def between(first_team: tuple[str, ...], second_team: tuple[str, ...], first: int = 0) -> AquawarGame:
        """A new game; the teams stand in the given order."""
        teams = tuple(tuple(Fish(kind, place) for place, kind in enumerate(each)) for each in (first_team, second_team))
        game = AquawarGame((teams[0], teams[1]), first, first)
        return game

    def copy(self) -> AquawarGame:
        """An independent copy."""
        first, second = (tuple(Fish(**vars(fish)) for fish in team) for team in self.teams)
        return replace(self, teams=(first, second), passives=list(self.passives))

    def living(self, team: int) -> list[Fish]:
        """The living fish of a team, by position."""
        return [fish for fish in self.teams[team] if not fish.dead]

    def hidden(self, team: int) -> list[Fish]:
        """The living fish of a team that are not revealed."""
        return [fish for fish in self.living(team) if not fish.exposed]

    def legal_moves(self) -> Iterator[FishMove]:
        """The actions of the team whose turn it is, in a fixed order."""
        mine, theirs = self.living(self.turn), self.living(self.turn ^ 1)
        for fish in mine:
            for enemy in theirs:
                yield FishMove(fish.position, "normal", enemy.position)
            if fish.kind in ("spray", "eel"):
                yield FishMove(fish.position, "active", 0)
            else:
                for friend in mine:
                    if friend is not fish:
                        yield FishMove(fish.position, "active", friend.position)

    def guess(self, position: int, kind: str) -> bool:
        """True if the guess is right. It must be of a hidden, living enemy."""
        enemy = self.teams[self.turn ^ 1][position]
        assert self.phase == "guess" and not enemy.dead and not enemy.exposed
        self.passives = []
        if right := enemy.kind == kind:
            enemy.exposed = True
            for fish in self.teams[self.turn ^ 1]:
                fish.hp = max(fish.hp - GUESSED, 0)
        self._end_of("guess")
        return right

    def no_guess(self) -> None:
        """Go on without a guess, as when no enemy is hidden."""
        assert self.phase == "guess"
        self.passives = []
        self._end_of("guess")

    def act(self, move: FishMove) -> None:
        """Carry out a legal action."""
        assert self.phase == "act"
        self.passives = []
        fish = self.teams[self.turn][move.fish]
        if move.action == "normal":
            self._hit(fish, self.teams[self.turn ^ 1][move.target], fish.atk // 2)
        elif fish.kind == "spray":
            self._hit_all(fish, AOE)
        elif fish.kind == "eel":
            self._hit_all(fish, int(fish.atk * 0.35))
        else:
            self._damage(self.teams[self.turn][move.target], None, INFIGHT)
            fish.atk += INFIGHT_ATK
        self._end_of("act")

    def damage_dealt(self, team: int) -> int:
        """The health that the enemies of a team have lost."""
        return sum(MAX_HP - max(fish.hp, 0) for fish in self.teams[team ^ 1])

    def _hit_all(self, source: Fish, damage: int) -> None:
        for enemy in self.living(self.turn ^ 1):
            self._hit(source, enemy, damage)

    def _hit(self, source: Fish, target: Fish, damage: int) -> None:
        """Damage with a source: sprays and flames strike back for a teammate in need."""
        self._damage(target, source, damage)
        team = self._team_of(target)
        if target.hp < MAX_HP * COUNTER_BELOW:
            for fish in self.teams[team]:
                if fish.kind in ("spray", "flame") and not fish.dead and fish is not target:
                    self.passives.append((team, fish.position, "Counter"))
                    self._damage(source, None, COUNTER)

    def _damage(self, fish: Fish, source: Fish | None, damage: int) -> None:
        """Damage to one fish; eels and sunfish pass a share of what has a source on to their teammates."""
        team = self._team_of(fish)
        deflects = fish.kind in ("eel", "sunfish")
        others = [each for each in self.living(team) if each is not fish]
        taken = damage
        if deflects and source is not None and others:
            taken = int(damage * DEFLECTED)
            self.passives.append((team, fish.position, "Deflect"))
            for each in others:
                self._damage(each, None, int(damage * 0.3) // len(others))
        fish.hp -= taken
        fish.wound += taken
        if deflects and fish.wound >= WOUNDS:
            fish.atk += WOUNDS_ATK * (fish.wound // WOUNDS)
            fish.wound %= WOUNDS

    def _team_of(self, fish: Fish) -> int:
        return 0 if any(each is fish for each in self.teams[0]) else 1

    def _end_of(self, phase: str) -> None:
        """Count the dead, decide, and pass on to the next phase."""
        for fish in (*self.teams[0], *self.teams[1]):
            fish.dead = fish.dead or fish.hp <= 0
        self.states += 1
        gone = [not self.living(team) for team in (0, 1)]
        if any(gone):
            self.winner = self.turn if all(gone) else gone.index(False)
        elif self.states >= STATE_LIMIT:
            self.winner = self._ahead()
        if phase == "guess":
            self.phase = "act"
        else:
            self.phase, self.turn = "guess", self.turn ^ 1

    def _ahead(self) -> int:
        """The team with more fish alive, else more health, else the healthiest fish, else the one that moved second."""
        for measure in (
            len,
            lambda living: sum(each.hp for each in living),
            lambda living: max(each.hp for each in living),
        ):
            values = [measure(self.living(team)) for team in (0, 1)]
            if values[0] != values[1]:
                return int(values[1] > values[0])
        return self.first ^ 1
