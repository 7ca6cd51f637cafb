"""What a task expected stands beside what was answered, in `show` and in diffs, and never for a protected task."""

import pytest

from firsthand.message import Json
from firsthand.show.expected import expected_answer
from firsthand.show.trace_tree import plain_lines, trace_lines
from firsthand.task import Task
from firsthand.trace import Call, Trace


@pytest.mark.parametrize(
    ("secret", "choices", "expected"),
    [
        ({"answer": "42"}, (), "42"),
        ({"answer": "  42\n"}, (), "  42\n"),
        ({"answer": 42}, (), "42"),
        ({"gold": 1, "answer": "B"}, (" red", " blue"), "B: blue"),
        ({"gold": 0}, ("red", "blue"), "red"),
        ({"gold": 2, "answer": "C"}, ("red", "blue"), "C"),
        ({"gold": True, "answer": "B"}, ("red", "blue"), "B"),
        ({"answers": ["Paris"]}, (), '"Paris"'),
        ({"answers": ["Paris", 'the "city"']}, (), '"Paris" or "the \\"city\\""'),
        ({"answers": list("abcdefghij")}, (), '"a" or "b" or "c" or "d" or "e" or "f" or "g" or "h" or 2 more'),
        ({"answers": list("abcdefgh")}, (), " or ".join(f'"{letter}"' for letter in "abcdefgh")),
        ({"answers": ["A", "C"], "match": "all"}, ("red", "blue", "green"), '"A" and "C"'),
        (
            {"answers": list("abcdefghij"), "match": "all"},
            (),
            '"a" and "b" and "c" and "d" and "e" and "f" and "g" and "h" and 2 more',
        ),
        ({"answers": ["x", "y"], "match": "part"}, (), '"x" or "y"'),
        ({"answers": ("x", 2)}, (), '"x" or "2"'),
        ({"gold": 1, "answer": "blue"}, ("red", "blue"), "blue"),
        ({"gold": -1, "answer": "B"}, ("red", "blue"), "B"),
        ({"answers": []}, (), ""),
        ({"output": [1, "a"]}, (), '[1, "a"]'),
        ({"tests": "assert f(1) == 2"}, (), ""),
        ({}, (), ""),
    ],
)
def test_the_expected_answer_in_words(secret: Json, choices: tuple[str, ...], expected: str) -> None:
    assert expected_answer(Task("1", "?", choices, secret=secret)) == expected


def test_a_protected_task_shows_it_only_when_asked_to() -> None:
    task = Task("1", "?", secret={"answer": "42"}, metadata={"protected": "its authors ask so"})
    assert expected_answer(task) == "" and expected_answer(task, reveal=True) == "42"
    assert expected_answer(None) == ""


def test_show_has_the_expected_answer_and_the_prompt_of_a_scored_call() -> None:
    likelihoods = [{"text": " red", "logprob": -1.5}, {"text": " blue", "logprob": -0.5}]
    call = Call(
        "0", "score", None, 0.0, 0.1, "r", detail={"prompt": "Question: sky?\nAnswer:", "likelihoods": likelihoods}
    )
    trace = Trace("i", "mc", "1", {"name": "a"}, 0, 0, "2026-11-25T00:00:00", 1.0, calls=(call,), answer="A")
    lines = plain_lines(trace_lines(trace, expected="B: blue"))
    assert "    prompt: Question: sky?" in lines and "    Answer:" in lines
    assert lines[lines.index("outcome") + 1 :][:2] == ["  answer: A", "  expected: B: blue"]
    assert not any("expected" in line for line in plain_lines(trace_lines(trace)))
