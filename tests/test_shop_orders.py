"""A walk through a shop of a few products page by page, and tau-bench's orders as they are changed and paid."""

import asyncio
import json
from random import Random
from typing import Any

import pytest

from firsthand.worlds.shop.products import ShoppingGoal, ShopProduct, shopping_reward
from firsthand.worlds.shop.shop_generator import Shop
from firsthand.worlds.shop.shop_search import ShopSearch
from firsthand.worlds.shop.shop_world import MAX_QUERY_CHARS, ShopWorld, _dollars
from firsthand.worlds.tau.retail_desk import RetailDesk
from firsthand.worlds.world import InvalidAction, WorldCall

LAMP = ShopProduct(
    "B0LAMP", "Lumo desk lamp", "desk lamp", ("Home", "Lamps", "Desk Lamp"), frozenset({"oak foot", "dim"}),
    {"color": ("red", "blue"), "size": ("small", "red")}, 20.0, {"blue": 5.25, "small": 1.5}, 4.5, "A lamp.",
    ("Oak foot", "Dim"), ("Good.", "Bad."), frozenset({"desk", "lamp"}),
)  # fmt: skip


def shop() -> Shop:
    others = tuple(
        ShopProduct(f"B0N{n:02d}", f"Arvo lamp {n}", "lamp", ("Home", "Lamps", "Lamp"), frozenset(), {}, 10.0 + n)
        for n in range(11)
    )
    products = (LAMP, *others)
    return Shop(products, {each.id: each for each in products}, ShopSearch(products))


GOAL = ShoppingGoal(LAMP, "find a lamp", ("oak foot",), {"color": "blue", "size": "small"}, 26.75)


def walked(*texts: str) -> ShopWorld:
    world = ShopWorld(shop(), GOAL)

    async def walk() -> None:
        await world.open()
        for text in texts:
            call = world.read(text)
            await next(each for each in world.moves if each.__name__ == call.name)(**call.arguments)

    asyncio.run(walk())
    return world


def test_each_page_of_a_shop_shows_its_parts_and_its_clicks():
    world = walked()
    assert world.view() == "Instruction: find a lamp [SEP] Search\nPossible actions: search[words]"
    assert (world.admissible(), world.clickable(), world.ending) == (None, [], None)
    results = walked("search[lamp]")
    assert len(results.results) == 12
    ids = [each.id for each in results.results]
    assert results.clickable() == ["Back to Search", "Next >", *ids[:10]]
    lines = results.render().splitlines()
    assert lines[:4] == ["Instruction: find a lamp", "Back to Search", "Page 1 (Total results: 12)", "Next >"]
    first = results.results[0]
    assert lines[4:7] == [first.id, first.title, _dollars(first)]
    second = walked("search[lamp]", "click[next  >]")
    assert second.clickable() == ["Back to Search", "< Prev", *ids[10:]]
    assert second.render().splitlines()[2:4] == ["Page 2 (Total results: 12)", "< Prev"]
    assert walked("search[lamp]", "click[next >]", "click[< prev]").clickable() == results.clickable()
    again = walked("search[lamp]", "click[next >]", "click[back to search]", "search[lamp]")
    assert (again.number, again.clickable()) == (0, results.clickable())
    again.results = again.results[:10]
    assert again.clickable() == ["Back to Search", *ids[:10]]  # ten fill one page
    again.results = []
    assert again.clickable() == ["Back to Search"]
    product = walked("search[desk lamp]", "click[b0lamp]", "click[BLUE]")
    assert product.chosen == {"color": "blue"}
    assert product.view() == (
        "Instruction: find a lamp [SEP] Back to Search [SEP] < Prev [SEP] color [SEP] red [SEP] blue (chosen) [SEP] size "
        "[SEP] small [SEP] red [SEP] Lumo desk lamp [SEP] Price: $25.25 [SEP] Rating: 4.5 [SEP] Description [SEP] Features "
        "[SEP] Reviews [SEP] Buy Now\nPossible actions: click[Back to Search], click[< Prev], click[red], click[blue], "
        "click[small], click[Description], click[Features], click[Reviews], click[Buy Now]"
    )
    for page, parts in (
        ("Description", ["A lamp."]),
        ("Features", ["Oak foot", "Dim"]),
        ("Reviews", ["Good.", "Bad."]),
    ):
        sub = walked("search[desk lamp]", "click[B0LAMP]", "click[blue]", f"click[{page}]")
        assert sub.render().splitlines() == [
            "Instruction: find a lamp", "Back to Search", "< Prev", *parts,
            "Possible actions: click[Back to Search], click[< Prev]",
        ]  # fmt: skip
        asyncio.run(sub.click("< Prev"))
        assert (sub.page, sub.chosen) == ("product", {"color": "blue"})
        asyncio.run(sub.click("< Prev"))
        assert sub.page == "results"
        asyncio.run(sub.click("B0LAMP"))
        assert sub.chosen == {}
    away = walked("search[desk lamp]", "click[B0LAMP]", "click[blue]", "click[back to search]")
    assert (away.page, away.chosen, away.product) == ("search", {}, None)
    assert _dollars(LAMP) == "$20.00 to $25.25"
    assert _dollars(first if first is not LAMP else results.results[1]).count("$") == 1


def test_a_purchase_ends_the_attempt_with_its_reward_and_nothing_can_be_clicked():
    world = walked("search[desk lamp]", "click[B0LAMP]", "click[small]", "click[blue]", "click[buy now]")
    assert (world.ending, world.clickable(), world.admissible()) == ("bought", [], [])
    assert world.view() == "Instruction: find a lamp [SEP] Thank you for shopping with us!\nPossible actions: "
    parts = {"reward": 1.0, "type": 1.0, "attributes": 1.0, "options": 1.0, "price": 1.0}
    options = {"size": "small", "color": "blue"}
    assert asyncio.run(world.result()) == {"reward": 1.0, "parts": parts, "bought": "B0LAMP", "options": options}
    assert asyncio.run(walked("search[lamp]").result()) == {"reward": 0.0, "bought": None}
    asyncio.run(world.open())
    assert (world.page, world.results, world.number, world.product, world.chosen, world.reward) == (
        "search", [], 0, None, {}, None,
    )  # fmt: skip
    dear = ShoppingGoal(LAMP, "", ("oak foot",), {"color": "blue", "size": "small"}, 26.74)  # 20 + 5.25 + 1.5 is 26.75
    assert shopping_reward(dear, LAMP, options)[0] == 3 / 4
    assert shopping_reward(GOAL, LAMP, {"color": "blue"})[:4] == (3 / 4, 1.0, 1.0, 0.5)


def test_the_player_that_knows_the_product_turns_pages_goes_back_and_chooses_what_is_missing():
    world = walked()
    assert world.optimal() == "search[Lumo desk lamp]"
    listed = walked("search[lamp]")
    place = listed.results.index(LAMP)
    assert listed.optimal() == ("click[B0LAMP]" if place < 10 else "click[Next >]")
    listed.results = [*listed.results[:place], *listed.results[place + 1 :], LAMP]
    assert listed.optimal() == "click[Next >]"
    listed.number = 1
    assert listed.optimal() == "click[B0LAMP]"
    listed.results = [LAMP, *listed.results[:-1]]
    assert listed.optimal() == "click[Back to Search]"
    others = [each for each in listed.shop.products if each is not LAMP] * 3
    for place in (0, 1, 9, 10, 11, 19, 20, 21, 29):
        listed.results = [*others[:place], LAMP, *others[place:29]]
        for number in (0, 1, 2):
            listed.number = number
            here = "B0LAMP" if place // 10 == number else "Next >" if place // 10 > number else "Back to Search"
            assert listed.optimal() == f"click[{here}]", (place, number)
    page = walked("search[desk lamp]", "click[B0LAMP]", "click[red]")
    assert page.optimal() == "click[blue]"
    asyncio.run(page.click("blue"))
    assert page.optimal() == "click[small]"
    asyncio.run(page.click("Features"))
    assert page.optimal() == "click[Back to Search]"
    asyncio.run(page.click("< Prev"))
    asyncio.run(page.click("small"))
    assert page.optimal() == "click[Buy Now]"
    other = walked("search[Arvo lamp 3]", "click[B0N03]")
    assert other.optimal() == "click[Back to Search]"
    assert world.random(Random(1)) in {"search[find]", "search[a]", "search[lamp]"}
    assert other.random(Random(1)).removeprefix("click[").removesuffix("]") in other.clickable()


def test_the_query_of_the_player_that_knows_has_no_more_words_than_lead_to_the_first_page():
    def twin(number: int, **more: Any) -> ShopProduct:
        given = {"title": "Lumo lamp", "features": ("Oak",), "options": {"color": ("red",)}, **more}
        told = tuple(given.get("features", ()))
        return ShopProduct(
            f"T{number}", given["title"], "lamp", ("Home",), frozenset(), given["options"], 5.0, {}, 4.0, "", told
        )

    def query(wanted: ShopProduct, others: list[ShopProduct]) -> str:
        products = (*others, wanted)
        world = ShopWorld(
            Shop(products, {each.id: each for each in products}, ShopSearch(products)),
            ShoppingGoal(wanted, "find", (), {}, 9.0),
        )
        asyncio.run(world.open())
        return world.optimal()

    same = [twin(number) for number in range(10)]
    assert query(twin(99), same[:9]) == "search[Lumo lamp]", "the tenth of a page of ten"
    odd = twin(99, features=("Pine", "Wax"))
    assert query(odd, same) == "search[Lumo lamp Pine Wax]"
    blue = twin(99, options={"color": ("blue",), "size": ("wide", "slim")})
    assert query(blue, same) == "search[Lumo lamp Oak blue wide slim]"
    long = twin(99, options={"color": tuple(f"c{number}" for number in range(200))})
    words = "Lumo lamp Oak " + " ".join(f"c{number}" for number in range(200))
    assert query(long, same) == f"search[{words[:MAX_QUERY_CHARS]}]" and len(words) > MAX_QUERY_CHARS


def test_what_is_no_search_and_no_click_is_refused_with_what_is_possible():
    world = walked()
    assert world.read(" SEARCH [ a\nb ] ") == WorldCall("search", {"words": "a\nb"})
    assert world.read("Click[x [y]]") == WorldCall("click", {"text": "x [y]"})
    for text, told in (
        ("buy[x]", "'buy[x]' is no action: write search[words] or click[text of a button]"),
        ("click[Buy Now]", "'Buy Now' cannot be clicked here; possible: search[words]"),
        ("search[  ]", f"0 characters came: search for 1 to {MAX_QUERY_CHARS}"),
        (f"search[{'x' * 401}]", "401 characters came: search for 1 to 400"),
    ):
        with pytest.raises(InvalidAction) as refused:
            walked(text)
        assert str(refused.value) == told
    assert walked(f"search[{'x' * 400}]").results == []
    with pytest.raises(InvalidAction, match=r"^there is no search bar on this page: click\[Back to Search\] first$"):
        walked("search[lamp]", "search[lamp]")
    with pytest.raises(InvalidAction, match=r"^'blue' cannot be clicked here; possible: Back to Search, Next >, "):
        walked("search[lamp]", "click[blue]")


def desk() -> RetailDesk:
    def item(number: str, price: float, product: str = "p") -> dict[str, Any]:
        return {"item_id": number, "product_id": product, "price": price, "options": {"o": number}}

    def paid(amount: float, method: str) -> dict[str, Any]:
        return {"transaction_type": "payment", "amount": amount, "payment_method_id": method}

    variants = {
        number: {"item_id": number, "price": price, "available": available, "options": {"o": number}}
        for number, price, available in (("a", 10.1, True), ("b", 12.4, True), ("c", 3.0, True), ("d", 1.0, False))
    }
    methods = {"gift": {"source": "gift_card", "balance": 4.6}, "card": {"source": "credit_card"}}
    methods["new"] = {"source": "gift_card", "balance": 20.2}
    items = [item("a", 10.1), item("r", 7.0, "q"), item("a", 10.1)]
    return RetailDesk(
        {
            "users": {"u": {"payment_methods": methods}},
            "orders": {
                "#P": {"user_id": "u", "status": "pending", "items": items, "payment_history": [paid(20.2, "gift")]},
                "#D": {"user_id": "u", "status": "delivered", "items": items, "payment_history": [paid(27.2, "card")]},
            },
            "products": {"p": {"variants": variants}, "q": {"variants": {"r": {"price": 7.0, "available": True}}}},
        }
    )


def asked(made: RetailDesk, name: str, **arguments: Any) -> Any:
    said = asyncio.run(made.call(name, arguments))
    return said if said.startswith("Error") else json.loads(said)


def test_items_of_a_pending_order_are_replaced_one_by_one_and_the_difference_is_paid_or_given_back():
    made = desk()
    gift = made.ledger.edit("users", "u")["payment_methods"]["gift"]
    gift["balance"] = 4.75
    two = {"order_id": "#P", "item_ids": ["a", "a"], "new_item_ids": ["b", "b"], "payment_method_id": "gift"}
    order = asked(made, "modify_pending_order_items", **two)  # twice 12.4 less 10.1
    new = {"item_id": "b", "product_id": "p", "price": 12.4, "options": {"o": "b"}}
    assert order["items"] == [new, {"item_id": "r", "product_id": "q", "price": 7.0, "options": {"o": "r"}}, new]
    assert order["status"] == "pending (item modified)"
    assert order["payment_history"][1] == {
        "transaction_type": "payment", "amount": pytest.approx(4.6), "payment_method_id": "gift"
    }  # fmt: skip
    assert gift["balance"] == 0.15
    assert asked(made, "modify_pending_order_items", **two) == "Error: non-pending order cannot be modified"
    less = desk()
    order = asked(less, "modify_pending_order_items", **{**two, "item_ids": ["a"], "new_item_ids": ["c"]})
    assert order["payment_history"][1]["transaction_type"] == "refund"
    assert order["payment_history"][1]["amount"] == pytest.approx(7.1)
    assert [each["item_id"] for each in order["items"]] == ["c", "r", "a"]
    assert less.ledger.find("users", "u")["payment_methods"]["gift"]["balance"] == 11.7
    for changes, told in (
        ({"item_ids": ["a"] * 3, "new_item_ids": ["b"] * 3}, "a not found"),
        ({"new_item_ids": ["b"]}, "the number of items to be exchanged should match"),
        ({"new_item_ids": ["b", "d"]}, "new item d not found or available"),
        ({"new_item_ids": ["b", "r"]}, "new item r not found or available"),
        ({"payment_method_id": "cash"}, "payment method not found"),
        ({"order_id": "#D"}, "non-pending order cannot be modified"),
        ({"order_id": "#X"}, "order not found"),
    ):
        fresh = desk()
        assert asked(fresh, "modify_pending_order_items", **{**two, **changes}) == f"Error: {told}"
        assert fresh.ledger.changes() == {}
    poor = desk()
    poor.ledger.edit("users", "u")["payment_methods"]["gift"]["balance"] = 4.5
    told = "Error: insufficient gift card balance to pay for the new item"
    assert asked(poor, "modify_pending_order_items", **two) == told
    assert list(poor.ledger.changes()) == ["users"]


def test_another_card_pays_an_order_and_the_first_one_gets_its_money_back():
    made = desk()
    order = asked(made, "modify_pending_order_payment", order_id="#P", payment_method_id="new")
    assert order["payment_history"][1:] == [
        {"transaction_type": "payment", "amount": 20.2, "payment_method_id": "new"},
        {"transaction_type": "refund", "amount": 20.2, "payment_method_id": "gift"},
    ]
    held = made.ledger.find("users", "u")["payment_methods"]
    assert (held["new"]["balance"], held["gift"]["balance"], held["card"]) == (0.0, 24.8, {"source": "credit_card"})
    told = "Error: there should be exactly one payment for a pending order"
    assert asked(made, "modify_pending_order_payment", order_id="#P", payment_method_id="card") == told
    for method, told in (
        ("gift", "the new payment method should be different from the current one"),
        ("cash", "payment method not found"),
    ):
        assert (
            asked(desk(), "modify_pending_order_payment", order_id="#P", payment_method_id=method) == f"Error: {told}"
        )
    poor = desk()
    poor.ledger.edit("users", "u")["payment_methods"]["new"]["balance"] = 20.19
    told = "Error: insufficient gift card balance to pay for the order"
    assert asked(poor, "modify_pending_order_payment", order_id="#P", payment_method_id="new") == told
    assert list(poor.ledger.changes()) == ["users"]


def test_a_delivered_order_is_returned_or_exchanged_and_nothing_is_paid_yet():
    made = desk()
    back = {"order_id": "#D", "item_ids": ["r", "a"], "payment_method_id": "card"}
    before = made.ledger.find("orders", "#D")
    assert asked(made, "return_delivered_order_items", **back) == {
        **before, "status": "return requested", "return_items": ["a", "r"], "return_payment_method_id": "card"
    }  # fmt: skip
    assert list(made.ledger.changes()) == ["orders"]
    assert asked(made, "return_delivered_order_items", **back) == "Error: non-delivered order cannot be returned"
    given = asked(desk(), "return_delivered_order_items", **{**back, "payment_method_id": "gift"})
    assert given["return_payment_method_id"] == "gift"
    other = desk()
    other.ledger.edit("users", "u")["payment_methods"]["visa"] = {"source": "credit_card"}
    told = "Error: payment method should be either the original payment method or a gift card"
    assert asked(other, "return_delivered_order_items", **{**back, "payment_method_id": "visa"}) == told
    assert asked(desk(), "return_delivered_order_items", **{**back, "item_ids": ["b"]}) == "Error: b not found"
    swapped = desk()
    swap = {"order_id": "#D", "item_ids": ["a", "a"], "new_item_ids": ["c", "b"], "payment_method_id": "card"}
    assert asked(swapped, "exchange_delivered_order_items", **swap) == {
        **before, "status": "exchange requested", "exchange_items": ["a", "a"], "exchange_new_items": ["b", "c"],
        "exchange_payment_method_id": "card", "exchange_price_difference": -4.8,
    }  # fmt: skip
    assert list(swapped.ledger.changes()) == ["orders"]
    assert asked(swapped, "exchange_delivered_order_items", **swap) == "Error: non-delivered order cannot be exchanged"
    dear = {**swap, "new_item_ids": ["b", "b"], "payment_method_id": "gift"}
    assert asked(desk(), "exchange_delivered_order_items", **dear)["exchange_price_difference"] == 4.6
    poor = desk()
    poor.ledger.edit("users", "u")["payment_methods"]["gift"]["balance"] = 4.59
    told = "Error: insufficient gift card balance to pay for the price difference"
    assert asked(poor, "exchange_delivered_order_items", **dear) == told
    assert asyncio.run(made.call("dance" * 20, {})) == f"Error: unknown action {('dance' * 20)[:60]}"
    wrong = asyncio.run(made.call("return_delivered_order_items", {"order_id": "#D"}))
    assert wrong.startswith("Error: the arguments do not fit return_delivered_order_items: TypeError ")
