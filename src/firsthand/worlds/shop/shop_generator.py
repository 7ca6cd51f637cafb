"""Generates a shop and what to buy in it, the same for a seed on any machine, at three levels of difficulty.

| level | products | attributes wanted | options wanted |
|---|---|---|---|
| 1 | 120 | 1 | at most 1 |
| 2 | 1,000 | 2 | 1 or 2 |
| 3 | 4,000 | 3 | 2 or 3, one of which may cost more than the limit leaves |

Each wanted product has near twins that lack an attribute or an option. The openings of the instructions are the most
frequent of WebShop's 12,087 human goals (MIT licence), with their counts; the catalogue of WebShop is not published with
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import NamedTuple

from firsthand.loop.concurrency import derive_seed
from firsthand.worlds.shop.products import ShoppingGoal, ShopProduct, shopping_reward
from firsthand.worlds.shop.shop_search import ShopSearch

SHOP_VERSION = 1
"""Goes up when the same seed gives another shop or other goals."""
SHOP_LEVELS = (1, 2, 3)
SHOP_SIZES = (120, 1_000, 4_000)
OPENINGS: Mapping[str, int] = {
    "i am looking for": 3335,
    "i'm looking for": 1831,
    "i would like": 1486,
    "i need": 1602,
    "i want": 1409,
    "i am interested in": 237,
    "find me": 78,
    "get me": 70,
    "i am searching for": 44,
    "can you find me": 42,
    "buy me": 36,
    "help me find": 17,
}
"""Beginning of an instruction -> how many of the human goals begin so."""
_COLORS = ("black", "white", "navy blue", "red", "olive green", "grey", "pink", "beige", "purple", "teal")
_SIZES = ("x-small", "small", "medium", "large", "x-large", "xx-large")
_SCENTS = ("vanilla", "lavender", "citrus", "rose", "unscented", "sandalwood")
_FLAVORS = ("original", "sea salt", "barbecue", "honey", "dark chocolate", "cinnamon", "lemon")
_PACKS = ("pack of 1", "pack of 2", "pack of 6", "pack of 12")
_LENGTHS = ("3 feet", "6 feet", "10 feet", "15 feet")


class _Department(NamedTuple):
    category: str
    kinds: Mapping[str, str]
    """Kind of product -> its shelf."""
    attributes: tuple[str, ...]
    options: Mapping[str, tuple[str, ...]]
    prices: tuple[float, float]


DEPARTMENTS = (
    _Department(
        "Clothing",
        {
            "running shoes": "Shoes",
            "ankle boots": "Shoes",
            "sandals": "Shoes",
            "rain jacket": "Coats",
            "wool coat": "Coats",
            "dress shirt": "Tops",
            "hoodie": "Tops",
            "sweatpants": "Trousers",
            "jeans": "Trousers",
        },
        ("machine wash", "slim fit", "long sleeve", "water resistant", "rubber sole", "quick drying", "relaxed fit",
         "elastic waist", "high waist", "moisture wicking", "arch support", "daily wear"),
        {"color": _COLORS, "size": _SIZES, "fit type": ("men", "women", "youth")},
        (12, 90),
    ),
    _Department(
        "Beauty",
        {
            "shampoo": "Hair care",
            "conditioner": "Hair care",
            "hair mask": "Hair care",
            "face cream": "Skin care",
            "body lotion": "Skin care",
            "lip balm": "Skin care",
            "nail polish": "Nails",
            "hand soap": "Bath",
        },
        ("cruelty free", "sulfate free", "long lasting", "paraben free", "dry skin", "sensitive skin", "tea tree",
         "natural ingredients", "fine mist", "alcohol free", "coconut oil", "anti aging"),
        {"scent": _SCENTS, "size": ("1 ounce", "4 ounce", "8 ounce", "16 ounce"), "pack": _PACKS},
        (4, 45),
    ),
    _Department(
        "Electronics",
        {
            "wireless headphones": "Audio",
            "bluetooth speaker": "Audio",
            "usb microphone": "Audio",
            "charging cable": "Cables",
            "hdmi cable": "Cables",
            "phone case": "Phones",
            "screen protector": "Phones",
            "tripod": "Cameras",
        },
        ("fast charging", "noise cancelling", "high speed", "easy install", "heavy duty", "gold plated", "carbon fiber",
         "hands free", "stereo sound", "plug play", "tempered glass", "quick release"),
        {"color": _COLORS, "length": _LENGTHS, "pack": _PACKS},
        (6, 160),
    ),
    _Department(
        "Grocery",
        {
            "potato chips": "Snacks",
            "granola bars": "Snacks",
            "trail mix": "Snacks",
            "ground coffee": "Drinks",
            "green tea": "Drinks",
            "chocolate bar": "Sweets",
            "gummy candy": "Sweets",
        },
        ("gluten free", "low sodium", "non gmo", "high protein", "keto friendly", "sugar free", "dairy free",
         "individually wrapped", "plant based", "certified organic", "ready eat", "resealable bag"),
        {"flavor": _FLAVORS, "size": ("2 ounce", "8 ounce", "1 pound", "5 pound"), "pack": _PACKS},
        (3, 50),
    ),
    _Department(
        "Home",
        {
            "throw pillow": "Bedding",
            "bedspread": "Bedding",
            "blackout curtains": "Windows",
            "storage ottoman": "Furniture",
            "floor lamp": "Lamps",
            "scented candle": "Decoration",
            "area rug": "Floors",
        },
        ("space saving", "easy clean", "super soft", "hand painted", "fade resistant", "queen size", "stainless steel",
         "non slip", "solid wood", "king size", "easy assemble", "living room"),
        {"color": _COLORS, "size": ("small", "medium", "large"), "style": ("modern", "rustic", "classic", "nordic")},
        (9, 240),
    ),
)  # fmt: skip
_MAKERS = (
    "Arvo",
    "Belnor",
    "Cintra",
    "Dovely",
    "Eskel",
    "Fjora",
    "Gadwin",
    "Halden",
    "Imbra",
    "Jorvik",
    "Kelmar",
    "Lumo",
)
_ADJECTIVES = (
    "premium",
    "classic",
    "everyday",
    "compact",
    "improved",
    "signature",
    "essential",
    "trail",
    "urban",
    "pure",
)


class Shop(NamedTuple):
    """All products, by id too, and the search engine."""

    products: tuple[ShopProduct, ...]
    by_id: Mapping[str, ShopProduct]
    engine: ShopSearch


@lru_cache(maxsize=4)
def make_shop(seed: int, level: int) -> Shop:
    """The shop of a seed, which must not be changed."""
    rng = Random(derive_seed("web shop", SHOP_VERSION, seed, level))
    ids: dict[str, ShopProduct] = {}
    while len(ids) < SHOP_SIZES[level - 1]:
        product = _product(rng, rng.choice(DEPARTMENTS), ids, level)
        ids[product.id] = product
        for _ in range(rng.choice((0, 0, 1, level - 1))):
            twin = _twin(rng, product, ids)
            ids[twin.id] = twin
    products = tuple(ids.values())
    return Shop(products, ids, ShopSearch(products))


def _product(rng: Random, department: _Department, taken: Mapping[str, ShopProduct], level: int) -> ShopProduct:
    kind = rng.choice(sorted(department.kinds))
    attributes = rng.sample(department.attributes, rng.randint(level + 1, level + 3))
    names = [name for name in department.options if rng.random() < (0.6, 0.9, 1.0)[level - 1]]
    options = {
        name: tuple(rng.sample(values := department.options[name], rng.randint(2, min(6, len(values)))))
        for name in names
    }
    surcharge = {v: round(rng.uniform(1, 15), 2) for name in names for v in options[name][1:] if rng.random() < 0.3}
    shown = rng.sample(attributes, rng.randint(1, 2))
    title = f"{rng.choice(_MAKERS)} {rng.choice(_ADJECTIVES)} {kind}, {', '.join(shown)}"
    return ShopProduct(
        id=_new_id(rng, taken),
        title=title,
        kind=kind,
        category=(department.category, department.kinds[kind], kind.title()),
        attributes=frozenset(attributes),
        options=options,
        price=round(rng.uniform(*department.prices), 2),
        surcharge=surcharge,
        rating=round(rng.uniform(2.5, 5), 1),
        description=f"These {kind} are made for {rng.choice(('home', 'travel', 'work', 'gifts', 'every day'))}.",
        features=tuple(f"{attribute.capitalize()}" for attribute in attributes),
        reviews=tuple(
            rng.choice(("Works as said.", "Good value.", "Smaller than I thought.", "Would buy again."))
            for _ in range(2)
        ),
        nouns=frozenset(kind.split()),
    )


def _twin(rng: Random, product: ShopProduct, taken: Mapping[str, ShopProduct]) -> ShopProduct:
    """A product that is like another but for an attribute, its makers, its price, and an option's values."""
    department = next(each for each in DEPARTMENTS if each.category == product.category[0])
    kept = sorted(product.attributes)
    kept.remove(rng.choice(kept))
    other = rng.choice([each for each in department.attributes if each not in product.attributes])
    attributes = [*kept, other]
    options = dict(product.options)
    if options:
        name = rng.choice(sorted(options))
        options[name] = options[name][: max(1, len(options[name]) // 2)]
    title = f"{rng.choice(_MAKERS)} {rng.choice(_ADJECTIVES)} {product.kind}, {', '.join(rng.sample(attributes, 2))}"
    return ShopProduct(
        _new_id(rng, taken),
        title,
        product.kind,
        product.category,
        frozenset(attributes),
        options,
        round(product.price * rng.uniform(0.7, 1.4), 2),
        product.surcharge,
        round(rng.uniform(2.5, 5), 1),
        product.description,
        tuple(each.capitalize() for each in attributes),
        product.reviews,
        product.nouns,
    )


def _new_id(rng: Random, taken: Mapping[str, ShopProduct]) -> str:
    while True:
        made = "B0" + "".join(rng.choice("ABCDEFGHJKLMNPQRSTVWXYZ0123456789") for _ in range(8))
        if made not in taken:
            return made


def make_shopping_goal(seed: int, index: int, level: int) -> ShoppingGoal:
    """The goal number `index` in the shop of a seed; its own product earns the whole reward."""
    shop, rng = make_shop(seed, level), Random(derive_seed("shopping goal", SHOP_VERSION, seed, index, level))
    most = {1: 1, 2: 2, 3: 3}[level]
    enough = [each for each in shop.products if len(each.options) >= most - 1 and len(each.attributes) >= level]
    product = rng.choice(enough)
    attributes = tuple(rng.sample(sorted(product.attributes), level))
    names = rng.sample(sorted(product.options), min(len(product.options), rng.randint(max(0, most - 1), most)))
    options = {name: rng.choice(product.options[name]) for name in names}
    least = product.price_with(options)
    limit = float(int(least / 10 + 1) * 10)
    instruction = _instruction(rng, product, attributes, options, limit)
    goal = ShoppingGoal(product, instruction, attributes, options, limit)
    assert shopping_reward(goal, product, options).reward == 1, "the wanted product earns it all"
    return goal


def _instruction(
    rng: Random, product: ShopProduct, attributes: Sequence[str], options: Mapping[str, str], limit: float
) -> str:
    opening = rng.choices(list(OPENINGS), list(OPENINGS.values()))[0]
    asked = " and ".join(value if value.startswith(name) else f"{name} {value}" for name, value in options.items())
    wanted = f"{opening} {', '.join(attributes)} {product.kind}" + (f" with {asked}" if asked else "")
    return f"{wanted}, and price lower than {limit:.2f} dollars"
