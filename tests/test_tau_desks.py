"""Every tool of tau-bench's two desks, with whole answers and whole changes: a second shop and a second airline."""

import asyncio
import copy
import json
from random import Random

from firsthand.providers.scripted import Scripted
from firsthand.worlds.tau.customers import GREETING, MAX_TURNS, STOP, ModelCustomer, RuleCustomer, first_person
from firsthand.worlds.tau.ledger import RecordLedger
from firsthand.worlds.tau.retail_desk import RetailDesk
from firsthand.worlds.tau.service_desk import ServiceDesk
from firsthand.worlds.tau.service_world import MAX_SAID, ServiceWorld
from firsthand.worlds.world import InvalidAction, RefusedAction

OLD_ADDRESS = {
    "address1": "1 Old Road", "address2": "Flat 9", "city": "Rome", "state": "NY", "country": "USA", "zip": "10001",
}  # fmt: skip


def person(first: str, last: str, email: str, cards: dict[str, float]) -> dict[str, object]:
    """A customer of both domains: a card's worth is its `balance` in the shop and its `amount` at the airline."""
    methods: dict[str, object] = {}
    for name, worth in cards.items():
        source = name.rsplit("_", 1)[0]
        held = {"balance": worth, "amount": worth} if source in ("gift_card", "certificate") else {}
        methods[name] = {"source": source, "id": name, **held}
    return {
        "name": {"first_name": first, "last_name": last},
        "address": dict(OLD_ADDRESS),
        "email": email,
        "payment_methods": methods,
        "reservations": ["R1"],
    }


def item(name: str, product: str, number: str, price: float) -> dict[str, object]:
    return {"name": name, "product_id": product, "item_id": number, "price": price, "options": {"size": number}}


def payment(kind: str, amount: float, method: str) -> dict[str, object]:
    return {"transaction_type": kind, "amount": amount, "payment_method_id": method}


def order(number: str, user: str, status: str, items: list[object], *paid: object) -> dict[str, object]:
    return {
        "order_id": number, "user_id": user, "items": items, "status": status, "payment_history": list(paid),
        "address": dict(OLD_ADDRESS),
    }  # fmt: skip


def shop() -> RetailDesk:
    lamp, rug, second = item("Lamp", "p1", "i1", 20.1), item("Rug", "p2", "r1", 50.0), item("Lamp", "p1", "i1", 20.1)
    return RetailDesk(
        {
            "users": {
                "bob": person("Bob", "Élan", "Bob@Example.com", {"gift_card_7": 5.0}),
                "ann": person(
                    "Ann", "McLee", "ann@example.com", {"gift_card_1": 30.0, "credit_card_1": 0, "paypal_1": 0}
                ),
            },
            "orders": {
                "#W1": order("#W1", "ann", "pending", [lamp, rug, second], payment("payment", 90.2, "gift_card_1")),
                "#W2": order("#W2", "ann", "delivered", [lamp, rug], payment("payment", 70.1, "credit_card_1")),
                "#W4": order(
                    "#W4", "ann", "pending", [lamp], payment("payment", 30.0, "paypal_1"),
                    payment("refund", 9.9, "paypal_1"),
                ),
                "#W5": order("#W5", "ann", "pending", [lamp], payment("refund", 9.9, "paypal_1")),
                "#W6": order("#W6", "ann", "pending", [lamp], payment("payment", 30.0, "paypal_1")),
                "#W7": order("#W7", "ann", "pending", [lamp], payment("payment", 30.01, "paypal_1")),
            },
            "products": {
                "p2": {"name": "Rug", "product_id": "p2", "variants": {
                    "r1": {"price": 50.0, "available": True, "options": {"size": "r1"}},
                    "r2": {"price": 60.25, "available": True, "options": {"size": "r2"}},
                }},
                "p1": {"name": "Lamp", "product_id": "p1", "variants": {
                    "i1": {"price": 19.0, "available": True, "options": {"size": "now"}},
                    "i2": {"price": 39.95, "available": True, "options": {"size": "i2"}},
                    "i3": {"price": 1.0, "available": False, "options": {}},
                }},
            },
        }
    )  # fmt: skip


def called(desk: ServiceDesk, name: str, **arguments: object) -> str:
    return asyncio.run(desk.call(name, arguments))


def record(desk: ServiceDesk, name: str, **arguments: object) -> dict[str, object]:
    return json.loads(called(desk, name, **arguments))


def test_the_shop_finds_people_by_both_names_and_zip_or_email_in_any_case():
    desk = shop()
    assert called(desk, "find_user_id_by_name_zip", first_name="aNN", last_name="mcLEE", zip="10001") == "ann"
    assert called(desk, "find_user_id_by_name_zip", first_name="BOB", last_name="éLAN", zip="10001") == "bob"
    for wrong in ({"first_name": "Bob"}, {"last_name": "Élan"}, {"zip": "10002"}):
        asked = {"first_name": "Ann", "last_name": "McLee", "zip": "10001", **wrong}
        assert called(desk, "find_user_id_by_name_zip", **asked) == "Error: user not found"
    assert called(desk, "find_user_id_by_email", email="bOB@example.COM") == "bob"
    assert called(desk, "find_user_id_by_email", email="ann") == "Error: user not found"
    same = {
        name: person("Cy", "Fox", f"{mail}@x.org", {})
        for name, mail in (("z", "C"), ("m", "c"), ("a", "c"), ("b", "d"))
    }
    twins = RetailDesk({"users": {**same, "y": person("Cy", "Ox", "C@x.org", {})}, "orders": {}, "products": {}})
    assert called(twins, "find_user_id_by_name_zip", first_name="cy", last_name="fox", zip="10001") == "z"
    assert called(twins, "find_user_id_by_email", email="c@X.org") == "z", "the first of the file, not of the alphabet"
    assert called(twins, "find_user_id_by_email", email="d@x.org") == "b"
    assert "Élan" in called(desk, "get_user_details", user_id="bob")  # not escaped
    assert called(desk, "get_user_details", user_id="eve") == "Error: user not found"
    assert called(desk, "get_order_details", order_id="W1") == "Error: order not found"
    assert called(desk, "get_product_details", product_id="i1") == "Error: product not found"
    assert record(desk, "get_product_details", product_id="p2")["name"] == "Rug"
    assert called(desk, "list_all_product_types") == '{"Lamp": "p1", "Rug": "p2"}'
    assert desk.ledger.changes() == {}


def test_an_address_is_replaced_whole_for_the_order_or_for_the_customer():
    new = {"address1": "2 New Street", "address2": "", "city": "Utica", "state": "CA", "country": "Peru", "zip": "7"}
    desk = shop()
    assert record(desk, "modify_pending_order_address", order_id="#W1", **new)["address"] == new
    assert called(desk, "modify_pending_order_address", order_id="#W2", **new) == (
        "Error: non-pending order cannot be modified"
    )
    changes = desk.ledger.changes()
    assert list(changes) == ["orders"] and list(changes["orders"]) == ["#W1"]
    assert changes["orders"]["#W1"]["address"] == new and changes["orders"]["#W1"]["status"] == "pending"
    desk = shop()
    assert record(desk, "modify_user_address", user_id="ann", **new)["address"] == new
    assert {table: list(records) for table, records in desk.ledger.changes().items()} == {"users": ["ann"]}
    assert called(desk, "modify_user_address", user_id="eve", **new) == "Error: user not found"


def test_a_cancelled_order_gives_each_payment_back_where_it_came_from():
    desk = shop()
    done = record(desk, "cancel_pending_order", order_id="#W1", reason="no longer needed")
    assert done["status"] == "cancelled" and done["cancel_reason"] == "no longer needed"
    assert done["payment_history"] == [
        payment("payment", 90.2, "gift_card_1"),
        payment("refund", 90.2, "gift_card_1"),
    ]
    assert desk.ledger.changes()["users"]["ann"]["payment_methods"]["gift_card_1"]["balance"] == 120.2
    again = called(desk, "cancel_pending_order", order_id="#W1", reason="no longer needed")
    assert again == "Error: non-pending order cannot be cancelled" and isinstance(again, RefusedAction)
    plain = shop()
    record(plain, "cancel_pending_order", order_id="#W6", reason="ordered by mistake")
    assert list(plain.ledger.changes()) == ["orders"]  # a paypal account keeps no balance


def test_several_items_of_a_pending_order_change_and_the_gift_card_pays_the_sum():
    """New lamps cost 39.95 for 20.10 each; the rug 60.25 for 50: 2 * 19.85 + 10.25 = 49.95; one lamp alone 19.85."""
    desk = shop()
    change = {"order_id": "#W1", "payment_method_id": "gift_card_1"}
    all_three = {"item_ids": ["i1", "r1", "i1"], "new_item_ids": ["i2", "r2", "i2"]}
    assert called(desk, "modify_pending_order_items", **change, **all_three) == (
        "Error: insufficient gift card balance to pay for the new item"
    )
    two = {"item_ids": ["r1", "i1"], "new_item_ids": ["r2", "i2"]}  # 30.1 of a card of 30
    assert "insufficient" in called(desk, "modify_pending_order_items", **change, **two)
    assert called(desk, "modify_pending_order_items", **change, item_ids=["i1"], new_item_ids=["r2"]) == (
        "Error: new item r2 not found or available"
    )
    assert called(desk, "modify_pending_order_items", **change, item_ids=["i1"], new_item_ids=["i2", "i2"]) == (
        "Error: the number of items to be exchanged should match"
    )
    three = ["i1", "i1", "i1"]
    assert called(desk, "modify_pending_order_items", **change, item_ids=three, new_item_ids=three) == (
        "Error: i1 not found"
    )
    assert called(
        desk, "modify_pending_order_items", order_id="#W1", payment_method_id="gift_card_7", item_ids=["i1"],
        new_item_ids=["i2"],
    ) == "Error: payment method not found"  # Bob's card  # fmt: skip
    assert desk.ledger.changes() == {}
    done = record(desk, "modify_pending_order_items", **change, item_ids=["i1"], new_item_ids=["i2"])
    new_lamp = {**item("Lamp", "p1", "i2", 39.95), "options": {"size": "i2"}}
    assert done["items"] == [new_lamp, item("Rug", "p2", "r1", 50.0), item("Lamp", "p1", "i1", 20.1)]
    assert done["status"] == "pending (item modified)"
    assert done["payment_history"][0] == payment("payment", 90.2, "gift_card_1")
    last = done["payment_history"][1]
    assert (last["transaction_type"], round(last["amount"], 6)) == ("payment", 19.85)
    assert desk.ledger.changes()["users"]["ann"]["payment_methods"]["gift_card_1"]["balance"] == 10.15
    both = shop()
    done = record(both, "modify_pending_order_items", order_id="#W1", payment_method_id="paypal_1", **all_three)
    assert [each["item_id"] for each in done["items"]] == ["i2", "r2", "i2"]
    assert round(done["payment_history"][-1]["amount"], 6) == 49.95 and list(both.ledger.changes()) == ["orders"]
    same = record(shop(), "modify_pending_order_items", **change, item_ids=["r1"], new_item_ids=["r1"])
    assert same["payment_history"][-1] == payment("refund", 0.0, "gift_card_1")


def test_another_way_to_pay_takes_the_amount_and_gives_it_back_to_the_first():
    desk = shop()
    pay = "modify_pending_order_payment"
    only = "Error: there should be exactly one payment for a pending order"
    assert called(desk, pay, order_id="#W4", payment_method_id="credit_card_1") == only
    assert called(desk, pay, order_id="#W5", payment_method_id="credit_card_1") == only
    assert called(desk, pay, order_id="#W6", payment_method_id="gift_card_9") == "Error: payment method not found"
    assert called(desk, pay, order_id="#W6", payment_method_id="paypal_1") == (
        "Error: the new payment method should be different from the current one"
    )
    assert called(desk, pay, order_id="#W7", payment_method_id="gift_card_1") == (
        "Error: insufficient gift card balance to pay for the order"
    )
    assert called(desk, pay, order_id="#W2", payment_method_id="paypal_1") == (
        "Error: non-pending order cannot be modified"
    )
    assert desk.ledger.changes() == {}
    done = record(desk, pay, order_id="#W6", payment_method_id="gift_card_1")  # exactly what is on the card
    assert done["payment_history"] == [
        payment("payment", 30.0, "paypal_1"),
        payment("payment", 30.0, "gift_card_1"),
        payment("refund", 30.0, "paypal_1"),
    ]
    assert done["status"] == "pending"
    assert desk.ledger.changes()["users"]["ann"]["payment_methods"]["gift_card_1"]["balance"] == 0.0


def test_a_return_goes_to_the_first_payment_or_a_gift_card_and_an_exchange_states_its_difference():
    give = {"order_id": "#W2", "item_ids": ["r1", "i1"]}
    assert called(shop(), "return_delivered_order_items", payment_method_id="paypal_1", **give) == (
        "Error: payment method should be either the original payment method or a gift card"
    )
    assert called(shop(), "return_delivered_order_items", payment_method_id="eve", **give) == (
        "Error: payment method not found"
    )
    for method in ("credit_card_1", "gift_card_1"):
        desk = shop()
        done = record(desk, "return_delivered_order_items", payment_method_id=method, **give)
        assert done["status"] == "return requested" and done["return_items"] == ["i1", "r1"]
        assert done["return_payment_method_id"] == method and list(desk.ledger.changes()) == ["orders"]
        assert len(done["payment_history"]) == 1
    assert called(
        shop(), "return_delivered_order_items", order_id="#W2", item_ids=["i9"], payment_method_id="gift_card_1"
    ) == ("Error: i9 not found")
    assert called(
        shop(), "return_delivered_order_items", order_id="#W1", item_ids=["i1"], payment_method_id="gift_card_1"
    ) == ("Error: non-delivered order cannot be returned")
    swap = {"order_id": "#W2", "item_ids": ["r1", "i1"], "new_item_ids": ["r2", "i2"]}
    assert called(shop(), "exchange_delivered_order_items", payment_method_id="gift_card_1", **swap) == (
        "Error: insufficient gift card balance to pay for the price difference"
    )
    desk = shop()
    done = record(desk, "exchange_delivered_order_items", payment_method_id="paypal_1", **swap)
    before = shop().ledger.find("orders", "#W2")
    assert done == {
        **before, "status": "exchange requested", "exchange_items": ["i1", "r1"], "exchange_new_items": ["i2", "r2"],
        "exchange_payment_method_id": "paypal_1", "exchange_price_difference": 30.1,
    }  # fmt: skip
    assert desk.ledger.changes() == {"orders": {"#W2": done}}
    assert called(desk, "exchange_delivered_order_items", payment_method_id="paypal_1", **swap) == (
        "Error: non-delivered order cannot be exchanged"
    )


def test_shared_tools_round_to_cents_think_of_nothing_and_transfer():
    desk = shop()
    assert called(desk, "calculate", expression="10 / 3") == "3.33" and called(desk, "think", thought="hm") == ""
    assert isinstance(called(desk, "calculate", expression="2 +"), RefusedAction)
    unknown = called(desk, "x" * 61)
    assert unknown == f"Error: unknown action {'x' * 60}" and isinstance(unknown, RefusedAction)
    assert not desk.transferred
    assert called(desk, "transfer_to_human_agents", summary="x") == "Transfer successful" and desk.transferred
    assert [each.__name__ for each in desk.functions][-3:] == ["calculate", "think", "transfer_to_human_agents"]
    assert len(desk.functions) == 16


def test_a_ledger_forgets_a_change_taken_back_and_sorts_the_others():
    tables = {"a": {"k2": {"n": [1]}, "k1": {"n": [2]}}, "b": {"k": {"n": [3]}}}
    before = copy.deepcopy(tables)
    ledger = RecordLedger(tables)
    ledger.edit("a", "k2")["n"].append(5)
    ledger.edit("a", "k1")["n"] = []
    ledger.edit("b", "k")["n"] = [3]
    ledger.add("a", "k3", {"n": [9]})
    assert ledger.edit("a", "k2") is ledger.edit("a", "k2") and ledger.find("a", "k2") == {"n": [1, 5]}
    assert ledger.find("a", "k3") == {"n": [9]} and ledger.find("a", "k4") is None
    assert list(ledger.changes()["a"].items()) == [("k1", {"n": []}), ("k2", {"n": [1, 5]}), ("k3", {"n": [9]})]
    assert list(ledger.changes()) == ["a"] and tables == before
    assert list(ledger.rows("a")) == [("k2", {"n": [1, 5]}), ("k1", {"n": []}), ("k3", {"n": [9]})]


def test_an_empty_record_that_was_written_is_read_back():
    ledger = RecordLedger({"a": {"k": {"n": 1}}})
    ledger.add("a", "k", {})
    assert ledger.find("a", "k") == {} and list(ledger.rows("a")) == [("k", {})]


def test_a_customer_by_rules_tells_what_is_asked_says_yes_and_stops():
    facts = {"user id": "ann_1", "email": "a@b.c", "name": "Ann Lee", "zip": "10001"}
    customer = RuleCustomer("You want your lamp.", facts)
    assert asyncio.run(customer.first(GREETING)) == "I want my lamp."
    for said, answer in [
        ("What is your ZIP or your Email?", "My email is a@b.c, my zip is 10001."),
        ("Tell me your user id, please.", "My user id is ann_1."),
        ("Provide the rest.", "As I said: I want my lamp."),
        ("Provide it.", "Yes, please go ahead."),
        ("Shall I go ahead, and is your name right?", "Yes, please go ahead. And my name is Ann Lee."),
        ("Please tell me.", "Yes, please go ahead."),
        ("Is the zipper broken?", "Yes, please go ahead."),
        ("Your name and zip are known.", STOP),
        ("Confirmed.", STOP),
    ]:
        assert asyncio.run(customer.reply(said)) == answer, said
    patient = RuleCustomer("x", {})
    assert {asyncio.run(patient.reply("ok?")) for _ in range(MAX_TURNS)} == {"Yes, please go ahead."}
    assert patient.patience == MAX_TURNS and customer.tokens == 0
    assert first_person("YOU WERE told by you; show you yours. Young yours?") == (
        "I was told by I; show me mine. Young mine?"
    )


def test_a_customer_by_model_is_asked_with_the_whole_conversation():
    seen: list[list[tuple[str, str]]] = []

    def reply(messages, sampling, index):
        seen.append([(each.role, each.text) for each in messages])
        assert (sampling.max_tokens, sampling.temperature) == (160, 0.0)
        return f" I want \n it {len(seen)}"

    customer = ModelCustomer("You want a lamp.", Scripted(reply))
    assert asyncio.run(customer.first(GREETING)) == "I want it 1"
    assert asyncio.run(customer.reply("Why?")) == "I want it 2"
    assert "You want a lamp." in seen[1][0][1] and "INSTRUCTION" not in seen[1][0][1] and STOP in seen[1][0][1]
    assert seen[1][1:] == [("user", GREETING), ("assistant", "I want it 1"), ("user", "Why?")]
    returning = ModelCustomer("x", Scripted(["a", "b", "a", "a", f"bye {STOP}"]))
    assert [asyncio.run(returning.reply("ok?")) for _ in range(5)] == ["a", "b", "a", "a", STOP]


def test_a_service_world_renders_both_orders_reads_calls_and_limits_what_is_said():
    async def talk(greeted: bool) -> ServiceWorld:
        world = ServiceWorld(
            shop(), RuleCustomer("You want it.", {"zip": "1"}), greeted=greeted,
            actions=[("think", {"thought": "t"})], outputs=["a", "b"],
        )  # fmt: skip
        await world.open()
        await world.respond("Your zip?")
        return world

    greeted, met = asyncio.run(talk(True)), asyncio.run(talk(False))
    assert greeted.render() == "customer: I want it.\nagent: Your zip?\ncustomer: My zip is 1.\nchanged: nothing"
    assert met.render() == "agent: Your zip?\ncustomer: I want it.\nchanged: nothing"
    cancel = {"order_id": "#W1", "reason": "no longer needed"}
    asyncio.run(met.desk.call("cancel_pending_order", cancel))
    assert met.render().endswith("changed: users ann, orders #W1")
    assert met.read("  hello \n") == ("respond", {"content": "hello"})
    assert met.read('```json\n{"name": "think", "arguments": {"thought": "x"}}\n```') == ("think", {"thought": "x"})
    assert met.ending is None and asyncio.run(met.respond("x" * MAX_SAID)) == STOP
    assert met.ending == "customer stopped" and asyncio.run(met.result())["heard"] == ["I want it.", STOP]
    for said in ("", "  \n"):
        try:
            met.read(said)
        except InvalidAction as error:
            assert "nothing was said" in str(error)
        else:
            raise AssertionError("an empty action was read")
    try:
        asyncio.run(met.respond("x" * (MAX_SAID + 1)))
    except InvalidAction as error:
        assert str(error) == f"the message has {MAX_SAID + 1} characters: at most {MAX_SAID} are said"
    assert len(met.said) == 2
    met.desk.transferred = True
    assert met.ending == "transferred"
    assert met.optimal() == '{"name": "think", "arguments": {"thought": "t"}}'
    assert json.loads(met.optimal()) == {"name": "respond", "arguments": {"content": "It is done. a; b"}}


def test_random_calls_use_the_profile_by_name_and_lists_where_lists_are_wanted():
    world = ServiceWorld(shop(), RuleCustomer("x", {}), greeted=True, profile={"email": "a@b.c", "zip": "10001"})
    rng, seen = Random(0), {}
    for _ in range(300):
        text = world.random(rng)
        if text.startswith("{"):
            call = json.loads(text)
            seen[call["name"]] = call["arguments"]
    assert set(seen) == {each.__name__ for each in world.desk.functions}
    assert seen["find_user_id_by_email"] == {"email": "a@b.c"} and seen["modify_user_address"]["zip"] == "10001"
    assert isinstance(seen["return_delivered_order_items"]["item_ids"], list)
    assert isinstance(seen["return_delivered_order_items"]["order_id"], str)


def test_a_gift_card_pays_exactly_what_it_holds_and_no_difference_is_a_refund_of_nothing():
    desk = shop()
    paid = record(desk, "modify_pending_order_payment", order_id="#W6", payment_method_id="gift_card_1")
    assert paid["payment_history"][1:] == [payment("payment", 30.0, "gift_card_1"), payment("refund", 30.0, "paypal_1")]
    assert record(desk, "get_user_details", user_id="ann")["payment_methods"]["gift_card_1"]["balance"] == 0.0
    desk.ledger.edit("products", "p1")["variants"]["i2"]["price"] = 20.1
    change = {"order_id": "#W1", "item_ids": ["i1"], "new_item_ids": ["i2"], "payment_method_id": "gift_card_1"}
    changed = record(desk, "modify_pending_order_items", **change)
    assert changed["payment_history"][-1] == payment("refund", 0.0, "gift_card_1")
    assert [(each["item_id"], each["price"]) for each in changed["items"]] == [("i2", 20.1), ("r1", 50.0), ("i1", 20.1)]

    desk = shop()
    desk.ledger.edit("products", "p1")["variants"]["i2"]["price"] = 50.1
    assert record(desk, "modify_pending_order_items", **change)["payment_history"][-1]["amount"] == 30.0
    assert record(desk, "get_user_details", user_id="ann")["payment_methods"]["gift_card_1"]["balance"] == 0.0
    desk = shop()
    desk.ledger.edit("products", "p1")["variants"]["i2"]["price"] = 19.8
    exchange = {"order_id": "#W2", "item_ids": ["i1"], "new_item_ids": ["i2"], "payment_method_id": "gift_card_1"}
    exchanged = record(desk, "exchange_delivered_order_items", **exchange)
    assert exchanged["exchange_price_difference"] == -0.3  # 19.8 - 20.1 is -0.30000000000000071
