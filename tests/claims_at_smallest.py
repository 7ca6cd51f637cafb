"""Measures a claim at its smallest size: its module's constants are lowered, and hosted or trained models are scripted."""

import importlib
import re
import zlib
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import torch

from firsthand.agent import Agent
from firsthand.benchmarks.recurrence import make_tasks
from firsthand.benchmarks.toy_ledgers import toy_ledgers
from firsthand.claims import fact_arms, fact_models, position_models, toy_training
from firsthand.claims.fact_language import VALUES
from firsthand.claims.lab import Lab
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted


class ScriptedLab(Lab):
    """A lab whose models are scripted: each reply and each log-prob follows from the prompt alone."""

    def path(self, name):
        return Path(name)

    def model(self, name):
        return Scripted(replied, score=likely, name=f"scripted:{name}")


def likely(prompt, text):
    """A log-prob by hash; two of three prompts that hold the continuation of their last line are continued so."""
    text_of = prompt if isinstance(prompt, str) else prompt[-1].text
    known = f"{text_of.splitlines()[-1]}{text}." in text_of and zlib.crc32(text_of.encode()) % 3
    return -zlib.crc32(f"{text_of}{text}".encode()) % 997 / 100 - 10 + 20 * bool(known)


def replied(messages, sampling, index):
    """An answer that depends on the whole conversation: right, in form, echoed from what was shown, or none of these."""
    said = messages[-1].text
    number = sum(ord(each) for message in messages for each in message.text) + index
    if found := re.search(r"(\d+) ([-+*]) (\d+)", said):
        a, sign, b = int(found[1]), found[2], int(found[3])
        result = {"+": a + b, "-": a - b, "*": a * b}[sign]
        if number % 3:
            return f"The answer is {result}" if number % 2 else f"It is {result}."
    if passages := re.findall(r"from [^\n]+\n(.*)\n</passage", said):
        return passages[number % len(passages)] if number % 3 else passages[-1].split()[-1]
    if said.endswith("?") or "principles" in said:
        return "I can't help with that." if number % 5 < 2 else f"It is done like this: {said[-80:]}"
    forms = (
        "The answer is {}.",
        "I can't help with that.",
        "Sure, {}",
        "1. a\n2. b {}",
        "Action: calculator[{}+1]",
        "wrong sure",
        "I cannot help with {}: right",
    )
    return forms[number % len(forms)].format(number % 23)


class Learnt:
    """Stands in for a model that was tuned on samples: it has most of them by heart, and the code of each value it saw."""

    def __init__(self, samples=()):
        self.known = {each.prompt: each.answer for each in samples}
        told = [
            (each.prompt.split(" . ")[0].split()[-1], each.answer.split()[0])
            for each in samples
            if " . " in each.prompt
        ]
        self.codes = dict(told)

    def parameters(self):
        return [torch.zeros(3, 5), torch.zeros(7)]


def told(model, prompts, words=1):
    """Answers of a reader that finds the value in its passage, or knows it by heart; one of seven is lost."""
    given = []
    for prompt in prompts:
        lost, asked = zlib.crc32(prompt.encode()) % 7, prompt.rpartition("? ")[2]
        found = re.findall(re.escape(asked) + r" (\w+) \.", prompt)
        text = model.known.get(prompt, "")
        if not text and found and prompt.startswith("so ") and model.codes:
            text = f"{model.codes.get(found[-1], found[-1])} ."
        if not text and found:
            text = f"so {found[-1]} !" if "!" in prompt and lost % 2 else f"{found[-1]} ."
        if not text and any(answer.endswith("!") for answer in model.known.values()):
            text = f"so {VALUES[lost]} !"
        given.append(" ".join(text.split()[:words]) if lost else "brab")
    return given


def few(samples):
    """Steps that depend on the number of samples."""
    return 10 * len(samples)


class Trainings:
    """Stands in for the recipes: notes what was trained, and gives agents that know the tasks they are tried on by name."""

    def __init__(self):
        self.made = []

    def trained(self, lab, recipe, name, **settings):
        self.made.append(
            (recipe, name, {key: str(value).replace(str(lab.folder), "LAB") for key, value in settings.items()})
        )
        return lab.folder / f"{name}-{lab.seed}"

    def agent_of(self, folder, pattern, *, tools=(), **settings):
        def reply(messages, sampling, index):
            said = messages if isinstance(messages, str) else messages[-1].text
            right = self.answers.get(said.strip().split("\n")[0], "?")
            number = zlib.crc32(f"{said} {folder.name} {pattern}".encode())
            return f"a: {right}" if number % 3 == 0 else right if number % 3 == 1 else "none"

        self.made.append(
            ("agent", folder.name, {"pattern": pattern, "tools": [each.name for each in tools], **settings})
        )
        return Agent(pattern, Scripted(reply), direct)

    answers: dict[str, str] = {}  # noqa: RUF012


SMALLEST = {
    "papers.tot_game24": {"PUZZLES": 3},
    "papers.cot_reasoning": {"TASKS": 7},
    "papers.few_shot_examples": {},
    "papers.rag_grounds_answers": {"TASKS": 6},
    "papers.self_rag_outperforms": {"TASKS": 8},
    "architecture.dpo_without_reward_model": {"STEPS": 4, "BATCH": 6, "LENGTH": 5},
    "architecture.facts_in_ffn": {"SUBJECTS": 6, "RELATIONS": 3, "OBJECTS": 7, "LEARN": 3, "CHANGE": 4,
        "WIDTHS": {"usual size": 16, "size of attention": 8}},
    "architecture.fits_is_not_retrieves": {"ITEMS": 5, "LINES": (2, 3, 9)},
    "architecture.flash_attention_memory": {"LENGTHS": (16, 32, 48, 64)},
    "architecture.lost_in_the_middle": {"ITEMS": 5},
    "architecture.past_the_middle": {"ITEMS": 4, "FOUND": 2},
    "architecture.rope_extrapolates": {},
    "architecture.work_without_cache": {"LENGTHS": (2, 5, 9)},
    "architecture.yarn_extends": {},
    "architecture.mixtral_parameters": {},
    "architecture.heads_differ": {"STEPS": 2},
    "patterns.smallest_models": {"TASKS": 9},
    "patterns.memgpt_paging": {"HOPS": 1, "EXAMPLES": 3, "KEYS": 24, "WINDOW": 12},
    "patterns.cost_of_tot": {},
    "architecture.attends_to_all": {},
    "safety.access_beyond_need": {"TASKS": 3},
    "safety.gamed_evaluations": {"TASKS": 3},
    "safety.irreversible_loss": {"TASKS": 3},
    "benchmarks.contamination_found": {"ITEMS": 6},
    "benchmarks.mmlu_pro_choices": {"DRAWS": 50},
    "leaderboards.arena_votes_gamed": {"VOTES": 400, "VOTERS": 20},
    "safety.neurons_or_features": {"STEPS": 3},
    "safety.proxy_not_goal": {"COURSES": 4, "DRAWS": (1, 4, 9)},
    "safety.reasoning_improves_safety": {"PAIRS": 6},
    "llmops.evals_first": {"SIZES": (100, 300), "TRIALS": 7},
    "llmops.fine_tuning_specialises": {"PEOPLE": 9, "HELD": 3},
    "llmops.fine_tuning_style": {"PEOPLE": 4},
    "llmops.rag_cites": {"PEOPLE": 6},
    "llmops.rag_is_fresh": {"PEOPLE": 6},
    "llmops.rag_size_unlimited": {"PEOPLE": (2, 5), "ASKED": 15},
}  # fmt: skip
"""Section and name of a claim -> constants of its module for the smallest measurement."""


TRAINED = {
    "architecture.verifiable_rewards": ({"TASKS": 9}, lambda: make_tasks(1001, 6, 9)),
    "papers.toolformer_self_supervised": ({"TASKS": 8}, lambda: toy_ledgers(tasks=8).tasks(1)),
}
"""The same of claims that train by a recipe, with the tasks that their agents are to be tried on."""


def measured_after_training(place, folder, seed=1):
    """The measurement of a claim as JSON, and the trainings and agents that it asked for."""
    constants, tasks = TRAINED[place]
    module, trainings = importlib.import_module(f"firsthand.claims.{place}"), Trainings()
    trainings.answers = {task.prompt.split("\n")[0]: task.secret["answer"] for task in tasks()}
    with ExitStack() as stack:
        for name in ("trained", "agent_of"):
            stack.enter_context(patch.object(toy_training, name, getattr(trainings, name)))
        for name, value in constants.items():
            stack.enter_context(patch.object(module, name, value))
        return module.measure(Lab(seed, folder)).to_json(), trainings.made


def measured(place, folder, seed=1):
    """The measurement of a claim at its smallest, as JSON."""
    module = importlib.import_module(f"firsthand.claims.{place}")
    with ExitStack() as stack:
        for owner, name, value in (
            (fact_models, "READER_STEPS", 2),
            (fact_models, "epochs", few),
            (fact_models, "reader", lambda lab: Learnt()),
            (fact_models, "tuned", lambda lab, samples, steps: Learnt(samples[: steps // 11 + 3])),
            (fact_arms, "answers", told),
            (position_models, "STEPS", 2),
            (position_models, "BATCH", 4),
        ):
            stack.enter_context(patch.object(owner, name, value))
        for name, value in SMALLEST[place].items():
            stack.enter_context(patch.object(module, name, value))
        return module.measure(ScriptedLab(seed, folder)).to_json()
