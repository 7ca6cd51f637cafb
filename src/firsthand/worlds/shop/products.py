"""Products, what is wanted, and WebShop's reward (Yao et al., NeurIPS 2022, equation 1).

reward = type * (attributes found + options chosen + price kept) / (attributes wanted + options wanted + 1)

The type is 1 for the wanted kind of product; 0.5 if neither the kind, nor two levels of the category, nor more than a
fifth of the title's nouns agree; 0.1 if less than a tenth of the nouns do, and 0 if none does. WebShop finds nouns by
spaCy, and compares by fuzzy matching at 85 %; here products know their nouns, and words are compared after lower-casing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from firsthand.system.normalised_text import normalised_text

TITLE_AGREES, TITLE_DIFFERS = 0.2, 0.1


@dataclass(frozen=True)
class ShopProduct:
    """One product of the shop."""

    id: str
    """Ten letters and digits, as Amazon's."""
    title: str
    kind: str
    """Its kind, such as `running shoes`: WebShop's query."""
    category: tuple[str, ...]
    attributes: frozenset[str]
    options: Mapping[str, tuple[str, ...]]
    """Name of an option -> its values, such as `color` -> (`black`, `blue`)."""
    price: float
    """In dollars, of the cheapest values."""
    surcharge: Mapping[str, float] = field(default_factory=dict)
    """Value of an option -> dollars on top."""
    rating: float = 0.0
    description: str = ""
    features: tuple[str, ...] = ()
    reviews: tuple[str, ...] = ()
    nouns: frozenset[str] = frozenset()

    def price_with(self, chosen: Mapping[str, str]) -> float:
        """The price with the chosen options, in dollars."""
        return round(self.price + sum(self.surcharge.get(value, 0.0) for value in chosen.values()), 2)


@dataclass(frozen=True)
class ShoppingGoal:
    """The errand: the product that the goal was made from, and the properties that are asked for."""

    product: ShopProduct
    instruction: str
    attributes: tuple[str, ...]
    options: Mapping[str, str]
    price_upper: float
    """In dollars; the price must be at most that."""


class ShoppingReward(NamedTuple):
    """The reward, and its parts, each from 0 to 1."""

    reward: float
    type: float
    attributes: float
    options: float
    price: float


def shopping_reward(goal: ShoppingGoal, bought: ShopProduct, chosen: Mapping[str, str]) -> ShoppingReward:
    """The reward of a purchase: WebShop's `get_reward`."""
    kind = type_reward(goal.product, bought)
    text = words_of(" ".join([bought.title, bought.description, *bought.features]))
    attributes = sum(each in bought.attributes or f" {words_of(each).strip()} " in text for each in goal.attributes)
    picked = {words_of(value) for value in chosen.values()}
    options = sum(words_of(value) in picked for value in goal.options.values())
    price = float(bought.price_with(chosen) <= goal.price_upper)
    total = (attributes + options + price) / (len(goal.attributes) + len(goal.options) + 1)
    return ShoppingReward(
        kind * total,
        kind,
        attributes / len(goal.attributes) if goal.attributes else 1.0,
        options / len(goal.options) if goal.options else 1.0,
        price,
    )


def type_reward(wanted: ShopProduct, bought: ShopProduct) -> float:
    """The degree to which the product is of the wanted type: 1, 0.5, 0.1 or 0."""
    title = len(wanted.nouns & bought.nouns) / len(wanted.nouns) if wanted.nouns else TITLE_AGREES
    alike = wanted.kind == bought.kind or len(set(wanted.category) & set(bought.category)) >= 2
    if title == 0:
        return 0.0
    if title < TITLE_DIFFERS:
        return 0.1
    return 1.0 if alike or title > TITLE_AGREES else 0.5


def words_of(text: str) -> str:
    """The text's words in lower case, with one space around each; letters and pictures belong to words, ® and ™ do not."""
    text = normalised_text("NFC", text).lower()
    if not text.isascii():
        text = "".join(" " if each > "\x7f" and _is_apart(each) else each for each in text)
    found: Sequence[str] = re.findall(r"[a-z0-9.\u0080-\U0010ffff]+", text)
    return f" {' '.join(found)} "


def _is_apart(character: str) -> bool:
    kind = unicodedata.category(character)[0]
    return kind in "PZC" or (kind == "S" and character < "\u2190")  # arrows and pictures follow
