"""Plays a household task by knowing where everything is: the scripted player that wins every game."""

from __future__ import annotations

from firsthand.errors import ConfigError
from firsthand.worlds.household.house import CHANGES, NEEDED_STATE, House, Receptacle, Thing


def house_solution(house: House) -> list[str]:
    """The actions that reach the goal from the beginning, in order. It sees the whole household; an agent does not."""
    goal = house.goal
    receptacles = {each.name: each for each in house.receptacles}
    wanted = [each for each in house.things if each.kind == goal.thing and "fixed" not in each.abilities]
    walk = _Walk(receptacles)
    if goal.kind == "look_at_obj":
        lamp = next((each for each in house.things if each.kind == goal.receptacle), None)
        if lamp is None or not wanted:
            raise ConfigError(f"house {house.id} has no {goal.receptacle} or no {goal.thing}: it cannot be solved")
        walk.take(wanted[0])
        walk.reach(lamp.place)
        return [*walk.actions, f"use {lamp.name}"]
    needed = NEEDED_STATE.get(goal.kind)
    target = next((each for each in house.receptacles if each.kind == goal.receptacle), None)
    if target is None or len(wanted) < goal.count:
        raise ConfigError(f"house {house.id} has no {goal.receptacle} or too few {goal.thing}: it cannot be solved")
    already = [each for each in wanted if each.place == target.name and needed is None]
    for thing in [each for each in wanted if each not in already][: max(0, goal.count - len(already))]:
        walk.take(thing)
        for verb, (kind, state) in CHANGES.items():
            if state == needed:
                place = next(each for each in house.receptacles if each.kind == kind)
                walk.go(place.name)
                walk.actions.append(f"{verb} {thing.name} with {place.name}")
        walk.reach(target.name)
        walk.actions.append(f"put {thing.name} in/on {target.name}")
    return walk.actions


class _Walk:
    """The actions so far, and where they have led."""

    def __init__(self, receptacles: dict[str, Receptacle]) -> None:
        self.receptacles, self.actions, self.at = receptacles, list[str](), ""
        self.opened = {name for name, each in receptacles.items() if each.opened}

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

    def take(self, thing: Thing) -> None:
        self.reach(thing.place)
        self.actions.append(f"take {thing.name} from {thing.place}")
