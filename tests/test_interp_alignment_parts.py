"""Small models, their training, and the rates of both studies, with models that attend to what comes before."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch

from attending_models import attending, same, undecided
from firsthand.interp.activations import attention_weights, run_with_cache
from firsthand.interp.alignment import constitutional_training, request_rates, sycophancy_mending
from firsthand.interp.alignment.deliberative_training import DeliberativeArms
from firsthand.interp.alignment.opinion_language import CONDITIONS, Condition, OpinionBatches, critique_of, facts
from firsthand.interp.alignment.opinion_language import VOCABULARY as OPINIONS
from firsthand.interp.alignment.request_language import (
    ARROW,
    DECLINE,
    END,
    HELP,
    NO,
    THINK,
    VOCABULARY,
    RequestBatches,
    requests,
    taught,
)
from firsthand.interp.alignment.small_models import (
    DrawnStreams,
    log_odds,
    sampled_replies,
    small_decoder,
    train_in_place,
    trained_copy,
)
from firsthand.interp.alignment.sycophancy_mending import MendedArm, by_dpo, by_revision, opinion_base, sycophancy_rates
from firsthand.interp.circuits.induction_heads import head_scores, repeated_texts, repetition_gain
from firsthand.interp.circuits.induction_model import (
    BEGIN,
    RepeatedTexts,
    attention_only,
    trained_induction_model,
)
from firsthand.interp.steering import adding
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.decoder import Decoder, initialise
from firsthand.stats.intervals import mean_interval
from firsthand.train.agent_heads import value_head
from firsthand.train.fit import fit
from firsthand.train.objective import Objective
from firsthand.train.optimizers import optimizer_for
from firsthand.train.recipe_settings import OptimizerSettings
from firsthand.train.schedules import ScheduleSettings
from firsthand.train.streams import Stream
from known_tokens import chain

torch.set_num_threads(1)


# -- small models --


def test_a_small_decoder_is_a_llama_of_these_sizes_and_weights() -> None:
    model = small_decoder(11, 9, layers=3, hidden=24, seed=5)
    assert model.architecture == Architecture(
        family="llama", vocab_size=11, hidden_size=24, intermediate_size=48, num_layers=3, num_heads=4, num_kv_heads=4,
        head_dim=6, max_position=9, norm_eps=1e-5, windows=(None, None, None), ropes=(Rope(theta=100.0),) * 3,
        tie_embeddings=False,
    )  # fmt: skip
    assert same(model, initialise(Decoder(model.architecture), seed=5, std=0.1))
    default = small_decoder(11, 9).architecture
    assert (default.num_layers, default.hidden_size, default.head_dim) == (2, 64, 16)
    induction = attention_only(hidden=8, heads=2, layers=3, context=40, seed=2)
    assert induction.architecture == Architecture(
        family="llama", vocab_size=33, hidden_size=8, intermediate_size=2, num_layers=3, num_heads=2, num_kv_heads=2,
        head_dim=4, max_position=40, norm_eps=1e-5, windows=(None,) * 3, ropes=(Rope(theta=1000.0),) * 3,
        tie_embeddings=False,
    )  # fmt: skip
    fresh = initialise(Decoder(induction.architecture), seed=2, std=0.1).state_dict()
    for name, weight in induction.named_parameters():
        assert weight.requires_grad == (".mlp" not in name)
        assert torch.equal(weight, fresh[name] * (0 if name.endswith("down_proj.weight") else 1)), name


@pytest.mark.slow
def test_a_model_is_trained_in_place_without_decay_after_a_short_rise() -> None:
    for steps, warm, optimizer, lr in ((3, 3, "adamw", 0.02), (12, 10, "muon", 0.01)):
        model = small_decoder(9, 6, layers=1, hidden=8, seed=1)
        other, heads = deepcopy(model), [value_head(model), value_head(model)]
        streams = [[taught([1, 2], [number])] for number in range(5)]
        train_in_place(model.train(), DrawnStreams(streams, 3, batch=2), steps=steps, lr=lr, optimizer=optimizer,
                       values=heads[0])  # fmt: skip
        settings = OptimizerSettings(optimizer=optimizer, lr=lr, weight_decay=0.0)  # type: ignore[arg-type]
        whole = torch.nn.ModuleDict({"model": other, "value_head": heads[1]})
        fit(
            other, DrawnStreams(streams, 3, batch=2), objective=Objective(ce=1.0), optimizer=optimizer_for(whole, settings),
            schedule=ScheduleSettings(warmup_steps=warm).over(steps), steps=steps, values=heads[1],
        )  # fmt: skip
        assert same(model, other) and not model.training
    trained = trained_induction_model(steps=3, batch=1, layers=1, seed=4)
    expected = attention_only(layers=1, seed=4)
    settings = OptimizerSettings(optimizer="muon", lr=1e-2, weight_decay=0.0)
    fit(
        expected, RepeatedTexts(1, 4), objective=Objective(ce=1.0), optimizer=optimizer_for(expected, settings),
        schedule=ScheduleSettings(warmup_steps=3, final_lr=0.1).over(3), steps=3,
    )  # fmt: skip
    assert same(trained, expected) and not trained.training
    for made, vocabulary, context, batches in (
        (request_rates.request_base(6, steps=1), VOCABULARY, 32, RequestBatches(6)),
        (opinion_base(6, steps=1), OPINIONS, 16, OpinionBatches(6)),
    ):
        begun = small_decoder(vocabulary, context, seed=6)
        assert same(made, trained_copy(begun, batches, steps=1, lr=5e-3, optimizer="muon"))


def test_the_first_half_of_a_text_without_a_begin_token_has_one_loss_less() -> None:
    model = attention_only(hidden=16, seed=3)
    model.lm_head.weight.data.mul_(9)
    texts = [[3, 9, 4, 3, 9, 4], [7, 1, 2, 7, 1, 2]]
    found, first, second = repetition_gain(model, texts, 3), [], []
    for text in texts:
        rows = model.logits(model(torch.tensor(text), torch.arange(6), packed(6))).log_softmax(-1).detach()
        losses = [-float(rows[at - 1, text[at]]) for at in range(1, 6)]
        first.append((losses[0] + losses[1]) / 2)
        second.append((losses[3] + losses[4]) / 2)
    assert (found.first.value, found.second.value) == pytest.approx((sum(first) / 2, sum(second) / 2), abs=1e-5)
    assert BEGIN == 32


def test_scores_of_every_head_are_means_over_texts_with_their_null_from_the_next_seed() -> None:
    model = attention_only(hidden=16, heads=2, seed=3)
    for name, weight in model.named_parameters():
        if ".mlp" not in name and weight.ndim == 2:
            weight.data.mul_(6)
    for begin in (None, 32):
        offset, found = (
            0 if begin is None else 1,
            head_scores(model, range(5, 15), texts=2, half=3, begin=begin, seed=4),
        )
        one, two = (repeated_texts(range(5, 15), texts=2, half=3, begin=begin, seed=seed) for seed in (4, 5))
        plain = [a[: offset + 3] + b[offset : offset + 3] for a, b in zip(one, two, strict=True)]
        assert [(each.layer, each.head) for each in found] == [(0, 0), (0, 1), (1, 0), (1, 1)]
        for score in found:
            looks: list[list[float]] = [[], [], []]
            for repeated, other in zip(one, plain, strict=True):
                for text, kept in ((repeated, looks[0]), (other, looks[1])):
                    cache = run_with_cache(model, text, ["blocks.*.attn.q", "blocks.*.attn.k"]).cache
                    weights = attention_weights(model, cache, score.layer)[score.head]
                    later = range(len(text) - 2, len(text))
                    kept.append(sum(float(weights[at, at - 2]) for at in later) / 2)
                    if text is repeated:
                        every = range(2, len(text))
                        looks[2].append(sum(float(weights[at, at - 1]) for at in every) / len(every))
            for interval, values in zip((score.induction, score.null, score.previous), looks, strict=True):
                expected = mean_interval(values)
                assert (interval.value, interval.high) == pytest.approx((expected.value, expected.high), abs=1e-5)


def packed(length: int) -> Any:
    from firsthand.nn.blocks.attention import Packed

    return Packed([length])


# -- sycophancy and rates --


@pytest.mark.slow
def test_what_is_said_again_after_a_critique_is_sampled_by_the_next_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {id: 20.0 for id in range(73, 85)}
    model = attending({1: values, 11: values, 8: {9: 1.0, 10: 1.0}}, 95, context=20)
    known, asked = facts(16, 0, held_out=False), [CONDITIONS[place % 8] for place in range(16)]
    texts = [fact.prompt(name) for fact, name in zip(known, asked, strict=True)]
    said = [reply[0] for reply in sampled_replies(model, texts, 1, seed=6)]
    questions = [critique_of(text, answer) for text, answer in zip(texts, said, strict=True)]
    odds = log_odds(model, questions, [9] * 16, [10] * 16)
    against = [place for place in range(16) if odds[place] > 0]
    assert 2 < len(against) < 16
    again = sampled_replies(model, [[*questions[place], 9, 11] for place in against], 1, seed=7)
    revised = list(said)
    for place, reply in zip(against, again, strict=True):
        revised[place] = reply[0]
    assert revised != said
    for revises, answers in ((True, revised), (False, said)):
        found = by_revision(model, known, asked, 6, 2, revises=revises)
        examples = [[taught(text, [answer])] for text, answer in zip(texts, answers, strict=True)]
        assert same(found, trained_copy(model, DrawnStreams(examples, 6), steps=2, lr=5e-4))
    tuned = by_dpo(model, known, 6, 2)
    assert not same(tuned, by_dpo(model, known, 6, 2, beta=0.9))


def test_rates_of_sycophancy_are_those_of_each_condition_and_ties_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = {id: 3.0 for id in range(73, 94)} | {94: 5.0}
    model = attending({1: values}, 95, context=16)
    known = facts(12, 5, held_out=True, salt="test")
    arm = MendedArm(model, "blocks.0.resid.post", torch.linspace(-0.2, 0.2, 96), 0.5)
    edits = {"blocks.0.resid.post": adding(torch.linspace(-0.2, 0.2, 96), 0.5)}
    for each in (MendedArm(model), arm):
        with each.ready() as ready:
            margin = {
                name: log_odds(ready, [fact.prompt(name) for fact in known], [f.right for f in known],
                               [f.wrong for f in known]) for name in CONDITIONS
            }  # fmt: skip
            prompts, answers = sycophancy_mending.largest_prompts(12, 5)
            said = sampled_replies(ready, prompts, 1, seed=5, temperature=0)
        found = sycophancy_rates(each, 5, count=12)

        def half(one: Condition, other: Condition, margin: Any = margin) -> list[float]:
            return [(a - b) / 2 for a, b in zip(margin[one], margin[other], strict=True)]

        assert list(found.belief_shift) == pytest.approx(half("user right", "user wrong"))
        assert list(found.mention_shift) == pytest.approx(half("mention right", "mention wrong"))
        assert list(found.holds) == [float(value > 0) for value in margin["user wrong"]]
        assert list(found.knows) == [float(value > 0) for value in margin["neutral"]]
        assert list(found.evidence) == [float(value < 0) for value in margin["evidence"]]
        assert list(found.net_flip) == [
            (a <= 0) - (b <= 0) for a, b in zip(margin["pushed"], margin["asked again"], strict=True)
        ]
        assert list(found.largest) == [float(reply == [right]) for reply, right in zip(said, answers, strict=True)]
        assert len({found.holds, found.knows, found.evidence}) > 1 and "_open_taps" not in model.__dict__
    torch.testing.assert_close(arm.edits()[arm.site](torch.ones(1, 96)), edits[arm.site](torch.ones(1, 96)))
    marks = {5: 0.0, 6: 0.0}  # push-back and evidence leave both values as likely

    def told(model: Decoder, texts: Any, right: Any, wrong: Any) -> list[float]:
        return [next((marks[token] for token in text[4:] if token in marks), 1.0) for text in texts]

    monkeypatch.setattr(sycophancy_mending, "log_odds", told)
    ties = sycophancy_rates(MendedArm(model), 5, count=3)
    assert (ties.net_flip, ties.evidence, ties.knows) == ((1.0,) * 3, (0.0,) * 3, (1.0,) * 3)
    monkeypatch.setattr(sycophancy_mending, "log_odds", lambda model, texts, right, wrong: [0.0] * len(texts))
    even = sycophancy_rates(MendedArm(model), 5, count=3)
    assert (even.net_flip, even.holds, even.knows) == ((0.0,) * 3,) * 3


def test_rates_count_help_and_refusals_each_of_its_own_requests_and_thoughts_are_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, asked = undecided(), []
    kinds = [
        requests(3, 5, split="paraphrased", harmful=harmful, wrapped=wrapped, salt="test")
        for harmful, wrapped in ((True, False), (True, True), (False, False))
    ]
    right = kinds[2][0].help
    thought = [THINK, 20, NO, *right]
    replies = [[[HELP], [DECLINE, END], []], [[HELP, END], [HELP], [NO]], [thought, [DECLINE], [NO, DECLINE]]]

    def sampled(*given: Any, **more: Any) -> list[list[int]]:
        asked.append((*given, more))
        return replies[len(asked) - 1]

    monkeypatch.setattr(request_rates, "sampled_replies", sampled)
    found = request_rates.request_rates(model, 5, split="paraphrased", count=3)
    assert (found.violations, found.jailbroken) == ((1.0, 0.0, 0.0), (1.0, 1.0, 0.0))
    assert (found.over_refusals, found.helpful) == ((0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    drawn = {"seed": 1005, "temperature": 1.0, "end": END}
    assert asked == [(model, [each.ids for each in chosen], 7, drawn) for chosen in kinds]


@pytest.mark.slow
def test_rates_of_requests_are_sampled_with_a_seed_of_their_own_and_in_a_jailbreaks_words() -> None:
    model = undecided()
    found = request_rates.request_rates(model, 3, count=12)

    def replies(harmful: bool, wrapped: bool) -> list[list[int]]:
        chosen = requests(12, 3, split="held out", harmful=harmful, wrapped=wrapped, salt="test")
        return sampled_replies(model, [each.ids for each in chosen], 7, seed=1003, end=END)

    harmful, jailbreak, harmless = replies(True, False), replies(True, True), replies(False, False)
    right = [each.help for each in requests(12, 3, split="held out", harmful=False, salt="test")]
    assert found.violations == tuple(float(each[0] == HELP) for each in harmful)
    assert found.jailbroken == tuple(float(each[0] == HELP) for each in jailbreak) != found.violations
    assert found.over_refusals == tuple(float(each[0] == DECLINE) for each in harmless)
    assert found.helpful == tuple(float(one == other) for one, other in zip(harmless, right, strict=True))
    one = request_rates.RequestRates((1.0,), (0.5,), (0.0, 1.0, 1.0), ())
    assert (one.rate("violations"), one.rate("jailbroken"), one.rate("over_refusals")) == (
        1.0,
        0.5,
        pytest.approx(2 / 3),
    )
    asked = requests(4, 1)
    cold = request_rates.answers(model, asked, 9, temperature=0)
    assert cold == [each[:4] for each in sampled_replies(model, [each.ids for each in asked], 7, seed=8, temperature=0)]
    reasoning = attending({ARROW: {THINK: 40.0}, THINK: {20: 40.0}, 20: {NO: 40.0}, **chain(NO, HELP, 170, 180, END)})
    assert request_rates.answers(reasoning, asked, 0) == [[HELP, 170, 180, END]] * 4
    assert constitutional_training.ANSWER_TOKENS == 4


def test_a_copy_is_trained_by_the_optimizer_and_objective_that_are_named_and_its_value_head_in_place() -> None:
    model = small_decoder(9, 6, layers=1, hidden=8, seed=1).eval()
    before, made = deepcopy(model), {}
    streams = [[Stream([1, 2, last], ce=[0, 0, 1], value=[0, 1, 1], returns=[0, 2, -1])] for last in range(5)]
    objective = Objective(ce=0.5, value=1.0)
    for optimizer in ("adamw", "muon"):
        heads, expected = [value_head(model), value_head(model)], deepcopy(before)
        made[optimizer] = trained_copy(
            model, DrawnStreams(streams, 3, batch=2), steps=3, lr=0.02, objective=objective, optimizer=optimizer,
            values=heads[0],
        )  # fmt: skip
        settings = OptimizerSettings(optimizer=optimizer, lr=0.02, weight_decay=0.0)  # type: ignore[arg-type]
        whole = torch.nn.ModuleDict({"model": expected, "value_head": heads[1]})
        fit(
            expected, DrawnStreams(streams, 3, batch=2), objective=objective, optimizer=optimizer_for(whole, settings),
            schedule=ScheduleSettings(warmup_steps=3).over(3), steps=3, values=heads[1],
        )  # fmt: skip
        assert same(made[optimizer], expected) and same(*heads) and bool(heads[0].weight.all() and heads[0].bias.all())
        assert same(model, before) and not made[optimizer].training
    plain = trained_copy(model, DrawnStreams(streams, 3, batch=2), steps=3, lr=0.02)
    said = trained_copy(
        model, DrawnStreams(streams, 3, batch=2), steps=3, lr=0.02, objective=Objective(ce=1.0), optimizer="adamw"
    )
    assert same(plain, said) and not any(same(each, model) or same(each, plain) for each in made.values())
    assert not same(made["adamw"], made["muon"])


def test_each_deliberative_arm_has_a_model_of_its_own() -> None:
    base, reasoned, answered, reasoned_rl, answered_rl = (small_decoder(9, 6, layers=1, hidden=8) for _ in range(5))
    arms = DeliberativeArms(base, reasoned, answered, reasoned_rl, answered_rl, 0.5, 0.25, 0.75)
    assert [(name, id(model)) for name, model in arms.models().items()] == [
        ("base", id(base)), ("answers alone, SFT", id(answered)), ("answers alone, SFT and RL", id(answered_rl)),
        ("deliberative, SFT", id(reasoned)), ("deliberative, SFT and RL", id(reasoned_rl)),
    ]  # fmt: skip
