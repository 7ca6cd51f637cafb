"""Whole answers of tau-bench's two desks, what a tool refuses, and both customers at the edges of a conversation."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from dealt_random import Dealt
from firsthand.errors import WorldFailed
from firsthand.model import Completion, Usage
from firsthand.providers.scripted import Scripted
from firsthand.worlds.tau.airline_desk import AirlineDesk, _is_open, _offer
from firsthand.worlds.tau.customers import GREETING, STOP, ModelCustomer, RuleCustomer, first_person
from firsthand.worlds.tau.retail_desk import RetailDesk, _address
from firsthand.worlds.tau.service_desk import Refused, ServiceDesk, as_json, refusing
from firsthand.worlds.tau.service_world import ServiceWorld
from firsthand.worlds.world import InvalidAction, RefusedAction

OPEN, GONE = {"status": "available", "prices": {"economy": 7}}, {"status": "landed"}
FLIGHTS = {
    "F2": {"origin": "ORD", "destination": "ATL", "dates": {"d1": OPEN, "d2": GONE}},
    "F1": {"origin": "JFK", "destination": "ORD", "dates": {"d1": OPEN}},
}
TABLES: Any = {
    "users": {"ü": {"name": "Ünal", "payment_methods": {"card": {"source": "credit_card"}}, "reservations": []}},
    "flights": FLIGHTS,
    "reservations": {
        "R": {"user_id": "ü", "passengers": [1, 2], "payment_history": [{"payment_id": "p", "amount": 3}]}
    },
}


def said(desk: ServiceDesk, name: str, **arguments: Any) -> str:
    return asyncio.run(desk.call(name, arguments))


def test_each_desk_reads_its_records_out_as_they_are_or_says_that_there_is_none() -> None:
    desk = AirlineDesk(TABLES)
    assert said(desk, "get_user_details", user_id="ü") == json.dumps(TABLES["users"]["ü"], ensure_ascii=False)
    assert said(desk, "get_user_details", user_id="u") == "Error: user not found"
    assert json.loads(said(desk, "get_reservation_details", reservation_id="R")) == TABLES["reservations"]["R"]
    assert said(desk, "get_reservation_details", reservation_id="r") == "Error: reservation not found"
    assert said(desk, "list_all_airports") == '["ATL", "JFK", "ORD"]'
    offer = {"origin": "JFK", "destination": "ORD", **OPEN, "date": "d1"}
    assert json.loads(said(desk, "search_direct_flight", origin="JFK", destination="ORD", date="d1")) == [offer]
    for origin, destination, date in (("ORD", "JFK", "d1"), ("JFK", "ATL", "d1"), ("JFK", "ORD", "d2")):
        asked = {"origin": origin, "destination": destination, "date": date}
        assert said(desk, "search_direct_flight", **asked) == "[]"
    assert [_is_open(FLIGHTS["F2"], day) for day in ("d1", "d2", "d3")] == [True, False, False]
    assert _offer(FLIGHTS["F2"], "d2") == {"origin": "ORD", "destination": "ATL", "status": "landed", "date": "d2"}
    cancelled = json.loads(said(desk, "cancel_reservation", reservation_id="R"))
    paid = [{"payment_id": "p", "amount": 3}, {"payment_id": "p", "amount": -3}]
    assert cancelled == {**TABLES["reservations"]["R"], "payment_history": paid, "status": "cancelled"}
    assert said(desk, "cancel_reservation", reservation_id="S") == "Error: reservation not found"
    people = [{"first_name": "A"}, {"first_name": "B"}]
    for count, told in ((1, True), (3, True), (2, False)):
        answer = said(desk, "update_reservation_passengers", reservation_id="R", passengers=(people * 2)[:count])
        assert (answer == "Error: number of passengers does not match") is told
    assert desk.ledger.find("reservations", "R")["passengers"] == people  # type: ignore[index]
    people[0]["first_name"] = "Z"
    assert desk.ledger.find("reservations", "R")["passengers"][0] == {"first_name": "A"}  # type: ignore[index]
    for number in (1, 2, 3):
        id = f"certificate_322132{number + 1}"
        told = f"Certificate {id} added to user ü with amount {50 * number}."
        assert said(desk, "send_certificate", user_id="ü", amount=50 * number) == told
        held = desk.ledger.find("users", "ü")["payment_methods"][id]  # type: ignore[index]
        assert held == {"source": "certificate", "amount": 50 * number, "id": id}
    assert (
        said(desk, "send_certificate", user_id="ü", amount=1) == "Error: the customer has been sent three certificates"
    )
    assert said(desk, "send_certificate", user_id="u", amount=1) == "Error: user not found"
    assert list(TABLES["users"]["ü"]["payment_methods"]) == ["card"], "the tables are shared, and not changed"
    names = [each.__name__ for each in desk.functions]
    assert names == [
        "get_user_details", "get_reservation_details", "list_all_airports", "search_direct_flight",
        "search_onestop_flight", "book_reservation", "cancel_reservation", "update_reservation_flights",
        "update_reservation_baggages", "update_reservation_passengers", "send_certificate", "calculate", "think",
        "transfer_to_human_agents",
    ]  # fmt: skip
    assert [each.__name__ for each in RetailDesk({}).functions] == [
        "find_user_id_by_email", "find_user_id_by_name_zip", "get_user_details", "get_order_details",
        "get_product_details", "list_all_product_types", "cancel_pending_order", "modify_pending_order_address",
        "modify_pending_order_items", "modify_pending_order_payment", "modify_user_address",
        "return_delivered_order_items", "exchange_delivered_order_items", *names[-3:],
    ]  # fmt: skip
    assert list(_address("1", "2", "c", "s", "l", "z").items()) == [
        ("address1", "1"), ("address2", "2"), ("city", "c"), ("state", "s"), ("country", "l"), ("zip", "z"),
    ]  # fmt: skip
    assert as_json({"é": 1}) == '{"é": 1}'


def test_what_a_tool_refuses_and_arguments_that_do_not_fit_are_told_and_other_errors_rise() -> None:
    def raising(error: Exception) -> Any:
        async def tool(*args: object, **arguments: object) -> str:
            raise error

        return refusing(tool)

    told = {
        Refused("no"): "Error: no",
        TypeError("x" * 130): f"Error: the arguments do not fit tool: TypeError {'x' * 120}",
        KeyError("k"): "Error: the arguments do not fit tool: KeyError 'k'",
        AttributeError("a"): "Error: the arguments do not fit tool: AttributeError a",
        ValueError("v"): "Error: the arguments do not fit tool: ValueError v",
        IndexError("i"): "Error: the arguments do not fit tool: IndexError i",
    }
    for error, text in told.items():
        answer = asyncio.run(raising(error)(1, a=2))
        assert answer == text and isinstance(answer, RefusedAction)
    with pytest.raises(RuntimeError):
        asyncio.run(raising(RuntimeError("r"))())

    async def fine(a: int, b: int = 2) -> str:
        """Says both."""
        return f"{a}{b}"

    wrapped = refusing(fine)
    assert asyncio.run(wrapped(1, b=3)) == "13" and (wrapped.__name__, wrapped.__doc__) == ("fine", "Says both.")
    desk = ServiceDesk({})
    sums = {"2 + 2": "4.0", "1 / 3": "0.33", "2.675 * 2": "5.35", "-7": "-7.0"}
    assert {each: said(desk, "calculate", expression=each) for each in sums} == sums
    for wrong in ("1 / 0", "x", "9 ** 9 ** 9"):
        answer = said(desk, "calculate", expression=wrong)
        assert answer.startswith("Error: ") and isinstance(answer, RefusedAction)
    assert said(desk, "think", thought="x") == "" and desk.transferred is False


def test_a_customer_by_rules_is_asked_by_a_question_mark_or_a_word_alone() -> None:
    facts = {"user id": "u_1", "zip": "7", "name": "Ann Lee"}
    customer = RuleCustomer("You are here with yourself, and yours is yours.", facts)
    assert asyncio.run(customer.first("ignored")) == "I am here with myself, and mine is mine."
    yes = "Yes, please go ahead."
    for heard, answer in {
        "PLEASE wait": yes, "Provided.": STOP, "I confirmed it": STOP, "confirm": yes, "names?": yes,
        "name?": "My name is Ann Lee.", "zip, User ID?": "My user id is u_1, my zip is 7.",
        "Yes, your zip?": "Yes, please go ahead. And my zip is 7.", "Proceed with name and zip?":
        "Yes, please go ahead. And my zip is 7, my name is Ann Lee.", "yesterday zip?": "My zip is 7.", "": STOP,
    }.items():  # fmt: skip
        assert asyncio.run(customer.reply(heard)) == answer, heard
    assert first_person("You're sure that you were told you are right. Give you your own; ask You.") == (
        "I'm sure that I was told I am right. Give me my own; ask me."
    )
    assert first_person("Young thank-you notes for you and from you") == "Young thank-I notes for me and from me"


class Costly(Scripted):
    """Says how many tokens each answer cost."""

    async def complete(self, *args: Any, **options: Any) -> list[Completion]:
        return [replace(each, usage=Usage(20, 7, 3)) for each in await super().complete(*args, **options)]


def test_a_customer_by_model_stops_at_the_word_and_fails_its_world_where_it_says_nothing() -> None:
    customer = ModelCustomer("You want INSTRUCTION.", Costly([" a\n\tb ", "x", f"bye {STOP} now", ""]))
    head = customer._messages[0]
    assert head.role == "system" and "\n\nYou want INSTRUCTION.\n\n" in head.text and head.text.count(STOP) == 1
    assert asyncio.run(customer.first(GREETING)) == "a b" and customer.tokens == 23
    assert asyncio.run(customer.reply("q")) == "x" and asyncio.run(customer.reply("r")) == STOP
    with pytest.raises(WorldFailed, match="scripted, which plays the customer, said nothing: it ended by 'stop'"):
        asyncio.run(customer.reply("s"))
    assert customer.tokens == 3 * 23
    assert [(each.role, each.text) for each in customer._messages[1:]] == [
        ("user", GREETING), ("assistant", "a b"), ("user", "q"), ("assistant", "x"), ("user", "r"),
        ("assistant", f"bye {STOP} now"), ("user", "s"),
    ]  # fmt: skip
    terse = ModelCustomer("x", Scripted(["yes"] * 6))
    assert [asyncio.run(terse.reply("?")) for _ in range(6)] == ["yes"] * 6


def test_a_conversation_is_told_in_turn_and_only_text_or_a_known_call_is_an_action() -> None:
    async def talked(greeted: bool) -> ServiceWorld:
        customer = ModelCustomer("x", Scripted(["one", "two", f"{STOP}"]))
        world = ServiceWorld(AirlineDesk(TABLES), customer, greeted=greeted)
        await world.open()
        assert (world.said, world.heard, world.stopped) == ([], ["one"] if greeted else [], False)
        await world.respond("A")
        await world.respond("B")
        return world

    greeted, met = asyncio.run(talked(True)), asyncio.run(talked(False))
    assert greeted.render() == f"customer: one\nagent: A\ncustomer: two\nagent: B\ncustomer: {STOP}\nchanged: nothing"
    assert met.render() == "agent: A\ncustomer: one\nagent: B\ncustomer: two\nchanged: nothing"
    assert (greeted.ending, met.ending, greeted.stopped) == ("customer stopped", None, True)
    assert [each.text for each in greeted.customer._messages[1:4:2]] == [GREETING, "A"]  # type: ignore[attr-defined]
    assert [each.text for each in met.customer._messages[1:4:2]] == ["A", "B"]  # type: ignore[attr-defined]
    result = asyncio.run(met.result())
    assert result == {
        "changes": {},
        "said": ["A", "B"],
        "heard": ["one", "two"],
        "customer_tokens": met.customer.tokens,
    }
    assert result["customer_tokens"] > 0
    assert [each.__name__ for each in met.moves][-2:] == ["transfer_to_human_agents", "respond"]
    assert met.read('{"name": "respond", "arguments": {"content": "hi"}}') == ("respond", {"content": "hi"})
    assert met.read("It is {done}") == ("respond", {"content": "It is {done}"}) and met.admissible() is met.form is None
    with pytest.raises(InvalidAction):
        met.read('{"name": "fly", "arguments": {}}')
    asyncio.run(met.desk.transfer_to_human_agents("x"))
    assert met.ending == "transferred" and greeted.ending == "customer stopped"
    asyncio.run(met.open())
    assert (met.said, met.heard, met.stopped, met._played) == ([], [], False, 0)


class Saying:
    """A customer that says these messages in turn."""

    tokens, patience = 5, 3

    def __init__(self, *messages: str) -> None:
        self.left, self.asked = list(messages), list[tuple[str, str]]()

    async def first(self, greeting: str) -> str:
        self.asked.append(("first", greeting))
        return self.left.pop(0)

    async def reply(self, said: str) -> str:
        self.asked.append(("reply", said))
        return self.left.pop(0)


def test_the_word_to_stop_ends_a_conversation_wherever_it_stands_in_an_answer() -> None:
    for answer, is_over in (
        (STOP, True), (f"Thanks! {STOP}", True), (f"{STOP} bye", True), (f"a{STOP}b", True), (f" {STOP}\n", True),
        (STOP.lower() if STOP.lower() != STOP else "no", False), (STOP[:-1], False), ("", False), ("stop", False),
    ):  # fmt: skip
        for greeted in (False, True):
            customer = Saying(*["hello"] * greeted, answer)
            world = ServiceWorld(AirlineDesk(TABLES), customer, greeted=greeted)

            async def talked(world: ServiceWorld = world) -> str:
                await world.open()
                assert world.ending is None
                return await world.respond("hi")

            assert asyncio.run(talked()) == answer
            assert (world.stopped, world.ending) == (is_over, "customer stopped" if is_over else None), answer
            asked = [("first", GREETING), ("reply", "hi")] if greeted else [("first", "hi")]
            assert customer.asked == asked and world.heard == [*["hello"] * greeted, answer] and world.said == ["hi"]


def test_a_message_to_the_customer_has_its_limit_and_a_longer_one_is_not_said() -> None:
    customer = Saying("one", "two")
    world = ServiceWorld(AirlineDesk(TABLES), customer, greeted=False)
    asyncio.run(world.open())
    with pytest.raises(InvalidAction) as refused:
        asyncio.run(world.respond("x" * 4001))
    assert str(refused.value) == "the message has 4001 characters: at most 4000 are said"
    assert (world.said, world.heard, customer.asked) == ([], [], [])
    assert asyncio.run(world.respond("x" * 4000)) == "one" and asyncio.run(world.respond("y")) == "two"
    assert customer.asked == [("first", "x" * 4000), ("reply", "y")]


def test_random_calls_take_the_profile_by_name_and_else_any_of_its_values() -> None:
    profile = {"user_id": "u", "zip": "7"}
    world = ServiceWorld(AirlineDesk(TABLES), RuleCustomer("x", {}), greeted=True, profile=profile)
    sentences = [world.random(Dealt(14, at)) for at in range(3)]
    assert sentences == ["How can I help you?", "Do you confirm?", "It is done."]
    assert json.loads(world.random(Dealt(0))) == {"name": "get_user_details", "arguments": {"user_id": "u"}}
    flights = json.loads(world.random(Dealt(7, 1, 0, 1, 0)))
    assert flights == {
        "name": "update_reservation_flights",
        "arguments": {"reservation_id": "7", "cabin": "u", "flights": ["7"], "payment_id": "u"},
    }
    bare = ServiceWorld(AirlineDesk(TABLES), RuleCustomer("x", {}), greeted=False)
    assert json.loads(bare.random(Dealt(1, 5))) == {
        "name": "get_reservation_details",
        "arguments": {"reservation_id": "x"},
    }
    assert bare.random(Random(1)) == bare.random(Random(1))
