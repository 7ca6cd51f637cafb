"""The household game action by action: whole observations, refusals with their reasons, what is admissible, and plans."""

import asyncio
from random import Random

import pytest

from firsthand.errors import ConfigError
from firsthand.worlds.household.house import (
    MAX_ACTION_CHARS,
    House,
    HouseGame,
    HouseGoal,
    Receptacle,
    Thing,
    listed,
    parse_household,
)
from firsthand.worlds.household.house_player import house_solution
from firsthand.worlds.household.household_world import HouseholdWorld
from firsthand.worlds.world import InvalidAction, RefusedAction

RECEPTACLES = (
    Receptacle("shelf 1", "shelf", room="kitchen"),
    Receptacle("cabinet 1", "cabinet", openable=True, room="kitchen"),
    Receptacle("drawer 1", "drawer", openable=True, opened=True, room="kitchen", spot="corner"),
    Receptacle("sinkbasin 1", "sinkbasin", room="kitchen", spot="corner"),
    Receptacle("fridge 1", "fridge", openable=True, room="hall"),
    Receptacle("microwave 1", "microwave", openable=True, room="hall"),
    Receptacle("desk 1", "desk", room="hall"),
)
THINGS = (
    Thing("mug 1", "mug", "shelf 1", frozenset({"clean", "heat", "cool"})),
    Thing("mug 2", "mug", "cabinet 1", frozenset({"clean", "heat", "cool"})),
    Thing("apple 1", "apple", "drawer 1", frozenset({"slice", "heat", "cool"})),
    Thing("knife 1", "knife", "drawer 1", frozenset({"cut", "clean"})),
    Thing("book 1", "book", "shelf 1"),
    Thing("desklamp 1", "desklamp", "desk 1", frozenset({"use", "fixed"})),
)
ACCEPTS = {"sinkbasin": frozenset({"mug", "knife"}), "fridge": frozenset({"mug", "apple"})}


def house(
    kind: str = "pick_and_place", thing: str = "mug", place: str = "desk", count: int = 1, **more: object
) -> House:
    given = {"receptacles": RECEPTACLES, "things": THINGS, "accepts": ACCEPTS, **more}
    return House("h", "put a mug in desk.", goal=HouseGoal(kind, thing, place, count), **given)  # type: ignore[arg-type]


def play(game: HouseGame, *turns: tuple[str, str]) -> None:
    for action, observed in turns:
        assert game.act(action) == observed, action


def wrong_place(verb: str, kind: str) -> str:
    return f"Nothing happens. (to {verb} something, hold it at a {kind}; not everything can be)"


def test_a_walk_through_the_house_observes_every_change():
    game = HouseGame(house(), explain=True)
    assert game.opening == (
        "You are in the middle of a room. Looking quickly around you, you see a shelf 1, a cabinet 1, a drawer 1, "
        "a sinkbasin 1, a fridge 1, a microwave 1, and a desk 1.\nYour task is to: put a mug in desk."
    )
    play(
        game,
        ("take mug 1 from shelf 1", "Nothing happens. (you see no mug 1 at shelf 1)"),
        ("go to attic 1", "Nothing happens. (there is no attic 1 to go to)"),
        ("Go to  Shelf 1.", "You arrive at shelf 1. On the shelf 1, you see a mug 1, and a book 1."),
        ("go to shelf 1", "Nothing happens. (you stand at shelf 1)"),
        ("look", "You are facing the shelf 1. Next to it, you see nothing."),
        ("open shelf 1", "Nothing happens. (shelf 1 cannot be opened further)"),
        ("close shelf 1", "Nothing happens. (shelf 1 is not an open receptacle where you are)"),
        ("inventory", "You are not carrying anything."),
        ("take mug 1 from shelf 1", "You pick up the mug 1 from the shelf 1."),
        ("inventory", "You are carrying: a mug 1."),
        ("take book 1 from shelf 1", "Nothing happens. (you hold mug 1)"),
        ("go to cabinet 1", "You arrive at cabinet 1. The cabinet 1 is closed."),
        ("put mug 1 in/on cabinet 1", "Nothing happens. (cabinet 1 is closed)"),
        ("examine mug 2", "Nothing happens. (you see no mug 2)"),
        ("close cabinet 1", "Nothing happens. (cabinet 1 is not an open receptacle where you are)"),
        ("open drawer 1", "Nothing happens. (you cannot open drawer 1 from here)"),
        ("open cabinet 1", "You open the cabinet 1. The cabinet 1 is open. In it, you see a mug 2."),
        ("open cabinet 1", "Nothing happens. (cabinet 1 cannot be opened further)"),
        ("put mug 2 in/on cabinet 1", "Nothing happens. (you do not hold mug 2)"),
        ("put mug 1 in/on desk 1", "Nothing happens. (you are not at desk 1)"),
        ("move mug 1 to cabinet 1", "You put the mug 1 in/on the cabinet 1."),
        ("examine cabinet 1", "The cabinet 1 is open. In it, you see a mug 2, and a mug 1."),
        ("take mug 2 from cabinet 1", "You pick up the mug 2 from the cabinet 1."),
        ("close cabinet 1", "You close the cabinet 1."),
        ("examine cabinet 1", "The cabinet 1 is closed."),
        (
            "go to drawer 1",
            "You arrive at drawer 1. The drawer 1 is open. In it, you see a apple 1, and a knife 1.",
        ),
        ("go to sinkbasin 1", "Nothing happens. (you stand at sinkbasin 1)"),
        ("look", "You are facing the drawer 1, and sinkbasin 1. Next to it, you see nothing."),
        ("clean mug 1 with sinkbasin 1", wrong_place("clean", "sinkbasin")),
        ("clean mug 2 with drawer 1", wrong_place("clean", "sinkbasin")),
        ("heat mug 2 with sinkbasin 1", wrong_place("heat", "microwave")),
        ("examine mug 2", "There's nothing special about mug 2."),
        ("clean mug 2 with sinkbasin 1", "You clean the mug 2 using the sinkbasin 1."),
        ("examine mug 2", "This is a clean mug 2."),
        ("slice apple 1 with knife 1", "Nothing happens. (hold a knife, and be where the thing to slice is)"),
        ("slice apple 1 with mug 2", "Nothing happens. (hold a knife, and be where the thing to slice is)"),
        ("put mug 2 on sinkbasin 1", "You put the mug 2 in/on the sinkbasin 1."),
        ("take knife 1 from drawer 1", "You pick up the knife 1 from the drawer 1."),
        ("slice apple 1 with knife 1", "You sliced the apple 1 with the knife 1."),
        ("slice apple 1 with knife 1", "Nothing happens. (hold a knife, and be where the thing to slice is)"),
        ("slice mug 2 with knife 1", "Nothing happens. (hold a knife, and be where the thing to slice is)"),
        ("examine apple 1", "This is a sliced apple 1."),
        ("put knife 1 into drawer 1", "You put the knife 1 in/on the drawer 1."),
        ("take apple 1 from drawer 1", "You pick up the apple 1 from the drawer 1."),
        ("put apple 1 in sinkbasin 1", "Nothing happens. (sinkbasin 1 cannot hold apple 1)"),
        ("go to fridge 1", "You arrive at fridge 1. The fridge 1 is closed."),
        ("cool apple 1 with fridge 1", "You cool the apple 1 using the fridge 1."),
        ("examine apple 1", "This is a cool sliced apple 1."),
        ("go to microwave 1", "You arrive at microwave 1. The microwave 1 is closed."),
        ("heat apple 1 with microwave 1", "You heat the apple 1 using the microwave 1."),
        ("examine apple 1", "This is a hot sliced apple 1."),
        ("go to desk 1", "You arrive at desk 1. On the desk 1, you see a desklamp 1."),
        ("put apple 1 in/on desk 1", "You put the apple 1 in/on the desk 1."),
        ("take desklamp 1 from desk 1", "Nothing happens. (desklamp 1 cannot be taken)"),
        ("examine desklamp 1", "This desklamp 1 is off."),
        ("use desklamp 1", "You turn on the desklamp 1."),
        ("examine desklamp 1", "This desklamp 1 is on."),
        ("use desklamp 1", "You turn off the desklamp 1."),
        ("use apple 1", "Nothing happens. (there is no apple 1 here that can be switched on)"),
        ("think: I am Here", "OK."),
        ("dance", "Nothing happens. (that is no action of this game)"),
    )  # fmt: skip
    assert (game.steps, game.refused, game.is_won) == (61, 25, False)
    assert game.render() == (
        "[kitchen]\n  shelf 1: book 1\n  cabinet 1 (closed): mug 1\n  drawer 1: knife 1\n"
        "  sinkbasin 1: mug 2 (clean)\n[hall]\n  fridge 1 (closed): -\n  microwave 1 (closed): -\n"
        " *desk 1: desklamp 1 (used), apple 1 (hot, sliced)\nin hand: nothing"
    )
    assert HouseGame(house()).act("dance") == "Nothing happens."


def test_cold_alone_is_said_and_several_states_are_joined():
    game = HouseGame(house())
    game.places["mug 1"], game.at = "hand", "corner"
    game.act("clean mug 1 with sinkbasin 1")
    game.at = "fridge 1"
    game.act("cool mug 1 with fridge 1")
    assert game.act("examine mug 1") == "This is a cool and clean mug 1."
    game.states["mug 1"].discard("clean")
    assert game.act("examine mug 1") == "This is a cold mug 1."
    assert game.act("clean mug 1 with fridge 1") == "Nothing happens."
    game.places["mug 1"], game.places["book 1"] = "shelf 1", "hand"
    assert game.act("cool book 1 with fridge 1") == "Nothing happens."


def test_admissible_actions_are_all_that_is_possible_and_nothing_else():
    game = HouseGame(house())
    assert game.admissible() == [*(f"go to {each.name}" for each in RECEPTACLES), "inventory", "look"]
    game.act("go to drawer 1")
    walks = [f"go to {name} 1" for name in ("shelf", "cabinet", "fridge", "microwave", "desk")]
    assert game.admissible() == [
        *walks, "close drawer 1", "take apple 1 from drawer 1", "examine apple 1", "take knife 1 from drawer 1",
        "examine knife 1", "examine drawer 1", "examine sinkbasin 1", "inventory", "look",
    ]  # fmt: skip
    game.act("take knife 1 from drawer 1")
    assert game.admissible() == [
        *walks, "close drawer 1", "slice apple 1 with knife 1", "examine apple 1", "examine drawer 1",
        "put knife 1 in/on drawer 1", "examine sinkbasin 1", "put knife 1 in/on sinkbasin 1",
        "clean knife 1 with sinkbasin 1", "examine knife 1", "inventory", "look",
    ]  # fmt: skip
    game.act("close drawer 1")
    assert "open drawer 1" in game.admissible() and not [a for a in game.admissible() if "drawer 1" in a and "put" in a]
    game.act("go to desk 1")
    here = [a for a in game.admissible() if not a.startswith("go to")]
    assert here == [
        "use desklamp 1", "examine desklamp 1", "examine desk 1", "put knife 1 in/on desk 1", "examine knife 1",
        "inventory", "look",
    ]  # fmt: skip


def test_text_is_read_in_any_case_up_to_the_limit_and_a_thought_keeps_its_case():
    assert parse_household(" PUT  mug 1 IN desk 1. ") == ("put", {"thing": "mug 1", "receptacle": "desk 1"})
    assert parse_household("take salt in jar 1 from shelf 1") == (
        "take",
        {"thing": "salt in jar 1", "receptacle": "shelf 1"},
    )
    assert parse_household("Think: It Is Hot.") == ("think", {"thought": "It Is Hot."})
    assert parse_household("slice apple 1 with knife 1") == ("slice", {"thing": "apple 1", "knife": "knife 1"})
    longest = "go to " + "x" * (MAX_ACTION_CHARS - 6)
    assert parse_household(longest) == ("go_to", {"receptacle": "x" * (MAX_ACTION_CHARS - 6)})
    assert parse_household(longest + "x") is None and parse_household("look around") is None
    assert listed([]) == "nothing" and listed(["b 1"]) == "a b 1" and listed(["b", "c", "d"], "") == "b, c, and d"


def test_a_goal_holds_only_with_the_state_the_count_and_one_receptacle_of_the_kind():
    game = HouseGame(house("pick_two_obj", "mug", "desk", 2))
    game.places |= {"mug 1": "desk 1", "mug 2": "shelf 1"}
    assert not game.is_won
    game.places["mug 2"] = "desk 1"
    assert game.is_won
    more = HouseGame(house("pick_two_obj", "mug", "shelf", 2, things=(*THINGS, Thing("mug 3", "mug", "shelf 1"))))
    more.places |= {"book 1": "desk 1", "mug 2": "shelf 1"}
    assert more.is_won  # three of two
    more.places["mug 1"] = "hand"
    assert more.is_won
    more.places |= {"mug 2": "desk 1", "book 1": "shelf 1"}
    assert not more.is_won
    desks = HouseGame(house("pick_two_obj", "mug", "desk", 2, receptacles=(*RECEPTACLES, Receptacle("desk 2", "desk"))))
    desks.places |= {"mug 1": "desk 1", "mug 2": "desk 2"}
    assert not desks.is_won
    desks.places["mug 1"] = "desk 2"
    assert desks.is_won
    clean = HouseGame(house("pick_clean_then_place"))
    clean.places |= {"mug 1": "desk 1", "mug 2": "desk 1"}
    clean.states["mug 2"].add("clean")
    assert clean.is_won  # a dirty one beside it does no harm
    for kind, state, others in (
        ("pick_clean_then_place", "clean", {"hot", "cool"}),
        ("pick_heat_then_place", "hot", {"clean", "cool"}),
        ("pick_cool_then_place", "cool", {"hot", "clean"}),
    ):
        game = HouseGame(house(kind))
        game.places["mug 2"] = "desk 1"
        game.states["mug 2"], game.states["mug 1"] = set(others), {state}
        assert not game.is_won
        game.states["mug 2"].add(state)
        assert game.is_won
    looking = HouseGame(house("look_at_obj", "book", "desklamp"))
    looking.places["book 1"], looking.at = "hand", "desk 1"
    assert not looking.is_won
    looking.act("use desklamp 1")
    looking.act("use desklamp 1")
    assert looking.is_won  # it was used, though it is off again
    looking.places |= {"book 1": "shelf 1", "mug 1": "hand"}
    assert not looking.is_won  # another object in hand
    looking.places |= {"book 1": "hand", "mug 1": "shelf 1"}
    lamps = [Thing(f"{kind} {n}", kind, at, frozenset({"use", "fixed"})) for kind, n, at in (
        ("desklamp", 2, "sinkbasin 1"), ("floorlamp", 1, "shelf 1"))]  # fmt: skip
    several = HouseGame(house("look_at_obj", "book", "desklamp", things=(*THINGS, *lamps)))
    several.places["book 1"] = "hand"
    for place, lamp, won in (("shelf 1", "floorlamp 1", False), ("corner", "desklamp 2", True), ("desk 1", "", False)):
        several.at = place
        assert not several.is_won
        several.act(f"use {lamp}")
        assert several.is_won == won, place
    looking.at = "fridge 1"
    assert not looking.is_won
    looking.at, looking.places["book 1"] = "desk 1", "desk 1"
    assert not looking.is_won


def test_plans_open_what_is_closed_change_what_must_change_and_put_the_hand_free():
    two = HouseGame(house("pick_two_obj", "mug", "fridge", 2))
    assert house_solution(two) == [
        "go to shelf 1", "take mug 1 from shelf 1", "go to fridge 1", "open fridge 1", "put mug 1 in/on fridge 1",
        "go to cabinet 1", "open cabinet 1", "take mug 2 from cabinet 1", "go to fridge 1", "put mug 2 in/on fridge 1",
    ]  # fmt: skip
    hot = HouseGame(house("pick_heat_then_place"))
    hot.act("go to shelf 1")
    hot.act("take book 1 from shelf 1")
    assert house_solution(hot) == [
        "put book 1 in/on shelf 1", "take mug 1 from shelf 1", "go to microwave 1", "heat mug 1 with microwave 1",
        "go to desk 1", "put mug 1 in/on desk 1",
    ]  # fmt: skip
    held = HouseGame(house("pick_cool_then_place"))
    held.places |= {"mug 2": "hand", "mug 1": "desk 1"}
    held.states["mug 2"].add("cool")
    assert house_solution(held) == ["go to desk 1", "put mug 2 in/on desk 1"]
    lamp = HouseGame(house("look_at_obj", "apple", "desklamp"))
    assert house_solution(lamp) == [
        "go to drawer 1", "take apple 1 from drawer 1", "go to desk 1", "use desklamp 1",
    ]  # fmt: skip
    full = HouseGame(house("pick_and_place", "mug", "desk"))
    full.places |= {"apple 1": "hand"}
    full.at = "corner"
    assert house_solution(full)[:2] == ["put apple 1 in/on drawer 1", "go to shelf 1"]  # the sink takes no apple
    for game, said in (
        (HouseGame(house("look_at_obj", "book", "floorlamp")), "has no floorlamp or no book"),
        (HouseGame(house("pick_two_obj", "apple", "desk", 2)), "has no desk or too few apple"),
        (HouseGame(house("pick_and_place", "mug", "sofa")), "has no sofa or too few mug"),
        (HouseGame(house("pick_and_place", "desklamp", "shelf")), "too few desklamp"),
    ):
        with pytest.raises(ConfigError, match=said):
            house_solution(game)


def test_the_native_moves_do_what_their_text_does():
    async def go() -> list[str]:
        world = HouseholdWorld(house("pick_cool_then_place", "mug", "shelf"), explain=True)
        await world.open()
        assert world.ending is None and world.form is None and world.optimal() == "go to shelf 1"
        observed = [
            await world.go_to("shelf 1"), await world.take("mug 1", "shelf 1"), await world.go_to("fridge 1"),
            await world.open_receptacle("fridge 1"), await world.cool("mug 1", "fridge 1"),
            await world.close_receptacle("fridge 1"), await world.examine("mug 1"), await world.inventory(),
            await world.look(), await world.think("t" * 300), await world.use("mug 1"),
            await world.heat("mug 1", "fridge 1"), await world.clean("mug 1", "fridge 1"),
            await world.slice("apple 1", "mug 1"), await world.go_to("shelf 1"),
            await world.put("mug 1", "shelf 1"),
        ]  # fmt: skip
        assert world.ending == "won" and await world.result() == {"won": True, "refused": 4}
        assert world.optimal() == "look" and world.random(Random(3)) in world.admissible()
        assert world.render().startswith("task: put a mug in desk.\n[kitchen]\n *shelf 1: book 1, mug 1 (cool)\n")
        assert [each.__name__ for each in world.moves] == [
            "go_to", "open_receptacle", "close_receptacle", "take", "put", "use", "clean", "heat", "cool", "slice",
            "examine", "look", "inventory", "think",
        ]  # fmt: skip
        assert world.read("go to shelf 1") == ("go_to", {"receptacle": "shelf 1"})
        with pytest.raises(InvalidAction, match=r"Nothing happens\. Write one command"):
            world.read("dance")
        return observed

    observed = asyncio.run(go())
    assert [isinstance(each, RefusedAction) for each in observed] == [False] * 10 + [True] * 4 + [False] * 2
    assert observed[3] == "You open the fridge 1. The fridge 1 is open. In it, you see nothing."
    assert observed[6] == "This is a cold mug 1." and observed[9] == "OK."
    assert observed[11].endswith("(to heat something, hold it at a microwave; not everything can be)")
    assert observed[15] == "You put the mug 1 in/on the shelf 1."


def test_cleaning_keeps_the_warmth_and_heat_and_cold_replace_each_other():
    game = HouseGame(house(), explain=True)
    for action in ("go to shelf 1", "take mug 1 from shelf 1", "go to microwave 1"):
        game.act(action)
    play(game, ("heat mug 1 with microwave 1", "You heat the mug 1 using the microwave 1."))
    game.act("go to sinkbasin 1")
    play(
        game,
        ("heat mug 1 with microwave 1", wrong_place("heat", "microwave")),
        ("heat mug 1 with sinkbasin 1", wrong_place("heat", "microwave")),
        ("clean mug 1 with sinkbasin 1", "You clean the mug 1 using the sinkbasin 1."),
        ("examine mug 1", "This is a hot and clean mug 1."),
    )
    game.act("go to fridge 1")
    play(
        game,
        ("cool mug 1 with fridge 1", "You cool the mug 1 using the fridge 1."),
        ("examine mug 1", "This is a cool and clean mug 1."),
        ("cool mug 2 with fridge 1", wrong_place("cool", "fridge")),
    )
    game.act("go to microwave 1")
    play(
        game,
        ("heat mug 1 with microwave 1", "You heat the mug 1 using the microwave 1."),
        ("examine mug 1", "This is a hot and clean mug 1."),
    )


def test_a_plan_puts_what_is_in_hand_where_it_is_taken_here_or_first_of_all_elsewhere():
    rest = ["take mug 1 from shelf 1", "go to desk 1", "put mug 1 in/on desk 1"]
    plans = {}
    for place in ("sinkbasin 1", "fridge 1", "cabinet 1"):
        game = HouseGame(house())
        for action in ("go to shelf 1", "take book 1 from shelf 1", f"go to {place}"):
            game.act(action)
        plans[place] = house_solution(game)
        assert game.held == "book 1"
        for action in plans[place]:
            game.act(action)
        assert game.is_won
    assert plans == {
        "sinkbasin 1": ["put book 1 in/on drawer 1", "go to shelf 1", *rest],  # the basin takes no books
        "fridge 1": ["go to shelf 1", "put book 1 in/on shelf 1", *rest],
        "cabinet 1": ["open cabinet 1", "put book 1 in/on cabinet 1", "go to shelf 1", *rest],
    }


def test_two_places_at_one_spot_are_both_marked_and_one_clean_mug_of_two_is_not_enough():
    game = HouseGame(house("pick_clean_then_place", "mug", "desk", 2))
    assert game.act("go to drawer 1").startswith("You arrive at drawer 1.")
    marked = [line[2:].partition(":")[0] for line in game.render().splitlines() if line.startswith(" *")]
    assert marked == ["drawer 1", "sinkbasin 1"]
    game.places |= {"mug 1": "desk 1", "mug 2": "desk 1"}
    game.states["mug 1"].add("clean")
    assert not game.is_won
    game.states["mug 2"].add("clean")
    assert game.is_won


def test_what_cannot_be_opened_cannot_be_closed_even_if_it_is_said_to_begin_open():
    tray = Receptacle("tray 1", "tray", opened=True)
    game = HouseGame(house(receptacles=(*RECEPTACLES, tray)), explain=True)
    assert game.act("go to tray 1") == "You arrive at tray 1. On the tray 1, you see nothing."
    assert game.act("close tray 1") == "Nothing happens. (tray 1 is not an open receptacle where you are)"
