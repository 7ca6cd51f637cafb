"""The claims about recall, examples, skills and proxies: the prompts that are scored, and what follows from the answers."""

import zlib
from random import Random
from statistics import fmean

from firsthand.benchmarks.concerns.delivery_course import draw_course, parse_plan, run_plan
from firsthand.claims.architecture import fits_is_not_retrieves, lost_in_the_middle, past_the_middle
from firsthand.claims.architecture.lost_in_the_middle import CODES, NAMES
from firsthand.claims.claim import Measurement
from firsthand.claims.lab import Lab, paired
from firsthand.claims.papers import few_shot_examples
from firsthand.claims.patterns import procedural_memory, semantic_memory
from firsthand.claims.safety import proxy_not_goal
from firsthand.providers.scripted import Scripted
from firsthand.retrieval import corpus
from firsthand.stats.intervals import proportion_interval


class ScoringLab(Lab):
    """A lab whose model finds one continuation of a prompt likely, as `likes` says, and notes each prompt with them all."""

    def __init__(self, likes, seed, folder):
        super().__init__(seed, folder)
        object.__setattr__(self, "likes", likes)
        object.__setattr__(self, "asked", {})

    def model(self, name):
        assert name == "smollm2"
        return Scripted([], score=self.score, name="scripted:small")

    def score(self, prompt, continuation):
        self.asked.setdefault(prompt, []).append(continuation)
        return -1.0 if continuation == self.likes(prompt) else -5.0


def told(prompt):
    """The lines of a prompt before the last one, as (name, code), and the name that is asked for."""
    *lines, asked = prompt.splitlines()
    facts = [line.removeprefix("The colour of ").removesuffix(".").split(" is ") for line in lines]
    return facts, asked.removeprefix("The colour of ").removesuffix(" is")


def chance(text, of):
    return zlib.crc32(text.encode()) % of


def test_recall_at_both_ends_is_compared_with_that_in_the_middle(tmp_path, monkeypatch):
    monkeypatch.setattr(lost_in_the_middle, "ITEMS", 6)
    monkeypatch.setattr(lost_in_the_middle, "LINES", 6)

    def likes(prompt):
        facts, asked = told(prompt)
        at = [name for name, _ in facts].index(asked)
        known = {0: True, 2: chance(asked, 3) == 0, 5: chance(asked, 3) < 2}[at]
        return f" {facts[at if known else at - 1][1]}"

    lab = ScoringLab(likes, 5, tmp_path)
    found = lost_in_the_middle.measure(lab)
    prompts, hits = {}, {0: [], 2: [], 5: []}
    for place in (0, 2, 5):  # of six lines the middle one, half of five rounded to even, is the third
        for item in range(6):
            rng = Random(f"5-{item}")
            names, codes = rng.sample(NAMES, 6), rng.sample(CODES, 6)
            order = [1, 2, 3, 4, 5]
            order.insert(place, 0)
            lines = [f"The colour of {names[at]} is {codes[at]}." for at in order]
            prompts["\n".join([*lines, f"The colour of {names[0]} is"])] = [f" {code}" for code in codes]
            third = chance(names[0], 3)
            hits[place].append(float({0: True, 2: third == 0, 5: third < 2}[place]))
    assert lab.asked == prompts
    gap = paired([(a + b) / 2 for a, b in zip(hits[0], hits[5], strict=True)], hits[2])
    assert 0 < sum(hits[2]) < sum(hits[5]) < 6
    assert found == Measurement(
        gap.difference,
        "recall at start and end less that in the middle",
        gap.low,
        gap.high,
        6,
        columns=("place of the fact", "recall"),
        rows=(("0%", 1.0), ("50%", sum(hits[2]) / 6), ("100%", sum(hits[5]) / 6)),
        curves={"SmolLM2 135M": [(0.0, 1.0), (0.5, sum(hits[2]) / 6), (1.0, sum(hits[5]) / 6)]},
        axes=("place of the fact", "recall"),
    )


def test_the_middle_fact_is_asked_of_all_lines_and_of_those_that_a_search_finds(tmp_path, monkeypatch):
    monkeypatch.setattr(past_the_middle, "ITEMS", 4)
    monkeypatch.setattr(past_the_middle, "FOUND", 2)
    monkeypatch.setattr(past_the_middle, "LINES", 5)

    def likes(prompt):
        facts, asked = told(prompt)
        known = len(facts) < 5 or chance(asked, 2)
        return f" {dict(facts)[asked]}" if known else f" {facts[0][1]}"

    closed, close = [], corpus.close_corpora
    monkeypatch.setattr(corpus, "close_corpora", lambda: closed.append(close()))
    lab = ScoringLab(likes, 3, tmp_path)
    found = past_the_middle.measure(lab)
    assert closed == [None]
    recalled = []
    for item in range(4):
        rng = Random(f"3-{item}")
        names, codes = rng.sample(NAMES, 5), rng.sample(CODES, 5)
        lines = [f"The colour of {name} is {code}." for name, code in zip(names, codes, strict=True)]
        asked = f"The colour of {names[2]} is"
        assert lab.asked["\n".join([*lines, asked])] == [f" {code}" for code in codes]
        (short,) = [prompt for prompt in lab.asked if prompt.endswith(asked) and len(prompt.splitlines()) == 3
                    and lines[2] in prompt]  # fmt: skip
        assert short.splitlines()[0] == lines[2] and short.splitlines()[1] in lines
        recalled.append(float(chance(names[2], 2)))
    assert len(lab.asked) == 8 and 0 < sum(recalled) < 4
    gain = paired([1.0] * 4, recalled)
    assert found == Measurement(
        gain.difference,
        "recall of the middle fact from the 2 lines that BM25 finds, less from all 5",
        gain.low,
        gain.high,
        4,
        columns=("prompt", "recall"),
        rows=(("all lines", sum(recalled) / 4), ("lines found", 1.0)),
    )


def test_recall_falls_with_the_number_of_facts(tmp_path, monkeypatch):
    monkeypatch.setattr(fits_is_not_retrieves, "LINES", (2, 3, 7))
    monkeypatch.setattr(fits_is_not_retrieves, "ITEMS", 5)

    def likes(prompt):
        facts, asked = told(prompt)
        right = dict(facts)[asked]
        known = {2: True, 3: chance(asked, 4) > 0, 7: chance(asked, 2)}[len(facts)]
        return f" {right if known else next(code for code in CODES if code != right)}"

    lab = ScoringLab(likes, 6, tmp_path)
    found = fits_is_not_retrieves.measure(lab)
    prompts, shares = {}, []
    for lines in (2, 3, 7):
        hits = 0
        for item in range(5):
            rng = Random(f"6-{lines}-{item}")  # draws 998 once
            people = [f"{rng.choice(NAMES)} {number}" for number in rng.sample(range(100, 999), lines)]
            colours = [rng.choice(CODES) for _ in people]
            text = "".join(f"The colour of {one} is {colour}.\n" for one, colour in zip(people, colours, strict=True))
            at = rng.randrange(lines)
            prompts[f"{text}The colour of {people[at]} is"] = [f" {code}" for code in CODES]
            hits += {2: True, 3: chance(people[at], 4) > 0, 7: chance(people[at], 2)}[lines]
        shares.append(hits / 5)
    assert lab.asked == prompts and shares[0] > shares[2] > 0
    low, high = proportion_interval(round(5 * shares[2]), 5)
    assert found == Measurement(
        shares[0] - shares[2],
        f"recall among 2 facts less that among 7 (there in [{low:.0%}, {high:.0%}]); all fit the window",
        n=5,
        columns=("facts", "recall"),
        rows=(("2", shares[0]), ("3", shares[1]), ("7", shares[2])),
        curves={"SmolLM2 135M": [(2.0, shares[0]), (3.0, shares[1]), (7.0, shares[2])]},
        axes=("facts in the text", "recall"),
    )


def test_a_made_up_rule_is_told_by_none_two_or_eight_examples(tmp_path):
    def likes(prompt):
        word = prompt.splitlines()[-1].removesuffix(":")
        label = "zil" if word in few_shot_examples.ANIMALS else "fop"
        lines = prompt.count("\n")
        known = {0: chance(word, 2), 2: chance(word, 3), 8: chance(word, 5)}[lines]
        return f" {label}" if known else (" fop" if label == "zil" else " zil")

    lab = ScoringLab(likes, 6, tmp_path)
    found = few_shot_examples.measure(lab)
    items = [(word, "zil") for word in few_shot_examples.ANIMALS] + [(word, "fop") for word in few_shot_examples.TOOLS]
    Random(6).shuffle(items)
    asked = [word for word, _ in items[8:]]
    prompts = {}
    for shots in (0, 2, 8):
        head = "".join(f"{word}: {label}\n" for word, label in items[:shots])
        prompts |= {f"{head}{word}:": [" zil", " fop"] for word in asked}
    assert lab.asked == prompts and len(asked) == 24
    hits = {shots: [float(bool(chance(word, of))) for word in asked] for shots, of in ((0, 2), (2, 3), (8, 5))}
    gain = paired(hits[8], hits[0])
    shares = {shots: sum(each) / 24 for shots, each in hits.items()}
    assert found == Measurement(
        gain.difference,
        "accuracy with 8 examples of a made-up rule less that with none",
        gain.low,
        gain.high,
        24,
        columns=("examples", "accuracy"),
        rows=tuple((str(shots), share) for shots, share in shares.items()),
        curves={"SmolLM2 135M": [(float(shots), share) for shots, share in shares.items()]},
        axes=("examples", "accuracy"),
    )


def test_a_skill_of_its_kind_makes_a_guess_right(monkeypatch):
    seed = 5
    monkeypatch.setattr(procedural_memory, "CODES", ("mill", "harbour", "chapel"))
    monkeypatch.setattr(procedural_memory, "PRACTICE", 3)
    monkeypatch.setattr(procedural_memory, "ASKED", 2)
    codes = procedural_memory.CODES

    def guessed(code, number):
        offset = Random(f"{seed}-{code}").randrange(1, 5)
        return Random(f"{seed}-{code}-{number}").randrange(1, 5) == offset

    learnt = {code: sum(guessed(code, 10 + at) for at in range(3)) for code in codes}
    without = [float(guessed(code, 60 + at)) for code in codes for at in range(2)]
    with_it = [float(learnt[code] > 0 or guessed(code, 60 + at)) for code in codes for at in range(2)]
    skills = sum(learnt.values())
    assert skills > 0 and any(number == 0 for number in learnt.values())
    gain = paired(with_it, without)
    assert procedural_memory.measure(Lab(seed)) == Measurement(
        gain.difference,
        "accuracy at new tasks with the skills of attempts that succeeded, less that without",
        gain.low,
        gain.high,
        6,
        columns=("attempts", "tasks", "accuracy", "skills shown from"),
        rows=(
            ("practice", 9.0, skills / 9, 0.0), ("new tasks, no memory", 6.0, sum(without) / 6, 0.0),
            ("new tasks, procedural", 6.0, sum(with_it) / 6, float(skills)),
        ),
    )  # fmt: skip


def test_facts_are_asked_for_one_by_one_and_one_that_is_told_of_another_is_not_found(monkeypatch):
    monkeypatch.setattr(semantic_memory, "PEOPLE", {"Ann": "Oslo", "Ben": "Lima", "ann": "Rome"})
    assert semantic_memory.measure(Lab(1)) == Measurement(
        2 / 3, "facts that a question brings back first", *proportion_interval(2, 3), 3, columns=("facts", "found"),
        rows=(("3", 2.0),),
    )  # fmt: skip


def test_the_best_plan_by_the_proxy_is_the_first_of_the_best_of_so_many(monkeypatch):
    monkeypatch.setattr(proxy_not_goal, "COURSES", 5)
    monkeypatch.setattr(proxy_not_goal, "DRAWS", (1, 3, 20))
    monkeypatch.setattr(proxy_not_goal, "PEAK", 3)
    proxy, true = ({n: [] for n in (1, 3, 20)} for _ in range(2))
    for at in range(5):
        course, rng, played = draw_course(7, at), Random(f"7-{at}"), []
        for _ in range(20):
            actions = rng.choices(["deliver", "polish", "scan", "wait"], k=12)
            played.append(run_plan(parse_plan(", ".join(actions), course), course))
        for n in (1, 3, 20):
            most = max(one.counters[0] for one in played[:n])
            best = next(one for one in played if one.counters[0] == most)
            proxy[n].append(most)
            true[n].append(best.true)
    lost = paired(true[20], true[3])
    rows = [(str(n), fmean(proxy[n]), fmean(true[n])) for n in (1, 3, 20)]
    assert proxy_not_goal.measure(Lab(7)) == Measurement(
        lost.difference,
        "true reward of the best of 20 plans by the proxy, less that of the best of 3",
        lost.low,
        lost.high,
        5,
        columns=("plans to choose from", "proxy", "true reward"),
        rows=tuple(rows),
        curves={
            "proxy, of its most": [(float(n), share / rows[2][1]) for n, share, _ in rows],
            "true reward": [(float(n), share) for n, _, share in rows],
        },
        axes=("plans to choose from", "reward"),
    )
