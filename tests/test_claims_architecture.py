"""The claims about architecture and training, each on a small case whose numbers follow from the definition."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from firsthand.claims import generated_tokens
from firsthand.claims.architecture import (
    alibi_is_linear,
    attends_to_all,
    dpo_without_reward_model,
    facts_in_ffn,
    heads_differ,
    kv_cache_cost,
    speculative_exact,
    tokens_per_word,
    word_to_tokens,
)
from firsthand.claims.claim import Measurement
from firsthand.claims.generated_tokens import generated
from firsthand.claims.lab import Lab, paired
from firsthand.claims.small_decoders import small_decoder
from firsthand.interp.circuits.induction_heads import HeadScore
from firsthand.nn.blocks.attention import Packed
from firsthand.stats.intervals import Interval, proportion_interval
from firsthand.tokens.fertility import ARTICLE_1
from firsthand.train.losses import pair_losses

MERGES = [("a", "t"), ("c", "at"), ("Ġ", "1")]


class LabOfLetters(Lab):
    """A lab whose models are a tokenizer of bytes that knows `at`, `cat`, and a 1 with the blank before it."""

    def path(self, name):
        assert name == "smollm2"
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: at for at, token in enumerate([*letters, *(a + b for a, b in MERGES)])}
        made = Tokenizer(models.BPE(vocabulary, MERGES))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.decoder = decoders.ByteLevel()
        self.folder.mkdir(exist_ok=True)
        made.save(str(self.folder / "tokenizer.json"))
        return self.folder


def tokens(text):
    """The tokens of that tokenizer, by hand."""
    return len(text.replace("cat", "\x01").replace("at", "\x01").replace(" 1", "\x01").encode())


def test_words_are_counted_in_each_form_once_and_those_move_that_differ_by_blank_or_case(tmp_path, monkeypatch):
    monkeypatch.setitem(ARTICLE_1, "English", "A cat. cat, 12 at,")
    monkeypatch.setattr(word_to_tokens, "WORDS", ("1", "cat", "of"))
    # A: 1 and 2; cat: 1 2 3 and 4; 12: 2 (its blank is in the 1); at: 1 2 3; 1: 1; of: 2 and 3.
    rows = (("1", 4.0), ("2", 5.0), ("3", 3.0), ("4", 1.0))
    low, high = proportion_interval(4, 6)
    assert word_to_tokens.measure(LabOfLetters(0, tmp_path)) == Measurement(
        4,
        f"most tokens of one word; 4 of 6 words differ by blank and case [{low:.0%}, {high:.0%}]",
        n=6,
        columns=("tokens", "forms"),
        rows=rows,
    )


def test_words_per_token_are_those_of_the_quotations_of_code_and_of_each_language_with_blanks(tmp_path, monkeypatch):
    import inspect

    from firsthand.claims import all_claims

    two = dict(list(all_claims.all_claims().items())[:2])
    monkeypatch.setattr(all_claims, "all_claims", lambda: two)
    for name in [each for each in ARTICLE_1 if each not in ("English", "German", "Chinese")]:
        monkeypatch.delitem(ARTICLE_1, name)
    prose = " ".join(each.claim.quote for each in two.values())
    texts = {
        "English prose: the list's sentences": prose,
        "Python code": inspect.getsource(inspect)[:20_000],
        "English, article 1": ARTICLE_1["English"],
        "German, article 1": ARTICLE_1["German"],
    }
    found = tokens_per_word.measure(LabOfLetters(0, tmp_path))
    assert found.rows == tuple((name, len(text.split()) / tokens(text)) for name, text in texts.items())
    assert found == tokens_per_word._measured(list(found.rows))
    low, high = sorted((found.rows[0][1], found.rows[2][1]))
    assert found.bounds == (low, high) and found.value == pytest.approx((low + high) / 2)


def test_the_bounds_of_words_per_token_are_those_of_the_english_texts_alone():
    rows = [("English a", 0.5), ("Python", 0.1), ("English b", 0.75), ("Greek", 0.9), ("English c", 0.625)]
    assert tokens_per_word._measured(rows) == Measurement(
        0.625,
        "words per token in English, the mean of two texts, and between which values they lie",
        0.5,
        0.75,
        3,
        unit="words per token",
        columns=("text", "words per token"),
        rows=tuple(rows),
    )


def test_a_step_multiplies_by_all_weights_and_attends_to_every_token_in_the_cache(monkeypatch):
    kept = []

    def clock(call, repeats):
        (cache,) = call.args
        before = cache.length(0)
        call()
        kept.append((before, cache.length(0), cache.length(1), repeats))
        return 0.25 * len(kept)

    monkeypatch.setattr(kv_cache_cost, "seconds", clock)
    monkeypatch.setattr(kv_cache_cost, "LENGTHS", (3, 8, 10))
    monkeypatch.setattr(kv_cache_cost, "PIECE", 4)
    weights = 2 * (4 * 128 * 128 + 3 * 128 * 128 + 2 * 128)  # of a layer: attention, feed-forward, two norms
    work = [weights + 2 * 2 * 8 * 16 * length for length in (3, 8, 10)]
    assert kv_cache_cost.measure(Lab(1)) == Measurement(
        work[2] / work[0],
        "multiplications of a step after 10,000 tokens over one after 256",
        columns=("tokens before", "ms of CPU", "multiplications"),
        rows=(("3", 250.0, work[0]), ("8", 500.0, work[1]), ("10", 750.0, work[2])),
        curves={"ms of CPU per token": [(3.0, 250.0), (8.0, 500.0), (10.0, 750.0)]},
        axes=("tokens in the cache", "ms"),
    )
    assert kept == [(3, 4, 4, 9), (8, 9, 9, 9), (10, 11, 11, 9)]


def greedy(model, prompt, count):
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            hidden = model(torch.tensor(ids), torch.arange(len(ids)), Packed([len(ids)]))
            ids.append(int(model.logits(hidden[-1:]).argmax()))
    return tuple(ids[len(prompt) :])


def test_generated_answers_are_greedy_in_the_order_of_the_prompts_and_steps_are_counted():
    model = small_decoder(4, std=0.3, num_kv_heads=4)
    prompts = [(5, 6, 7), (9, 9, 1, 2, 30), (44,)]
    wanted = [greedy(model, prompt, 5) for prompt in prompts]
    assert len(set(wanted)) == 3
    assert generated(model, prompts, 5) == (wanted, 5)
    assert generated(model, prompts, 5, max_sequences=1) == (wanted, 15), "one after the other"
    assert generated(model, prompts[:1], 1) == ([wanted[0][:1]], 1) and generated(model, [], 5) == ([], 0)


def test_drafts_save_steps_and_answers_that_differ_save_none(monkeypatch):
    what = "steps of the large model without drafts over those with them (0: the answers differ)"
    found = speculative_exact.measure(Lab(24))
    steps = found.rows[1][1]
    assert 60 < steps < 96
    assert found == Measurement(
        96 / steps,
        what,
        columns=("decoding", "steps", "tokens a step"),
        rows=(("plain", 96.0, 1.0), ("drafts from the prompt", steps, 96 / steps)),
    )
    asked = []

    def other(model, prompts, tokens, **settings):
        asked.append((prompts, tokens, settings))
        return [tuple(range(6 * len(asked)))], 3

    monkeypatch.setattr(generated_tokens, "generated", other)
    found = speculative_exact.measure(Lab(24))
    assert (found.value, found.rows) == (
        0.0,
        (("plain", 3.0, 2.0), ("drafts from the prompt", 3.0, 4.0)),
    )
    for answers, value in (
        (((1, 2, 3), (1, 2, 3)), 2.0),
        (((1, 2, 3), (1, 2, 4)), 0.0),
        (((1, 2, 3), (0, 2, 3)), 0.0),
        (((1, 2), (1, 2, 3)), 0.0),
    ):
        given = iter(zip(answers, (6, 3), strict=True))

        def listed(model, prompts, tokens, given=given, **settings):
            answer, steps = next(given)
            return [answer], steps

        monkeypatch.setattr(generated_tokens, "generated", listed)
        assert speculative_exact.measure(Lab(24)) == Measurement(
            value, what, columns=("decoding", "steps", "tokens a step"),
            rows=(("plain", 6.0, len(answers[0]) / 6), ("drafts from the prompt", 3.0, len(answers[1]) / 3)),
        )  # fmt: skip
    prompt = [(1, 2, 3, 4, 5, 6, 7, 8) * 6]
    assert asked[:2] == [
        (prompt, 96, {"speculation": "off"}),
        (prompt, 96, {"speculation": "prompt_lookup"}),
    ]


def test_the_better_text_of_a_pair_has_as_many_liked_tokens_or_more(monkeypatch):
    monkeypatch.setattr(dpo_without_reward_model, "BATCH", 40)
    monkeypatch.setattr(dpo_without_reward_model, "LENGTH", 6)
    drawn = torch.randint(2, 32, (2, 40, 6), generator=torch.Generator().manual_seed(3)).tolist()
    better, worse = (each.tolist() for each in dpo_without_reward_model._pairs(torch.Generator().manual_seed(3)))
    liked = [[sum(2 <= token <= 9 for token in text) for text in texts] for texts in drawn]
    assert 0 < sum(a < b for a, b in zip(*liked, strict=True)) < 40 and any(map(int.__eq__, *liked))
    for at, (one, other) in enumerate(zip(*drawn, strict=True)):
        first = liked[0][at] >= liked[1][at]
        assert (better[at], worse[at]) == ((one, other) if first else (other, one))


def test_agreement_after_training_is_that_of_the_last_step_with_its_interval():
    low, high = proportion_interval(21, 30)
    assert dpo_without_reward_model._measured([("0", 0.5), ("7", 0.9), ("14", 0.7)], 30) == Measurement(
        0.7,
        "held-out preferences that the policy agrees with after training on pairs alone",
        low,
        high,
        30,
        columns=("steps", "agreement"),
        rows=(("0", 0.5), ("7", 0.9), ("14", 0.7)),
        curves={"agreement": [(0.0, 0.5), (7.0, 0.9), (14.0, 0.7)]},
        axes=("steps", "held-out agreement"),
    )


def test_a_text_is_as_likely_as_its_tokens_after_the_first_together():
    model = small_decoder(2, std=0.3, vocab_size=16, num_kv_heads=4)
    texts = [[3, 9, 1], [3, 9, 15], [0, 0, 7], [5, 2, 2]]
    wanted = []
    with torch.inference_mode():
        for text in texts:
            rows = model.logits(model(torch.tensor(text), torch.arange(3), Packed([3]))).log_softmax(-1)
            wanted.append(float(rows[0, text[1]] + rows[1, text[2]]))
        found = dpo_without_reward_model._logprob(model, torch.tensor(texts)).tolist()
    assert found == pytest.approx(wanted, rel=1e-4) and len(set(wanted)) == 4


@pytest.mark.slow
def test_training_on_pairs_goes_step_by_step_and_agreement_is_looked_at_in_quarters(monkeypatch):
    for name, value in {"STEPS": 8, "BATCH": 8, "LENGTH": 6}.items():
        monkeypatch.setattr(dpo_without_reward_model, name, value)
    sizes = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "num_kv_heads": 2}
    policy, reference = (small_decoder(2, std=0.05, **sizes) for _ in range(2))
    pairs, logprob = dpo_without_reward_model._pairs, dpo_without_reward_model._logprob
    generator = torch.Generator().manual_seed(2)
    held = [pairs(generator) for _ in range(4)]
    optimizer, rows = torch.optim.AdamW(policy.parameters(), lr=3e-3, weight_decay=0.0), [("0", 0.0)]

    def margins(better, worse):
        with torch.no_grad():
            apart = logprob(reference, better) - logprob(reference, worse)
        return logprob(policy, better) - logprob(policy, worse) - apart

    for step in range(1, 9):
        loss = -torch.nn.functional.logsigmoid(0.1 * margins(*pairs(generator))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in (2, 4, 6, 8):
            with torch.no_grad():
                right = sum(int((margins(*each) > 0).sum()) for each in held)
            rows.append((str(step), right / 32))
    ratios, loss_of = [], pair_losses.dpo_loss

    def told(better, worse):
        ratios.append((better.detach(), worse.detach()))
        return loss_of(better, worse)

    monkeypatch.setattr(pair_losses, "dpo_loss", told)
    found = dpo_without_reward_model.measure(Lab(2))
    assert len(ratios) == 8 and not any(each.any() for each in ratios[0]), "at first the policy is the reference"
    assert all(each.any() for pair in ratios[1:] for each in pair)
    assert [row[0] for row in found.rows] == [row[0] for row in rows]
    assert [row[1] for row in found.rows] == pytest.approx([row[1] for row in rows], abs=1 / 31)
    assert found == dpo_without_reward_model._measured(list(found.rows), 32) and len(set(rows)) == 5


@pytest.mark.slow
def test_facts_come_with_all_weights_and_not_with_none(monkeypatch):
    for name, value in {"SUBJECTS": 5, "RELATIONS": 3, "OBJECTS": 6, "LEARN": 30, "CHANGE": 30}.items():
        monkeypatch.setattr(facts_in_ffn, name, value)
    monkeypatch.setattr(facts_in_ffn, "PARTS", {"all": "", "no": "of no name", "feed-forward": ".mlp."})
    told, parameters, learned = facts_in_ffn._transplanted(3, 24)
    embeddings, attention, feed_forward, norms = (
        2 * (5 + 3 + 6) * 64,
        2 * (2 * 64 * 64 + 2 * 64 * 32),
        6 * 64 * 24,
        5 * 64,
    )
    assert parameters == {"all": embeddings + attention + feed_forward + norms, "no": 0.0, "feed-forward": feed_forward}
    assert (told["all"], told["no"], learned) == ([1.0] * 7, [0.0] * 7, 1.0), "half of 15 facts are changed"
    assert set(told["feed-forward"]) <= {0.0, 1.0} and len(told["feed-forward"]) == 7


def test_the_gain_of_feed_forward_weights_is_that_at_equal_sizes(monkeypatch):
    given = {
        128: ({"feed-forward": [1.0, 1.0, 1.0, 0.0], "attention": [0.0, 0.0, 0.0, 1.0]}, 70.0, 60.0, 0.875),
        64: ({"feed-forward": [1.0, 1.0, 0.0, 0.0], "attention": [0.0, 0.0, 0.0, 0.0]}, 50.0, 40.0, 0.625),
    }
    asked = []

    def transplanted(seed, width):
        asked.append((seed, width))
        told, one, other, learned = given[width]
        return told, {"feed-forward": one, "attention": other}, learned

    monkeypatch.setattr(facts_in_ffn, "_transplanted", transplanted)
    gain = paired([1.0, 1.0, 0.0, 0.0], [0.0] * 4)
    assert facts_in_ffn.measure(Lab(9)) == Measurement(
        0.5,
        "changed facts that come with the feed-forward weights alone, less with as many of attention's",
        gain.low,
        gain.high,
        96,
        columns=("weights that are put in", "parameters", "changed facts told", "by the whole model"),
        rows=(
            ("feed-forward, usual size", 70.0, 0.75, 0.875),
            ("attention, usual size", 60.0, 0.25, 0.875),
            ("feed-forward, size of attention", 50.0, 0.5, 0.625),
            ("attention, size of attention", 40.0, 0.0, 0.625),
        ),
    )
    assert asked == [(9, 128), (9, 64)]


def head(layer, number, previous, induction, null=0.1):
    of = [Interval(each, each - 0.05, each + 0.05, 8) for each in (induction, previous, null)]
    return HeadScore(layer, number, **dict(zip(("induction", "previous", "null"), of, strict=True)))


def test_a_head_is_of_the_first_kind_that_fits_and_kinds_are_counted_once():
    scores = [head(0, 0, 0.41, 0.9), head(0, 3, 0.4, 0.9), head(1, 2, 0.4, 0.2), head(1, 1, 0.8, 0.0)]
    assert heads_differ._measured(scores) == Measurement(
        3,
        "kinds of heads found in a trained two-layer model: induction, other, previous",
        n=4,
        columns=("head", "looks at the token before", "looks after the first occurrence"),
        rows=(
            ("layer 0, head 0", 0.41, 0.9),
            ("layer 0, head 3", 0.4, 0.9),
            ("layer 1, head 2", 0.4, 0.2),
            ("layer 1, head 1", 0.8, 0.0),
        ),
    )
    assert (
        heads_differ._measured(scores[:1]).what.endswith(": previous")
        and heads_differ._measured(scores[1:2]).value == 1
    )


def test_a_changed_token_of_a_decoder_reaches_each_later_token_and_no_earlier_one() -> None:
    found = attends_to_all.measure(Lab(0))
    assert (found.value, found.columns) == (0.5, ("direction", "pairs"))
    assert found.rows == (
        ("a change reaches earlier tokens", 0.0), ("a change reaches later tokens", 120.0), ("pairs", 120.0)
    )  # fmt: skip


def test_a_penalty_that_is_too_steep_is_as_far_from_a_line_as_one_that_is_too_flat() -> None:
    for penalty in (0.4, 0.6):
        found = alibi_is_linear._measured([(0.5, penalty), (0.25, 0.25)])
        assert found.value == pytest.approx(0.2) and found.rows == (("head 0", 0.5, penalty), ("head 1", 0.25, 0.25))
