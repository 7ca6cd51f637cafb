"""A stated number ends where a check, a reason or another sentence begins, whatever equation stands there."""

import pytest

from firsthand.patterns.parts.answers import answer_or_text, parse_number
from opened_context import asks

NUMBER = asks("How many are there?", hint="a number")
CHECKED = (
    "The answer is 63. Check: 63 + 29 = 92.", "63. Check: 29 + 63 = 92", "**63**. Check: 63 + 29 = 92.",
    "63! Let's check: 29 + 63 = 92.", "63. To verify: 63 + 29 = 92.", "63. Verification: 63 + 29 = 92 ✓",
    "63; check: 63 + 29 = 92.", "63 - check: 63 + 29 = 92", "63 (you can verify this by computing 63 + 29 = 92).",
    "63 (check: 63 + 29 = 92)", "63 (63 + 29 = 92)", "63 [63 + 29 = 92]", "63 because 63 + 29 = 92",
    "$63$ because $63 + 29 = 92$.", "63, since 63 = 9 x 7.", "63, as 63 + 29 = 92", "63 — because 63 + 29 = 92",
    "63 since 63 plus 29 = 92",
    "63: 63 + 29 = 92.", "63: 92 - 30 = 62, plus 1 = 63", "about 63. 63 + 29 = 92",
    "84 - 21 = 63. Then 63 + 21 = 84.", "She has 63 apples. Check: 63 + 29 = 92.",
    "She has 63 apples because 63 + 29 = 92. Good.",
    "She has 63 apples (63 + 29 = 92).", "She has 63 apples. We verify that 63 + 29 = 92.",
    "63 where 1 week = 7 days", "63, proof: 63 + 29 = 92",
    "63. That leaves 84 - 63 = 21 for Bob.",
    "63. (Twice that would be 63 x 2 = 126.)", "63 apples. 63 + 29 = 92.", "63 cm. 63 + 29 = 92", "63. 63 + 29 = 92",
    "\\(63\\). Indeed, \\(63 + 29 = 92\\).", "63.0. The rest is 10 - 1.5 = 8.5.", "x = 63. Check: 2*63 + 1 = 127.",
    "$x = 63$ since $2x = 126$.", "60 + 3 = 63. Check: 63 - 3 = 60.", "9 boxes * 7 = 63. Each has 63 / 9 = 7.",
    "63 where x = 3.", "63 when x = 3.", "63 = 9 * 7", "63 = 9 × 7.", "63。检查：63 + 29 = 92", "63，因为 63 + 29 = 92。",
    "63（63 + 29 = 92）",
)  # fmt: skip
STILL = (
    ("3 + 4 = 7", "7"), ("20% of 50 = 10.", "10"), ("10/2=5", "5"), ("2 (3 + 1) = 8", "8"), ("2(3 + 1) = 8", "8"),
    ("5 (apples) + 3 (pears) = 8", "8"), ("5 ft. 6 in. = 66 in.", "66"), ("2 hr. 30 min. = 150 min.", "150"),
    ("2 hours = 120 minutes.", "120"), ("2 pens at $3: 2 * 3 = $6", "6"), ("5:30 = 5.5 hours", "11/2"),
    ("50% = 0.5", "1/2"), ("12 = 3 * 4 = 12", "12"), ("10 - 5 = 5", "5"),
    ("5 million. Check: 5 million + 1 million = 6 million", "5000000"), ("5 dozen (5 * 12 = 60)", "60"),
    ("seven. Check: 7 + 3 = 10.", "7"), ("3/4. Then 1 - 3/4 = 1/4 is left.", "3/4"), ("-5. Check: -5 + 8 = 3", "-5"),
    ("$1,250. Total before = $5,000.", "1250"),
)  # fmt: skip
WORKED = (
    ("He has 3 + 2 = 5 apples. He eats 1. So 5 - 1 = 4.", "4"), ("First, 3 + 2 = 5. Then 5 * 2 = 10.", "10"),
    ("She has 5 apples. She buys 2 more: 5 + 2 = 7.", "7"), ("There are 16 eggs. She eats 3. 16 - 3 = 13.", "13"),
    ("Cost = $10. Tax = $2. Total = $12.", "12"), ("Day 1: 5. Day 2: 6. Total = 11", "11"),
    ("x = 3 + 2 = 5. 5 * 2 = 10", "10"),
    ("Step 1: 3 + 2 = 5. Step 2: 5 * 2 = 10.", "10"), ("1. 3 + 2 = 5. 2. 5 * 2 = 10.", "10"),
    ("40% of 50 = 20. 50 - 20 = 30.", "30"), ("A pen costs $2. 3 pens cost 3 * 2 = $6", "6"),
    ("The pen costs 5 because 2 + 3 = 5. The ruler costs 6. Total = 11", "11"),
    ("He buys 3 pens (3 * 2 = 6) and a ruler, so 6 + 1 = 7", "7"), ("20% discount: 50 * 0.8 = 40", "40"),
    ("3 weeks: 3 * 7 = 21 days", "21"), ("60 mph: 60 * 3 = 180", "180"), ("Total cost: 3 * 4.5 = 13.5", "27/2"),
    ("Tom is 5, Ann twice as old: 2 * 5 = 10", "10"), ("3 times as many as 5 = 15", "15"), ("3 checks = 30 dollars", "30"),
    ("4 car washes * 10 = 40", "40"), ("100 proof = 50% alcohol", "50"), ("5 people when doubled = 10", "10"),
    ("5! = 120", "120"), ("5! + 1 = 121", "121"), ("3.5 kg. = 3500 g", "3500"), ("5 mins. 20 secs. = 320 secs.", "320"),
    ("5 (n = 1) + 3 (n = 2) = 8", "8"), ("5.4, rounded = 5", "5"), ("5.4. Rounded = 5", "5"),
)  # fmt: skip
TAKEN_BACK = (
    "5. Wait, 3 + 3 = 6.", "5. No, wait: 3 + 3 = 6.", "5. Actually, 3 + 3 = 6.", "5, no wait, 3 + 3 = 6",
    "5. Hmm, 3 + 3 = 6.", "5. Correction: 3 + 3 = 6.", "5. I made a mistake: 3 + 3 = 6.",
    "5. No: the answer is 3 + 3 = 6", "5 (wrong). 3 + 3 = 6",
    "5. But we must add one: 5 + 1 = 6.",
)  # fmt: skip

ABROAD = (
    "La respuesta es 63. Comprobación: 63 + 29 = 92.", "Respuesta: 63. Comprobación: 63 + 29 = 92",
    "La respuesta final es **63**, porque 63 + 29 = 92.", "Antwort: 63. Probe: 63 + 29 = 92.",
    "Die Antwort ist 63. Probe: 63 + 29 = 92.", "Die Antwort lautet 63, denn 63 + 29 = 92.",
    "La réponse est 63. Vérification : 63 + 29 = 92.", "Réponse : 63 (car 63 + 29 = 92)",
    "La risposta è 63. Verifica: 63 + 29 = 92.", "A resposta é 63. Verificação: 63 + 29 = 92.",
    "Ответ: 63. Проверка: 63 + 29 = 92.", "答案是63。检查：63 + 29 = 92。", "答案：63（63 + 29 = 92）",
    "答えは63です。検算：63 + 29 = 92。", "정답은 63입니다. 확인: 63 + 29 = 92.", "**Respuesta:** 92 - 29 = 63",
    "الجواب هو 63. تحقق: 63 + 29 = 92", "Antwort: 92 minus 29 ist 63", "答案是 92 - 29，即 63",
    "Respuesta: 5. Espera, 60 + 3 = 63", "Antwort: 5 (2 + 3 = 5)\nNein, 63", "Antwort: 5. Danach 63",
    "Die Antwort ist 2x = 63", "Die Antwort ist nicht 5, denn 60 + 3 = 63", "Die Antwort ist 5, nein: 60 + 3 = 63",
    "La réponse est 5. Non, 60 + 3 = 63", "La réponse est 5. En fait, 60 + 3 = 63", "La respuesta es 5. No, 60 + 3 = 63",
    "La respuesta es 5. Mejor dicho, 60 + 3 = 63", "A resposta é 5. Não, 60 + 3 = 63", "La risposta è 5. Anzi, 60 + 3 = 63",
    "Ответ: 5. Нет, 60 + 3 = 63", "答案是5。不，60 + 3 = 63", "答えは5です。いいえ、60 + 3 = 63",
)  # fmt: skip


def read(text, task=NUMBER):
    number = parse_number(answer_or_text(text, task))
    return None if number is None else str(number)


@pytest.mark.parametrize(
    "opening", ("The answer is ", "Answer: ", "**Final Answer:** ", "#### ", "The answer would be ", "<answer>")
)
def test_an_equation_behind_a_stated_number_is_not_the_answer(opening):
    for said in CHECKED:
        text = (
            said if said.startswith("The answer") else f"{opening}{said}{'</answer>' if opening == '<answer>' else ''}"
        )
        assert (text, read(text)) == (text, "63")


@pytest.mark.parametrize(("said", "number"), STILL)
def test_an_equation_that_is_the_statement_is_read_to_its_end(said, number):
    assert read(f"The answer is {said}") == read(f"#### {said}") == number


@pytest.mark.parametrize(("said", "number"), WORKED)
def test_a_worked_solution_behind_answer_is_read_to_its_last_equation(said, number):
    assert read(f"Answer: {said}") == number


def test_a_bold_answer_and_one_before_but_are_read_before_a_check():
    assert read("Answer: 63. But let us check: 63 + 29 = 92.") == "63"
    assert read("**Answer: 63** (63 + 29 = 92)") == read("**Answer: 63** because 63 + 29 = 92") == "63"


@pytest.mark.parametrize("said", TAKEN_BACK)
def test_a_remark_that_takes_the_number_back_is_read(said):
    assert read(f"The answer is {said}") == "6"


@pytest.mark.parametrize("text", ABROAD)
def test_a_check_behind_a_number_stated_in_another_language_is_not_the_answer(text):
    assert read(text) == "63"


def test_what_changes_a_number_before_a_remark_still_does():
    for said in ("5 (mod 7), since 12 = 7 + 5", "2x = 10", "x - 3 = 5", "5 (or 6 if n = 3)"):
        assert (said, read(f"The answer is {said}")) == (said, None)


def test_a_long_row_of_remarks_takes_no_time():
    for remark in ("1. ", "1 (", "1, since ", "1: ", "1 = "):
        read("The answer is " + remark * 20_000 + "= 5")
