"""The studentised difference that equal models reach by chance on a board of win rates or Borda counts.

If models are equal, each column orders them at random, whatever the scores are. So the distribution of the largest
difference is drawn from random orders (as in Friedman's and Nemenyi's tests), and no column needs to be normal. A
multivariate t in its place let 13 % of tables of eight equal models and twelve columns tell a pair apart, in place of 5 %.
"""

# M models, C columns, S draws

from __future__ import annotations

from functools import cache

import numpy as np

from firsthand.stats.joint_ranks import MANY

DRAWS = 4000
FEW = 100
"""Models up to which all draws are made; of more, as many as keeps the pairs as many, and at least a tenth."""
_CELLS = 2_000_000


@cache
def largest_of_equal_models(models: int, columns: int, confidence: float, seed: int = 0) -> float | None:
    """The quantile of the largest studentised difference of two models; None with fewer than two, or too many.

    The error of a difference is the one of `make_board`: between columns, with a further one in which models are equal.
    """
    if models < 2 or columns < 2 or models > MANY:
        return None
    draws = DRAWS if models <= FEW else max(DRAWS // 10, DRAWS * FEW**2 // models**2)
    generator = np.random.default_rng(seed)
    largest = np.zeros(draws)
    step = max(1, _CELLS // (models * max(models, columns)))
    plain = np.arange(models, dtype=np.float64) - (models - 1) / 2
    for start in range(0, draws, step):
        count = min(step, draws - start)
        orders = generator.permuted(np.broadcast_to(plain, (count, columns, models)), axis=2)
        total = orders.sum(1)
        products = orders.transpose(0, 2, 1) @ orders - total[:, :, None] * total[:, None, :] / (columns + 1)
        own = np.einsum("sii->si", products)
        spread = (own[:, :, None] + own[:, None, :] - 2 * products) * ((columns + 1) / columns)
        spread += np.eye(models)  # a model against itself: 0 over 1
        gaps = np.square(total[:, :, None] - total[:, None, :])
        largest[start : start + count] = np.sqrt((gaps / spread).max((1, 2)))
    return float(np.quantile(largest, confidence, method="inverted_cdf")) * (1 + 1e-9)
