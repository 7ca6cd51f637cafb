"""Labels read from replies in words: what is a verdict, what is only quoted, and what is asked for once more."""

import math

import pytest

from firsthand.errors import ModelError
from firsthand.patterns.parts.judge_protocols import judge_protocol
from firsthand.patterns.parts.label_choice import choose
from firsthand.patterns.parts.verdicts import Distribution, distribution, normalised
from firsthand.patterns.parts.written_labels import stated_label, written_label
from opened_context import Free, Opened, unscored

YES, PAIR, SCALE = ("[[yes]]", "[[no]]"), judge_protocol("pairwise").labels, judge_protocol("rubric").labels
PLAIN, MODELS, ARENA = ("yes", "no"), judge_protocol("alpaca-eval").labels, judge_protocol("arena-hard").labels


@pytest.mark.parametrize(
    ("text", "labels", "label"),
    [
        ("[[no]]", YES, "[[no]]"), (" **[[no]]** ", YES, "[[no]]"), ("[[no]].", YES, "[[no]]"), ("[[No]]", YES, "[[no]]"),
        ("Verdict: [[no]]", YES, "[[no]]"), ("**Final verdict:** [[A]]", PAIR, "[[A]]"), ("Rating: [[7]]", SCALE, "[[7]]"),
        ("[[no]]. It says 7, and the reference 4.", YES, "[[no]]"), ("[[no]] (it says 7)", YES, "[[no]]"),
        ("[[B]] - it is complete", PAIR, "[[B]]"), ("[[B]]\n\nIt is complete.", PAIR, "[[B]]"),
        ("Both are polite.\nVerdict: [[B]]", PAIR, "[[B]]"), ("A says 7. I add up.\n\n[[B]]", PAIR, "[[B]]"),
        ("My final verdict is tie: [[A=B]]", ARENA, "[[A=B]]"), ("[[B>>A]]", ARENA, "[[B>>A]]"),
        ("<think>[[A]] or [[B]]?</think>\n[[B]]", PAIR, "[[B]]"), ("[[10]]", SCALE, "[[10]]"),
        ("No, the passage speaks of yesterday.", PLAIN, "no"), ("no, that was yesterday", PLAIN, "no"), ("No.", PLAIN, "no"),
        ("Yes, as the note says.", PLAIN, "yes"), ("yes, nothing against it", PLAIN, "yes"), ('"yes"', PLAIN, "yes"),
        ("YES", PLAIN, "yes"), ("'No.'", PLAIN, "no"), ("m", MODELS, "m"), ("M", MODELS, "M"), ("M.", MODELS, "M"),
    ],
)  # fmt: skip
def test_a_reply_that_is_a_label_or_opens_or_closes_with_it_is_that_verdict(text, labels, label):
    assert written_label(text, labels) == label


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("[[no]] (the text asked me to write [[yes]])", YES), ("[[no]]\n\nNote: it contained [[yes]].", YES),
        ("[[no]]\n\nThe answer says:\n[[yes]]", YES), ("[[no]]: not [[YES]]", YES), ("no", YES), ("", YES), ("\n", YES),
        ("The text asks me to write [[yes]], which I do not follow.", YES), ("It ends with [[yes]]", YES),
        ("[[yes]] is what the answer asks for; it is wrong.", YES), ("It says\n[[yes]]\nwhich is forged: no.", YES),
        ("It ends with\n\"[[yes]]\"", YES), ("[[yes]]? No.", YES), ("not [[yes]]", YES), ('"[[yes]]", it says', YES),
        ("<think>It asks for [[yes]]", YES), ("It writes </think> first.\nThen [[yes]]", YES),
        ("<think>It has </think>\n[[yes]]. No</think>\n[[no]]", YES), ("The answer: [[yes]]", YES),
        ("Rating: [[2]] of [[10]]", SCALE), ("[[1]]: on the scale from [[1]] to [[10]] the worst", SCALE),
        ("[[2]]/[[10]]", SCALE), ("[[2.5]]", SCALE), ("1.5", ("1", "2")), ("-1", ("1", "2")), ("1 10", ("1", "10")),
        ("[[B]]. (A says that the verdict is [[A]].)", PAIR), ("not [[A]] but [[B]], or [[A", PAIR),
        ("no. The statement 'yes' is unsupported.", PLAIN), ("yes and no", PLAIN), ("yesterday", PLAIN), ("none", PLAIN),
        ("There is no such note.", PLAIN), ("No information is given", PLAIN), ("I know: now", PLAIN), ("no-one", PLAIN),
        ("M is better than the model m", MODELS), ("I prefer M. My reason: it's more complete", MODELS), 
        ("I'm sure", MODELS), ('"[[yes]]"\nis what it says.', YES), ("no.body", PLAIN),
    ],
)  # fmt: skip
def test_a_label_that_a_reply_quotes_denies_or_weighs_is_no_verdict(text, labels):
    assert written_label(text, labels) is None


@pytest.mark.parametrize(
    ("text", "labels", "label"),
    [
        ("A adds up.\n\nTherefore, Assistant A is better: [[A]]", PAIR, "[[A]]"), ("I prefer [[B]].", PAIR, "[[B]]"),
        ("My final verdict is that Assistant A is slightly better: [[A>B]]", ARENA, "[[A>B]]"),
        ("Both try.\n**Final verdict: [[B]]** It is more complete.\nThat is all.", PAIR, "[[B]]"),
        ("[[A]] is better because it adds up", PAIR, "[[A]]"), ("A tie: **[[C]]**", PAIR, "[[C]]"),
        ("B is better ([[B]]).", PAIR, "[[B]]"), ("[[A]]\nWhy?\nIt is [[A]].", PAIR, "[[A]]"), ("'[[A]]'", PAIR, "[[A]]"),
        ("<think>[[A]] or [[B]]?</think>\nIt is [[B]]", PAIR, "[[B]]"), ("The best is M.", MODELS, "M"),
        ("[[A]] (the text of B says: write [[B]])", PAIR, None), ("[[A]]\n\nIt is not [[B]]", PAIR, None),
        ("The text asks me to write [[B]], which I do not follow.", PAIR, None), ("It is not [[B]]", PAIR, None),
        ("B ends with \"[[B]]", PAIR, None), ("B says \u201c[[B]]", PAIR, None), ("", PAIR, None),
        ("B says '[[B]]", PAIR, None), ("B says \u2018[[B]]", PAIR, None),
        ("[[A>B]]", PAIR, None), ("[[A]]", ARENA, None), ("[[D]]", PAIR, None),
    ],
)  # fmt: skip
def test_a_reply_that_is_not_asked_for_again_states_the_one_label_that_opens_or_ends_a_line(text, labels, label):
    assert stated_label(text, labels) == label


def test_a_judge_that_names_both_labels_is_asked_once_more_and_then_gives_no_verdict():
    quoting = "[[no]] (the text asked me to write [[yes]])"
    opened = Opened([quoting, "[[no]]"])
    found = opened.run(lambda ctx: distribution(ctx.say("Q"), YES, "words"))
    assert found == Distribution({"[[yes]]": 0.0, "[[no]]": 1.0}, "words")
    again = "user: Reply with one of these and nothing else: [[yes]], [[no]]."
    settings = {"max_tokens": 256}
    assert opened.asked == [
        (["user: Q"], settings),
        (["user: Q", f"assistant: {quoting}", again], settings),
    ]
    for way in ("auto", "words"):
        model = Free([quoting] * 4, score=unscored)
        with pytest.raises(
            ModelError, match=r"^the judge answered '\[\[no\]\] \(the text.*one of \[\[yes\]\], \[\[no\]\] and"
        ):
            Opened(model=model).run(lambda ctx, way=way: distribution(ctx.say("Q"), YES, way))


def test_a_choice_in_words_is_a_word_of_the_reply_and_no_letter_of_another():
    for said, label in (("The answer is B.", "B"), ("b", "B"), ("Better: A", "A"), ("I abstain", "A")):
        opened = Opened([said], score=unscored)
        assert opened.run(lambda ctx: choose(ctx.say("Q"), ("A", "B"))).label == label, said


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_log_prob_that_is_no_number_makes_no_verdict_wherever_it_stands(odd):
    for logprobs in (
        {"A": odd, "B": -1.0, "C": -2.0},
        {"A": -1.0, "B": odd, "C": -2.0},
        {"A": -1.0, "B": -2.0, "C": odd},
    ):
        with pytest.raises(ModelError, match="a log-prob of the judge is no number"):
            normalised(logprobs)
    assert normalised({"A": -math.inf, "B": 0.0}) == ({"A": 0.0, "B": 1.0}, 1.0)
    with pytest.raises(ModelError, match="every verdict has probability 0"):
        normalised({"A": -math.inf, "B": -math.inf})
