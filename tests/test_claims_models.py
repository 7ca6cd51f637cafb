"""The small models that claims are measured with: their shapes, their texts, their training step by step, their files."""

import json
import os
from dataclasses import replace
from random import Random

import pytest
import torch

from firsthand.claims import fact_models, position_models, toy_training
from firsthand.claims.fact_language import FIRST, LAST, RELATIONS, VALUES, WORDS, encoded, people, question
from firsthand.claims.fact_models import Sample
from firsthand.claims.lab import Lab
from firsthand.claims.live_bytes import peak_bytes
from firsthand.claims.small_decoders import kept_weights, random_ids, small_decoder
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder, initialise


def same(one, other):
    """Equal weights, but for rounding: Adam's steps make much of gradients that are next to nothing."""
    one, other = one.state_dict(), other.state_dict()
    apart = sum(int(((one[name] - other[name]).abs() > 1e-4).sum()) for name in one)
    return list(one) == list(other) and apart <= sum(each.numel() for each in one.values()) / 10_000


def test_a_small_decoder_has_llamas_form_and_only_the_fields_change_that_are_given():
    sizes = dict(
        family="llama", vocab_size=128, hidden_size=64, intermediate_size=128, num_heads=4, num_kv_heads=2, head_dim=16,
        max_position=4096, norm_eps=1e-5, tie_embeddings=True,
    )  # fmt: skip
    two = Architecture(**sizes, num_layers=2, windows=(None,) * 2, ropes=(Rope(),) * 2)
    three = Architecture(**{**sizes, "vocab_size": 7}, num_layers=3, windows=(None,) * 3, ropes=(Rope(),) * 3)
    assert small_decoder().architecture == two
    assert small_decoder(num_layers=3, vocab_size=7).architecture == three
    assert same(small_decoder(), initialise(Decoder(two), seed=0, std=0.1))
    assert same(small_decoder(5, std=0.3), initialise(Decoder(two), seed=5, std=0.3))
    drawn = torch.randint(0, 9, (6,), generator=torch.Generator().manual_seed(4))
    assert random_ids(6, 4, 9).tolist() == drawn.tolist() and random_ids(3).tolist() == random_ids(3, 0, 128).tolist()


def test_weights_are_kept_once_under_their_name_and_the_model_is_ready_to_read(tmp_path):
    path, trained = tmp_path / "not" / "there" / "b.safetensors", []

    def model(seed):
        def train():
            trained.append(seed)
            made.norm.weight.data.fill_(seed)

        made = small_decoder(seed, num_layers=1)
        made.train()
        return kept_weights(path, made, train)

    first, again = model(3), model(4)
    assert trained == [3] and same(first, again) and not first.training and not again.training
    assert [each.name for each in path.parent.iterdir()] == ["b.safetensors"]


class Dice:
    """Draws what it is told to, in turn."""

    def __init__(self, tokens, chances):
        self.tokens, self.chances = iter(tokens), iter(chances)

    def randrange(self, end):
        assert end == 64
        return next(self.tokens)

    def random(self):
        return next(self.chances)


def test_a_token_follows_from_the_one_two_before_it_nine_times_of_ten():
    table = list(range(64))
    Random(7).shuffle(table)
    dice = Dice([3, 5, 60, 1, 2, 9], [0.0, 0.8999, 0.9, 0.5, 0.95, 0.3])
    assert position_models.texts(dice, 5, 2) == [[3, 5, table[3], table[5], 60], [1, 2, table[1], 9, table[table[1]]]]
    assert position_models.texts(Dice([3, 5], []), 2, 1) == [[3, 5]] and position_models.texts(Dice([], []), 9, 0) == []


KINDS = {
    "rope": {},
    "alibi": {"ropes": (Rope(kind="none"),) * 2, "alibi_slopes": (1 / 4, 1 / 16, 1 / 64, 1 / 256)},
    "absolute": {"ropes": (Rope(kind="none"),) * 2, "learned_positions": 128, "max_position": 128},
    "none": {"ropes": (Rope(kind="none"),) * 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_each_kind_of_position_is_trained_by_so_many_steps_of_its_seed(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(position_models, "STEPS", 3)
    monkeypatch.setattr(position_models, "BATCH", 2)
    found = position_models.position_model(Lab(6, tmp_path), kind)
    wanted = small_decoder(6, std=0.02, vocab_size=64, num_kv_heads=4, **KINDS[kind])
    assert found.architecture == wanted.architecture
    optimizer = torch.optim.AdamW(wanted.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=3)
    rng = Random(6)
    for _ in range(3):
        batch = torch.tensor(position_models.texts(rng, 32, 2))
        logits = wanted.logits(wanted(batch.flatten(), torch.arange(32).repeat(2), Packed([32, 32]))).view(2, 32, 64)
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    assert same(found, wanted)
    assert [each.name for each in tmp_path.iterdir()] == [f"positions-{kind}-6-3.safetensors"]


def test_losses_are_by_token_and_by_length_with_24_texts_of_seed_0_unless_told():
    model = small_decoder(1, std=0.3, vocab_size=64, num_kv_heads=4)
    with torch.inference_mode():
        losses = position_models._losses(model, [[1, 2, 3], [4, 5, 6]])
        alone = [
            model.logits(model(torch.tensor(text), torch.arange(3), Packed([3]))) for text in ([1, 2, 3], [4, 5, 6])
        ]
    wanted = [float(-rows.log_softmax(-1)[at, token]) for rows, text in zip(alone, ((2, 3), (5, 6)), strict=True)
              for at, token in enumerate(text)]  # fmt: skip
    assert losses.tolist() == pytest.approx(wanted, rel=1e-4)
    whole = position_models.loss_by_length(model, (12, 10))
    assert list(whole) == [12, 10] and whole[12] != whole[10]
    assert whole == position_models.loss_by_length(model, (12, 10), seed=0, count=24)


def test_a_copy_with_other_rotations_has_the_same_weights_and_leaves_the_model_alone():
    model = small_decoder(2, num_layers=2).train()
    ropes = model.architecture.ropes
    copy = position_models.with_rope(model, kind="yarn", factor=4.0, original_max_position=32)
    rope = replace(ropes[0], kind="yarn", factor=4.0, original_max_position=32)
    assert copy.architecture == replace(model.architecture, ropes=(rope, rope)) and model.architecture.ropes == ropes
    assert same(model, copy) and not copy.training
    copy.embed.weight.data.fill_(7.0)
    assert not same(model, copy)


SAMPLES = [
    Sample(question(person, r), f"{VALUES[at]} .") for at, person in enumerate(people(2, 0)) for r in RELATIONS[:2]
]


def trained_on(model, batches):
    """The model after a step on each batch, the loss being that of the answers alone."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=len(batches))
    for samples in batches:
        losses = []
        for prompt, answer in samples:
            ids, first = encoded(f"{prompt} {answer}"), len(prompt.split())
            rows = model.logits(model(torch.tensor(ids), torch.arange(len(ids)), Packed([len(ids)]))).log_softmax(-1)
            losses += [-rows[at - 1, ids[at]] for at in range(first, len(ids))]
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model


@pytest.mark.slow
def test_a_reader_and_its_copy_are_trained_step_by_step_and_kept_under_names_of_their_own(tmp_path, monkeypatch):
    for name, value in {"READER_STEPS": 3, "BATCH": 3, "TUNING_BATCH": 4}.items():
        monkeypatch.setattr(fact_models, name, value)
    lab = Lab(8, tmp_path)
    rng = Random("reader-8")
    readings = [[fact_models._reading(rng) for _ in range(3)] for _ in range(3)]
    reader = trained_on(small_decoder(8, std=0.1, vocab_size=len(WORDS), num_kv_heads=4), readings)
    assert same(fact_models.reader(lab), reader)
    assert [each.name for each in tmp_path.iterdir()] == ["fact-reader-8-3.safetensors"]
    rng = Random("tuning-8")
    tuned = fact_models.tuned(lab, SAMPLES, steps=2)
    assert (
        same(tuned, trained_on(fact_models.reader(lab), [rng.choices(SAMPLES, k=4) for _ in range(2)]))
        and not tuned.training
    )
    alone = fact_models.reader(lab).train()
    fact_models.train(alone, SAMPLES, steps=2, seed=8)
    assert same(alone, tuned) and not alone.training, "whoever trains in place answers without dropout"
    fact_models.tuned(lab, SAMPLES, steps=2)
    assert len(list(tmp_path.iterdir())) == 2, "it is trained once"
    fact_models.tuned(lab, SAMPLES, steps=1)
    fact_models.tuned(lab, SAMPLES[1:], steps=2)
    monkeypatch.setattr(fact_models, "TUNING_BATCH", 5)
    fact_models.tuned(lab, SAMPLES, steps=2)
    assert len(list(tmp_path.iterdir())) == 5, "other steps, samples and batches have files of their own"


def test_a_reading_is_a_sentence_its_question_and_the_value():
    rng = Random(3)
    first, last, relation, value = rng.choice(FIRST), rng.choice(LAST), rng.choice(RELATIONS), rng.choice(VALUES)
    told = Sample(f"{first} {last} {relation} {value} . ? {first} {last} {relation}", f"{value} .")
    assert fact_models._reading(Random(3)) == told
    steps = [fact_models.epochs(SAMPLES[:1] * count) for count in (0, 323, 324, 640)]
    assert steps == [100, 100, 101, 200] and fact_models.epochs(SAMPLES[:1] * 324, count=80) == 202


def test_answers_of_more_than_256_prompts_of_two_lengths_stay_in_order():
    model = small_decoder(3, std=0.4, vocab_size=len(WORDS), num_kv_heads=4)
    asked = [question(person, r) for person in people(65, 1) for r in RELATIONS[:4]]
    prompts = [*asked[:257], f"so {asked[3]}", *asked[257:]]
    found = fact_models.answers(model, prompts, words=2)
    assert len(found) == 261 and len(set(found)) > 20
    for at in (0, 3, 255, 256, 257, 258, 260):
        ids = encoded(prompts[at])
        for _ in range(2):
            with torch.inference_mode():
                hidden = model(torch.tensor(ids), torch.arange(len(ids)), Packed([len(ids)]))
                ids.append(int(model.logits(hidden[-1:]).argmax()))
        assert found[at] == f"{WORDS[ids[-2]]} {WORDS[ids[-1]]}", at
    assert fact_models.answers(model, prompts[:2]) == [text.split(" ")[0] for text in found[:2]]
    assert fact_models.answers(model, []) == []


def test_bytes_are_those_that_new_tensors_hold_at_once():
    given = torch.ones(100)

    def freed():
        one = torch.ones(1000)
        del one
        return torch.ones(500)

    def kept_by_a_view():
        one = torch.ones(1000)
        view = one[:1]
        del one
        other = torch.ones(300)
        return view, other

    def kept_by_another_name():
        one = torch.ones(1000)
        same = one.detach()
        del one
        return same, torch.ones(200)

    def freed_by_both_names():
        one = torch.ones(1000)
        same = one.detach()
        del one, same
        return torch.ones(200)

    def loops():
        for _ in range(5):
            made = torch.ones(10) + 1
        return made

    cases = {
        "in place": (lambda: given.add_(1), 0), "view": (lambda: given[:10], 0), "new": (lambda: given + 1, 400),
        "two results": (lambda: torch.sort(given), 400 + 800), "freed": (freed, 4000), "view keeps": (kept_by_a_view, 5200),
        "one of two names": (kept_by_another_name, 4800), "two names": (freed_by_both_names, 4000),
        "parts": (lambda: torch.ones(6).split(2), 24), "double": (lambda: torch.ones(10, dtype=torch.float64), 80),
        "keyword": (lambda: torch.add(given, other=given, alpha=2), 400), "nothing": (lambda: 3, 0),
        "of its own": (lambda: torch.ones(7).add_(1).mul_(2), 28), "one at a time": (loops, 3 * 40),
    }  # fmt: skip
    with torch.inference_mode():
        assert {name: peak_bytes(call) for name, (call, _) in cases.items()} == {
            name: float(wanted) for name, (_, wanted) in cases.items()
        }


def test_a_recipe_that_was_cut_short_is_made_again_in_silence(tmp_path, capsys):
    lab = Lab(2, tmp_path)
    for name in ("w-2", f"w-2-{os.getpid()}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "junk").write_text("of before")
    folder = toy_training.trained(
        lab, "toy_writer", "w", steps=1, warmup_steps=0, batch_size=2, seed=9, checkpoint_every=1
    )
    assert folder == tmp_path / "w-2" and [each.name for each in tmp_path.iterdir()] == ["w-2"]
    assert (folder / "model").is_dir() and not (folder / "junk").exists()
    assert capsys.readouterr() == ("", "")
    loop = json.loads((folder / "recipe.json").read_text())["settings"]["loop"]
    assert (loop["seed"], loop["steps"], loop["checkpoint_every"]) == (9, 1, 1), "settings that are given count"
