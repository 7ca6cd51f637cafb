"""Agreement between raters: published worked examples, closed forms, and what the statistics of a judge must show."""

import json
import math
import tracemalloc
from collections import Counter
from dataclasses import replace
from itertools import combinations
from random import Random

import pytest

from firsthand.errors import ConfigError
from firsthand.scorers.human_votes import judged_items
from firsthand.stats.rater_agreement import Judged, agreement, cohen_kappa, fleiss_kappa, krippendorff_alpha, majority
from firsthand.task import Task
from firsthand.trace import Trace

FLEISS = [  # the worked table of 10 subjects, 14 raters and 5 categories: kappa = 0.210
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip
OBSERVERS = [  # Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", C: four observers, missing data
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


def test_fleiss_worked_table():
    assert fleiss_kappa(FLEISS) == pytest.approx(0.210, abs=0.0005)
    assert fleiss_kappa([[3, 0], [0, 3]]) == 1
    assert math.isnan(fleiss_kappa([[3, 0], [3, 0]]))  # one label only: chance explains all of it
    with pytest.raises(ConfigError, match="use alpha"):
        fleiss_kappa([[3, 0], [1, 1]])


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorffs_own_example(level, alpha):
    units = [[row[item] for row in OBSERVERS if row[item] is not None] for item in range(12)]
    assert krippendorff_alpha(units, level=level) == pytest.approx(alpha, abs=0.0006)


def test_krippendorffs_example_of_two_observers():  # the same paper, B: nominal data, alpha = 0.692
    assert krippendorff_alpha(list(zip("aabbdcccedda", "babbbccceddd", strict=True))) == pytest.approx(
        0.692, abs=0.0005
    )


def by_pairs(units, level):
    """Krippendorff's alpha as it is written: a distance for every two labels, and every pair of each item."""
    totals = Counter(label for unit in units if len(unit) >= 2 for label in unit)
    ranked, n = sorted(totals), totals.total()

    def distance(a, b):
        if level == "nominal":
            return float(a != b)
        if level == "interval":
            return (a - b) ** 2
        low, high = sorted((ranked.index(a), ranked.index(b)))
        return (sum(totals[each] for each in ranked[low : high + 1]) - (totals[a] + totals[b]) / 2) ** 2

    observed = sum(distance(a, b) * 2 / (len(u) - 1) for u in units if len(u) >= 2 for a, b in combinations(u, 2))
    expected = sum(2 * totals[a] * totals[b] * distance(a, b) for a, b in combinations(totals, 2))
    return 1 - (n - 1) * observed / expected


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_alpha_by_sums_is_alpha_by_pairs(level):
    draw = Random(4)
    for shift in (0, -0.5, 1e6):
        units = [[shift + draw.randrange(9) / 8 for _ in range(draw.randrange(1, 6))] for _ in range(40)]
        assert krippendorff_alpha(units, level=level) == pytest.approx(by_pairs(units, level), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_raters_who_agree_have_an_alpha_of_one_and_one_label_has_none(level):
    assert krippendorff_alpha([[0.1, 0.1, 0.1], [0.7, 0.7], [0.3]], level=level) == 1
    assert math.isnan(krippendorff_alpha([[0.1, 0.1, 0.1], [0.1, 0.1], [0.3]], level=level))
    assert math.isnan(krippendorff_alpha([], level=level)) and math.isnan(krippendorff_alpha([[1], [2]], level=level))


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_thousands_of_grades_that_all_differ_take_no_memory_for_their_pairs(level):
    units = [[i / 4_000, (i + 1) / 4_000] for i in range(0, 4_000, 2)]  # 8 million pairs: 2 GB
    tracemalloc.start()
    try:
        alpha = krippendorff_alpha([*units, [i / 4_000 for i in range(4_000)]], level=level)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000 and alpha < 0.9
    finally:
        tracemalloc.stop()


class Grade(float):
    """A number that counts how often it is subtracted from another."""

    subtracted = 0

    def __sub__(self, other):
        Grade.subtracted += 1
        return float(self) - float(other)


def test_weighted_kappa_takes_no_difference_of_every_two_labels():
    first, second = ([Grade(i / 300 + shift) for i in range(300)] for shift in (0, 0.01))
    Grade.subtracted = 0
    kappa = cohen_kappa(first, second, weights="interval")
    assert Grade.subtracted < 3_000
    chance = sum((float(a) - float(b)) ** 2 for a in first for b in second) / 300**2
    assert kappa == pytest.approx(1 - 0.01**2 / chance)


def test_two_of_thousands_of_people_agree_by_the_counts_of_what_they_said():
    many = Judged("1", ("A",) * 3_000 + ("B",) * 1_000, "A", "q")
    found = agreement([many, Judged("2", ("A", "B"), "A", "q2")])
    same = (3_000 * 2_999 + 1_000 * 999) / (4_000 * 3_999)
    assert found.among_humans is not None and found.among_humans.value == pytest.approx((same + 0) / 2)


def test_cohens_kappa_of_a_two_by_two_table():  # 20, 5, 10, 15 of 50: observed 0.7, by chance 0.5
    first, second = [1] * 25 + [0] * 25, [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)
    assert cohen_kappa([1, 2, 3], [1, 2, 3], weights="interval") == 1
    assert math.isnan(cohen_kappa([1, 1], [1, 1]))
    with pytest.raises(ConfigError, match="2 and 1 items"):
        cohen_kappa([1, 2], [1])


def test_weighted_kappa_equals_the_intraclass_form_on_equal_margins():
    """With squared weights and equal margins, kappa is the correlation of the two ratings (Fleiss and Cohen, 1973)."""
    first, second = [1, 2, 3, 4, 1, 2, 3, 4], [2, 1, 3, 4, 1, 2, 4, 3]
    mean = sum(first) / 8
    covariance = sum((a - mean) * (b - mean) for a, b in zip(first, second, strict=True))
    variance = sum((a - mean) ** 2 for a in first)
    assert cohen_kappa(first, second, weights="interval") == pytest.approx(covariance / variance)


def test_raters_who_throw_dice_agree_no_better_than_chance():
    draw = Random(1)
    units = [[draw.choice("ABC") for _ in range(3)] for _ in range(4000)]
    assert abs(krippendorff_alpha(units)) < 0.03
    assert abs(fleiss_kappa([[unit.count(label) for label in "ABC"] for unit in units])) < 0.03


def votes(judge, n=300, seed=0):
    """Pairs whose better answer is known; people see it 8 times in 10. `judge(better, longer, draw)` gives a verdict."""
    draw = Random(seed)
    found = []
    for item in range(n):
        better, longer = draw.choice("AB"), draw.choice("AB")
        people = tuple(better if draw.random() < 0.8 else "AB"["BA".index(better)] for _ in range(3))
        found.append(Judged(str(item), people, judge(better, longer, draw), f"q{item // 3}", longer, 0.5, True))
    return found


def test_a_judge_as_good_as_a_person_reaches_the_ceiling():
    found = agreement(votes(lambda better, longer, draw: better if draw.random() < 0.8 else "AB"["BA".index(better)]))
    assert found.among_humans is not None and found.among_humans.value == pytest.approx(0.68, abs=0.05)  # 0.8² + 0.2²
    assert found.with_humans.low < 0.68 < found.with_humans.high
    assert found.alpha_with_judge == pytest.approx(found.alpha_humans, abs=0.05)
    assert found.with_humans.clusters == 100 and found.items == 300 and found.votes == 900


def test_a_judge_that_likes_length_is_found_out():
    fair = agreement(votes(lambda better, longer, draw: better))
    biased = agreement(votes(lambda better, longer, draw: longer))
    assert fair.length_bias.low < 0 < fair.length_bias.high
    assert biased.longer_judge.value == 1 and biased.length_bias.low > 0.3 and abs(biased.kappa.value) < 0.2


def test_a_judge_that_always_ties_agrees_with_nobody_and_decides_nothing():
    found = agreement(votes(lambda better, longer, draw: "tie"))
    assert found.with_humans.value == 0 and found.kappa.value == 0
    assert found.decided is None and found.longer_judge is None and found.length_bias is None
    json.dumps(found.to_json(), allow_nan=False)


def test_position_bias_is_that_of_pairs_the_judge_was_asked_about():
    asked = [Judged(str(n), ("A",), "A", first=0.9, consistent=False) for n in range(4)]
    found = agreement([*asked, Judged("rule", ("A",), "A")])
    assert found.first is not None and found.first.value == pytest.approx(0.9)
    assert found.consistent is not None and found.consistent.value == 0 and found.consistent.high > 0.3
    assert agreement([Judged("rule", ("A",), "A")]).first is None


def test_one_vote_an_item_has_no_ceiling():
    found = agreement([Judged("1", ("A",), "A"), Judged("2", ("B",), "A")])
    assert found.among_humans is None and found.kappa_humans is None and found.with_humans.value == 0.5


def test_fleiss_needs_as_many_votes_for_each_item():
    pairs = [Judged("1", ("A", "A"), "A"), Judged("2", ("B", "A"), "A"), Judged("3", ("B", "B"), "A")]
    found = agreement(pairs)
    assert found.kappa_humans == pytest.approx(fleiss_kappa([[2, 0, 0], [1, 1, 0], [0, 2, 0]]))
    assert found.kappa_humans == pytest.approx((2 / 3 - 1 / 2) / (1 - 1 / 2))
    more = agreement([*pairs, Judged("4", ("B", "B", "A"), "A")])
    assert more.kappa_humans is None and more.alpha_humans is not None
    assert agreement([*pairs, Judged("4", ("B",), "A")]).alpha_humans is None


def test_bad_labels_and_missing_votes_are_refused():
    with pytest.raises(ConfigError, match="label 'C'"):
        agreement([Judged("1", ("A",), "C")])
    with pytest.raises(ConfigError, match="no human vote"):
        agreement([Judged("1", (), "A")])
    with pytest.raises(ConfigError, match="nothing to compare"):
        agreement([])


def test_a_majority_is_more_than_half():
    assert majority(("A", "A", "B")) == "A" and majority(("A", "B", "tie")) is None and majority(("B",)) == "B"


def test_agreement_does_not_depend_on_the_order_of_completion():
    rng, blank = Random(3), Trace("t", "votes", "a", {"name": "j"}, 0, 0, "2026-01-01T00:00:00+00:00", 0.0)
    tasks, traces = {}, []
    for n in range(30):
        votes = [rng.choice(["A", "B", "tie"]) for _ in range(3)]
        tasks["votes", f"{n}"] = Task(f"{n}", "?", metadata={"cluster": str(n // 3)}, secret={"votes": votes})
        traces.append(replace(blank, task_id=f"{n}", answer=rng.choice(["A", "B", "tie"])))
    found = [agreement(judged_items(tasks, rng.sample(traces, 30))[0], 0.95).to_json() for _ in range(4)]
    assert found[0]["items"] == 30 and all(each == found[0] for each in found)


def test_pairs_of_no_cluster_are_each_alone():
    def found(clusters):
        judged = [Judged(str(n), ("A", "A"), "AB"[n % 3 == 0], cluster, "A", 0.5, True) for n, cluster in clusters]
        return agreement(judged).with_humans

    alone = found([(n, None) for n in range(12)])
    assert alone.clusters == 0 and alone == found([(n, f"c{n}") for n in range(12)])
    some = found([(n, "q" if n < 4 else None) for n in range(12)])
    assert some.clusters == 9 and some == found([(n, "q" if n < 4 else f"c{n}") for n in range(12)])
