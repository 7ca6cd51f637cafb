"""Ordinary phrasings of an answer to a task with choices, and what is none; the same for each letter and for numbers."""

from itertools import permutations
from time import process_time

import pytest

from firsthand.patterns.parts.answers import extract_answer
from firsthand.patterns.parts.named_choices import plain
from firsthand.patterns.parts.stated_choice import _revalued
from firsthand.task import Task
from opened_context import asks

CITIES = ("Paris", "London", "Rome", "Berlin")
NUMBERS = ("5", "16", "27", "38")

# L and T are the letter and the text of the choice that is meant, O, P and Q letters of others, W the text of O.
COUNTS = (
    "L", "(L)", "L.", "L)", "[L]", "**L**", "“L”", '"L"', "'L'", "`L`", "L!", "L) T", "L. T", "(L) T", "L: T", "L - T",
    "**L) T**",
    "Answer: L", "Answer: (L)", "Answer: L.", "**Answer:** L", "**Answer: L**", "Answer: **L**", "Answer: L) T",
    "Answer: L. T",
    "Answer: (L) T", "**Answer: (L) T**", "Answer: L - T", "Answer: Option L", "Answer: [L]", "ANSWER: L",
    "Answer: $L$",
    "Final answer: L", "Final Answer: (L)", "Correct answer: L", "The answer is L", "The answer is L.",
    "The answer is (L).",
    "The answer is L!", "The answer is **L**.", "The answer is “L”.", 'The answer is "L".', "The answer is option L.",
    "The correct answer is L.", "The correct option is L.", "The correct choice is (L).", "The best answer is L.",
    "My answer is L.",
    "The answer should be L.", "The answer must be L.", "So the answer is L.", "Therefore, the correct answer is L.",
    "Thus, the final answer is (L).", "The answer to this question is L.", "The answer is:\n\nL",
    "The answer is\n**L**",
    "The answer is definitely L.", "The answer is most likely L.", "The answer is $\\text{L}$.", "\\boxed{L}",
    "$\\boxed{L}$",
    "\\boxed{\\text{L}}", "\\boxed{\\textbf{L}}", "\\boxed{\\mathrm{L}}", "\\boxed{(L)}", "\\boxed{\\text{(L)}}",
    "\\boxed{\\textbf{(L)}\\ T}", "\\[\\boxed{L}\\]", "The answer is \\boxed{L}.",
    "The answer is $\\boxed{\\text{L}}$.",
    "\\boxed{T}", "\\boxed{\\text{T}}", "<answer>L</answer>", "<answer> (L) </answer>", "<answer>T</answer>",
    '{"answer": "L"}', '{"reasoning": "O is wrong", "answer": "L"}', '{"answer": "L", "reason": "it is not O"}',
    '```json\n{"answer": "L"}\n```', "#### L", "### Answer: L", "## Final Answer\n\nL", "T", "T.", "The answer is T.",
    "Answer: T",
    "The answer is **T**.", "The answer is T (L).", "The answer is L (T).", "The answer is L, T.", "It is T.",
    "It's L.", "It's L!",
    "The answer is L because it fits.", "The answer is L, because O and P are wrong.", "Answer: L, since O is too far.",
    "The answer is L, as O does not fit.", "The answer is L, which means T.", "The answer is L, not O.",
    "Answer: L (not O)",
    "The answer is L rather than O.", "The answer is T, not W.", "The answer is L. O is wrong.",
    "The answer is L. I hope this helps.",
    "Answer: L\n\nExplanation: O is tempting, but it is wrong.", "L\n\nExplanation: the others do not fit.",
    "Answer: L is correct.",
    "Option L is correct.", "Option L.", "Option (L) is the correct answer.",
    "Choice L is the best choice. Option O misses a term.",
    "L is right.", "L is right. O is wrong.", "L is right. O, P and Q are wrong.", "L is the correct answer.",
    "So L is the answer.",
    "So L is the answer; O was a trap.", "Thus L must be right.", "Therefore, option L.", "Therefore, L is correct.",
    "So it is L.",
    "So, L.", "I choose L.", "I choose L because it fits better than O does.", "I would go with L.",
    "I'd pick option L.", "I select L here.",
    "I'm going with L.", "The best is L.", "Of the options, L is the best; O and P are wrong.", "Choice L seems best.",
    "Option L fits best; the others do not.", "Option L is correct, whereas O ignores the tax.",
    "L is correct, while O is wrong.",
    "O is tempting, but the answer is L.", "O is wrong. P is wrong. L is right.", "It is not O. It is L.",
    "The answer is not O, it is L.",
    "The answer is not O.\nSo I choose L.", "Between O and L, L is better.", "O or P? Neither fits.\n\nL",
    "I considered O.\nThe answer is L.",
    "The answer is O.\nWait, that is wrong. The answer is L.",
    "Option O: no.\nOption P: no.\nOption L: yes.\n\nAnswer: L",
    "Let me see.\nO) too small\nP) too large\nL) just right\n\nThe correct answer is L) T.", "Réponse : L",
    "Antwort: L", "答案是L", "答案：L",
    "答案是 L。", "The correct statement is L.", "Ｌ",
    "The answer is L in this case.", "The answer is L, based on the passage.",
)  # fmt: skip
NONE = (
    "L or O", "L and O", "L, O", "L; O", "L O", "(L)(O)", "L\nO", "L/O", "L | O", "L & O", "L + O", "L → O", "L = O",
    "L - O",
    "Both L and O.", "Answer: L or O", "Answer: L; O", "Answer: L | O", "Answer: L (or O)", "Answer: L as well as O",
    "Answer: L, then O",
    "Answer: L - O", "Answer: L→O", "Answer: L plus O", "Answer: L O", "Answer: L, O and P",
    "The answer is L. But also O.",
    "The answer is L. Or O.", "The answer is L, or maybe O.", "The answer is L, no wait, O.",
    "The answer is L, as is O.",
    "The answer is either L or O.", "The answer is between L and O.", "The answer is L with 50% and O with 50%",
    "\\boxed{L, O}",
    "\\boxed{L}, \\boxed{O}", "\\boxed{L} or \\boxed{O}", "\\boxed{\\text{not L}}", "-\\boxed{L}",
    "<answer>L or O</answer>",
    '{"answer": "L or O"}', '{"answer": "not L"}', "Answer: not L", "Answer: no L", "Answer: non-L",
    "Answer: ~L",
    "Answer: ¬L",
    "Answer: !L",
    "Answer: ~~L~~", "Answer: <s>L</s>", "Answer: L (incorrect)", "Answer: L, which is wrong", "Answer: L is wrong",
    "Answer: L is ruled out",
    "Answer: L isn't it", "Answer: L fails", "Answer: L cannot be right", "Answer: L must be wrong",
    "Answer: L? I am not sure",
    "Answer: anything but T", "Answer: everything apart from L", "Answer: all except L", "Answer: besides L",
    "Answer: L) W", "Answer: L. W",
    "The answer is anything but T.", "The answer is far from T.", "The answer is not T.", "The answer is T or W.",
    "The answer is T; W",
    "T or W", "T, W", "T is wrong.", "L is wrong.", "The wrong answer is L.", "An incorrect answer would be L.",
    "I doubt the answer is L.",
    "I don't think the answer is L.", "I eliminated L.", "Everything but L.", "I doubt L.", "It cannot be L.",
    "It isn't L.", "Is L correct?",
    "If L is correct, we need more.", "L might be correct.", "Some say L is correct.", "None of L, O, P and Q.",
    "L is close.",
    "L is right. O is right.", "L is right, and so is O. O is correct.", "I cannot decide between L and O.",
    "I choose neither L nor O.",
    "Answer: L. Alternatively, O", "Answer: L. Second choice: O", "Answer: L. If not, O.",
    "Answer: L (50%) O (50%)", "Answer: L: rejected",
    "Answer: L (rejected)", "Answer: L (crossed out)", "Answer: L (definitely not)", "Answer: L\nOr O",
    "Answer: L\n\nOn second thought, O.",
    "L\n\nBut O is right.", "Answer: L\nThis is wrong.", "This is L, which is wrong", "I choose L to eliminate",
    "L is the best to discard",
    "T is a lie.", "T loses.", "T makes little sense.", "Answer: L. T is possible, but W too",
    "Answer: L. No, wait.", "Answer: L. Not really.", "Answer: L) No, wait.", "L is correct?", "So it is L?",
    "Is it that L is right, as it fits?",
    "All of the above", "The answer is E", "Vitamin L helps.", "L) T\nO) W", "The answer is O.\nThe answer is L or O.",
    "Answer: O\n\nAnswer: not O", "Answer: L\n\nWait, that is wrong. It is O.", "Answer: L^2", "Answer: 2L",
    "Answer: L*O",
)  # fmt: skip


def told(form: str, choices: tuple[str, ...], meant: tuple[int, ...]) -> str:
    letters = "ABCD"
    named = dict(zip("LOPQ", (letters[at] for at in meant), strict=True)) | {
        "T": choices[meant[0]],
        "W": choices[meant[1]],
    }
    named["Ｌ"] = chr(ord(named["L"]) + 0xFEE0)
    return (
        "".join(
            named[each]
            if each in named
            and not (form[at - 1 : at].isascii() and form[at - 1 : at].isalpha())
            and not form[at + 1 : at + 2].isalpha()
            else each
            for at, each in enumerate(form)
        )
        .replace("答案是L", f"答案是{named['L']}")
        .replace("2L", f"2{named['L']}")
    )


ORDERS = tuple(
    order for order in permutations(range(4)) if order in {(0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 0, 1, 2)}
)


@pytest.mark.parametrize("choices", [CITIES, NUMBERS])
def test_an_ordinary_phrasing_is_read_for_every_letter(choices: tuple[str, ...]) -> None:
    for form in COUNTS:
        for order in ORDERS:
            text = told(form, choices, order)
            assert (text, extract_answer(text, asks(choices=choices))) == (text, "ABCD"[order[0]])


@pytest.mark.parametrize("choices", [CITIES, NUMBERS])
def test_what_denies_joins_or_only_names_a_choice_is_read_as_none_for_every_letter(choices: tuple[str, ...]) -> None:
    for form in NONE:
        for order in ORDERS:
            text = told(form, choices, order)
            assert (text, extract_answer(text, asks(choices=choices))) == (text, None)


APPLES = Task("n", "How many apples?", choices=("5", "1,000", "0.5", "8"))
POWERS = Task("x", "Which?", choices=("x", "x^2", "2x", "-x"))
TRENDS = Task("u", "What does it do?", choices=("increases", "does not increase", "Both A and B", "decreases"))


def test_a_choice_that_is_a_number_or_an_expression_is_read_to_its_end_and_the_longest_wins() -> None:
    for task, rows in (
        (APPLES, (
            ("Answer: 5", "A"), ("Answer: 5.0", "A"), ("Answer: 5 apples", "A"), ("Answer: x = 5", "A"),
            ("Answer: 1000", "B"),
            ("\\boxed{1{,}000}", "B"), ("The answer is 1/2", "C"), ("Answer: \\frac{1}{2}", "C"), ("There are 5.", "A"),
            ("It is 8, that is 5/8 of it.", "D"), ("It is 8, that is 0.5 of it.", None),
            ("A) 5", "A"), ("Answer: A) 5 apples", "A"), ("3 + 2 = 5", "A"), ("Answer: A) 6", None),
            ("A) I count 6 of them", None),
            ("Answer: 5 pears", None),
            ("10 - 5", None), ("5 km", None), ("\\boxed{5} million", None), ("\\boxed{5\\%}", None),
            ("Answer: 1,000,000", None),
            *((f"The answer is {each}", None) for each in (
                "√5", "5 million", "5²", "5^2", "$5^2$", "5%", "5!", "5:30", "5 - 2", "5 dozen", "5,000", "5{,}000", "5/2",
                "\\frac{5}{2}", "\\sqrt{5}", "- 5", "−5", "$-5$", "minus 5", "twice 5", "more than 5", "5\\pi", "5e3",
                "5 + 4",
                "(5,9)", "less than 5", "5 or 6", "5, 6", "5-6", "5;8", "5 squared", "5.5", "15", "5**2", "5\\,000",
                "5\\text{ million}",
            )),
        )),
        (POWERS, (
            ("x^2", "B"), ("\\boxed{x^2}", "B"), ("The answer is -x.", "D"), ("2x", "C"), ("Answer: x", "A"),
            ("Answer: 3x", None),
            ("Answer: x^3", None), ("Answer: x^2 + 1", None), ("Answer: \\sqrt{x}", None), ("Answer: x/2", None),
            ("Answer: f(x)", None),
        )),
        (asks(choices=("Yes", "No")), (
            ("Answer: no", "B"), ("The answer is Yes.", "A"), ("No", "B"), ("Answer: yes or no", None),
            ("Answer: A is not it", None),
        )),
        (asks(choices=("True", "False")), (
            ("Answer: False", "B"), ("The answer is true.", "A"), ("Answer: A is false", None), ("**B) False**", "B"),
        )),
        (TRENDS, (
            ("It does not increase.", "B"), ("Answer: increases", "A"), ("It hardly increases", None),
            ("It decreases.", "D"),
            ("The answer is that it never increases", None), ("The answer is C, both A and B.", "C"), ("Both A and B", "C"),
        )),
    ):  # fmt: skip
        for text, letter in rows:
            assert (text, extract_answer(text, task)) == (text, letter)


def test_a_choice_has_another_value_by_what_follows_only_if_it_ends_in_a_digit() -> None:
    for choice in ("3", "3 ", "room 3", "$3$"):
        assert _revalued(" million", choice) and _revalued(" * 2", choice), choice
        assert not _revalued(" apples", choice) and not _revalued("", choice), choice
    for choice in ("3 apples", "3 m", "room 3 or more", "apples", ""):
        assert not _revalued(" million", choice) and not _revalued(" * 2", choice), choice


def test_options_that_are_repeated_or_weighed_are_no_answer_and_what_follows_is() -> None:
    task = asks(choices=CITIES)
    options = "A) Paris\nB) London\nC) Rome\nD) Berlin\n"
    for text, letter in (
        (options, None), (options + "\nLondon is the capital, so I choose B.", "B"), (options + "\n**B**", "B"),
        ("A) Paris: in France.\nB) London: in the UK.\n\nThe correct answer is **B) London**.", "B"),
        ("The correct answer is **B. London**.\n\nWhy:\n- **A. Paris** is in France.\n- **C. Rome** is in Italy.", "B"),
        ("The correct answer is (B) London, which is the capital.", "B"), ("London is the Q.", "B"),
        ("London is a joke.", None),
        ("Answer: A\nAnswer: B", "B"), ("Answer: A\nB", None), ("x = \\boxed{B}", "B"), ("- \\boxed{B}", None),
        ("Answer: B, not B", None), ("Answer: B rather than B", None), ("Answer: B, not A", "B"),
        ("Answer: B<|im_end|>", "B"), ("Answer: B</s>", "B"), ("The answer is B. I hope that this answer is helpful.", "B"),
        ("The answer is A, a city", "A"), ("The answer is a matter of taste", None), ("A student came.", None),
    ):  # fmt: skip
        assert (text, extract_answer(text, task)) == (text, letter)


@pytest.mark.parametrize(
    "run", ["A and ", "A, ", "the ", "so ", "(A", "A\n", "\\boxed{", "the correct ", "A ", " ", "is A clearly "]
)
def test_a_long_run_of_one_kind_is_read_in_linear_time(run: str) -> None:
    began = process_time()
    extract_answer(run * (20_000 // len(run)) + "B", asks(choices=CITIES))
    assert process_time() - began < 2


def test_up_to_three_wrappers_of_latex_around_a_text_are_taken_off() -> None:
    for text in (r"\text{B}", r"\text{\textbf{B}}", r"\mathrm{\text {\textit{B}}}", r"\textbf{\text{B}}\ "):
        assert plain(text).strip() == "B", text
    assert plain(r"\text{a \textbf{b} \bm{c}} d") == "a b c d"
