"""Verdicts and choices of a model: each request with all its settings, each note, and what they make of the replies."""

import math

import pytest

from firsthand.errors import ModelError, PromptTooLong, TransientError
from firsthand.grammar import choice, json_schema
from firsthand.loop.concurrency import Retry
from firsthand.model import Likelihood
from firsthand.patterns.parts.label_choice import LabelChoice, _apart, chance_correct, choose
from firsthand.patterns.parts.verdicts import (
    Distribution,
    _by_choice,
    _by_schema,
    _by_scoring,
    _in_words,
    _read,
    distribution,
)  # fmt: skip
from firsthand.sampling import Sampling
from opened_context import Considering, Free, Opened, logs, raising, unscored

ONCE = Retry(attempts=1, first_wait_s=0.0)


# -- verdicts --


def test_a_model_that_scores_is_asked_for_no_words():
    opened = Opened(score=logs(yes=0.1, no=0.3))
    found = opened.run(lambda ctx: _by_scoring(ctx.say("Q"), ("yes", "no")))
    assert found.probabilities == pytest.approx({"yes": 0.25, "no": 0.75}) and found.top == "no"
    assert (found.by, found.mass) == ("logprob", pytest.approx(0.4)) and opened.asked == [(["user: Q"], ("yes", "no"))]


def test_a_label_under_a_grammar_is_weighed_by_what_was_considered():
    considered = [[[("ye", math.log(0.5)), ("n", math.log(0.25)), ("x", math.log(0.25))], [("s", 0.0)]]]
    opened = Opened(model=Considering(["yes"], considered))
    found = opened.run(lambda ctx: _by_choice(ctx.say("Q"), ("yes", "no")))
    assert found.probabilities == pytest.approx({"yes": 2 / 3, "no": 1 / 3})
    assert (found.by, found.mass) == ("top log-probs", pytest.approx(0.75))
    settings = {"max_tokens": 32, "grammar": choice(("yes", "no")), "top_logprobs": 20}
    assert opened.asked == [(["user: Q"], settings)]
    plain = Opened(["no"])
    assert plain.run(lambda ctx: _by_choice(ctx.say("Q"), ("yes", "no"))) == Distribution(
        {"yes": 0.0, "no": 1.0}, "grammar"
    )
    with pytest.raises(ModelError, match=r"^the judge wrote 'nope', which is none of yes, no$"):
        Opened(["nope"]).run(lambda ctx: _in_reply(ctx, {"yes": "yes", "no": "no"}))


async def _in_reply(ctx, forms):
    return _read(await ctx.say("Q").generate(), forms)


def test_a_reply_is_the_label_whose_form_it_is():
    forms = {"A": '{"v": "A"}', "B": '{"v": "B"}'}
    assert Opened(['  {"v": "B"} ']).run(lambda ctx: _in_reply(ctx, forms)) == Distribution(
        {"A": 0.0, "B": 1.0}, "grammar"
    )
    with pytest.raises(ModelError, match=rf"^the judge wrote '{'x' * 80}', which is none of A, B$"):
        Opened(["x" * 99]).run(lambda ctx: _in_reply(ctx, forms))


class Refusing(Considering):
    """Refuses to be asked for log-probs, with an error of one's choice."""

    def __init__(self, replies, refusal):
        super().__init__(replies, [])
        self.refusal = refusal

    async def complete(self, prompt, sampling, *, tools=(), n=1):
        if sampling.top_logprobs:
            raise self.refusal
        return await super().complete(prompt, sampling, tools=tools, n=n)


def test_an_endpoint_without_log_probs_is_asked_again_and_a_passing_fault_is_not():
    for way, reply in ((_by_choice, "no"), (_by_schema, '{"verdict": "no"}')):
        opened = Opened(model=Refusing([reply], ModelError("no log-probs")))
        found = opened.run(lambda ctx, way=way: way(ctx.say("Q"), ("yes", "no")))
        assert found == Distribution({"yes": 0.0, "no": 1.0}, "grammar")
        [(talk, settings)] = opened.asked
        schema = {
            "type": "object", "properties": {"verdict": {"type": "string", "enum": ["yes", "no"]}},
            "required": ["verdict"], "additionalProperties": False,
        }  # fmt: skip
        held = {_by_choice: (choice(("yes", "no")), 32), _by_schema: (json_schema(schema), 64)}[way]
        assert (talk, settings) == (["user: Q"], {"grammar": held[0], "max_tokens": held[1]}), "all but the log-probs"
        held_to = Opened(model=Refusing([reply], ModelError("no log-probs")), sampling=Sampling(temperature=0.9))
        held_to.run(lambda ctx, way=way: way(ctx.say("Q"), ("yes", "no")))
        assert held_to.model.asked[0].sampling.temperature == 0.0
        for error in (PromptTooLong("long"), TransientError("soon")):
            with pytest.raises(type(error)):
                Opened(model=Refusing([reply], error), retry=ONCE).run(
                    lambda ctx, way=way: way(ctx.say("Q"), ("yes", "no"))
                )


def test_a_schema_asks_for_an_object_with_the_verdict():
    schema = {
        "type": "object", "properties": {"verdict": {"type": "string", "enum": ["[[A]]", "[[B]]"]}},
        "required": ["verdict"], "additionalProperties": False,
    }  # fmt: skip
    half = math.log(0.5)
    considered = [[[('{"verdict": "[[', 0.0)], [("A", half), ("B", math.log(0.125))], [(']]"}', 0.0)]]]
    opened = Opened(model=Considering(['{"verdict": "[[A]]"}'], considered))
    found = opened.run(lambda ctx: _by_schema(ctx.say("Q"), ("[[A]]", "[[B]]")))
    assert found.probabilities == pytest.approx({"[[A]]": 0.8, "[[B]]": 0.2}) and found.mass == pytest.approx(0.625)
    assert opened.asked == [
        (["user: Q"], {"max_tokens": 64, "grammar": json_schema(schema), "top_logprobs": 20}),
    ]  # fmt: skip
    for text in ('{"verdict": "[[', "3", '{"other": 1}', '{"verdict": "[[C]]"}'):
        with pytest.raises(ModelError, match=r"^the judge wrote "):
            # a script is held to its grammar: the text is checked where the endpoint holds to none
            Opened(model=Free([text])).run(lambda ctx: _by_schema(ctx.say("Q"), ("[[A]]", "[[B]]")))


def test_words_are_read_for_the_label_that_they_are():
    opened = Opened(["[[B]]. It is complete."])
    assert opened.run(lambda ctx: _in_words(ctx.say("Q"), ("[[A]]", "[[B]]"))) == Distribution(
        {"[[A]]": 0.0, "[[B]]": 1.0}, "words"
    )
    assert opened.asked == [(["user: Q"], {"max_tokens": 256})]
    assert Opened(["10"]).run(lambda ctx: _in_words(ctx.say("Q"), ("1", "10"))).top == "10"
    with pytest.raises(
        ModelError, match=r"^the judge answered 'y', where one of yes, no and nothing else was asked for twice: "
    ):
        Opened(["x", "y"]).run(lambda ctx: _in_words(ctx.say("Q"), ("yes", "no")))


def test_ways_to_a_verdict_are_tried_in_order_until_one_is_there():
    def found(how, replies=(), score=unscored, model=None, **agent):
        opened = Opened(replies, score=score, model=model, **agent)
        return opened.run(lambda ctx: distribution(ctx.say("Q"), ("yes", "no"), how)), len(opened.asked)

    assert found("auto", score=logs(yes=0.5, no=0.25))[0].by == "logprob"
    assert found("auto", ["no"]) == (Distribution({"yes": 0.0, "no": 1.0}, "grammar"), 2)
    assert found("words", ["yes"], score=logs(yes=0.1, no=0.9)) == (Distribution({"yes": 1.0, "no": 0.0}, "words"), 1)
    assert found("grammar", ["no"], score=logs(yes=0.9, no=0.1)) == (
        Distribution({"yes": 0.0, "no": 1.0}, "grammar"),
        1,
    )
    free = Free(["maybe", '{"verdict": "no"}'], score=unscored)
    assert found("grammar", model=free) == (Distribution({"yes": 0.0, "no": 1.0}, "grammar"), 2)
    with pytest.raises(ModelError, match="no scores here"):
        found("logprob")
    with pytest.raises(ModelError, match="the judge answered 'fourth'"):
        found("auto", model=Free(["first", "second", "third", "fourth"], score=unscored))
    for error in (TransientError("soon"), PromptTooLong("long")):
        with pytest.raises(type(error)):
            found("auto", ["yes"], score=raising(error), retry=ONCE)


# -- choices --


def test_a_label_that_others_begin_with_has_the_probability_that_none_of_them_is_written():
    shares = {"refund": 0.7, "refund status": 0.5, "refund status late": 0.1, "other": 0.3}
    for order in (tuple(shares), tuple(reversed(shares))):
        found = Opened(score=logs(**shares)).run(lambda ctx, order=order: choose(ctx.say("Q"), order))
        parts = {"refund": 0.2, "refund status": 0.4, "refund status late": 0.1, "other": 0.3}
        assert (found.label, found.probabilities) == ("refund status", pytest.approx(parts))


@pytest.mark.parametrize(
    ("short", "long", "left"),
    [
        ((0.6, 1), (0.4, 2), 0.2),
        ((0.6, 1), (0.6, 2), 0.0),
        ((0.6, 1), (0.0, 2), 0.6),
        ((0.6, 1), (0.4, 1), 0.6),  # no more tokens: other ones
        ((0.3, 1), (0.4, 2), 0.3),  # likelier than its beginning: other tokens
        ((0.0, 1), (0.0, 2), 0.0),
    ],
)
def test_a_longer_label_is_taken_off_where_it_goes_on_in_the_same_tokens(short, long, left):
    def likelihood(share: float, tokens: int) -> Likelihood:
        return Likelihood("", math.log(share) if share else -math.inf, tokens, False)

    found = _apart({"a": likelihood(*short), "ab": likelihood(*long)})
    assert math.exp(found["a"]) == pytest.approx(left) and math.exp(found["ab"]) == pytest.approx(long[0])


def test_a_label_is_chosen_by_likelihood_or_by_the_word_that_comes_first():
    opened = Opened(score=lambda p, c: {"a": math.log(0.2), "b": math.log(0.6), "c": -math.inf}[c])
    found = opened.run(lambda ctx: choose(ctx.say("Q"), ("a", "b", "c")))
    assert (found.label, found.probabilities) == ("b", pytest.approx({"a": 0.25, "b": 0.75, "c": 0.0}))
    assert Opened(score=lambda p, c: -1.0).run(lambda ctx: choose(ctx.say("Q"), ("b", "a"))).label == "b"
    spoken = Opened(["It is DIRECT, not cot."], score=unscored)
    assert spoken.run(lambda ctx: choose(ctx.say("Q"), ("cot", "direct"))) == LabelChoice(
        "direct", {"cot": 0.0, "direct": 1.0}
    )
    assert spoken.asked[-1] == (["user: Q", "user: Answer with one of these words only: cot, direct."], {})
    for said, label in (("none", "cot"), ("cot_long", "cot_long"), ("Cot", "cot")):
        assert (
            Opened([said], score=unscored).run(lambda ctx: choose(ctx.say("Q"), ("cot", "direct", "cot_long"))).label
            == label
        )
    for logprob, why in ((-math.inf, "every verdict has probability 0"), (math.nan, "is no number")):
        with pytest.raises(ModelError, match=why):
            Opened(score=lambda p, c, told=logprob: told).run(lambda ctx: choose(ctx.say("Q"), ("a", "b")))
    safe = Opened(["not safe"], score=unscored)  # of labels that begin at one place the longer one
    assert safe.run(lambda ctx: choose(ctx.say("Q"), ("not", "not safe", "safe"))).label == "not safe"
    for error in (TransientError("soon"), PromptTooLong("long")):
        with pytest.raises(type(error)):
            Opened(["cot"], score=raising(error), retry=ONCE).run(lambda ctx: choose(ctx.say("Q"), ("cot", "direct")))


def test_the_chance_of_being_correct_is_that_of_one_of_two_words():
    opened = Opened(score=logs(correct=0.1, incorrect=0.4))
    assert opened.run(lambda ctx: chance_correct(ctx.say("Q"), "Shown.\n")) == pytest.approx(0.2)
    asked = "Is the proposed answer correct or incorrect? Answer in one word."
    assert opened.asked == [(["user: Q", f"user: Shown.\n{asked}"], ("correct", "incorrect"))]
    said = Opened(["Incorrect"], score=unscored)
    assert said.run(lambda ctx: chance_correct(ctx)) == 0.0
    assert said.asked[0][0] == [f"user: {asked}"]
