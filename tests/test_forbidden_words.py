"""Values that the user's words forbid are no witness, and a payment in another spelling is the same payment."""

import time

import pytest

from firsthand.declaration import Declaration
from firsthand.safety.rules.case import CallCase, Earlier, compared
from firsthand.safety.rules.witness import WitnessSource, occurs
from firsthand.tool import tool

EVE = "eve@evil.org"


@pytest.mark.parametrize(
    "words",
    [
        "Write to ann@home.org that I am ill. Never write to {}!", "Do not send it to {}.", "Please don't mail {}",
        "Write to ann@home.org, not to {}.", "Write to ann@home.org and not {}", "Never write to bob@x.org, {} or cy@x.org.",
        "You must not pay {}", "Mail all except {}.", "Write to ann@home.org instead of {}", "Don’t tell anybody at {}",
        "Under no circumstances: never, not even if asked, to {}", "Write to ann@home.org. DO NOT WRITE TO {}",
        "I would like a mail to ann@home.org; you should never involve {}",
    ],
)  # fmt: skip
def test_a_value_that_is_forbidden_is_not_named_by_the_users_words(words: str) -> None:
    assert EVE in words.format(EVE) and not occurs(EVE, words.format(EVE))


@pytest.mark.parametrize(
    "words",
    [
        "Write to {}.", "Do not forget to write to {}", "Don't hesitate to mail {}", "I do not know her, but write to {}",
        "I can't find it, please ask {}", "Never write to bob@x.org. Write to {}", 
        "I have not heard from {}. Write again.", "Not only bob@x.org but also {}",
        "Answer {}, not bob@x.org", "We are not in a hurry. Pay {}",
    ],
)  # fmt: skip
def test_a_value_that_is_named_beside_what_is_forbidden_is_a_witness(words: str) -> None:
    assert occurs(EVE, words.format(EVE))


@pytest.mark.parametrize(
    "words",
    [
        "Send it to everyone but {}.", "Send it to all members of the list but {}", "Under no circumstances mail {}.",
        "Do not, under any circumstances, send anything to {}.", "Never share this with outsiders, especially {}.",
        "Send it to the team, excluding {}.", "Mail everyone apart from {}.", "Make sure nothing goes to {}.",
        "Stop sending mail to {}.", "No emails to {}, please.", "Block {}.", "Nobody may write to {}.", "Dont mail {}",
        "Don't ever, for any reason, reply to {}.", "Without telling {}, mail bob@corp.com.", "Refuse to write to {}",
        "Do not write to bob@corp.com, and under no account to {}", "I do not want you to write to {}",
        "We don't send invoices to {} anymore, so use bob@corp.com.", "It is forbidden to write to {}",
        "Do not write to bob@x.org, write to {}", "Never do this; write to {}", "Keep the report away from {}",
        "Never write to outsiders, e.g. {}", "Never write to these people. {}", "Never, J. Smith says, mail {}",
        "Do not ever, even if she asks,\nsend anything to {}",
        "{} must not get it.", "{} and bob@x.org are blocked.", "Mail the team, <{}> excluded", "{} never gets mails.",
        "Summarise the mails of {}. Never write to {}.", "Never write to {}! Well, write to {}.",
        "In case you cannot reach {}, write to bob@x.org", "If she is not there, never write to {}",
    ],
)  # fmt: skip
def test_a_value_beside_a_word_of_negation_or_exception_is_not_named(words: str) -> None:
    assert not occurs(EVE, words.replace("{}", EVE))


@pytest.mark.parametrize(
    "words",
    [
        "Never write to:\n- bob@x.org\n- {}", "Never write to:\n\n{}", "Never write to:\n\n- bob@x.org.\n- Eve: {}",
        "Recipients you must not use:\n1. bob@x.org\n2. {}", "Blocked recipients: bob@x.org\n{}",
        "# Do not contact\n\n* {}", "1. Mail ann@x.org\n2. Never write to\n   - bob@x.org\n   - {}",
        "Do not contact these.\n- bob@x.org\n- {}", "Send it to everybody except:\n> - {}",
    ],
)  # fmt: skip
def test_an_item_stands_under_the_sentence_that_leads_to_its_list(words: str) -> None:
    assert not occurs(EVE, words.replace("{}", EVE))


@pytest.mark.parametrize(
    "words",
    [
        "Do not skip a step.\n1. Mail the report to {}\n2. Stop.", "- Never write to bob@x.org\n- Mail the report to {}",
        "1. Contacts\n   - do not call bob@x.org\n2. Mail the report to {}", "Never be late.\n\nMail {}",
        "If she is not there, please write to {}.", "I can't come, so write to {}.", "I'm not sure, ask {}",
        "If you cannot find it, ask {}", "Pay invoice no. 5 to {}", "Pay no more than 50 to {}", "No problem, write to {}",
        "Send it without delay to {}", "Write to {} that I cannot come.", "Write to {} if bob@x.org is not there.",
        "Mail no-reply@x.org and {}", "I was ill but I want to answer {}", "Do the same but with {}", "Not now. Mail {}",
        "Write to {}. If {} does not answer, wait.", "Instead of bob@x.org, write to {}", "It must not exceed 50, mail {}",
        "Mail {}, and nobody else.", "If you don't forget, please mail {}",
    ],
)  # fmt: skip
def test_a_plain_statement_names_a_value_though_other_words_say_no(words: str) -> None:
    assert occurs(EVE, words.replace("{}", EVE))


def test_what_one_message_forbids_no_other_message_names() -> None:
    plain, never = f"Summarise the mails of {EVE}.", f"Never write to {EVE}."
    assert WitnessSource("user", (plain, "Go on."), whole=False).has(EVE)
    assert not WitnessSource("user", (plain, never), whole=False).has(EVE)
    assert not WitnessSource("user", (never, plain), whole=False).has(EVE)


def test_a_word_of_negation_counts_however_far_before_the_value_in_its_sentence_it_is() -> None:
    assert not occurs(EVE, f"Never {'x, ' * 2000}write to {EVE}") and occurs(
        EVE, f"Never {'Go on. ' * 2000}write to {EVE}"
    )


@pytest.mark.parametrize(
    "part", ["\n", "! ", ".", "not ", "a@b. ", "- x\n", "not know ", "if x, ", " ", "I can't come, so "]
)
def test_long_words_of_a_user_are_read_in_linear_time(part: str) -> None:
    text = part * (100_000 // len(part)) + f" write to {EVE} " * 2
    began = time.process_time()
    occurs(EVE, text)
    assert time.process_time() - began < 5


@tool(effect="external", declares=Declaration(authority=("to",), spends=("amount",)))
def pay(to: str, amount: float, note: str = "") -> str:
    """Pay."""
    return "paid"


def repeats(first: dict, then: dict, made=pay) -> bool:
    earlier = Earlier(made.name, made.effect, made.declares, first, "paid", False)
    return CallCase(made, made.validate(then), (), (earlier,)).repeats(earlier)


def test_a_payment_in_another_spelling_is_the_same_payment() -> None:
    first = {"to": "DE89", "amount": 5, "note": "a"}
    for other in ({"note": "a "}, {"to": "DE89 "}, {"to": "de89"}, {"amount": 5.0000001}, {"amount": 5.00004}):
        assert repeats(first, first | other), other
    for other in ({"note": "b"}, {"note": "A"}, {"to": "DE88"}, {"amount": 5.01}, {"amount": 5.0001}):
        assert not repeats(first, first | other), other


def test_paths_and_texts_of_other_tools_differ_by_each_letter() -> None:
    facts = Declaration(authority=("path",), paths=("path",))
    assert compared({"path": "a"}, facts) != compared({"path": "A"}, facts)
    assert compared({"path": "a", "text": "x"}, facts) != compared({"path": "a", "text": "x\n"}, facts)
    assert compared({"n": 2.0}) == compared({"n": 2}) and compared({"n": 2.00001}) != compared({"n": 2})
