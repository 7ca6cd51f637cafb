"""What an agent writes in an office is taken whole or refused, so that no part of it goes unjudged."""

import asyncio
import inspect

import pytest

from firsthand.message import Json
from firsthand.worlds.office.office_generator import make_office
from firsthand.worlds.office.office_state import MAX_TEXT, OfficeDesk
from firsthand.worlds.office.office_world import OfficeWorld, state_matches, states
from firsthand.worlds.world import RefusedAction

TEN = {"start": "2027-05-10 09:00", "end": "2027-05-10 10:00"}
CALLS: dict[str, Json] = {
    "send_mail": {"recipient": "a@x", "subject": "s", "body": "b"},
    "create_event": {"title": "t", **TEN, "participants": ["a@x"]},
    "reschedule_event": {"event_id": "event-1", **TEN},
    "add_participants": {"event_id": "event-1", "participants": ["a@x"]},
    "create_file": {"name": "n", "content": "c"},
    "append_to_file": {"file_id": "file-1", "content": "c"},
    "share_file": {"file_id": "file-1", "address": "a@x"},
}


def opened() -> OfficeDesk:
    event = {"id": "event-1", "title": "T", **TEN, "place": "", "participants": []}
    file = {"id": "file-1", "name": "n", "content": "", "shared_with": []}
    return OfficeDesk({"mails": [], "events": [event], "files": [file], "sent": []})


def told(desk: OfficeDesk, name: str, given: Json) -> str:
    return asyncio.run(next(each for each in desk.functions if each.__name__ == name)(**given))


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, given in CALLS.items() for key in given])
def test_a_text_that_is_too_long_is_refused_and_changes_nothing(name: str, key: str) -> None:
    desk, before, usual = opened(), opened().state, CALLS[name][key]
    long = f"{usual if isinstance(usual, str) else usual[0]}{'x' * MAX_TEXT}"
    said = told(desk, name, CALLS[name] | {key: long if isinstance(usual, str) else [*usual, long]})
    assert isinstance(said, RefusedAction) and desk.state == before
    assert said == f"{key} has {len(long):,} characters and at most {MAX_TEXT:,} are taken: shorten it"


def test_a_text_of_the_most_characters_is_kept_to_the_last() -> None:
    desk, longest = opened(), "x" * (MAX_TEXT - 1) + "!"
    told(desk, "send_mail", CALLS["send_mail"] | {"subject": longest, "body": longest})
    told(desk, "create_file", {"name": longest, "content": longest})
    told(desk, "append_to_file", {"file_id": "file-1", "content": longest})
    told(desk, "create_event", CALLS["create_event"] | {"title": longest})
    state = desk.state
    kept = [
        state["sent"][0]["subject"],
        state["sent"][0]["body"],
        state["files"][1]["name"],
        state["events"][1]["title"],
    ]
    assert {*kept, state["files"][1]["content"], state["files"][0]["content"].strip()} == {longest}


@pytest.mark.parametrize("blank", [" ", "\n"])
@pytest.mark.parametrize("count", [0, 1, 3_900, 4_000, 15_000])
def test_a_right_amount_that_is_taken_back_far_behind_is_not_done(blank: str, count: int) -> None:
    office = next(made for at in range(40) if (made := make_office(0, at, 1)).facts)
    world = OfficeWorld(office)

    async def scored(behind: str) -> bool:
        await world.open()
        for name, given in office.steps:
            more = {"body": given["body"] + behind} if name == "send_mail" else {}
            await next(each for each in world.desk.functions if each.__name__ == name)(**given | more)
        made = await world.result()
        return state_matches(made["state"], made["wanted"], made["facts"])

    assert asyncio.run(scored(""))
    assert not asyncio.run(scored(blank * count + " All of the above is wrong: it is 99999."))


@pytest.mark.parametrize("unseen", ["\u200b", "\u034f", "\ufe0f", "\u2060", "\u3164", "\u00ad"])
def test_an_amount_with_unseen_characters_is_the_amount_that_is_seen(unseen: str) -> None:
    assert not states(f"The total is 24242. It is {unseen.join('99999')}.", "24242")
    assert states(f"The total is {unseen.join('24242')}.", "24242")


def test_digits_that_are_each_a_word_are_one_amount() -> None:
    assert not states("The total is 24242. No: 9 9 9 9 9", "24242") and states("The total: 2 4 2 4 2 euros", "24242")
    assert states("The total of parts 1 2 3 is 24242 euros.", "24242")


def test_the_tools_keep_their_names_descriptions_and_parameters() -> None:
    desk = opened()
    for move in desk.functions:
        plain = getattr(OfficeDesk, move.__name__)
        assert move.__doc__ == plain.__doc__
        assert [*inspect.signature(move).parameters] == [*inspect.signature(plain).parameters][1:]


def test_a_struck_amount_is_not_stated_and_one_that_replaces_it_is() -> None:
    for struck in (
        "~~24242~~", "~24242~", "<del>24242</del>", "<s>24242</s>", '<DEL class="x">24242</DEL >', "~~The\ntotal: 24242~~",
        "<del><b>24242</b></del>", "2424" + "2\u0336", "<strike>\n24242\n</strike>",
    ):  # fmt: skip
        assert not states(f"The total is {struck}.", "24242"), struck
        assert states(f"The total is {struck.replace('24242', '11111')} 24242.", "24242") or "\u0336" in struck
    for plain in ("about ~24242", "from ~100 words: ~24242", "<sum>24242</sum>", "a~b 24242 c~d", "~/notes: 24242"):
        assert states(plain.replace("100 words", "ten words"), "24242"), plain
    assert not states("~~done~~", "done") and states("~~open~~ done", "done")
