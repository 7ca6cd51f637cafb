"""The claim about pretraining, SFT and RLHF: what is trained on what, the data it writes, and how a stage is judged."""

import json
import math
from itertools import combinations
from random import Random

import pytest

from firsthand.agent import Agent
from firsthand.benchmarks.toy_reviews import BLAME, NEUTRAL, PRAISE, SUBJECTS, VERBS, gold_reward, make_tasks
from firsthand.claims import toy_training
from firsthand.claims.architecture import training_stages
from firsthand.claims.claim import Measurement
from firsthand.claims.lab import Lab, paired
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted

SAID = {
    "reviews-fresh": ("film is", "good bad", "and"),
    "reviews-pretrained": ("bad", "dull and old", "good but"),
    "reviews-sft": ("good", " fine yet warm ", "bad and new", "long", ""),
    "reviews-ppo": ("good and fine and warm", "bright", "sweet yet fresh", "good and good"),
}
"""Model -> what it answers, by the place of the opening among all."""


def said(name, prompt):
    opening = [f"the {subject} {verb}" for subject in SUBJECTS for verb in VERBS].index(prompt)
    return SAID[name][opening % len(SAID[name])]


def test_each_stage_is_trained_on_the_one_before_and_the_raters_on_answers_of_sft(tmp_path, monkeypatch):
    for name, value in {"ASKED": 7, "DEMONSTRATIONS": 3, "PAIRS": 20}.items():
        monkeypatch.setattr(training_stages, name, value)
    lab, made, agents, attempts, attempt = Lab(5, tmp_path / "lab"), [], [], [], Lab.attempt

    def noted(of, agent, benchmark, tasks, **more):
        attempts.append((benchmark.name, len(tasks), more))
        return attempt(of, agent, benchmark, tasks, **more)

    monkeypatch.setattr(Lab, "attempt", noted)

    def trained(of, recipe, name, **settings):
        assert of is lab and lab.folder.is_dir()
        made.append((recipe, name, settings))
        return lab.folder / name

    def agent_of(folder, pattern, **settings):
        agents.append((folder.name, pattern, settings))
        model = Scripted(lambda messages, sampling, index: said(folder.name, messages[-1].text))
        return Agent(pattern, model, direct)

    monkeypatch.setattr(toy_training, "trained", trained)
    monkeypatch.setattr(toy_training, "agent_of", agent_of)
    found = training_stages.measure(lab)
    demonstrations, pairs = (lab.folder / f"reviews-{name}-5.jsonl" for name in ("demonstrations", "pairs"))
    sft, reward = (str(lab.folder / name / "model") for name in ("reviews-sft", "reviews-reward"))
    assert made == [
        ("toy_writer", "reviews-fresh", {"steps": 1, "warmup_steps": 0, "lr": 0}),
        ("toy_writer", "reviews-pretrained", {"steps": 120}),
        ("sft", "reviews-sft", {
            "data": str(demonstrations), "model": str(lab.folder / "reviews-pretrained" / "model"), "steps": 60,
            "batch_size": 32, "lr": 1e-3, "holdout": 0,
        }),
        ("reward", "reviews-reward", {"data": str(pairs), "model": sft, "steps": 80, "batch_size": 32, "lr": 1e-3}),
        ("ppo", "reviews-ppo", {
            "benchmark": "toy_reviews", "model": sft, "reward_model": reward, "kl": 0.1, "lr": 1e-3, "steps": 30,
            "prompts": 16, "group_size": 4, "max_tokens": 20,
        }),
    ]  # fmt: skip
    asked = ["reviews-sft", *SAID]
    assert agents == [(name, "direct", {"temperature": 1.0, "max_tokens": 20}) for name in asked]
    assert attempts == [("toy_reviews", number, {"concurrency": 32}) for number in (40, 7, 7, 7, 7)]
    openings = [task.prompt for task in make_tasks(5, 40)]
    answers = {name: [f" {said(name, prompt).strip()}" for prompt in openings] for name in SAID}
    training_stages._write_demonstrations(tmp_path / "d", 5)
    training_stages._write_pairs(tmp_path / "p", list(zip(openings, answers["reviews-sft"], strict=True)), 5)
    assert (
        demonstrations.read_text() == (tmp_path / "d").read_text() and pairs.read_text() == (tmp_path / "p").read_text()
    )
    stages = dict(zip(("fresh weights", "pretraining", "SFT", "RLHF"), SAID, strict=True))
    assert found == training_stages._measured({stage: answers[name][:7] for stage, name in stages.items()})
    assert len(set(found.rows)) == 4


def test_a_review_is_adjectives_with_a_joining_word_between_two():
    reviews = {
        "good": True, " bad and long ": True, "good but good yet old": True, "": False, "and": False, "good and": False,
        "good bad": False, "and good and": False, "good is bad": False, "good and film": False, "Good": False,
    }  # fmt: skip
    assert {text: training_stages._is_review(text) for text in reviews} == reviews


def test_a_stage_is_judged_by_its_own_aim_against_the_stage_before():
    given = {
        "fresh weights": ["film film", "good and", "x"],
        "pretraining": ["good and bad", "bad", "and and"],
        "SFT": ["good and fine", "good", "and"],
        "RLHF": ["good and fine and warm", "good and good", "fine"],
    }
    shares = [[0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]
    golds = [[0.0, 1.0, 0.0], [0.0, -1.0, 0.0], [2.0, 1.0, 0.0], [3.0, 0.5, 1.0]]
    gains = [paired(shares[1], shares[0]), paired(golds[2], golds[1]), paired(golds[3], golds[2])]
    rows = [
        (name, sum(share) / 3, pytest.approx(sum(gold) / 3), *own)
        for name, share, gold, own in zip(
            given, shares, golds, [(0.0, 0.0, 0.0), *((g.difference, g.low, g.high) for g in gains)], strict=True
        )
    ]
    found = training_stages._measured(given)
    assert list(found.rows) == rows
    assert found == Measurement(
        0.5,
        "gold reward after PPO against a reward model, less that after SFT",
        gains[2].low,
        gains[2].high,
        3,
        columns=("after", "grammatical", "gold reward", "gain of its aim", "low", "high"),
        rows=found.rows,
    )


def test_demonstrations_are_good_reviews_after_any_opening_and_the_same_for_a_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(training_stages, "DEMONSTRATIONS", 150)
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        training_stages._write_demonstrations(tmp_path / name, seed)
    texts = [(tmp_path / name).read_text() for name in "abc"]
    assert texts[0] == texts[1] != texts[2] and texts[0].endswith("}\n")
    lines = [json.loads(line) for line in texts[0].splitlines()]
    assert len(lines) == 150 and all(set(line) == {"prompt", "completion"} for line in lines)
    assert {line["prompt"] for line in lines} == {f"the {subject} {verb}" for subject in SUBJECTS for verb in VERBS}
    assert min(gold_reward(line["completion"]) for line in lines) == 2.0, "two is good enough"
    assert all(training_stages._is_review(line["completion"]) for line in lines)


def test_pairs_are_two_answers_to_one_opening_preferred_by_bradley_terry(tmp_path):
    reviews = [
        ("a", " good"), ("b", " bad"), ("a", " good and fine and warm"), ("b", " bad"), ("a", " dull"), ("b", " "),
        ("b", " cold"), ("a", " warm"), ("c", ""), ("c", " long"), ("d", " old"),
    ]  # fmt: skip
    training_stages._write_pairs(tmp_path / "p", reviews, 6)
    rng = Random("pairs 6")
    wanted = []
    # Equal answers of b are no pair, nor are those where one is blank: of b, then of c; d is asked once.
    for prompt, one, other in (("a", " good", " good and fine and warm"), ("a", " dull", " warm")):
        second = rng.random() < math.exp(gold_reward(other)) / (
            math.exp(gold_reward(other)) + math.exp(gold_reward(one))
        )
        chosen, rejected = (other, one) if second else (one, other)
        wanted.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    text = (tmp_path / "p").read_text()
    assert text.endswith("}\n") and [json.loads(line) for line in text.splitlines()] == wanted
    words = (*PRAISE, *BLAME, *NEUTRAL)
    many = [(f"{at}", f" {word}") for at, pair in enumerate(combinations(words, 2)) for word in pair]
    training_stages._write_pairs(tmp_path / "q", many, 1)
    pairs = [json.loads(line) for line in (tmp_path / "q").read_text().splitlines()]
    gaps = [gold_reward(pair["chosen"]) - gold_reward(pair["rejected"]) for pair in pairs]
    by_two, by_one = ([gap > 0 for gap in gaps if abs(gap) == size] for size in (2.0, 1.0))
    assert len(pairs) == 231 and sum(by_two) / len(by_two) == pytest.approx(0.88, abs=0.1)
    assert sum(by_one) / len(by_one) == pytest.approx(0.73, abs=0.1)
