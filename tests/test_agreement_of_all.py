"""Perfect agreement, and agreement on one label only: neither is known to be perfect beyond the items that were seen."""

import math
from dataclasses import replace

import pytest

from firsthand.commands.agreement import _shown
from firsthand.stats.intervals import equal_bounds, mean_interval
from firsthand.stats.rater_agreement import Judged, agreement


def alike(n: int, labels: str = "AB", **more: object) -> list[Judged]:
    return [Judged(f"i{k}", (labels[k % len(labels)],), labels[k % len(labels)], **more) for k in range(n)]  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [4, 20, 200])
def test_perfect_agreement_has_the_interval_of_as_many_equal_items(n: int) -> None:
    found = agreement(alike(n))
    low, high = equal_bounds(1.0, n, True, 0.95)
    for rate in (found.with_humans, found.decided):
        assert rate is not None and rate.value == 1 and (rate.low, rate.high) == (pytest.approx(low), high)
        assert rate.method == "equal draws"
    # kappa of half A, half B: chance is a half, so that a share of u items lost takes 2 u
    if n > 4:
        assert found.kappa.value == 1 and (found.kappa.low, found.kappa.high) == (pytest.approx(2 * low - 1), 1)


def test_a_judge_that_is_never_right_may_be_right_beyond_the_items_seen() -> None:
    found = agreement([Judged(f"i{k}", ("AB"[k % 2],), "BA"[k % 2]) for k in range(30)])
    assert (found.with_humans.low, found.with_humans.high) == (0, pytest.approx(1 - 0.025 ** (1 / 30)))


def test_units_are_clusters_and_items_that_say_something() -> None:
    clustered = [Judged(f"i{k}", ("AB"[k % 2],), "AB"[k % 2], cluster=f"q{k // 4}") for k in range(40)]
    assert agreement(clustered).with_humans.low == pytest.approx(0.025 ** (1 / 10))
    ties = [*alike(200), *(Judged(f"t{k}", ("tie",), "tie") for k in range(20))]
    decided = agreement(ties).decided
    assert decided is not None and decided.low == pytest.approx(0.025 ** (1 / 200))


def test_kappa_with_one_label_is_undefined_and_not_what_chance_gives() -> None:
    found = agreement(alike(20, "A"))
    assert all(map(math.isnan, (found.kappa.value, found.kappa.low, found.kappa.high)))
    assert found.to_json()["kappa"]["value"] is None
    assert _shown(found.kappa) == "undefined" and _shown(math.nan) == "undefined" and _shown(0.5) == "0.500"
    split = agreement([Judged(f"i{k}", ("A", "B"), "A") for k in range(20)])
    assert math.isnan(split.kappa.value), "no item has a majority"
    apart = agreement([Judged(f"i{k}", ("A",), "B") for k in range(20)])
    assert apart.kappa.value == 0 and apart.kappa.low == 0 and apart.kappa.high == pytest.approx(1 - 0.025 ** (1 / 20))


def test_length_bias_of_equal_items_may_go_either_way() -> None:
    found = agreement(alike(30, "AB", longer="A"))
    unseen = 1 - 0.025 ** (1 / 30)
    assert found.length_bias is not None and found.length_bias.value == 0
    assert (found.length_bias.low, found.length_bias.high) == (pytest.approx(-unseen), pytest.approx(unseen))


def test_draws_that_differ_keep_their_bootstrap() -> None:
    found = agreement([*alike(19), Judged("other", ("A",), "B")])
    assert found.with_humans.method == "BCa bootstrap and Wilson" and 0 < found.with_humans.low < 0.95
    assert found.kappa.method.startswith("BCa bootstrap")
    many = agreement([Judged(f"i{k}", ("A",), "AAB"[k % 3]) for k in range(300)]).with_humans
    assert many.high - many.low == pytest.approx(2 * 1.96 * math.sqrt(2 / 9 / 300), rel=0.05)


def in_clusters(shares: list[int], of: int = 10, votes: int = 1) -> list[Judged]:
    """Clusters of ten items each; the judge is right on so many of each."""
    return [
        Judged(
            f"{q}-{k}", ("AB"[k % 2],) * votes, "AB"[(k % 2) ^ (k >= right)], cluster=f"q{q}", longer="AB"[k % 3 % 2]
        )  # type: ignore[arg-type]
        for q, right in enumerate(shares)
        for k in range(of)
    ]


@pytest.mark.parametrize("shares", [[9, 3], [9, 4, 6], [8, 3, 7, 9]])
def test_few_clusters_have_the_interval_of_a_mean_score(shares: list[int]) -> None:
    judged = in_clusters(shares)
    mean = mean_interval(
        {each.item: [float(each.verdict in each.humans)] for each in judged},
        clusters={each.item: str(each.cluster) for each in judged},
    )
    found = agreement(judged)
    assert found.decided is not None and found.length_bias is not None
    for rate in (found.with_humans, found.decided):
        assert rate.low == pytest.approx(mean.low, abs=1e-6) and rate.high == pytest.approx(mean.high, abs=1e-6)
        assert rate.method == "BCa bootstrap and clustered Wilson" and rate.clusters == len(shares)
    alone = agreement([replace(each, cluster=None) for each in judged])
    assert found.kappa.high - found.kappa.low > 1.5 * (alone.kappa.high - alone.kappa.low)
    assert found.kappa.low >= -1 and found.kappa.high <= 1 and found.length_bias.low >= -1


def test_kappas_interval_of_few_clusters_is_students_t_over_a_jackknife() -> None:
    judged = in_clusters([8, 5, 7, 6, 8])
    found = agreement(judged).kappa
    without = [agreement([each for each in judged if each.cluster != f"q{q}"]).kappa.value for q in range(5)]
    value = sum(without) / 5
    error = math.sqrt(4 / 5 * sum((each - value) ** 2 for each in without))
    assert found.high == pytest.approx(found.value + 2.776 * error, rel=0.02)
    assert found.low == pytest.approx(found.value - 2.776 * error, rel=0.05)


def test_items_that_say_nothing_are_no_units_of_an_interval() -> None:
    """Pairs that the judge calls a tie are in no decided pair, however many."""
    judged = [*in_clusters([9, 4, 6]), *(Judged(f"t{k}", ("tie",), "tie", cluster=f"t{k}") for k in range(50))]
    ours, alone = agreement(judged).decided, agreement(in_clusters([9, 4, 6])).decided
    assert ours is not None and alone is not None and ours.low == pytest.approx(alone.low, abs=1e-6)


def test_an_item_without_a_cluster_is_in_none_that_has_its_name() -> None:
    pairs = [Judged("q", ("A",), "A"), Judged("x", ("B",), "A", "q"), Judged("y", ("B",), "B", "q")]
    assert agreement(pairs).with_humans.clusters == 2
