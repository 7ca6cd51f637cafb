"""The shop's search engine: BM25 over title, category, options, features and description."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain

from firsthand.worlds.shop.products import ShopProduct

K1, B = 1.2, 0.75
MAX_WORDS = 60
"""Words of a query that count."""


class ShopSearch:
    """An index of products; `search` gives those that match best."""

    def __init__(self, products: Sequence[ShopProduct]) -> None:
        """Index the products, titles twice."""
        self.products = products
        self._postings: dict[str, list[tuple[int, int]]] = {}
        self._lengths = []
        for number, each in enumerate(products):
            counts = Counter(stemmed(f"{each.title} {each.title} {' '.join(_texts(each))}"))
            self._lengths.append(sum(counts.values()))
            for word, count in counts.items():
                self._postings.setdefault(word, []).append((number, count))
        self._mean = sum(self._lengths) / max(1, len(self._lengths))

    def search(self, query: str, limit: int = 50) -> list[ShopProduct]:
        """The products that match best, best first; equal ones in the shop's order."""
        scores: dict[int, float] = {}
        for word in dict.fromkeys(stemmed(query)[:MAX_WORDS]):
            found = self._postings.get(word, ())
            weight = math.log(1 + (len(self.products) - len(found) + 0.5) / (len(found) + 0.5))
            for number, count in found:
                norm = K1 * (1 - B + B * self._lengths[number] / self._mean)
                scores[number] = scores.get(number, 0.0) + weight * count * (K1 + 1) / (count + norm)
        best = sorted(scores, key=lambda number: (-scores[number], number))[:limit]
        return [self.products[number] for number in best]


def stemmed(text: str) -> list[str]:
    """The words in lower case, without a plural s."""
    words: list[str] = re.findall(r"[a-z0-9]+", text.lower())
    return [word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in words]


def _texts(product: ShopProduct) -> chain[str]:
    return chain(product.category, chain(*product.options.values()), product.features, [product.description])
