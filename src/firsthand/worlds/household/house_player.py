"""Plays a household task by knowing where everything is: the scripted player that wins every game."""

from __future__ import annotations

from firsthand.errors import ConfigError
from firsthand.worlds.household.house import CHANGES, NEEDED_STATE, HouseGame


def house_solution(game: HouseGame) -> list[str]:
    """The actions that reach the goal from where the game stands. It sees the whole household; an agent does not."""
    house, goal, walk = game.house, game.house.goal, _Walk(game)
    wanted = [each.name for each in house.things if each.kind == goal.thing and "fixed" not in each.abilities]
    wanted.sort(key=lambda name: name != game.held)  # what is in hand is used first
    if game.held is not None and game.held not in wanted:
        walk.put_down(game.held)
    needed = NEEDED_STATE.get(goal.kind)
    if goal.kind == "look_at_obj":
        lamp = next((each for each in house.things if each.kind == goal.receptacle), None)
        if lamp is None or not wanted:
            raise ConfigError(f"house {house.id} has no {goal.receptacle} or no {goal.thing}: it cannot be solved")
        walk.take(wanted[0])
        walk.reach(game.places[lamp.name])
        return [*walk.actions, f"use {lamp.name}"]
    target = next((each.name for each in house.receptacles if each.kind == goal.receptacle), None)
    if target is None or len(wanted) < goal.count:
        raise ConfigError(f"house {house.id} has no {goal.receptacle} or too few {goal.thing}: it cannot be solved")
    there = [each for each in wanted if game.places[each] == target and (needed is None or needed in game.states[each])]
    for thing in [each for each in wanted if each not in there][: max(0, goal.count - len(there))]:
        walk.take(thing)
        for verb, (kind, state) in CHANGES.items():
            if state == needed and state not in game.states[thing]:
                place = next(each.name for each in house.receptacles if each.kind == kind)
                walk.go(place)
                walk.actions.append(f"{verb} {thing} with {place}")
        walk.reach(target)
        walk.actions.append(f"put {thing} in/on {target}")
    return walk.actions


class _Walk:
    """The actions so far, and where they have led."""

    def __init__(self, game: HouseGame) -> None:
        self.game, self.actions, self.at, self.opened = game, list[str](), game.at, set(game.opened)
        self.receptacles = {each.name: each for each in game.house.receptacles}

    def go(self, name: str) -> None:
        location = self.receptacles[name].location
        if location != self.at:
            self.actions.append(f"go to {name}")
            self.at = location

    def reach(self, name: str) -> None:
        """Go there, and open it if it is closed."""
        self.go(name)
        if self.receptacles[name].openable and name not in self.opened:
            self.actions.append(f"open {name}")
            self.opened.add(name)

    def take(self, thing: str) -> None:
        """Take a thing that is not in hand."""
        if thing != self.game.held:
            self.reach(self.game.places[thing])
            self.actions.append(f"take {thing} from {self.game.places[thing]}")

    def put_down(self, thing: str) -> None:
        """Put what is in hand where it may be: here, or in the first place that takes it."""
        kind = next(each.kind for each in self.game.house.things if each.name == thing)
        accepts = self.game.house.accepts
        places = [each for each in self.receptacles.values() if kind in accepts.get(each.kind, {kind})]
        places.sort(key=lambda each: each.location != self.at)
        self.reach(places[0].name)
        self.actions.append(f"put {thing} in/on {places[0].name}")
