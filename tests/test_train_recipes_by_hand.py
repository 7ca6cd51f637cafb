"""Recipes of supervised training in rehearsal: what each reads, prints, hands to `fit`, evaluates and saves."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from firsthand import catalog
from firsthand.benchmarks.recurrence import solution, states
from firsthand.benchmarks.toy_ledgers import random_ledger
from firsthand.benchmarks.toy_reviews import SUBJECTS, VERBS, random_review
from firsthand.errors import ConfigError, DataError, TrainingError
from firsthand.loop.concurrency import derive_seed
from firsthand.nn import weights
from firsthand.nn.decoder import Decoder, initialise
from firsthand.retrieval.reflection.token_reflections import SPELLED, raw_prompt
from firsthand.tokens import pretrained
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.train.added_tokens import with_added_tokens
from firsthand.train.bits_per_byte import held_out_loss
from firsthand.train.bpe import train_tokenizer
from firsthand.train.conversations import Conversation, Encoded, encode_conversations, read_conversations, with_marks
from firsthand.train.data_order import StreamBatches, split
from firsthand.train.losses.distillation import forward_kl, generalised_jsd, reverse_kl
from firsthand.train.objective import Objective
from firsthand.train.recipe_settings import LoopSettings
from firsthand.train.recipes import toy_bookkeeper, toy_reasoner, toy_writer
from firsthand.train.recipes.toy_bookkeeper import base_text
from firsthand.train.recipes.toy_player import random_play
from firsthand.train.step_loss import logits_of
from firsthand.train.streams import Stream, packed
from firsthand.train.toy_tasks.toy_models import STD, toy_model
from firsthand.worlds.players import play
from train_rehearsal import Rehearsal, rehearsed, write_lines

torch.set_num_threads(1)
CHATS = [
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "12"},
                  {"role": "user", "content": "b"}, {"role": "assistant", "content": "30" + "!" * number}]}
    for number in range(7)
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    write_lines(place / "chats.jsonl", CHATS)
    tiny.write_model(place / "teacher", seed=1, max_position=41)
    return tiny.write_model(place / "tiny", max_position=140)


def ids_of(rows: Any) -> list[list[int]]:
    return [each.ids.tolist() for each in rows]


def expected_batches(batches: Any, trained: list[Stream], size: int, seed: int) -> None:
    assert isinstance(batches, StreamBatches) and (batches.batch_size, batches.seed) == (size, seed)
    assert ids_of(stream for example in batches.examples for stream in example) == ids_of(trained)
    assert all(len(example) == 1 for example in batches.examples)
    for (own,), other in zip(batches.examples, trained, strict=True):
        assert own.ce.tolist() == other.ce.tolist()


def encoded(folder: Path, context: int, **settings: Any) -> Encoded:
    tokenizer = pretrained.load(folder)
    chat = ChatTemplate(tokenizer, tokenizer.chat_template)
    found = read_conversations(folder.parent / "chats.jsonl")
    return encode_conversations(found, tokenizer, chat, context=context, **settings)


def test_sft_trains_on_what_is_not_held_out_and_evaluates_when_due(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"data": str(folder.parent / "chats.jsonl"), "model": str(folder), "epochs": 2.0, "batch_size": 4,
             "holdout": 0.3, "seed": 3, "eval_every": 2, "show": 2, "last_only": True}  # fmt: skip
    config, run, returned = rehearsed("sft", tmp_path, **given)
    found, tokenizer = encoded(folder, 140, last_only=True), pretrained.load(folder)
    shown = [with_marks(each, tokenizer) for each in found.streams[:2]]
    assert capsys.readouterr().out == f"{found}\n" + "".join(f"{each}\n" for each in shown)
    assert shown[1].endswith("<|im_start|>assistant\n⟦30!<|im_end|>⟧") and shown[1].count("⟦") == 1
    trained, held_out = split(found.streams, 0.3, seed=3)
    assert (len(trained), len(held_out)) == (5, 2)
    expected_batches(run.told.pop("batches"), trained, 4, 3)
    model, evaluate = run.told.pop("model"), run.told.pop("evaluate")
    assert run.told == {
        "objective": Objective(ce=1.0), "optimizer": config.optimizer, "schedule": config.schedule, "steps": 3
    }  # fmt: skip
    loss = held_out_loss(model, held_out, 1).loss
    assert [evaluate(step) for step in (1, 2, 3)] == [{}, {"held_out_loss": loss}, {"held_out_loss": loss}]
    assert run.saved.pop("tokenizer").fingerprint == tokenizer.fingerprint and run.saved.pop("model") is model
    assert run.saved == {"base": folder, "adapter": config.adapter, "named": str(folder)}
    assert returned == tmp_path / "model"


@pytest.mark.parametrize("recipe", ["sft", "distill", "dpo"])
def test_data_that_cannot_be_held_out_apart_is_refused_before_a_model_loads(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    def load(*given: Any, **settings: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("firsthand.nn.weights.load", load)
    pairs = [{"prompt": "a", "chosen": "b", "rejected": word} for word in ("c", "d", "e")]
    data = str(write_lines(tmp_path / "data.jsonl", pairs if recipe == "dpo" else CHATS[:1] * 3))
    given = {"teacher": str(folder)} if recipe == "distill" else {}
    with pytest.raises(ConfigError, match="the 3 items of the data are equal, or all of one prompt"):
        rehearsed(recipe, tmp_path / "run", data=data, model=str(folder), holdout=0.3, **given)


@pytest.mark.slow
def test_sft_keeps_to_the_smaller_context_and_its_own_steps(folder: Path, tmp_path: Path) -> None:
    given = {"data": str(folder.parent / "chats.jsonl"), "model": str(folder), "holdout": 0.0, "eval_every": 1}
    sizes = sorted(len(each) for each in encoded(folder, 140).streams)
    _, run, _ = rehearsed("sft", tmp_path, **given, context=sizes[2], steps=9)
    assert len(run.told["batches"].examples) == 3 and run.told["steps"] == 9
    assert run.told["evaluate"](9) == {}, "nothing is held out"
    _, run, _ = rehearsed("sft", tmp_path, **given, context=sizes[2], too_long="cut", epochs=1.0)
    assert [max(map(len, each)) for each in run.told["batches"].examples].count(sizes[2]) == 5
    assert run.told["steps"] == 1
    _, run, _ = rehearsed("sft", tmp_path, **given, context=100_000, batch_size=2)
    assert len(run.told["batches"].examples) == 7 and run.told["steps"] == math.ceil(3 * 7 / 2)
    _, run, _ = rehearsed("sft", tmp_path, **given, adapter="lora", rank=3)
    trained = [name for name, weight in run.told["model"].named_parameters() if weight.requires_grad]
    assert trained and all(name.endswith((".a", ".b")) for name in trained) and run.saved["adapter"].rank == 3


@pytest.mark.slow
@pytest.mark.parametrize(("divergence", "beta"), [("forward", 0.5), ("reverse", 0.5), ("jsd", 0.2)])
def test_distillation_reads_the_teachers_distribution_at_the_same_places(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], divergence: str, beta: float
) -> None:
    teacher = folder.parent / "teacher"
    config, run, returned = rehearsed(
        "distill", tmp_path, data=str(folder.parent / "chats.jsonl"), teacher=str(teacher), model=str(folder),
        divergence=divergence, beta=beta, temperature=2.0, hard=0.25, epochs=3.0, batch_size=4, holdout=0.3, eval_every=2,
        seed=5,
    )  # fmt: skip
    found = encoded(folder, 41)
    assert capsys.readouterr().out == f"{found}\n"
    trained, held_out = split(found.streams, 0.3, seed=5)
    expected_batches(run.told.pop("batches"), trained, 4, 5)
    model, evaluate, objective = (run.told.pop(name) for name in ("model", "evaluate", "objective"))
    assert run.told == {"optimizer": config.optimizer, "schedule": config.schedule, "steps": 3}
    assert (objective.ce, objective.soft, objective.pg, objective.pair) == (0.25, 0.75, 0.0, 0.0)
    batch, rows = packed(trained[:2]), torch.tensor([5, 9])
    student, taught = logits_of(model, batch, rows), logits_of(weights.load(teacher), batch, rows)
    function = {"forward": forward_kl, "reverse": reverse_kl}.get(divergence)
    expected = (
        generalised_jsd(student, taught, beta=0.2, temperature=2.0) if function is None
        else function(student, taught, temperature=2.0)
    )  # fmt: skip
    assert torch.allclose(objective.soft_loss(batch, rows, student), expected)
    total = count = 0.0
    for each in held_out:
        alone = packed([each])
        places = torch.from_numpy(np.flatnonzero(alone.arrays["ce"]))
        total += float(objective.soft_loss(alone, places, logits_of(model, alone, places)).sum())
        count += float(alone.arrays["ce"].sum())
    assert evaluate(1) == {}
    for step in (2, 3):
        assert evaluate(step) == {"held_out_loss": pytest.approx(total / count, rel=1e-4)}
    assert run.saved.pop("tokenizer").fingerprint == pretrained.load(folder).fingerprint
    assert run.saved == {"model": model, "base": folder} and returned == tmp_path / "model"


@pytest.mark.slow
def test_distillation_takes_the_smaller_context_and_refuses_another_tokenizer(folder: Path, tmp_path: Path) -> None:
    sizes = sorted(len(each) for each in encoded(folder, 140).streams)
    data, teacher = str(folder.parent / "chats.jsonl"), str(folder.parent / "teacher")
    _, run, _ = rehearsed("distill", tmp_path, data=data, teacher=teacher, model=str(folder), holdout=0.0,
                          context=sizes[1], steps=4)  # fmt: skip
    assert len(run.told["batches"].examples) == 2 and run.told["steps"] == 4 and run.told["evaluate"](4) == {}
    for context in (0, 42, 100_000):  # the teacher's is 41
        _, run, _ = rehearsed(
            "distill", tmp_path, data=data, teacher=teacher, model=str(folder), holdout=0.0, context=context
        )
        assert len(run.told["batches"].examples) == sum(size <= 41 for size in sizes) < 7
    other = tiny.write_model(tmp_path / "other", specials=["<x>"])
    with pytest.raises(ConfigError) as refused:
        rehearsed("distill", tmp_path, data=data, teacher=str(other), model=str(folder))
    assert str(refused.value) == (
        f"{other} and {folder} have different tokenizers, so their distributions cannot be compared: let the teacher answer "
        "(`firsthand run`, `firsthand data --as sft`) and train with `firsthand train sft`"
    )


@pytest.mark.slow
def test_selfrag_adds_the_reflection_tokens_and_leaves_out_what_is_too_long(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        {"instruction": f"q{number}", "output": f"[No Retrieval]{'12 ' * number}[Utility:5]"} for number in range(1, 6)
    ]
    grown = with_added_tokens(weights.load(folder), pretrained.load(folder), SPELLED)[1]
    room = 140 - len(grown.encode(raw_prompt("q5", ""))) - 3  # both marks and the end
    lines[4]["output"] = f"[No Retrieval]{'!?' * (room // 2)}{'!' * (room % 2)}[Utility:5]"
    too_long = {**lines[4], "output": lines[4]["output"].replace("]!", "]?!")}
    data = write_lines(tmp_path / "labelled.jsonl", [*lines, too_long])
    config, run, returned = rehearsed("selfrag", tmp_path / "run", data=str(data), model=str(folder), epochs=2.0,
                                      batch_size=3, holdout=0.2, eval_every=2, seed=1)  # fmt: skip
    assert capsys.readouterr().out == "5 answers; 1 longer than the context and left out\n"
    model = run.told.pop("model")
    streams = []
    for line in lines:
        prompt = grown.encode(raw_prompt(line["instruction"], ""))
        words = grown.encode(line["output"][14:-11])
        ids = [grown.token_id("[No Retrieval]"), *words, grown.token_id("[Utility:5]"), grown.eos_id]
        streams.append(Stream([*prompt, *ids], ce=[0.0] * len(prompt) + [1.0] * len(ids)))
    assert len(streams[4]) == 140
    trained, held_out = split(streams, 0.2, seed=1)
    expected_batches(run.told.pop("batches"), trained, 3, 1)
    evaluate = run.told.pop("evaluate")
    assert run.told == {
        "objective": Objective(ce=1.0), "optimizer": config.optimizer, "schedule": config.schedule, "steps": 3
    }  # fmt: skip
    loss = pytest.approx(held_out_loss(model, held_out, 1).loss)
    assert [evaluate(step) for step in (1, 2, 3)] == [{}, {"held_out_loss": loss}, {"held_out_loss": loss}]
    assert run.saved.pop("tokenizer").fingerprint == grown.fingerprint
    assert run.saved == {"model": model} and returned == tmp_path / "run" / "model"
    assert model.architecture.vocab_size == grown.vocab_size
    _, run, _ = rehearsed("selfrag", tmp_path / "run", data=str(data), model=str(folder), holdout=0.0, steps=4)
    assert run.told["steps"] == 4 and run.told["evaluate"](4) == {}
    for epochs, size, steps in ((1.0, 3, 2), (0.1, 4, 1), (1.0, 4, 1)):  # of four answers
        _, run, _ = rehearsed("selfrag", tmp_path / "run", data=str(data), model=str(folder), holdout=0.2, epochs=epochs,
                              batch_size=size)  # fmt: skip
        assert run.told["steps"] == steps, "the last batch of a pass may be a part"
    write_lines(data, [{**lines[0], "output": "[Relevant]" + "30 " * 200}])
    with pytest.raises(DataError) as refused:
        rehearsed("selfrag", tmp_path / "run", data=str(data), model=str(folder))
    assert str(refused.value) == (f"no answer of {data} fits the model's context of 140 tokens: label smaller chunks")


def test_selfrag_and_toy_players_settings_are_refused_with_their_limits() -> None:
    from firsthand.train.recipes import selfrag

    for name, value, text in (
        ("epochs", 0.0, "epochs is 0.0: expected above 0"), ("batch_size", 0, "batch_size is 0: expected 1 or more"),
        ("eval_every", 0, "eval_every is 0: expected 1 or more"), ("holdout", 1, "holdout is 1: expected from 0 to below 1"),
        ("holdout", -0.1, "holdout is -0.1: expected from 0 to below 1"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            selfrag.Config("x.jsonl", **{name: value})
        assert str(refused.value) == text
    selfrag.Config("x.jsonl", epochs=0.1, batch_size=1, eval_every=1, holdout=0)


def test_the_toy_reasoner_writes_steps_often_at_first_and_seldom_in_the_last_fifth() -> None:
    loop = LoopSettings(steps=5, seed=8)
    config = toy_reasoner.Config(length=4, stepwise=0.0, stepwise_before=1.0, batch_size=3, loop=loop)
    tokenizer = toy_model([*map(str, range(5)), "=", "?", ":"], seed=0, context=32)[1]
    rows = toy_reasoner.Rows(config, tokenizer)
    drawn = iter(rows)
    for batch in range(6):
        rng = Random(derive_seed("toy reasoner", 8, batch))
        streams = next(drawn)
        assert len(streams) == 3 and rows.state() == {"drawn": batch + 1}
        for stream in streams:
            digits = "".join(str(rng.randrange(5)) for _ in range(4))
            rng.random()
            answer = states(digits)[-1] if batch + 1 > 4 else solution(digits)
            prompt, reply = tokenizer.encode(f"{digits}=?"), tokenizer.encode(answer)
            assert stream.ids.tolist() == [*prompt, *reply, tokenizer.eos_id]
            assert stream.ce.tolist() == [0.0] * len(prompt) + [1.0] * (len(reply) + 1)
    rows.load({"drawn": 1})
    assert ids_of(next(iter(rows))) != ids_of(streams) and rows.drawn == 2


def fitted_as(run: Rehearsal, config: Any, seed: int, context: int, pieces: int) -> None:
    model, batches = run.told.pop("model"), run.told.pop("batches")
    assert run.told == {"objective": Objective(ce=1.0), "optimizer": config.optimizer, "schedule": config.schedule}
    assert run.saved["model"] is model and set(run.saved) == {"model", "tokenizer"}
    assert (model.architecture.max_position, model.architecture.vocab_size) == (context, pieces + 2)
    tokenizer = run.saved["tokenizer"]
    assert batches.config is config and batches.tokenizer is tokenizer
    fresh, _ = toy_model([tokenizer.text_of(id) for id in range(2, pieces + 2)], seed=seed, context=context)
    assert torch.equal(fresh.embed.weight, model.embed.weight)


def test_toy_models_begin_with_their_seed_and_hold_each_beginning_of_a_word(tmp_path: Path) -> None:
    config, run, returned = rehearsed("toy_reasoner", tmp_path / "r", length=6, seed=4)
    assert returned == tmp_path / "r" / "model" and isinstance(run.told["batches"], toy_reasoner.Rows)
    fitted_as(run, config, 4, 40, 8)
    config, run, _ = rehearsed("toy_writer", tmp_path / "w", seed=4, batch_size=2)
    batches = run.told["batches"]
    assert isinstance(batches, toy_writer.Reviews) and run.told["model"].architecture.max_position == 64
    tokenizer, drawn = run.saved["tokenizer"], iter(batches)
    fresh, _ = toy_model([tokenizer.text_of(id) for id in range(2, tokenizer.vocab_size)], seed=4, context=64)
    assert torch.equal(fresh.embed.weight, run.told["model"].embed.weight) and run.saved["model"] is run.told["model"]
    for number in range(2):
        rng, streams = Random(derive_seed("toy writer", 4, number)), next(drawn)
        assert len(streams) == 2 and batches.state() == {"drawn": number + 1}
        for stream in streams:
            prompt = tokenizer.encode(f"the {rng.choice(SUBJECTS)} {rng.choice(VERBS)}")
            reply = tokenizer.encode(random_review(rng))
            assert stream.ids.tolist() == [*prompt, *reply, tokenizer.eos_id] and stream.ce.sum() == len(reply) + 1
            assert len(prompt) == 3, "a word is one token"
    batches.load({"drawn": 7})
    assert batches.state() == {"drawn": 7}
    assert run.told["objective"] == Objective(ce=1.0) and run.told["schedule"] is config.schedule


def test_the_toy_bookkeeper_writes_its_plain_texts_and_draws_fresh_ones(tmp_path: Path) -> None:
    config, run, _ = rehearsed("toy_bookkeeper", tmp_path, texts=3, seed=6, batch_size=2)
    rng = Random(derive_seed("ledgers to annotate", 6))
    texts = [random_ledger(rng).text for _ in range(3)]
    lines = "".join(f'{{"text": "{text}"}}\n' for text in texts)
    assert (tmp_path / "ledgers.jsonl").read_text() == lines
    batches, tokenizer = run.told["batches"], run.saved["tokenizer"]
    assert isinstance(batches, toy_bookkeeper.BaseTexts) and run.told["optimizer"] is config.optimizer
    words = (" [", " ->", "]", "note(", ")", " 29", " loses", "tom", " +", " -", " left")
    assert [len(tokenizer.encode(each)) for each in words] == [1] * 11
    assert run.told["model"].architecture.max_position == 64 and run.told["objective"] == Objective(ce=1.0)
    drawn = iter(batches)
    for number in range(2):
        rng, streams = Random(derive_seed("toy bookkeeper", 6, number)), next(drawn)
        for stream in streams:
            assert stream.ids.tolist() == [*tokenizer.encode(base_text(rng, config)), tokenizer.eos_id]
            assert stream.ce.tolist() == [0.0] + [1.0] * (len(stream) - 1)
        assert len(streams) == 2 and batches.state() == {"drawn": number + 1}
    batches.load({"drawn": 0})
    assert ids_of(next(iter(batches))) != ids_of(streams)


def test_a_bookkeepers_text_is_of_the_kind_that_is_drawn() -> None:
    shares = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0), (0.3, 0.25, 0.2), (0.2, 0.3, 0.25)]
    for copies, notes, calls in shares:
        config = toy_bookkeeper.Config(copies=copies, notes=notes, calls=calls)
        for seed in range(24):
            text, rng = base_text(Random(seed), config), Random(seed)
            ledger, drawn = random_ledger(rng), rng.random()
            limits = [("copies", copies), ("notes", copies + notes), ("calls", copies + notes + calls), ("plain", 9.0)]
            kind = next(name for name, limit in limits if drawn < limit)
            if kind == "copies":
                row = [str(rng.randrange(30)) for _ in range(rng.randint(3, 7))]
                assert text == "".join(f" {each}" for each in row * rng.randint(2, 3))
            elif kind == "notes":
                numbers = [rng.randrange(30) for _ in range(2)]
                first, second = rng.sample(numbers, 2)
                note = f" [note( {first} {rng.choice('+-')} {second}) -> {ledger.left}]"
                assert text == (
                    f"{note}{ledger.text}" if rng.random() < 0.5 else f"{ledger.opening}{note} {ledger.left}"
                )
            elif kind == "calls":
                words, place = ledger.text.split(" "), rng.randint(5, 6)
                first, second = rng.sample([int(each) for each in words[:place] if each.isdigit()], 2)
                call = f" [calculator( {first} {rng.choice('+-')} {second})]"
                assert text == " ".join(words[:place]) + call + "".join(f" {each}" for each in words[place:])
            else:
                assert text == ledger.text


def test_the_toy_player_must_be_told_its_world(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        rehearsed("toy_player", tmp_path)
    assert str(refused.value) == "name the world to play, as in `firsthand train toy_player agentbench_kg:level=1`"


@pytest.mark.slow
def test_the_toy_player_learns_what_random_players_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = "agentbench_kg:level=1:about=book.book:rounds=2:tasks=2"
    model_size = {"layers": 1, "hidden_size": 16, "heads": 2, "context": 442, "tie_embeddings": False}
    given = {"benchmark": world, "attempts": 3, "vocab_size": 400, "batch_size": 2, "seed": 4}
    config, run, returned = rehearsed("toy_player", tmp_path, **given, **model_size)
    benchmark = catalog.benchmark(world)
    played = asyncio.run(random_play(benchmark, 3, 4))
    tasks = benchmark.tasks(4)
    trace = asyncio.run(
        play(benchmark, tasks[0], "random", seed=5, thought=False)
    )  # the first task again, by the next seed
    assert played[2] == trace.messages(len(trace.nodes) - 1)
    assert played[0] != played[2], "another seed when the tasks begin anew"
    texts = [message.text for messages in played for message in messages]
    tokenizer = train_tokenizer(texts, tmp_path / "again", vocab_size=400, across_words=True)
    said = [Conversation(f"attempt {number}", messages, tuple(each.role == "assistant" for each in messages))
            for number, messages in enumerate(played)]  # fmt: skip
    chat = ChatTemplate(tokenizer, tokenizer.chat_template)
    found = encode_conversations(said, tokenizer, chat, context=442, too_long="cut")
    assert (len(found.streams), found.num_cut) == (3, 2)
    assert capsys.readouterr().out == f"{found}\n"
    expected_batches(run.told.pop("batches"), found.streams, 2, 4)
    made = run.told.pop("model")
    fresh = initialise(Decoder(config.model.architecture(tokenizer.vocab_size)), seed=4, std=STD)
    assert all(torch.equal(one, two) for one, two in zip(made.parameters(), fresh.parameters(), strict=True))
    assert run.told == {"objective": Objective(ce=1.0), "optimizer": config.optimizer, "schedule": config.schedule}
    assert run.saved.pop("tokenizer").fingerprint == tokenizer.fingerprint
    assert run.saved == {"model": made, "base": tmp_path / "tokenizer"} and returned == tmp_path / "model"


GRADED = """
from dataclasses import replace

from firsthand import catalog

def part(task, trace):
    return (0.5, 1.0, 0.0, 1.0)[int(task.id[-1])]

def graded():
    world = catalog.benchmark("agentbench_kg:level=1:about=book.book:rounds=1:tasks=4")
    return replace(world, name="graded", scorers=(part,))
"""


@pytest.mark.slow
def test_the_toy_player_learns_of_won_attempts_alone_those_that_earned_all(tmp_path: Path) -> None:
    (tmp_path / "graded.py").write_text(GRADED)
    world = catalog.benchmark(str(tmp_path / "graded.py"))
    played = asyncio.run(random_play(world, 6, 4))
    assert len(played) == 6 and len(set(played)) == 4, "with one round a task goes as before"
    won = [played[at] for at in (1, 3, 5)]  # the tasks 1, 3, and 1 again
    assert asyncio.run(random_play(world, 6, 4, True)) == won
    model_size = {"layers": 1, "hidden_size": 16, "heads": 2, "context": 4000}
    for only_won, number in ((True, 3), (False, 6)):
        _, run, _ = rehearsed("toy_player", tmp_path / str(number), benchmark=str(tmp_path / "graded.py"), attempts=6,
                              vocab_size=300, seed=4, won=only_won, **model_size)  # fmt: skip
        assert len(run.told["batches"].examples) == number
    with pytest.raises(TrainingError) as refused:
        asyncio.run(random_play(world, 1, 4, won=True))
    assert str(refused.value) == "none of 1 attempts of the random player won: give more with --attempts"
