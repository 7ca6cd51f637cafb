"""Metrics of rankings: by hand, against trec_eval, and read from traces."""

import math
import random

import pytest

from firsthand.errors import ConfigError
from firsthand.scorers import ranking as scorers
from firsthand.scorers.rankings import ranking_metrics as metrics
from firsthand.scorers.rankings.retrieved import passages, ranking
from firsthand.task import Task
from firsthand.trace import Call, Event, Trace


def trace(calls=(), events=(), answer="a"):
    return Trace(
        "t", "b", "q", {"name": "a"}, 0, 0, "now", 1.0, calls=tuple(calls), events=tuple(events), answer=answer
    )


def retrieved(*items, name="retrieve", error=None):
    return Call("0:0", "tool", None, 0.0, 0.0, "", detail={"name": name, "items": list(items)}, error=error)


def hit(document, text="", start=0, score=1.0, **more):
    return {"document": document, "text": text, "start": start, "end": start + len(text), "score": score, **more}


def test_ndcg_has_linear_gain_and_an_ideal_of_all_judged_documents():
    judged = {"a": 3, "b": 1, "c": 2, "d": 0}
    dcg = 1 + 3 / math.log2(3) + 0 + 2 / math.log2(5)
    ideal = 3 + 2 / math.log2(3) + 1 / math.log2(4)
    assert metrics.ndcg(["b", "a", "d", "c"], judged) == pytest.approx(dcg / ideal, abs=1e-12)
    assert metrics.ndcg(["b", "a"], judged, 1) == pytest.approx(1 / 3, abs=1e-12)
    assert metrics.ndcg(["a", "c", "b"], judged, 10) == 1.0


def test_average_precision_divides_by_all_relevant_documents():
    judged = {"a": 1, "b": 1, "c": 1, "x": 0}
    assert metrics.average_precision(["a", "x", "b"], judged) == pytest.approx((1 + 2 / 3) / 3)
    assert metrics.average_precision(["a", "x", "b"], judged, 2) == pytest.approx(1 / 3)


def test_recall_precision_and_reciprocal_rank_by_hand():
    judged = {"a": 1, "b": 2, "c": 1}
    found = ["x", "b", "y", "a"]
    assert metrics.recall(found, judged, 2) == pytest.approx(1 / 3)
    assert metrics.precision(found, judged, 10) == pytest.approx(2 / 10), "ranks without a document are not relevant"
    assert metrics.reciprocal_rank(found, judged) == 0.5
    assert metrics.reciprocal_rank(found, judged, 1) == 0.0


def test_nothing_relevant_scores_0_and_a_document_twice_is_refused():
    for metric in (metrics.ndcg, metrics.average_precision, metrics.recall, metrics.reciprocal_rank):
        assert metric(["a"], {"a": 0}, 5) == 0.0
    with pytest.raises(ConfigError, match="'a' twice"):
        metrics.ndcg(["a", "b", "a"], {"a": 1})
    with pytest.raises(ConfigError, match="k is 0"):
        metrics.recall(["a"], {"a": 1}, 0)


def test_ranked_breaks_ties_by_falling_id_as_trec_eval_does():
    assert metrics.ranked({"d1": 0.5, "d3": 0.5, "d2": 0.9}) == ["d2", "d3", "d1"]


def test_metrics_are_trec_evals():
    pytrec_eval = pytest.importorskip("pytrec_eval")
    draw = random.Random(0)
    documents = [f"d{number}" for number in range(30)]
    judged, runs = {}, {}
    for query in (f"q{number}" for number in range(200)):
        sample = draw.sample(documents, draw.randint(1, 12))
        judged[query] = {each: draw.choice([-1, 0, 0, 0, 1, 2, 3]) for each in sample}
        found = draw.sample(documents, draw.randint(1, 25))
        runs[query] = {each: draw.choice([0.1, 0.2, 0.3, 0.5, 1.0]) for each in found}  # with many ties
    wanted = {"ndcg", "ndcg_cut.5,10", "map", "map_cut.5", "recip_rank", "recall.5", "P.5"}
    theirs = pytrec_eval.RelevanceEvaluator(judged, wanted).evaluate(runs)
    assert len(theirs) == 200
    for query, values in theirs.items():
        found, marks = metrics.ranked(runs[query]), judged[query]
        ours = {
            "ndcg": metrics.ndcg(found, marks),
            "ndcg_cut_5": metrics.ndcg(found, marks, 5),
            "ndcg_cut_10": metrics.ndcg(found, marks, 10),
            "map": metrics.average_precision(found, marks),
            "map_cut_5": metrics.average_precision(found, marks, 5),
            "recip_rank": metrics.reciprocal_rank(found, marks),
            "recall_5": metrics.recall(found, marks, 5),
            "P_5": metrics.precision(found, marks, 5),
        }
        assert ours == pytest.approx({name: values[name] for name in ours}, abs=1e-9)


def test_verdict_precision_of_a_perfect_ranking_is_exactly_1():
    assert metrics.verdict_precision([True, True, False]) == 1.0
    assert metrics.verdict_precision([False, True, True]) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert metrics.verdict_precision([False, False]) == metrics.verdict_precision([]) == 0.0


def test_a_ranking_of_documents_places_each_at_its_best_chunk():
    made = trace([retrieved(hit("b", "x"), hit("a", "y"), hit("b", "z", 10))])
    assert ranking(made) == ["b", "a"]
    assert [each.text for each in passages(made)] == ["x", "y", "z"]


def test_the_last_ranking_that_a_pattern_states_counts():
    events = [Event("ranking", 0.0, {"documents": ["a", "b"]}), Event("ranking", 1.0, {"documents": ["b", "c", "b"]})]
    assert ranking(trace([retrieved(hit("z"))], events)) == ["b", "c"]


def test_equal_scores_of_a_stated_ranking_rank_by_falling_id_as_in_trec_eval():
    def of(documents, scores):
        return ranking(trace(events=[Event("ranking", 0.0, {"documents": documents, "scores": scores})]))

    scores = {"b": 3.0, "d2": 2.0, "d10": 2, "d9": 2.0, "a": 1.0, "z": 1.0}
    assert of([*scores], [*scores.values()]) == ["b", "d9", "d2", "d10", "z", "a"] == metrics.ranked(scores)
    assert of(["a", "b", "c"], [1.0, 3.0, 3.0]) == ["a", "c", "b"], "the order of other scores is the pattern's"
    assert of(["a", "b", "b"], [1.0, 1.0, 0.5]) == ["b", "a"]
    for scores in ([], [1.0], [1.0] * 3, None, 1.0):
        assert of(["a", "b"], scores) == ["a", "b"], scores


def test_other_calls_and_failed_reads_are_no_passages():
    failed = retrieved(hit("a", "x"), error="broken")
    assert passages(trace([failed, retrieved(hit("b", "y"), name="search")])) == []
    headed = passages(trace([retrieved(hit("a", "text", heading="Part"))]))
    assert headed[0].text == "Part\ntext"


def test_scorers_read_judgements_and_trace_and_an_empty_ranking_is_0():
    task = Task("q", "?", secret={"judgements": {"a": 1, "b": 1}})
    made = trace([retrieved(hit("b"), hit("x"), hit("a"))])
    ideal = 1 + 1 / math.log2(3)
    assert scorers.ndcg_at_10(task, made).value == pytest.approx((1 + 1 / 2) / ideal)
    assert scorers.average_precision(task, made).value == pytest.approx((1 + 2 / 3) / 2)
    assert scorers.recall_at_10(task, made).value == scorers.recall_at_100(task, made).value == 1.0
    assert scorers.precision_at_10(task, made).value == pytest.approx(0.2)
    assert scorers.reciprocal_rank_at_10(task, made).value == 1.0
    assert [scorer(task, trace()).value for scorer in scorers.RANKING_SCORERS] == [0.0] * 6
    at_1 = scorers.ndcg(k=1)(task, made)
    assert (at_1.name, at_1.value) == ("ndcg_at_1", 1.0)
    with pytest.raises(ValueError, match="no relevance judgements"):
        scorers.ndcg_at_10(Task("q", "?"), made)


def test_a_graded_judgement_is_refused_and_not_cut_to_a_whole_number():
    assert scorers.judgements(Task("q", "?", secret={"judgements": {"a": "1.0", "b": 2.0, 3: "-1"}})) == {
        "a": 1, "b": 2, "3": -1,
    }  # fmt: skip
    for wrong in (0.9, 1.9, "0.4", "high", None, [1], math.inf):
        with pytest.raises(ValueError, match=r"the relevance of 'b' is .*multiply graded ones"):
            scorers.judgements(Task("q", "?", secret={"judgements": {"a": 1, "b": wrong}}))


def test_relevances_that_are_not_finite_are_refused_by_every_metric():
    each = (metrics.ndcg, metrics.average_precision, metrics.reciprocal_rank, metrics.recall, metrics.precision)
    for metric in each:
        for relevance in (math.nan, math.inf, -math.inf):
            with pytest.raises(ConfigError, match=f"^the relevance of 'b' is {relevance}: give a whole number"):
                metric(["a"], {"a": 1, "b": relevance}, 1)
        assert metric(["a"], {"a": 3, "b": -1}, 1) == 1.0
