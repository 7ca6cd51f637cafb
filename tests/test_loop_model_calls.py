"""Calls of the model one by one: what is sent, reserved, paid, recorded and found again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from firsthand.errors import ConfigError, LimitExceeded, ModelError
from firsthand.loop.attempt import Attempt
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.concurrency import derive_seed
from firsthand.loop.listener import Began
from firsthand.loop.model_calls import decode_answer, sample_answers, score_continuations
from firsthand.loop.prompt_size import size_key
from firsthand.loop.request_key import request_key
from firsthand.message import Text, assistant, canonical, user
from firsthand.model import Completion, Likelihood, Sampling, ToolSpec, Usage
from firsthand.providers.scripted import Scripted, ScriptedRequest
from firsthand.trace import Call, Node, PromptIds
from open_calls import Worded, attempt_of, open_call, untimed, within

SPEC = ToolSpec("look", "Look.", {"type": "object"})
OTHER = ToolSpec("hear", "Hear.", {"type": "object"})
CONVERSATION = (user("one two"), assistant("three"))


def spent(budget: Budget) -> tuple[Usage, int, int, str | None]:
    return budget.spent, budget.calls, budget.reserved_tokens, budget.hit


def test_sampled_answers_become_nodes_and_one_call_with_all_that_decided_it() -> None:
    model, steps = Worded(["x y", "u v w z q"]), list[Any]()
    attempt = attempt_of(model)
    attempt.listener = steps.append
    call = open_call(attempt, limits=Limits(tokens=100, calls=9))
    wanted = Sampling(max_tokens=4, temperature=0.5, top_logprobs=2)
    found = within(lambda: sample_answers(call, wanted, [SPEC], 2, None))
    assert found == [(2, "lease 0"), (3, "lease 1")]
    assert attempt.nodes[2:] == [Node(1, assistant("x y")), Node(1, replace(assistant(""), parts=(Text("u v w z"),)))]
    sampling = replace(wanted, seed=derive_seed(7, ":4"))
    request = request_key(model.fingerprint, CONVERSATION, sampling, [SPEC], 2)
    detail = {
        "finish_reasons": ["stop", "length"],
        "sampling": sampling.to_json(),
        "tools": ["look"],
        "top_logprobs": [[[["yes", -0.25], ["no", -2.0]]], [[["yes", -1.25], ["no", -2.0]]]],
    }
    usage = Usage(3, 0, 2 + 4)
    assert untimed(attempt.calls) == [
        Call(":4", "generate", 1, 0, 0, request, usage, (2, 3), detail, prompt=PromptIds((1, 2, 3)), tools=(0,))
    ]
    assert attempt.tool_specs == [SPEC] and attempt.has_begun and attempt.order == {":4": (4, 1)}
    assert model.asked == [ScriptedRequest(CONVERSATION, sampling, (SPEC,), 2)]
    assert steps[0] == Began(":4", "generate", 1, {"n": 2})
    assert spent(call.budget) == (usage, 1, 0, None), "what the answer was cut by is its own max_tokens"
    kept: Any = attempt.journal
    size = size_key(model.fingerprint, CONVERSATION, [SPEC])
    assert list(kept.entries) == [(":4", size), (":4", request)] and kept.entries[":4", size] == {"size": 3}

    again = attempt_of(model, journal=kept)
    replayed = open_call(again, limits=Limits(tokens=2, calls=1))
    assert within(lambda: sample_answers(replayed, wanted, [SPEC], 2, None)) == [(2, None), (3, None)]
    assert untimed(again.calls) == [replace(untimed(attempt.calls)[0], replayed=True)] and len(model.asked) == 1
    assert spent(replayed.budget) == (usage, 1, 0, None), "what is on record is paid, whatever the limit"


def test_a_text_is_sampled_as_it_is_with_the_seed_that_was_given_and_an_error_is_recorded_and_paid() -> None:
    model = Worded(["fine"])
    attempt = attempt_of(model)
    call = open_call(attempt, ":2", limits=Limits(calls=5))
    wanted = Sampling(max_tokens=9, seed=3)
    assert within(lambda: sample_answers(call, wanted, [], 1, "a b c d")) == [(2, "lease 0")]
    request = request_key(model.fingerprint, "a b c d", wanted, (), 1)
    detail = {"finish_reasons": ["stop"], "sampling": wanted.to_json(), "tools": [], "prompt": "a b c d"}
    made = Call(":2", "generate", 1, 0, 0, request, Usage(4, 0, 1), (2,), detail, prompt=PromptIds((1, 2, 3, 4)))
    assert untimed(attempt.calls) == [made] and model.asked[0].prompt == "a b c d"
    assert list(attempt.journal.entries) == [(":2", request)], "without a limit of tokens none are counted"  # type: ignore[attr-defined]

    broken = attempt_of(Scripted([], error=ModelError("gone")))
    failed = open_call(broken, ":0", None, limits=Limits(tokens=50))
    with pytest.raises(ModelError, match="gone"):
        within(lambda: sample_answers(failed, wanted, [SPEC], 1, None))
    asked = request_key(broken.agent.model.fingerprint, (), wanted, [SPEC], 1)
    assert untimed(broken.calls) == [Call(":0", "generate", None, 0, 0, asked, error="gone")]
    assert spent(failed.budget) == (Usage(), 1, 0, None) and len(broken.nodes) == 2

    slow = attempt_of(Scripted(["x"], delay_s=9))
    late = open_call(slow, ":1", None, limits=Limits(tokens=50), deadline_s=-1.0)
    with pytest.raises(LimitExceeded) as limit:
        within(lambda: sample_answers(late, wanted, [], 1, None))
    assert limit.value.limit == "seconds"
    assert slow.calls[0].error == "the time for this part of the attempt is up"


def test_a_seed_of_0_that_was_given_is_sent_and_one_that_was_not_is_derived() -> None:
    assert derive_seed(7, ":3") not in (0, 1)
    for given, sent in ((0, 0), (1, 1), (None, derive_seed(7, ":3"))):
        model = Worded(["x"])
        attempt = attempt_of(model)
        wanted = Sampling(max_tokens=9, seed=given)
        within(lambda attempt=attempt, wanted=wanted: sample_answers(open_call(attempt, ":3"), wanted, [], 1, "a b"))
        asked = replace(wanted, seed=sent)
        assert [each.sampling for each in model.asked] == [asked]
        assert attempt.calls[0].request == request_key(model.fingerprint, "a b", asked, (), 1)


def test_a_prompt_that_shares_one_id_with_the_last_from_its_node_is_kept_as_the_rest() -> None:
    attempt = attempt_of(Worded([]))
    for effect, at, ids in (
        (":0", 1, (5, 6, 7)),
        (":1", 1, (5, 9)),
        (":2", 1, (8,)),
        (":3", 0, (8, 4)),
        (":4", 1, None),
    ):
        attempt.record_generation(effect, at, 0.0, "k", nodes=(len(attempt.nodes),), ids=ids, specs=[])
        attempt.add_node(at, assistant("x"))
    assert [each.prompt for each in attempt.calls] == [
        PromptIds((5, 6, 7)), PromptIds((9,), 0, 0, 1), PromptIds((8,)), PromptIds((8, 4)), None,
    ]  # fmt: skip


def test_alternatives_that_were_not_asked_for_are_not_recorded() -> None:
    class Generous(Worded):
        async def complete(self, *args: Any, **options: Any) -> list[Completion]:
            found = await super().complete(*args, **options)
            return [replace(each, top_logprobs=((("yes", -0.5),),)) for each in found]

    for asked in (0, 1):
        attempt = attempt_of(Generous(["x", "y"]))
        wanted = Sampling(max_tokens=9, seed=2, top_logprobs=asked)
        within(lambda attempt=attempt, wanted=wanted: sample_answers(open_call(attempt), wanted, [], 2, None))
        recorded = attempt.calls[0].detail.get("top_logprobs")
        assert recorded == ([[[["yes", -0.5]]], [[["yes", -0.5]]]] if asked else None)


def test_answers_share_what_a_budget_has_left_and_the_budget_that_cut_them_is_marked() -> None:
    # 3 tokens of prompt; 12 are left above: 9 for 2 answers are 4 for each
    for limit, of_each, mark in ((12, 4, "tokens"), (14, 5, None), (5, 1, "tokens")):
        model = Worded(lambda *_: "w w w w w")
        attempt = attempt_of(model)
        above = Budget(Limits(tokens=limit))
        call = open_call(attempt, budget=Budget(Limits(tokens=100), above))
        wanted = Sampling(max_tokens=5, seed=1)
        within(lambda call=call, wanted=wanted: sample_answers(call, wanted, [], 2, None))
        assert model.asked[0].sampling == replace(wanted, max_tokens=of_each)
        assert attempt.calls[0].request == request_key(
            model.fingerprint, CONVERSATION, replace(wanted, max_tokens=of_each), (), 2
        )
        whole = request_key(model.fingerprint, CONVERSATION, wanted, (), 2)
        grants = {key: body for key, body in attempt.journal.entries.items() if "granted" in body}  # type: ignore[attr-defined]
        cut = {(":4", f"granted:{whole}"): {"granted": of_each, "height": 1}}
        assert grants == ({} if of_each == 5 else cut)
        assert (above.hit, call.budget.hit) == (mark, mark) and above.reserved_tokens == 0
        assert above.spent == Usage(3, 0, 2 * of_each)

        resumed = attempt_of(model, journal=attempt.journal)  # type: ignore[arg-type]
        roomy = open_call(resumed, budget=Budget(Limits(tokens=900), Budget(Limits())))
        within(lambda roomy=roomy, wanted=wanted: sample_answers(roomy, wanted, [], 2, None))
        assert untimed(resumed.calls) == [replace(untimed(attempt.calls)[0], replayed=True)]
        assert roomy.budget.parent is not None
        assert (roomy.budget.hit, roomy.budget.parent.hit) == (mark, mark), "it was cut when it was made"
        for body in grants.values():
            del body["height"]  # as an older record
        older = open_call(attempt_of(model, journal=resumed.journal), budget=Budget(Limits(), Budget(Limits())))  # type: ignore[arg-type]
        within(lambda older=older, wanted=wanted: sample_answers(older, wanted, [], 2, None))
        assert older.budget.parent is not None and (older.budget.hit, older.budget.parent.hit) == (mark, None)
    with pytest.raises(LimitExceeded):  # 3 + 2 are needed
        within(lambda: sample_answers(open_call(attempt_of(model), limits=Limits(tokens=4)), wanted, [], 2, None))


def test_an_answer_to_an_answer_is_kept_as_what_its_prompt_adds() -> None:
    attempt = attempt_of(Worded(["x y", "z"]))
    wanted = Sampling(seed=1)
    ((first, _),) = within(lambda: sample_answers(open_call(attempt, ":0"), wanted, [SPEC], 1, None))
    ((second, _),) = within(lambda: sample_answers(open_call(attempt, ":1", first), wanted, [OTHER, SPEC], 1, None))
    one, two = attempt.calls
    assert attempt.tool_specs == [SPEC, OTHER] and (one.tools, two.tools) == ((0,), (1, 0)), "each spec is kept once"
    assert (attempt.nodes[second].parent, two.at, two.prompt) == (first, first, PromptIds((4, 5), 0, 0, 3))
    kept: Any = attempt.journal
    body = kept.entries[":1", two.request]["prompt"]
    assert {name: body[name] for name in ("ids", "after", "sample", "kept")} == {
        "ids": [4, 5], "after": one.request, "sample": 0, "kept": 3,
    }  # fmt: skip
    again = attempt_of(attempt.agent.model, journal=kept)
    for effect, node, specs in ((":0", 1, [SPEC]), (":1", first, [OTHER, SPEC])):
        call = open_call(again, effect, node)
        within(lambda call=call, specs=specs: sample_answers(call, wanted, specs, 1, None))
    assert [call.prompt for call in again.calls] == [one.prompt, two.prompt] and all(c.replayed for c in again.calls)


def test_a_short_answer_under_a_smaller_grant_marks_no_limit() -> None:
    call = open_call(attempt_of(Worded(["w"])), limits=Limits(tokens=5))
    within(lambda: sample_answers(call, Sampling(max_tokens=9), [], 1, None))
    assert spent(call.budget) == (Usage(3, 0, 1), 1, 0, None)


def test_one_of_several_answers_that_was_cut_marks_the_budget_that_cut_it() -> None:
    model = Worded(lambda messages, sampling, index: "w " * (9 if index == 1 else 1))
    call = open_call(attempt_of(model), limits=Limits(tokens=3 + 3 * 4))
    found = within(lambda: sample_answers(call, Sampling(max_tokens=5), [OTHER, SPEC], 3, None))
    assert [lease for _, lease in found] == ["lease 0", "lease 1", "lease 2"]
    (made,) = call.attempt.calls
    assert made.detail["finish_reasons"] == ["stop", "length", "stop"] and made.detail["tools"] == ["hear", "look"]
    assert spent(call.budget) == (Usage(3, 0, 1 + 4 + 1), 1, 0, "tokens")


def test_a_scoring_costs_its_prompt_and_continuations_and_gives_them_in_order() -> None:
    model = Scripted(score=lambda prompt, text: -float(len(prompt)) - len(text))
    attempt, steps = attempt_of(model), list[Any]()
    attempt.listener = steps.append
    call = open_call(attempt, ":3", limits=Limits(tokens=6))
    found = within(lambda: score_continuations(call, [" d e", " f"], None))
    expected = [Likelihood(" d e", -13.0 - 4, 2, False), Likelihood(" f", -13.0 - 2, 1, False)]
    assert found == expected, "the prompt is `one two` and `three` with a line break: 13 characters"
    request = request_key(model.fingerprint, CONVERSATION, continuations=[" d e", " f"])
    detail = {"prompt": None, "likelihoods": [each.to_json() for each in expected]}
    made = Call(":3", "score", 1, 0, 0, request, Usage(6), (), detail)
    assert untimed(attempt.calls) == [made] and spent(call.budget) == (Usage(6), 1, 0, None)
    assert steps[0] == Began(":3", "score", 1, {})
    with pytest.raises(LimitExceeded, match="a call needs 6 tokens or more, prompt included, and 5 of 5 are left"):
        short = open_call(attempt_of(model), ":3", limits=Limits(tokens=5))
        within(lambda: score_continuations(short, [" d e", " f"], None))

    again = attempt_of(model, journal=attempt.journal)  # type: ignore[arg-type]
    assert within(lambda: score_continuations(open_call(again, ":3", limits=Limits(tokens=1)), [" d e", " f"], None))
    assert untimed(again.calls) == [replace(made, replayed=True)] and len(model.asked) == 1
    other = open_call(again, ":9", limits=Limits(calls=1))
    within(lambda: score_continuations(other, ["z"], "p q"))
    last = untimed(again.calls)[1]
    assert (last.detail["prompt"], last.usage) == ("p q", Usage(3)) and model.asked[1].prompt == "p q"
    assert last.request == request_key(model.fingerprint, "p q", continuations=["z"]) and not last.replayed

    nothing = open_call(attempt_of(Scripted()), ":0", None, limits=Limits(tokens=1))
    assert within(lambda: score_continuations(nothing, [], None)) == []
    assert nothing.budget.calls == 1
    nothing.budget.charge(0, Usage(1))
    with pytest.raises(LimitExceeded, match="a call needs 1 tokens or more"):  # an empty scoring reserves one token
        within(lambda: score_continuations(replace(nothing, effect=":1"), [], None))
    broken = attempt_of(Scripted(error=ModelError("no scores")))
    failed = open_call(broken, ":1", limits=Limits(tokens=9))
    with pytest.raises(ModelError):
        within(lambda: score_continuations(failed, ["z"], None))
    assert [(made.kind, made.error, made.usage, made.detail) for made in broken.calls] == [
        ("score", "no scores", Usage(), {})
    ]
    assert spent(failed.budget) == (Usage(), 1, 0, None)


class Whole(Scripted):
    """Has the methods of a model that gives whole distributions; the decoders here ask for none."""

    end_ids = frozenset({0})

    def token_id(self, text: str) -> int | None: ...
    async def tokenize_marked(self, text: str, marks: Any) -> list[int]: ...  # type: ignore[empty-body]
    async def next_logprobs(self, ids: Any, *, run: str = "") -> Any: ...


def decoded(
    attempt: Attempt, call: Any, prompts: list[str] | None = None, alternatives: Any = (), failure: Any = None
) -> tuple[int, list[Any]]:
    """The node, and what the decoder was given."""
    given: list[Any] = []

    async def decoding(model: Any, asked: Any) -> Completion:
        given.append((model, list(asked)))
        if failure is not None:
            raise failure
        return Completion(assistant("mixed"), "length", Usage(5, 0, 2), top_logprobs=alternatives, prompt_ids=(9, 8))

    settings = {"decoder": "contrast", "alpha": 0.25}
    sampling = Sampling(max_tokens=3)
    return within(lambda: decode_answer(call, decoding, [1, 0], settings, sampling, 3, prompts)), given


def test_a_decoders_answer_to_two_positions_is_one_call_with_both_prompts() -> None:
    model, steps = Whole(), list[Any]()
    attempt = attempt_of(model)
    attempt.listener = steps.append
    call = open_call(attempt, ":6", limits=Limits(tokens=3 + 2 + 2 * 3))
    alternatives = ((("yes", -0.5), ("no", -1.5)), (("maybe", -0.75),))
    node, given = decoded(attempt, call, alternatives=alternatives)
    assert node == 2 and attempt.nodes[2] == Node(1, assistant("mixed"))
    assert given == [(model, [CONVERSATION, CONVERSATION[:1]])]
    settings = {"decoder": "contrast", "alpha": 0.25}
    keys = [request_key(model.fingerprint, CONVERSATION), request_key(model.fingerprint, CONVERSATION[:1])]
    request = request_key(model.fingerprint, canonical([settings | {"max_tokens": 3}, keys]))
    detail = {
        "finish_reasons": ["length"], "sampling": Sampling(max_tokens=3).to_json(), "tools": [], "decoding": settings,
        "positions": [1, 0], "prompts": [{}, {}],
        "top_logprobs": [[[["yes", -0.5], ["no", -1.5]], [["maybe", -0.75]]]],
    }  # fmt: skip
    made = Call(":6", "generate", 1, 0, 0, request, Usage(5, 0, 2), (2,), detail)
    assert untimed(attempt.calls) == [made] and spent(call.budget) == (Usage(5, 0, 2), 1, 0, None)
    assert steps[0] == Began(":6", "generate", 1, {"n": 1})
    kept: Any = attempt.journal
    sizes = [body["size"] for body in kept.entries.values() if "size" in body]
    assert sizes == [3, 2] and (":6", request) in kept.entries
    with pytest.raises(LimitExceeded, match="a call needs 11 tokens or more, prompt included, and 10 of 10 are left"):
        decoded(attempt, open_call(attempt, ":7", limits=Limits(tokens=10)))

    plain = attempt_of(Scripted(fingerprint=model.fingerprint), journal=kept)
    replayed = open_call(plain, ":6", limits=Limits(tokens=1))
    assert decoded(plain, replayed) == (2, []), "what is on record needs no distributions"
    assert untimed(plain.calls) == [replace(made, replayed=True)]
    with pytest.raises(ConfigError) as refused:
        decoded(plain, open_call(plain, ":8"))
    assert str(refused.value) == (
        "scripted gives no log-probs of the whole vocabulary, which contrast mixes: use a local model, such as smollm2"
    )


def test_a_decoder_of_texts_is_given_them_and_its_failure_is_recorded() -> None:
    attempt = attempt_of(Whole())
    _, given = decoded(attempt, open_call(attempt, ":0"), ["p", "q r"])
    (call,) = attempt.calls
    assert given[0][1] == ["p", "q r"] and call.detail["prompts"] == [{"prompt": "p"}, {"prompt": "q r"}]
    assert "top_logprobs" not in call.detail
    failed = open_call(attempt, ":1", limits=Limits(tokens=100))
    with pytest.raises(ModelError):
        decoded(attempt, failed, failure=ModelError("it broke"))
    last = attempt.calls[1]
    assert (last.id, last.kind, last.error, last.nodes, last.detail) == (":1", "generate", "it broke", (), {})
    assert spent(failed.budget) == (Usage(), 1, 0, None) and len(attempt.nodes) == 3
    with pytest.raises(ValueError, match="zip"):
        decoded(attempt, open_call(attempt, ":2"), ["one prompt for two positions"])
