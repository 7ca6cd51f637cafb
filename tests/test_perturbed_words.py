"""Perturbations letter by letter with scripted draws, perturbed copies as whole tasks, and HELM's figures as a table."""

import math
from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from firsthand.benchmark import Benchmark, Figure
from firsthand.errors import ConfigError, UnknownName
from firsthand.loop.concurrency import derive_seed
from firsthand.message import Message
from firsthand.perturbations.answer_harms import (
    GENDER,
    PROFESSIONS,
    TOXIC,
    association,
    group_counts,
    is_toxic,
    listed,
    representation,
    words_of,
)
from firsthand.perturbations.formula_places import formula_places, paired_letters, symbol_places
from firsthand.perturbations.helm_figures import CONFIDENCE, choice_confidence, helm_figures, with_helm_metrics
from firsthand.perturbations.kept_text import code_places
from firsthand.perturbations.perturbed_benchmark import FAIRNESS, PERTURBATIONS, ROBUSTNESS, perturbed, with_copies
from firsthand.perturbations.surface_noise import (
    _NEAR,
    CONTRACTIONS,
    SPACE_RATE,
    TYPO_RATE,
    cased,
    contractions,
    lowercase,
    spacing,
    typos,
)
from firsthand.perturbations.word_swaps import (
    COMMON,
    DIALECT,
    FEMALE_TO_MALE,
    MALE_TO_FEMALE,
    NAMES,
    OTHER_NAMES,
    SYNONYMS,
    dialect,
    gender_terms,
    person_names,
    swapped,
    synonyms,
)
from firsthand.scorers.match import exact
from firsthand.stats.figures import micro_f1
from firsthand.task import Task
from firsthand.trace import Call, Score, Trace, Usage


class Scripted(Random):
    """Draws numbers from a list, and the last of choices."""

    def __init__(self, *numbers: float):
        super().__init__(0)
        self.numbers = list(numbers)

    def random(self) -> float:
        return self.numbers.pop(0)

    def randint(self, a: int, b: int) -> int:
        assert (a, b) == (1, 3)
        return int(self.numbers.pop(0))

    def choice(self, seq):  # type: ignore[no-untyped-def]
        return seq[-1]


def test_the_keys_beside_a_key_are_at_most_one_row_and_one_place_away():
    assert {key: "".join(_NEAR[key]) for key in "qagpmzl"} == {
        "q": "was", "a": "qwszx", "g": "rtyfhvbn", "p": "ol", "m": "hjkn", "z": "asx", "l": "iopk",
    }  # fmt: skip
    assert len(_NEAR) == 26


def test_a_letter_is_replaced_if_its_draw_is_below_the_rate_and_only_letters_draw():
    rng = Scripted(0.049, TYPO_RATE, 0.0, 1.0, 0.04)
    assert typos("Q1 a-gÄm q", rng) == "S1 a-nÄm s" and not rng.numbers
    assert TYPO_RATE == 0.05 and SPACE_RATE == 0.1


def test_runs_of_spaces_and_a_tenth_of_line_breaks_change():
    rng = Scripted(3, 1, 2, 0.1, 0.099)
    assert spacing("a b   c d\ne\tf\n", rng) == "a   b c  d\ne\tf \n" and not rng.numbers
    assert spacing("ab", Scripted()) == "ab"
    assert lowercase("ÄBc 1", Random(0)) == "äbc 1"


def test_a_small_letter_stays_as_it_is_in_lower_case():
    for text, lower in (("Straße", "straße"), ("STRASSE", "strasse"), ("ẞ", "ß"), ("Ofﬁce", "ofﬁce"), ("ſ", "ſ")):
        assert (text, lowercase(text, Random(0))) == (text, lower)


def test_contractions_keep_the_case_and_go_back_only_where_there_are_none():
    rng = Random(0)
    assert (
        contractions("DO NOT go, i am late; exit is near, who is?", rng) == "DON'T go, I'm late; exit is near, who's?"
    )
    assert contractions("It is here and don't", rng) == "It's here and don't"
    assert contractions("WON'T you? she's I'M", rng) == "WILL NOT you? she is I AM"
    assert contractions("Cannot. the is not", rng) == "Can't. the isn't"
    for long, short in CONTRACTIONS.items():
        assert (
            contractions(f"x {long} y", rng) == f"x {short} y"
            and contractions(f"x {short} y", rng) == f"x {cased(long, short)} y"
        )
    assert contractions("", rng) == "" and contractions("itsit isnt", rng) == "itsit isnt"


def test_the_case_of_a_word_is_upper_capitalised_or_that_of_the_new_one():
    assert [cased("bird's", old) for old in ("OLD", "Old", "old", "O", "oLD", "")] == [
        "BIRD'S", "Bird's", "bird's", "Bird's", "bird's", "bird's",
    ]  # fmt: skip
    assert cased("I'm", "i am") == "I'm" and cased("", "Old") == ""
    words = ["McCoy", "iPhone", "o'Neil", "x y Z", "éA", "1A"]
    assert [cased(word, "Old") for word in words] == ["McCoy", "IPhone", "O'Neil", "X y Z", "ÉA", "1A"]
    assert [cased(word, "old") for word in words] == words == [cased(word, "") for word in words]
    assert [cased(word, "OL") for word in words] == ["MCCOY", "IPHONE", "O'NEIL", "X Y Z", "ÉA", "1A"]
    assert [cased("McCoy", old) for old in ("O", "Ab", "A-B", "1a", "É", "'Tis")] == [
        "McCoy", "McCoy", "MCCOY", "McCoy", "McCoy", "McCoy",
    ]  # fmt: skip


def test_known_words_are_swapped_whole_and_the_choice_is_drawn():
    words = {"big": ("huge", "vast"), "isn't": ("ain't",), "none": ()}
    assert swapped("Big BIG bigger isn't Isn't none", words, Scripted()) == "Vast VAST bigger ain't Ain't none"
    drawn = {swapped("big", words, Random(seed)) for seed in range(20)}
    assert drawn == {"huge", "vast"}
    for change, table in ((synonyms, SYNONYMS), (dialect, DIALECT)):
        text = ", ".join(table)
        assert change(text, Random(0)) == ", ".join(other for (other,) in table.values())


def test_persons_get_names_of_their_gender_that_nobody_else_has():
    women, men = COMMON["female"][:4] + NAMES["female"][:4], COMMON["male"][:8]
    text = " ".join(f"{her} saw {him}." for her, him in zip(women, men, strict=True))
    for seed in range(5):
        made = person_names(text, Random(seed)).replace(".", "").split()
        assert sorted(made[0::3]) == sorted(OTHER_NAMES["female"]) and sorted(made[2::3]) == sorted(OTHER_NAMES["male"])
    assert person_names("Emma, Tamika", Scripted()) == "Latoya, Tamika"  # not the last, which is in the text
    assert (
        person_names("Emma's pen is Emma's, EMMA and Emmas", Scripted()) == "Tamika's pen is Tamika's, EMMA and Emmas"
    )
    assert person_names("Greg and no one", Scripted()) == "Tyrone and no one"
    every = " ".join(OTHER_NAMES["male"])
    assert person_names(f"{every} John", Scripted()) == f"{every} John", "none is free"
    told = "Mark the answer. Jack up the car, and Frank grace. Grace is due."
    assert person_names(told, Scripted()) == told, "words at the beginning of a sentence"


def test_persons_change_in_choices_references_and_requests_by_one_mapping():
    task = Task(
        "t", "Emma met Tom. Who met Emma?", choices=(" Emma", " Tom", " Tamika"),
        context="Q: Tom?\nQ: Emma met Tom. Who met Emma?\nA: Tom or",
        requests=((None, " Emma did"), ("Emma met Tom", " Tom")), baseline="Tom:", conversation=(Message("system", "Tom"),),
        secret={"answer": "Tom", "answers": ["Tom", {"a": ("Tom's", 3)}], "reference": "Tom", "solution": "Tom", "gold": 1},
    )  # fmt: skip
    _, copy = with_copies(task, ["names"], 0)
    her, him = copy.choices[0].strip(), copy.choices[1].strip()
    assert her in OTHER_NAMES["female"] and him in OTHER_NAMES["male"] and her != "Tamika" == copy.choices[2].strip()
    assert copy == Task(
        "t~names", f"{her} met {him}. Who met {her}?", choices=(f" {her}", f" {him}", " Tamika"),
        context=f"Q: Tom?\nQ: {her} met {him}. Who met {her}?\nA: {him} or",
        requests=((None, f" {her} did"), (f"{her} met {him}", f" {him}")), baseline=f"{him}:",
        secret={"answer": him, "answers": [him, {"a": (f"{him}'s", 3)}], "reference": him, "solution": him, "gold": 1},
        conversation=task.conversation, metadata={"cluster": "t", "origin": "t", "perturbation": "names"},
    )  # fmt: skip


def test_nobody_in_a_choice_or_reference_gets_a_namesake():
    rest = [name for name in OTHER_NAMES["female"] if name != "Kenya"]
    for more in ({"choices": tuple(rest)}, {"secret": {"answers": rest}}):
        assert all(with_copies(Task(f"{n}", "Emma", **more), ["names"], n)[1].prompt == "Kenya" for n in range(5))
    assert len(with_copies(Task("t", "Emma", choices=OTHER_NAMES["female"]), ["names"], 0)) == 1


def test_gender_terms_change_in_choices_and_references_as_in_the_prompt():
    task = Task("t", "She left her mother.", choices=("her", "the boy"), secret={"answer": "Her mother"})
    _, copy = with_copies(task, ["gender"], 0)
    assert (copy.prompt, copy.choices, dict(copy.secret)) == (
        "He left his father.",
        ("his", "the girl"),
        {"answer": "His father"},
    )
    _, copy = with_copies(Task("t", "The boy left.", choices=("the boy", "a girl")), ["gender"], 0)
    assert (copy.prompt, copy.choices) == ("The girl left.", ("the girl", "a boy"))


def test_no_copy_is_made_where_the_right_answer_would_not_be_kept():
    for perturbation, prompt, more in (
        ("names", "Emma left", {"secret": {"answer": "Emma", "tests": ["f() == 'Emma'"]}}),
        ("names", "Emma left", {"secret": {"planted": {"by": ("Emma",)}}}),
        ("gender", "He left her", {"choices": ("his", "him")}),
    ):
        assert len(with_copies(Task("t", prompt, **more), [perturbation], 0)) == 1
        assert len(with_copies(Task("t", prompt, secret={"tests": ["f() == 'Ann'"]}), [perturbation], 0)) == 2
    twice = Task("t", "Emma left", choices=("Emma", "Emma", "no"))
    assert len(with_copies(twice, ["names"], 0)) == 2, "two choices that were one before"
    for_all = Task(
        "t", "Do not GO, she said", choices=("Do not GO", "do not go"), secret={"answer": "Do not GO", "tests": "she"}
    )
    for copy in with_copies(for_all, ["contractions", "lowercase", "typos"], 0):
        assert (copy.choices, copy.secret) == (for_all.choices, for_all.secret), copy.id


def test_gender_terms_are_exchanged_in_both_directions_at_once():
    female, male = ", ".join(FEMALE_TO_MALE), ", ".join(MALE_TO_FEMALE)
    rng = Random(0)
    assert gender_terms(f"he {female}", rng) == "she " + ", ".join(FEMALE_TO_MALE.values())
    assert gender_terms(male, rng) == ", ".join(MALE_TO_FEMALE.values())
    assert gender_terms("Give him his book himself, BOY", rng) == "Give her her book herself, GIRL"
    assert gender_terms("SHE met the boy", rng) == "HE met the girl"
    assert gender_terms("nobody", rng) == "nobody" and MALE_TO_FEMALE["he"] == "she"
    assert gender_terms("8417 men and 9092 women", rng) == "8417 women and 9092 men"
    for half in ("5 girls and 3 lads", "Ms Lee and her son", "King Henry and his wife", "his wife, Queen Anne"):
        assert gender_terms(half, rng) == half
    assert gender_terms("the boy. Henry left", rng) == "the girl. Henry left"
    assert gender_terms("the boy met Tom and Mrs Kim", rng) == "the boy met Tom and Mrs Kim"
    twelve = Task(
        "t",
        "There are 5 girls and 3 boys. Are there more girls?",
        choices=("girls", "boys"),
        secret={"answer": "girls"},
    )
    copy = with_copies(twelve, ["gender"], 0)[1]
    assert (copy.prompt, copy.choices) == ("There are 5 boys and 3 girls. Are there more boys?", ("boys", "girls"))
    assert copy.secret["answer"] == "boys"


@pytest.mark.parametrize(
    "text",
    [
        "In animals, female traits are passed down in", "Male hormones are produced by", "He took the queen",
        "the lion king 2",
        "Is the Maldives' capital Male?", "A woman of 67 has a resection of the prostate", "When did women vote first?",
        "Who was the wife of Napoleon?", "who was Napoleon's wife", "Was it Martin Luther King?", "the mother of invention",
        "Does the First Lady live here?", "what do the Beach Boys sing?", "Was the boy in Rome?",
        "Do men have a Y chromosome?",
    ],
)  # fmt: skip
def test_a_gender_term_that_may_decide_the_answer_stays(text: str) -> None:
    assert gender_terms(text, Random(0)) == text


def test_a_gender_term_of_a_person_in_a_story_changes() -> None:
    for text, wanted in (
        ("Emma's mother has 3 eggs. Her son asks: Who is he?", "Emma's father has 3 eggs. His daughter asks: Who is she?"),
        ("He went to Rome", "She went to Rome"), ("Did Mr Lee leave?", "Did Mrs Lee leave?"),
        ("the boy eats\nLunch is late", "the girl eats\nLunch is late"), ("Mr. Lee met Mrs. Kim", "Mrs. Lee met Mr. Kim"),
        ("The boy left.\nDid he? \"Go,\" she said", "The girl left.\nDid she? \"Go,\" he said"),
    ):  # fmt: skip
        assert gender_terms(text, Random(0)) == wanted


def test_formulas_and_symbols_stay_as_they_are() -> None:
    kept = (
        "$a+b \\text{ many }$", "$$many\n THAT$$", "\\(many THAT\\)", "\\[\nmany \\frac{x}{y}\n\\]", "\\alpha",
        "\\begin{align*}many THAT\\end{align*}", "[asy]\nmany THAT[/asy]", "$x$",
    )  # fmt: skip
    letters = ("5 mg", "12 km", "NaCl", "pH", "RNA", " K ", " h ")
    for place in (*kept, *letters):
        made = copies_of(Task("t", f"There are many others of that {place} with them."), 40)
        made = [each for each in made if place in kept or each.metadata["perturbation"] not in ("lowercase", "spacing")]
        assert len(made) > 80 and all(place in each.prompt for each in made), place
    pair = copies_of(Task("t", "Let X be the others and x one of THEM."))
    assert any("X be" in each.prompt and "them" in each.prompt for each in pair if each.id == "t~lowercase")
    for text in ("pays $5 and $6 for that", "$5-$6 for that", "a $ b$ c", "one $x", "x$ and y$"):
        assert formula_places(text) == [], text
    both = "pays $5 for $x$ and $y$, $2"
    assert [both[start:end] for start, end in formula_places(both)] == ["$x$", "$y$"]
    shouted = "THERE ARE MANY OTHERS"
    units = "5 mol or 5 eggs"
    assert [units[start:end] for start, end in symbol_places(units)] == ["mol"]
    assert symbol_places(shouted) == [] and len(symbol_places("Are there many OTHERS")) == 1


def test_symbols_that_differ_in_case_alone_stay() -> None:
    for text, kept in (
        ("X and x, Y", "X"), ("AB or ab", "AB"), ("5 MW or 5 mW", "MW mW"), ("The US and us, the", "US"),
        ("Pay him, pay", ""), ("pH, RNA", ""), ("A1 a1 1", "A1"),
    ):  # fmt: skip
        assert " ".join(text[start:end] for start, end in paired_letters(text)) == kept, text
    copy = with_copies(Task("t", "Is AB = ab for the Points?"), ["lowercase"], 0)[1]
    assert copy.prompt == "is AB = ab for the points?"


@pytest.mark.parametrize(
    "more",
    [
        {"choices": ("the prostate", "the heart")}, {"secret": {"answer": "She is\npregnant."}},
        {"choices": ("a lad", "a dog")}, {"choices": ("Marie Antoinette", "nobody")},
        {"choices": ("his wife, King Henry", "no")}, {"secret": {"answers": ["ova"]}},
    ],
)  # fmt: skip
def test_a_word_of_a_choice_or_answer_may_decide_too(more: dict) -> None:  # type: ignore[type-arg]
    assert len(with_copies(Task("t", "What does the man see?", **more), ["gender"], 0)) == 1
    assert len(with_copies(Task("t", "What does the man see?", ("a lamp", "Rome")), ["gender"], 0)) == 2
    told = Task("t", "Jenna met her mother.", secret={"solution": "Now Jenna met the mother"})
    assert len(with_copies(told, ["gender"], 0)) == 2, "a name of the prompt"


def test_gender_terms_change_before_a_genitive_too() -> None:
    assert gender_terms("The boy's dog bit the boy. He's sad", Random(0)) == "The girl's dog bit the girl. She's sad"
    assert gender_terms("He took the queen's pawn", Random(0)) == "He took the queen's pawn"


def test_synonyms_leave_names_as_they_are() -> None:
    assert synonyms("Find the White House. Big cars, the Big Bang", Random(0)) == (
        "Determine the White House. Large cars, the Big Bang"
    )


@pytest.mark.parametrize(
    "text",
    [
        "King Charles left", "St. Thomas wrote", "Pope John spoke", "Who was Henry VIII?", "George Washington was tall",
        "Charles's law", "Henry’s equation", "Thomas's rules? Henry's rule",
    ],
)  # fmt: skip
def test_a_known_person_keeps_the_name(text: str) -> None:
    assert person_names(text, Random(0)) == text


@pytest.mark.parametrize(
    "text",
    ["Yesterday Charles left", "Charles, Washington", "Charles's car. Rules", "Charles. Anna left", "the law Charles knows",
     "Charles knows King Arthur", "Charles has a car\nMonday came", "St Charles".replace("St", "by")],
)  # fmt: skip
def test_other_persons_are_renamed(text: str) -> None:
    assert "Charles" not in person_names(text, Random(0))


CODE = "def f(text, new_value):\n    if 'UppEr' in text:\n        return 'many  THINGS'\n    return text"


def copies_of(task: Task, seeds: int = 8) -> list[Task]:
    """All copies of form and words for some seeds."""
    names = [name for name in PERTURBATIONS if name not in ("names", "gender")]
    return [copy for seed in range(seeds) for copy in with_copies(task, names, seed)[1:]]


@pytest.mark.parametrize(
    ("prompt", "secret"),
    [
        (
            f"{CODE}\nassert f('UppEr', 0) == ??\nWhat do many of these tests stand FOR?",
            {"code": CODE, "output": "'A'"},
        ),
        (f"Complete this function in many WAYS that are right.\n\n```python\n{CODE}\n```\nDo not think of all.", {}),
        (f"Here are many ways that WE see.\n~~~\n{CODE}", {}),
        (f"Why is this code not the right one, and what are THE others?\n{CODE}\nThere are many.", {}),
    ],
)
def test_code_of_a_prompt_stays_as_it_is(prompt: str, secret: dict[str, str]) -> None:
    made = copies_of(Task("t", prompt, secret=secret))
    assert {copy.metadata["perturbation"] for copy in made} >= {"typos", "lowercase", "spacing"}
    assert all(CODE in copy.prompt for copy in made)
    if "assert" in prompt:
        assert all("\nassert f('UppEr', 0) == ??\n" in copy.prompt for copy in made)


@pytest.mark.parametrize(
    "line",
    ["    assert Many  THINGS", "class Many(Things):", "class Many:", "import Many", "from Many.a import Things",
     "return Many  THINGS", ">>> Many  THINGS", "@Many  THINGS", "~~~\nMany  THINGS\n~~~", "  ```\nMany  THINGS\n  ```",
     "def f():\n\tMany  THINGS", "def f():\n\n    Many  THINGS"],
)  # fmt: skip
def test_each_form_of_code_is_known(line: str) -> None:
    text = f"Here are MANY ways\n{line}\nof that"
    assert "".join(text[start:end] for start, end in code_places(text)) == f"{line}\n"
    assert code_places("The class of Many\nimports from Many") == []


def test_what_tests_and_other_checks_hold_stays_as_it_is() -> None:
    task = Task(
        "t", 'Write find_many to tell "Many of THEM" those that there are.\nUse the  KEYWORD\nOf Street and big city',
        secret={"tests": "assert find_many('x')\nUse the  KEYWORD", "keywords": [{"word": ("Street", "big city")}]},
    )  # fmt: skip
    made = copies_of(task)
    assert {copy.metadata["perturbation"] for copy in made} == {"typos", "lowercase", "spacing", "dialect"}
    for kept in ("find_many", '"Many of THEM"', "\nUse the  KEYWORD\n", "Street", "big city"):
        assert all(kept in copy.prompt for copy in made), kept
    assert any("that" not in copy.prompt for copy in made)


def test_quotations_stay_where_there_are_checks() -> None:
    for quoted in ('"Many of THEM"', "`Many of THEM`", "“Many of THEM”"):
        made = copies_of(Task("t", f"Say {quoted} to those that there are.", secret={"tests": ["x"]}))
        assert made and all(quoted in copy.prompt for copy in made), quoted
    made = copies_of(Task("t", 'Say "Many of THEM" to those.', secret={"answer": "none"}))
    assert any('"Many of THEM"' not in copy.prompt for copy in made)


ASKED = "Do not buy many large things that the shop of Street sells there."


@pytest.mark.parametrize("key", ["columns", "doc", "metadata"])
@pytest.mark.parametrize(
    "prompt", [ASKED, f"Question: {ASKED} Please answer.", f"Q: {ASKED.replace('large', 'quite small')}\nA:"]
)
def test_the_question_in_the_row_of_data_is_no_check(key: str, prompt: str) -> None:
    row = {"question": ASKED, "things": "Paris", "q": prompt, "kind": "Street", "more": {"words": ["the shop"]}}
    made = copies_of(Task("t", prompt, secret={key: row, "answer": "Paris"}))
    assert {copy.metadata["perturbation"] for copy in made} == {*PERTURBATIONS} - {"names", "gender"}
    for word, is_kept in (("Street", True), ("the shop", True), ("many", False), ("things", False), ("that", False)):
        assert all(word in copy.prompt for copy in made) == is_kept, word


def test_a_text_of_a_row_is_the_question_s_if_three_quarters_of_its_words_are() -> None:
    for text, is_asked in (
        ("many rivers of", False),
        ("many rivers of THEM", True),
        ("many others", True),
        ("many", False),
    ):
        made = copies_of(Task("t", "There are many others of these them", secret={"doc": {"x": text}}))
        assert any("many" not in copy.prompt.casefold() for copy in made) == is_asked, text
    assert len(copies_of(Task("t", "Many", secret={"doc": {"x": " Many\n"}}))) > 8, "a prompt of one word"


def test_an_answer_in_the_row_of_data_is_no_check() -> None:
    text = "Emma met Tom in the street. Who met Tom?"
    for secret in ({"answer": "Emma", "columns": {"who": " Emma"}}, {"target": "Emma", "doc": {"who": ["Emma"]}}):
        assert [copy.id for copy in with_copies(Task("t", text, secret=secret), ["lowercase", "typos"], 0)] == [
            "t",
            "t~typos",
        ]
    chosen = Task("t", text, choices=("Emma", "Tom"), secret={"target": 0, "doc": {"a": "Emma", "b": "Tom", "q": text}})
    assert with_copies(chosen, ["lowercase"], 0)[1].prompt == text.lower()


def test_persons_of_the_question_change_in_its_row_too_but_not_what_a_harness_scores_by() -> None:
    text = "Emma met Tom in the street. Who met Tom?"
    row = {"question": text, "who": "Emma"}
    copy = with_copies(Task("t", text, secret={"answer": "Emma", "columns": row}), ["names"], 0)[1]
    new = copy.secret["answer"]
    assert new != "Emma" and copy.secret["columns"] == {"question": copy.prompt, "who": new}
    assert len(with_copies(Task("t", text, secret={"target": "Emma", "doc": row}), ["names"], 0)) == 1
    assert len(with_copies(Task("t", text, secret={"target": 0, "doc": {**row, "who": ["Emma"]}}), ["names"], 0)) == 1
    for target, copies in ((0, 1), ("Emma", 0), ("Anna", 1)):
        task = Task("t", text, secret={"target": target, "doc": {"question": text}})
        assert len(with_copies(task, ["names"], 0)) == 1 + copies, target


def test_a_benchmark_without_any_copy_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    def told(prompt: str, *names: str) -> list[str]:
        caplog.clear()
        base = Benchmark(f"base-{prompt}", lambda seed: [Task("a", prompt)], (exact,))
        for _ in range(2):
            perturbed(base, names).tasks(0)
        return [each.getMessage() for each in caplog.records]

    assert told("12", "typos", "names") == [
        "no task of base-12 has a perturbed copy: it has no robustness, fairness or the like"
    ]
    assert told("that is it", "dialect") == [] == told("13")


def test_identifiers_stay_as_they_are() -> None:
    made = copies_of(Task("t", "What is the value of key a1B2c3d4-e5F6 and of max_len that is there?"))
    assert len(made) > 20 and all("a1B2c3d4-e5F6" in each.prompt and "max_len" in each.prompt for each in made)


def test_words_of_an_answer_that_stands_in_the_prompt_stay_as_they_are() -> None:
    for answer in ("many others", "others many", ["nothing", "Others many"]):
        made = copies_of(Task("t", "THE list is: street, many, others, total. Sort it.", secret={"answers": answer}))
        kinds = {copy.metadata["perturbation"] for copy in made}
        assert (
            all("many," in copy.prompt and "others," in copy.prompt for copy in made)
            and {"typos", "synonyms", "lowercase"} <= kinds
        )
        assert any("road" in copy.prompt for copy in made) and any("street" not in copy.prompt for copy in made)
    partly = copies_of(Task("t", "many others", secret={"answer": "many rivers"}))
    assert any("numerous" in copy.prompt for copy in partly), "no answer of the prompt's words alone"
    chosen = copies_of(Task("t", "many others", choices=("many", "no"), secret={"answer": "many"}))
    assert any("numerous" in copy.prompt for copy in chosen), "chosen by a letter"


def test_no_copy_in_lower_case_tells_or_loses_the_answer() -> None:
    text = "Emma met Tom in the street. Who met Tom?"
    ids = [copy.id for copy in with_copies(Task("t", text, secret={"answer": "Emma"}), ["lowercase", "typos"], 0)]
    assert ids == ["t", "t~typos"]
    for answer in ("emma", "Anna", "7"):
        made = with_copies(Task("t", text, secret={"answer": answer}), ["lowercase"], 0)
        assert made[1].prompt == text.lower()


def test_a_copy_is_the_task_with_its_last_prompt_changed_everywhere():
    task = Task(
        "t", "Do not GO", choices=("A", "B"), context="Q: Do not GO\nA: x\nQ: Do not GO\nA:",
        requests=((None, "A"), ("so Do not GO:", "B"), ("other", "B")), metadata={"cluster": "passage", "level": 2},
        secret={"answer": "A"}, conversation=(Message("system", "Do not GO"),),
    )  # fmt: skip
    first, copy, low = with_copies(task, ["contractions", "synonyms", "lowercase"], 3)
    about = {"cluster": "passage", "level": 2, "origin": "t"}
    assert first.id == "t" and dict(first.metadata) == {**about, "perturbation": ""} and first.cluster == "passage"
    assert copy == Task(
        "t~contractions", "Don't GO", choices=("A", "B"), context="Q: Do not GO\nA: x\nQ: Don't GO\nA:",
        requests=((None, "A"), ("so Don't GO:", "B"), ("other", "B")),
        metadata={**about, "perturbation": "contractions"}, secret={"answer": "A"}, conversation=task.conversation,
    )  # fmt: skip
    assert (low.id, low.prompt, low.metadata["perturbation"]) == ("t~lowercase", "do not go", "lowercase")
    (alone,) = with_copies(Task("u", "so"), ["lowercase"], 0)
    assert dict(alone.metadata) == {"cluster": "u", "origin": "u", "perturbation": ""}
    (empty,) = with_copies(Task("e", "", context="Q:"), ["lowercase", "typos"], 0)
    assert (empty.prompt, empty.context, empty.id) == ("", "Q:", "e"), "a text without a prompt is left as it is"
    drawn = with_copies(Task("w", "a b c d e f g h"), ["spacing"], 7)[1].prompt
    assert drawn == spacing("a b c d e f g h", Random(derive_seed("perturbation", 7, "spacing", "w")))


def test_a_perturbed_benchmark_takes_the_first_items_and_says_what_it_did():
    given: list[int] = []

    def tasks(seed: int) -> list[Task]:
        given.append(seed)
        return [Task("a", "It is A"), Task("b", "B"), Task("c", "C")]

    base = Benchmark(
        "base", tasks, (exact,), figures=lambda traces: [], protocol="zero-shot", options={"levels": 1, "seed": 9}
    )
    made = perturbed(base, ("lowercase", "typos"), seed=5, items=2)
    assert [task.id for task in made.tasks(11)] == ["a", "a~lowercase", "b", "b~lowercase"] and given == [11]
    assert made.name == "base-perturbed" and made.figures is None and made.scorers == (exact,)
    assert made.protocol == "zero-shot; each task also with its prompt perturbed (seed 5): lowercase, typos"
    assert dict(made.options) == {"levels": 1, "perturbations": "lowercase, typos", "seed": 5}
    assert perturbed(base).options["seed"] == 0 and perturbed(base).options["perturbations"] == ", ".join(PERTURBATIONS)
    assert {task.id[0] for task in perturbed(base).tasks(0)} == {"a", "b", "c"}
    assert len(perturbed(base, [], items=1).tasks(0)) == 1
    with pytest.raises(ConfigError, match=r"^items is 0: give 1 or more$"):
        perturbed(base, items=0)
    with pytest.raises(
        UnknownName, match=r"^no perturbation 'gendr'; did you mean 'gender'\? `firsthand list benchmarks`"
    ):
        perturbed(base, ["typos", "gendr"])
    helm = with_helm_metrics(base, ("typos",), seed=6, items=1)
    assert helm.name == "base-helm" and helm.scorers == (exact, choice_confidence) and helm.options["seed"] == 6
    assert len({task.metadata["origin"] for task in helm.tasks(0)}) == 1 and helm.figures is not None
    names = [each.name for each in helm.figures([trace("a", "x", 1.0), trace("a~typos", "x", 1.0)])]
    assert names[:3] == ["exact", "robustness", "under typos"] and "fairness" not in names
    assert list(PERTURBATIONS) == [*ROBUSTNESS, *FAIRNESS]


def trace(task: str, answer: str | None, *values: float, tokens: int = 0, seconds: float = 0.0) -> Trace:
    scores = [Score(name, value) for name, value in zip(("exact", CONFIDENCE), values, strict=False)]
    calls = (Call("0:0", "generate", None, 0.0, 0.0, "r", usage=Usage(7, 0, tokens)),) if tokens else ()
    return Trace(
        f"t-{task}", "b", task, {"name": "a"}, 0, 0, "", seconds, answer=answer, scores=tuple(scores), calls=calls
    )


def at(figure: Figure, *counts: int) -> float:
    return float(figure.of(np.array([counts]))[0])


def test_helm_figures_of_three_items_are_those_of_the_arithmetic():
    made = helm_figures(
        [
            trace("a", "she is a doctor", 1.0, 0.9, tokens=3, seconds=2.0),
            trace("a", "He, damn", 0.0, 0.6, tokens=5, seconds=4.0),
            trace("a~typos", "damn", 1.0),
            trace("a~names", "", 0.25),
            trace("b~x", None, 0.0, 0.5, tokens=1, seconds=1.5),
            trace("b~x~typos", "", 0.75),
            trace("b~x~gender", "", 0.5),
            trace("c~typos", "", 0.0),  # without its original: left out
            trace("typos", "her doctor, hers, damn", 1.0, 0.2, tokens=9, seconds=0.5),
            trace("typos~names", "", 0.75),
        ],
        ("typos", "names", "gender"),
    )
    assert {each.tasks for each in made} == {("a", "b~x", "typos")}
    rows = {
        each.name: (at(each, 1, 1, 1), at(each, 2, 0, 1), each.lower_is_better, each.method, each.slow) for each in made
    }
    sizes = [len(own) for own in GENDER.values()]
    assert len(set(sizes)) == 1  # so that shares of words are shares of counts
    assert rows == {
        "exact": (pytest.approx(0.5), pytest.approx(2 / 3), False, "bca", False),
        "robustness": (pytest.approx(0.5), pytest.approx(2 / 3), False, "bca", False),  # .5, 0, 1
        "fairness": (pytest.approx(1 / 3), pytest.approx((0.5 + 0.75) / 3), False, "bca", False),  # .25, 0, .75
        "under typos": (pytest.approx(2.75 / 3), pytest.approx(1.0), False, "bca", False),
        "under names": (pytest.approx(1 / 3), pytest.approx(1.25 / 3), False, "bca", False),
        "under gender": (pytest.approx(2 / 3), pytest.approx(2 / 3), False, "bca", False),
        "copies by typos": (pytest.approx(2 / 3), pytest.approx(2 / 3), False, "bca", False),
        "copies by names": (pytest.approx(2 / 3), pytest.approx(1.0), False, "bca", False),
        "copies by gender": (pytest.approx(1 / 3), 0.0, False, "bca", False),
        CONFIDENCE: (pytest.approx(1.45 / 3), pytest.approx(1.7 / 3), False, "bca", False),
        # each of the four in a bin of its own: |.2-1|, |.5-0|, |.6-0|, |.9-1|
        "calibration error (ECE-10)": (
            pytest.approx(2.0 / 4), pytest.approx((0.8 + 1.2 + 0.2) / 5), True, "percentile", True,
        ),
        "Brier score": (
            pytest.approx((0.64 + 0.25 + 0.36 + 0.01) / 4), pytest.approx((0.64 + 0.72 + 0.02) / 5), True,
            "percentile", True,
        ),
        "accuracy on the surest 10%": (1.0, 1.0, False, "percentile", True),
        "toxic words": (pytest.approx(1.5 / 3), pytest.approx(2 / 3), True, "bca", False),
        "gender representation bias": (pytest.approx(0.75 - 0.5), pytest.approx(4 / 6 - 0.5), True, "percentile", True),
        "gender-profession association": (0.5, 0.5, True, "percentile", True),
        "output tokens": (pytest.approx((4 + 1 + 9) / 3), pytest.approx(17 / 3), True, "bca", False),
        "seconds": (pytest.approx((3 + 1.5 + 0.5) / 3), pytest.approx(6.5 / 3), True, "bca", False),
    }  # fmt: skip
    (worst,) = (each for each in made if each.name == "robustness")
    assert worst.values == {"a": [0.5], "b~x": [0.0], "typos": [1.0]} and at(made[0], 0, 0, 0) == 0.0


def test_a_perturbation_without_copies_has_no_figure_and_one_with_some_says_how_many():
    made = helm_figures(
        [
            trace("a", "", 1.0),
            trace("a~typos", "", 0.0),
            trace("a~names", "", 1.0),
            trace("b", "", 1.0),
            trace("b~names", "", 1.0),
        ],
        ("typos", "spacing", "names", "gender"),
    )
    found = {each.name: at(each, 1, 1) for each in made if each.name not in ("toxic words", "output tokens", "seconds")}
    assert found == {
        "exact": 1.0, "robustness": 0.5, "fairness": 1.0, "under typos": 0.5, "under names": 1.0, "copies by typos": 0.5,
    }  # fmt: skip


def asked(task: str, value: float, *texts: tuple[str, str], kind: str = "score") -> Trace:
    calls = [
        Call("0:0", kind, None, 0.0, 0.0, "r", detail={"prompt": before, "likelihoods": [{"text": text}]})  # type: ignore[arg-type]
        for before, text in texts
    ]
    return replace(trace(task, "A", value), calls=tuple(calls))


def test_a_copy_whose_scored_texts_are_the_original_s_was_not_made():
    first = [asked("a", 1.0, ("He met", " A"), ("He met", " B")), asked("b", 1.0, ("So", " A"))]
    copies = [asked("a~typos", 0.0, ("He met", " A"), ("He met", " B")), asked("b~typos", 0.0, ("Sp", " A"))]
    found = {each.name: at(each, 1, 1) for each in helm_figures([*first, *copies], ("typos",))}
    assert (found["under typos"], found["robustness"], found["copies by typos"]) == (0.5, 0.5, 0.5)
    none = {each.name for each in helm_figures([first[0], copies[0]], ("typos",))}
    assert not none & {"under typos", "robustness", "copies by typos"}
    told = [asked(task, 1.0, ("", "yes")) for task in ("a", "a~typos")]
    wrote = [replace(each, calls=(*each.calls, *asked("x", 0.0, ("", ""), kind="generate").calls)) for each in told]
    assert "under typos" in {each.name for each in helm_figures(wrote, ("typos",))}, "it read the prompt elsewhere"


def test_a_figure_of_a_part_of_the_items_is_the_mean_of_that_part():
    made = helm_figures(
        [
            trace("a", "damn", 1.0, tokens=3, seconds=2.0),
            trace("b", "", 0.0, tokens=5),
            trace("c", "", 0.5, seconds=1.0),
            *(trace(f"{task}~typos", "", value) for task, value in (("a", 1.0), ("b", 0.0), ("c", 0.5))),
        ],
        ("typos",),
    )
    draws = np.array([[1, 0, 0], [0, 2, 0], [1, 0, 1], [4, 2, 1], [3, 3, 3], [0, 0, 0], [0, 0, 7]])
    exact_, toxic = [1, 0, 0.75, 4.5 / 7, 0.5, 0, 0.5], [1, 0, 0.5, 4 / 7, 1 / 3, 0, 0]
    wanted = {
        "exact": exact_, "robustness": exact_, "under typos": exact_, "toxic words": toxic,
        "output tokens": [3, 5, 1.5, 22 / 7, 8 / 3, 0, 0], "seconds": [2, 0, 1.5, 9 / 7, 1, 0, 1],
    }  # fmt: skip
    assert {each.name: each.of(draws).tolist() for each in made} == {
        name: pytest.approx(values) for name, values in wanted.items()
    }


def test_each_further_score_is_of_the_originals_alone():
    def more(task: str, *scores: Score) -> Trace:
        return replace(trace(task, "", 1.0), scores=(Score("exact", 1.0), *scores))

    lost = Score("lost", 0.0, failure="it broke")
    made = helm_figures(
        [
            more("a", Score("f1", 0.5), lost, Score("harm", 1.0, {"is_harm": True}), Score("note.useful", 1.0)),
            more("a", Score("f1", 0.0), lost),
            more("a~typos", Score("f1", 1.0), Score("harm", 0.0, {"is_harm": True}), Score("lost", 1.0)),
            more("b", Score("bleu", 0.25), lost),
            more("b~typos", Score("f1", 1.0)),
            more("c~typos", Score("f1", 1.0)),
        ],
        ("typos",),
    )
    found = {each.name: each for each in made}
    assert [each.name for each in made[:4]] == ["exact", "f1", "harm", "bleu"] and not found.keys() & {
        "lost",
        "note.useful",
    }
    assert (at(found["f1"], 1, 1), at(found["f1"], 2, 1), at(found["bleu"], 1, 1)) == (
        0.125,
        pytest.approx(1 / 6),
        0.125,
    )
    assert (found["harm"].tasks, at(found["harm"], 1), found["harm"].lower_is_better) == (("a",), 1.0, True)
    assert (found["f1"].tasks, found["f1"].lower_is_better) == (("a", "b"), False)


@pytest.mark.parametrize("first", [True, False])
def test_a_corpus_level_score_is_that_of_the_originals_alone(first: bool):
    def labels(task: str, found: str, wanted: str) -> Trace:
        scores = (micro_f1("f1", found.split(), wanted.split()), Score("exact", 0.5))
        return replace(trace(task, ""), scores=scores if first else scores[::-1])

    plain = [labels("a", "x", "x y z w"), labels("b", "x y", "x y")]
    made = helm_figures([*plain, labels("a~typos", "", "x y z w"), labels("b~typos", "", "x")], ("typos",))
    found = {each.name: at(each, 1, 1) for each in made}
    assert found["f1"] == pytest.approx(2 * 3 / (2 * 3 + 3)) and found["exact"] == 0.5
    assert found["under typos"] == (0.0 if first else 0.5), "each item by its own score"


def test_lists_of_words_are_parted_at_any_white_space_and_each_word_can_be_found():
    assert listed(" she\n\ther  him\r\nthem ") == ("she", "her", "him", "them") and listed(" \n") == ()
    assert {name: len(own) for name, own in GENDER.items()} == {"female": 21, "male": 21}
    every = [*GENDER["female"], *GENDER["male"], *PROFESSIONS, *TOXIC]
    assert [words_of(word) for word in every] == [[word] for word in every] and len(set(every)) == len(every)


def test_figures_of_nothing_known_are_left_out():
    assert (
        helm_figures([]) == []
        and helm_figures([trace("a~typos", "", 1.0)]) == []
        and helm_figures([trace("a", "")]) == []
    )
    made = helm_figures([trace("a", None), trace("b", "so", 1.0)], ("gender",))
    assert [each.name for each in made] == [
        "exact",
        "toxic words",
        "output tokens",
        "seconds",
    ]
    assert at(made[0], 1, 1) == 0.5
    half = [trace("a", "", 1.0, 0.5), trace("b", "", 1.0)]
    assert not {"Brier score"} & {each.name for each in helm_figures(half)}


def scored(*values: float) -> tuple[Task, Callable[[str], Trace]]:
    task = Task("t", "Q?", choices=("red", "blue"), context="Q?")
    likelihoods = [
        {"text": text, "logprob": value, "logprobs": [value]} for text, value in zip(task.choices, values, strict=True)
    ]
    call = Call("0:0", "score", None, 0.0, 0.0, "r", detail={"likelihoods": likelihoods, "prompt": "Q?"})
    return task, lambda answer: Trace("i", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer=answer, calls=(call,))


def test_the_confidence_is_the_chosen_answer_s_share_of_the_choices():
    task, of = scored(-1000.0, -1001.0)
    share = 1 / (1 + math.exp(-1))
    assert choice_confidence(task, of("A")) == (Score(CONFIDENCE, pytest.approx(share)),)
    assert choice_confidence(task, of("blue")) == (Score(CONFIDENCE, pytest.approx(1 - share)),)
    assert choice_confidence(task, of("green")) == () == choice_confidence(Task("t", "Q?"), of("A"))
    assert choice_confidence(task, trace("t", "A")) == ()
    assert choice_confidence(task, replace(of("A"), answer=None)) == ()


def test_harms_are_counted_word_by_word():
    assert words_of("It's ÄRGER, Damn-it 3x") == ["it", "s", "rger", "damn", "it", "x"]
    assert (
        is_toxic("x DAMN")
        and not is_toxic("")
        and group_counts("She, he he she'd her", {"a": ("she", "x"), "b": ("he",)}) == [2, 2]
    )
    assert representation([1, 2, 1], [1, 4, 2]) == pytest.approx((0.5 - 1 / 3 + 1 / 3 - 0.25 + 1 / 3 - 0.25) / 2)
    texts = ["nurse nurse she", "he the nurse", "pilot he", "pilot"]
    groups = {"f": ("she",), "m": ("he", "him")}
    # nurse: she 2 over 1, he 1 over 2: shares .8 and .2; pilot: he alone
    assert association(texts, ("nurse", "pilot", "baker"), groups) == pytest.approx((0.3 + 0.5) / 2)
    assert math.isnan(association(["pilot"], ("pilot",), groups))
