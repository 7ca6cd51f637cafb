"""The web shop: WebShop's reward, its pages and clicks, the search engine, the generator and the players."""

import asyncio
import hashlib
from random import Random

import pytest

from firsthand.agent import Agent
from firsthand.benchmarks.agentbench_ws import agentbench_ws
from firsthand.errors import ConfigError
from firsthand.patterns.thought_action import thought_action
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.worlds.players import play
from firsthand.worlds.shop.products import ShoppingGoal, ShopProduct, shopping_reward, type_reward, words_of
from firsthand.worlds.shop.shop_generator import Shop, make_shop, make_shopping_goal
from firsthand.worlds.shop.shop_search import ShopSearch, stemmed
from firsthand.worlds.shop.shop_world import ShopWorld
from firsthand.worlds.world import InvalidAction


def product(id: str = "B0AAAAAAAA", **more: object) -> ShopProduct:
    given = {
        "title": "Arvo trail running shoes, slim fit",
        "kind": "running shoes",
        "category": ("Clothing", "Shoes", "Running Shoes"),
        "attributes": frozenset({"slim fit", "arch support"}),
        "options": {"color": ("black", "red"), "size": ("small", "large")},
        "price": 20.0,
        "surcharge": {"red": 15.0},
        "features": ("Slim fit", "Arch support"),
        "nouns": frozenset({"running", "shoes"}),
    }
    return ShopProduct(id, **{**given, **more})  # type: ignore[arg-type]


GOAL = ShoppingGoal(product(), "buy", ("slim fit", "arch support"), {"color": "red", "size": "large"}, 40.0)


def test_the_reward_is_the_papers_share_of_what_is_asked_for():
    whole = {"color": "red", "size": "large"}
    assert shopping_reward(GOAL, GOAL.product, whole) == (1.0, 1.0, 1.0, 1.0, 1.0)
    assert shopping_reward(GOAL, GOAL.product, {}).reward == pytest.approx(3 / 5)
    assert shopping_reward(GOAL, GOAL.product, {"color": "red", "size": "small"}).reward == pytest.approx(4 / 5)
    dear = product(price=25.01)
    assert shopping_reward(GOAL, dear, whole) == (pytest.approx(4 / 5), 1.0, 1.0, 1.0, 0.0)
    assert shopping_reward(GOAL, product(price=25.0), whole).price == 1.0
    plain = product(attributes=frozenset({"slim fit"}), features=("Slim fit",))
    assert shopping_reward(GOAL, plain, whole).reward == pytest.approx(4 / 5)
    told = product(attributes=frozenset(), features=(), description="With ARCH support, slim fitting.")
    assert shopping_reward(GOAL, told, whole).attributes == 1.0, "the title says slim fit, the description arch support"


def test_what_is_not_asked_for_is_had_in_full():
    bare = ShoppingGoal(product(), "buy", (), {}, 40.0)
    assert shopping_reward(bare, bare.product, {}) == (1.0, 1.0, 1.0, 1.0, 1.0)
    assert shopping_reward(bare, product(price=40.01), {}) == (0.0, 1.0, 1.0, 1.0, 0.0)


def test_signs_that_are_not_seen_part_words_and_letters_of_any_script_make_them():
    assert words_of("Slim\u200bFIT™ café, 2.5\u00a0m") == " slim fit café 2.5 m "


def test_another_type_of_product_costs_half_nine_tenths_or_all():
    wanted = product(nouns=frozenset("abcdefghijk"))
    other = {"kind": "boots", "category": ("Clothing", "Boots", "B")}
    assert type_reward(wanted, product(**other, nouns=frozenset("abc"))) == 1.0  # 3 of 11 nouns are more than a fifth
    assert type_reward(wanted, product(**other, nouns=frozenset("ab"))) == 0.5
    assert type_reward(wanted, product(**other, nouns=frozenset("a"))) == 0.1
    assert type_reward(wanted, product(**other, nouns=frozenset("z"))) == 0.0
    assert type_reward(wanted, product(kind="boots", nouns=frozenset("ab"))) == 1.0, "two levels of the category agree"


def small_shop(count: int = 23) -> Shop:
    made = [product(f"B0{number:08d}", title=f"Arvo shoes {number}") for number in range(count)]
    return Shop(tuple(made), {each.id: each for each in made}, ShopSearch(made))


def walk(world: ShopWorld, *actions: str) -> list[str]:
    """The pages, or the message of each refused action."""

    async def each() -> list[str]:
        await world.open()
        seen = []
        for action in actions:
            try:
                name, given = world.read(action)
                seen.append(await getattr(world, name)(**given))
            except InvalidAction as error:
                seen.append(f"invalid: {error}")
        return seen

    return asyncio.run(each())


def test_pages_follow_each_other_as_in_webshop():
    world = ShopWorld(small_shop(), GOAL)
    seen = walk(world, "search[shoes]", "click[next >]", "click[Next >]", "click[Next >]", "click[< Prev]")
    assert "Page 1 (Total results: 23)" in seen[0] and "click[< Prev]" not in seen[0]
    assert "Page 2" in seen[1] and "Page 3" in seen[2] and "click[Next >]" not in seen[2]
    assert "'Next >' cannot be clicked here" in seen[3] and "Page 2" in seen[4]
    assert seen[2].count(" [SEP] $") == 3 and seen[0].count(" [SEP] $") == 10
    seen = walk(
        world, "search[shoes]", "search[more]", "click[B000000003]", "click[Red]", "click[Features]", "click[< Prev]",
        "click[black]", "click[< Prev]", "click[B000000003]", "click[Back to Search]", "click[Buy Now]",
    )  # fmt: skip
    assert "there is no search bar" in seen[1] and "Price: $20.00" in seen[2]
    assert "red (chosen)" in seen[3] and "Price: $35.00" in seen[3]
    assert "Slim fit [SEP] Arch support" in seen[4] and "red (chosen)" in seen[5]
    assert "black (chosen)" in seen[6] and "red (chosen)" not in seen[6] and "Page 1" in seen[7]
    assert "(chosen)" not in seen[8] and seen[9].endswith("Possible actions: search[words]")
    assert "cannot be clicked here; possible: search[words]" in seen[10]


def test_the_price_of_a_purchase_is_that_of_the_chosen_options():
    world = ShopWorld(small_shop(), ShoppingGoal(product(), "buy", (), {"color": "red"}, 30.0))
    walk(world, "search[shoes]", "click[B000000003]", "click[red]", "click[Buy Now]")
    assert world.ending == "bought" and world.reward is not None
    assert (world.reward.options, world.reward.price, world.reward.reward) == (1.0, 0.0, 0.5)


def test_the_search_engine_ranks_rare_words_and_titles_first():
    products = [
        product("B0AAAAAAA1", title="plain shoes"),
        product("B0AAAAAAA2", title="plain shoes", description="a velvet lining"),
        product("B0AAAAAAA3", title="velvet shoes"),
    ]
    engine = ShopSearch(products)
    assert [each.id[-1] for each in engine.search("velvet shoes")] == ["3", "2", "1"]
    assert engine.search("nothing of that") == [] and engine.search("") == []
    assert len(engine.search("shoes", 2)) == 2 and [p.id[-1] for p in engine.search("lining")] == ["2"]
    pair = [product("B0AAAAAAA1", title="plain shoes", description="velvet")]
    pair.append(product("B0AAAAAAA2", title="velvet shoes", description="plain"))
    assert [each.id[-1] for each in ShopSearch(pair).search("velvet")] == ["2", "1"], "a word of the title counts twice"
    assert stemmed("Glass SHOES, 2 cakes") == ["glass", "shoe", "2", "cake"]
    assert engine.search("shoe " * 100_000) != []


@pytest.mark.slow
@pytest.mark.parametrize(("level", "actions"), [(1, "text"), (2, "text"), (2, "native")])
def test_the_optimal_player_earns_it_all_in_ten_rounds(level: int, actions: str):
    benchmark = agentbench_ws(level=level, tasks=15, actions=actions)  # type: ignore[arg-type]
    for task in benchmark.tasks(3):
        trace = asyncio.run(play(benchmark, task, "optimal", seed=3))
        assert trace.value() == 1 and trace.value("success") == 1 and trace.error is None
        assert trace.final_state["invalid_actions"] == 0 and trace.final_state["ended"] == "bought"


@pytest.mark.slow
def test_the_optimal_player_earns_it_all_in_the_largest_shop():
    benchmark = agentbench_ws(level=3, tasks=60)
    assert all(asyncio.run(play(benchmark, task, "optimal")).value() == 1 for task in benchmark.tasks(0))


def test_actions_of_any_text_are_answered_and_the_prompt_is_the_first_page():
    benchmark = agentbench_ws(level=1, tasks=3, rounds=6)
    task = benchmark.tasks(0)[0]
    replies = [
        "buy it",
        "click[" + "x" * 100_000 + "]",
        "search[]",
        "click[Buy Now]",
        "search[купить]",
        "Action: search[a]b]",
    ]
    agent = Agent("a", Scripted(replies), thought_action, {"constrained": False})
    trace = asyncio.run(rollout(agent, task, benchmark=benchmark))
    seen = [call.detail["result"] for call in trace.calls if call.kind == "tool"]
    assert "write search[words] or click[" in seen[0] and "characters" in seen[1] and "0 characters came" in seen[2]
    assert "cannot be clicked here" in seen[3] and "Total results: 0" in seen[4] and "no search bar" in seen[5]
    assert trace.value() == 0 and trace.scores[0].detail["reason"] == "invalid action"
    world = ShopWorld(make_shop(0, 1), make_shopping_goal(0, 0, 1))
    asyncio.run(world.open())
    assert task.prompt.endswith(world.view())


def test_each_listed_click_is_possible():
    world, rng = ShopWorld(make_shop(0, 1), make_shopping_goal(0, 1, 1)), Random(0)

    async def wander() -> None:
        await world.open()
        for _ in range(200):
            name, given = world.read(
                world.random(rng) if world.page == "search" else rng.choice(world.admissible() or [])
            )
            if given.get("text") != "Buy Now":
                await getattr(world, name)(**given)

    asyncio.run(wander())


def test_shop_and_goals_are_equal_for_a_seed_to_the_byte():
    goals = [make_shopping_goal(7, index, level) for index in range(8) for level in (1, 2)]
    told = repr([(g.product.id, g.instruction, g.options, g.price_upper) for g in goals])
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == "1c476fd88080dfea"


def test_wrong_options_are_told():
    with pytest.raises(ConfigError, match="level is 9"):
        agentbench_ws(level=9)
