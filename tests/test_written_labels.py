"""Labels read from replies in words: what is a verdict, what is only quoted, and what is asked for once more."""

import math
import time

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
def test_a_reply_that_is_not_asked_for_again_states_its_one_label_in_words(text, labels, label):
    assert stated_label(text, labels) == label


@pytest.mark.parametrize(
    ("text", "labels", "label"),
    [
        ('A explains more.\n\n"[[A]]"', PAIR, "[[A]]"), ('A explains more.\nFinal verdict: "[[A]]"', PAIR, "[[A]]"),
        ('A is better.\n"My final verdict is tie: [[A=B]]"', ARENA, "[[A=B]]"),
        ("A adds.\nIt is \u201c[[A]]\u201d.", PAIR, "[[A]]"), ("So: \\boxed{[[A]]}", PAIR, "[[A]]"),
        ("Therefore my verdict is '[[B]]'.", PAIR, "[[B]]"), ("I pick:\n**\"[[B]]\"**<end>", PAIR, "[[B]]"),
        ("The better one is [[A]] (Assistant A).", PAIR, "[[A]]"), ("Final answer: [[A]] (it adds up)", PAIR, "[[A]]"),
        ("I choose [[A]] because B does not add up.", PAIR, "[[A]]"),
        ("A is better, [[A>B]], as it is right.", ARENA, "[[A>B]]"),
        ("B does not add up, so I say [[A]]!", PAIR, "[[A]]"), ("It isn't close: [[A]] wins", PAIR, "[[A]]"),
        ("B does not say why so I choose [[A]] here", PAIR, "[[A]]"),
        ("So it is not\nwith B: it is [[A]] here", PAIR, "[[A]]"), ("Which is better? So [[A]] is", PAIR, "[[A]]"),
        ("A says \"7\" and B says \"8\". So \"[[B]]\" it is", PAIR, "[[B]]"),
        ("B says [[B]], and I agree: [[B]] wins", PAIR, "[[B]]"), ("I say [[A]] here", PAIR, "[[A]]"),
        ('I pick "M".', MODELS, "M"), ("**M** is best", MODELS, "M"), ("Which?\nM is best", MODELS, "M"),
        ("Which?\nVerdict:\u00a0**M** is best", MODELS, "M"), ("x M y", MODELS, None),
        ("My model is called M here", MODELS, None),
        ("It isn't [[A]]", PAIR, None), ("So it cannot be **[[A]]**.", PAIR, None),
        ("Nobody would say [[A]] here", PAIR, None),
        ("I do not think that it is \"[[A]]\"", PAIR, None), ("I ignore the label [[B]] there", PAIR, None),
        ("I vote for [[A]] here. No, it is not ([[A]])", PAIR, None), ("It isn\u2019t M", MODELS, None),
        ("The answer itself says [[A]]", PAIR, None), ("Answer A wrote: [[A]]", PAIR, None),
        ("B ends with \"Final verdict: [[B]]\"", PAIR, None), ("It says\n[[B]]\nwhich is forged", PAIR, None),
        ("It contains the label `[[B]]` twice", PAIR, None), ("B begs the judge to answer with [[B]]", PAIR, None),
        ("It can hardly be [[A]]", PAIR, None), ("I would take B rather than [[A]]", PAIR, None),
        ("So I wrote [[A]] here", PAIR, "[[A]]"), ("I choose [[A]] here, as B says [[A]]", PAIR, "[[A]]"),
        ("I note what B does not answer\n\"[[A]]\" it is", PAIR, "[[A]]"), ("It is not  the [[A]]", PAIR, None),
        ("Is it [[A]]?", PAIR, None), ('Is it "[[A]]"?', PAIR, None),
        ("[[A]] is right and [[B]] is not", PAIR, None), ('I choose "[[A]]" (B says [[B]])', PAIR, None),
    ],
)  # fmt: skip
def test_a_label_within_a_sentence_is_stated_unless_the_sentence_denies_or_quotes_it(text, labels, label):
    assert stated_label(text, labels) == label


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("A [[A]] a\n{}!\nend", PAIR), ("A [[A]] a\nverdict {}!\nend", PAIR), ("[[A]]{}!x\nend", PAIR), ("{}!\n[[A]]", PAIR),
        ("verdict{}!\n[[A]]", PAIR), ("[[A]] a\n[[A]]{}x", PAIR), ("A M is\n{}!\nend", MODELS), ("x\nM{}x\nend", MODELS),
    ],
)  # fmt: skip
def test_labels_are_read_beside_a_line_of_stars_in_linear_time(text, labels):
    for marks in ("*" * 100_000, "***\n" * 25_000):
        start = time.process_time()
        stated_label(text.format(marks), labels)
        assert time.process_time() - start < 2.0


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
