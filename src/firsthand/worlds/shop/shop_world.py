"""WebShop's pages and its two actions, `search[words]` and `click[text]` (Yao et al., NeurIPS 2022).

Pages are WebShop's text pages, parts separated by [SEP]: search, results of ten products, a product with its options, and
its description, features and reviews. `click[Buy Now]` ends the attempt and gives the reward of `products.py`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Literal

from firsthand.message import Json
from firsthand.worlds.shop.products import ShoppingGoal, ShoppingReward, ShopProduct, shopping_reward
from firsthand.worlds.shop.shop_generator import Shop
from firsthand.worlds.world import InvalidAction, WorldCall

PAGE_SIZE = 10
MAX_RESULTS = 50
SUB_PAGES = ("Description", "Features", "Reviews")
SEARCH, NEXT, PREVIOUS, BUY = "Back to Search", "Next >", "< Prev", "Buy Now"
MAX_QUERY_CHARS = 400
_ACTION = re.compile(r"\s*(search|click)\s*\[(.*)\]\s*", re.IGNORECASE | re.DOTALL)
Page = Literal["search", "results", "product", "Description", "Features", "Reviews", "bought"]


class ShopWorld:
    """One errand in a shop. `World` describes the interface."""

    examples = ("search[red wool scarf]", "click[next >]")

    def __init__(self, shop: Shop, goal: ShoppingGoal) -> None:
        """A shop, which is shared and not changed, and what to buy."""
        self.shop, self.goal = shop, goal

    async def open(self) -> None:
        """Begin at the search page."""
        self.page: Page = "search"
        self.results: list[ShopProduct] = []
        self.number = 0
        self.product: ShopProduct | None = None
        self.chosen: dict[str, str] = {}
        self.reward: ShoppingReward | None = None

    async def close(self) -> None:
        """Nothing is held: the shop is shared."""

    @property
    def ending(self) -> str | None:
        """`bought` after the purchase."""
        return "bought" if self.reward is not None else None

    @property
    def form(self) -> str | None:
        """A search where there is a search bar, a click elsewhere."""
        return r"search\[[^\]\n]{1,200}\]|click\[[^\]\n]{1,100}\]"

    @property
    def moves(self) -> Sequence[Callable[..., Awaitable[str]]]:
        """Search and click."""
        return (self.search, self.click)

    def read(self, action: str) -> WorldCall:
        """The search or click that a text action means."""
        found = _ACTION.fullmatch(action)
        if found is None:
            raise InvalidAction(f"{action[:60]!r} is no action: write search[words] or click[text of a button]")
        return WorldCall(found[1].lower(), {"words" if found[1].lower() == "search" else "text": found[2].strip()})

    def admissible(self) -> Sequence[str] | None:
        """The clicks that are possible now; None at the search page, where any words can be searched for."""
        return None if self.page == "search" else [f"click[{text}]" for text in self.clickable()]

    def clickable(self) -> list[str]:
        """The texts that can be clicked, in the order of the page."""
        if self.page == "results":
            last = (len(self.results) - 1) // PAGE_SIZE
            turns = [NEXT] * (self.number < last) + [PREVIOUS] * (self.number > 0)
            return [SEARCH, *turns, *(each.id for each in self._shown())]
        if self.page == "product" and self.product is not None:
            values = dict.fromkeys(value for each in self.product.options.values() for value in each)
            return [SEARCH, PREVIOUS, *values, *SUB_PAGES, BUY]
        return [SEARCH, PREVIOUS] if self.page in SUB_PAGES else []

    def render(self) -> str:
        """The page, a line for each part."""
        return self.view().replace(" [SEP] ", "\n")

    def view(self) -> str:
        """The page in WebShop's text form, and what can be clicked."""
        parts = [f"Instruction: {self.goal.instruction}", *self._parts()]
        can = "search[words]" if self.page == "search" else ", ".join(f"click[{text}]" for text in self.clickable())
        return " [SEP] ".join(parts) + f"\nPossible actions: {can}"

    async def result(self) -> Json:
        """The reward and its parts, and what was bought."""
        if self.reward is None or self.product is None:
            return {"reward": 0.0, "bought": None}
        return {
            "reward": self.reward.reward,
            "parts": self.reward._asdict(),
            "bought": self.product.id,
            "options": self.chosen,
        }

    def optimal(self) -> str:
        """The next action of a player that knows the wanted product."""
        wanted = self.goal.product
        if self.page == "search":
            return f"search[{self._best_query()}]"
        if self.page == "results":
            if wanted in self._shown():
                return f"click[{wanted.id}]"
            later = wanted in self.results[(self.number + 1) * PAGE_SIZE :]
            return f"click[{NEXT if later else SEARCH}]"
        if self.page != "product" or self.product != wanted:
            return f"click[{SEARCH}]"
        missing = [value for name, value in self.goal.options.items() if self.chosen.get(name) != value]
        return f"click[{missing[0] if missing else BUY}]"

    def random(self, rng: Random) -> str:
        """A word of the instruction, or one of the possible clicks."""
        if self.page == "search":
            return f"search[{rng.choice(self.goal.instruction.split())}]"
        return f"click[{rng.choice(self.clickable())}]"

    async def search(self, words: str) -> str:
        """Search for products; only at the search page.

        Args:
            words: What to look for.
        """
        if self.page != "search":
            raise InvalidAction(f"there is no search bar on this page: click[{SEARCH}] first")
        if not words.strip() or len(words) > MAX_QUERY_CHARS:
            raise InvalidAction(f"{len(words)} characters came: search for 1 to {MAX_QUERY_CHARS}")
        self.results, self.number, self.page = self.shop.engine.search(words, MAX_RESULTS), 0, "results"
        return self.view()

    async def click(self, text: str) -> str:
        """Click a button, a product's id or an option's value on the page.

        Args:
            text: The text as it stands on the page.
        """
        wanted = " ".join(text.casefold().split())
        name = next((each for each in self.clickable() if each.casefold() == wanted), None)
        if name is None:
            can = "search[words]" if self.page == "search" else ", ".join(self.clickable())
            raise InvalidAction(f"{text[:60]!r} cannot be clicked here; possible: {can}")
        self._follow(name)
        return self.view()

    def _follow(self, name: str) -> None:
        if name == SEARCH:
            self.page, self.chosen, self.product = "search", {}, None
        elif name == BUY and self.product is not None:
            self.page, self.reward = "bought", shopping_reward(self.goal, self.product, self.chosen)
        elif name in (NEXT, PREVIOUS) and self.page == "results":
            self.number += 1 if name == NEXT else -1
        elif name == PREVIOUS:
            self.page = "results" if self.page == "product" else "product"
        elif name in SUB_PAGES:
            self.page = name  # type: ignore[assignment]
        elif self.page == "results":
            self.product, self.chosen, self.page = self.shop.by_id[name], {}, "product"
        elif self.product is not None:
            option = next(key for key, values in self.product.options.items() if name in values)
            self.chosen[option] = name

    def _shown(self) -> list[ShopProduct]:
        return self.results[self.number * PAGE_SIZE : (self.number + 1) * PAGE_SIZE]

    def _best_query(self) -> str:
        """A query that leads to the wanted product in fewest clicks."""
        wanted = self.goal.product
        queries = (wanted.title, f"{wanted.title} {' '.join(wanted.features)}")
        more = f"{queries[1]} {' '.join(' '.join(values) for values in wanted.options.values())}"
        return next((q for q in queries if wanted in self.shop.engine.search(q, PAGE_SIZE)), more[:MAX_QUERY_CHARS])

    def _parts(self) -> list[str]:
        if self.page == "search":
            return ["Search"]
        if self.page == "bought" and self.reward is not None:
            return ["Thank you for shopping with us!"]
        if self.page == "results":
            head = f"Page {self.number + 1} (Total results: {len(self.results)})"
            turns = [each for each in self.clickable() if each in (NEXT, PREVIOUS)]
            shown = [part for each in self._shown() for part in (each.id, each.title, _dollars(each))]
            return [SEARCH, head, *turns, *shown]
        product = self.product
        assert product is not None, "a product's pages are reached from it"
        if self.page in SUB_PAGES:
            texts = {"Description": (product.description,), "Features": product.features, "Reviews": product.reviews}
            return [SEARCH, PREVIOUS, *texts[self.page]]
        options = []
        for name, values in product.options.items():
            marked = [f"{value} (chosen)" if self.chosen.get(name) == value else value for value in values]
            options += [name, *marked]
        price = f"Price: ${product.price_with(self.chosen):.2f}"
        return [SEARCH, PREVIOUS, *options, product.title, price, f"Rating: {product.rating}", *SUB_PAGES, BUY]


def _dollars(product: ShopProduct) -> str:
    extra = max((product.surcharge.get(v, 0.0) for values in product.options.values() for v in values), default=0.0)
    return f"${product.price:.2f}" + (f" to ${product.price + extra:.2f}" if extra else "")
