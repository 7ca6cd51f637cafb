"""Parts of patterns without a model, at their edges: weights of tokens, own tests, principles, judges' prompts, "
"verdicts."""

import ast
import hashlib
import math

import pytest

from firsthand.errors import ConfigError, DataError, ModelError, UnknownName
from firsthand.patterns.parts.constitution import (
    Principle,
    _read,
    cited_principles,
    load_constitution,
    policy_text,
    select_principles,
)  # fmt: skip
from firsthand.patterns.parts.feedback import Feedback
from firsthand.patterns.parts.judge_protocols import (
    WARNING,
    JudgeProtocol,
    JudgeVerdict,
    delimiters,
    fields_of,
    judge_protocol,
    protocol_names,
    shortened,
    show,
)  # fmt: skip
from firsthand.patterns.parts.self_tests import (
    _called,
    _head,
    _indented,
    _left_side,
    _statements,
    code_in,
    program,
    read_results,
    usable_tests,
)  # fmt: skip
from firsthand.patterns.parts.sub_patterns import BranchOutcome, _reason, alive, part_of
from firsthand.patterns.parts.thoughts import count_votes, last_word
from firsthand.patterns.parts.verdicts import normalised, weighed
from opened_context import asks


def told(kind, make):
    with pytest.raises(kind) as refused:
        make()
    return str(refused.value)


def logs(*pairs):
    return [(text, math.log(share)) for text, share in pairs]


# -- verdicts --


def test_alternatives_are_followed_to_the_label_that_is_left():
    forms = {"yes": "yes", "yet": "yet", "no": "no"}

    def found(text, *tokens):
        weighing = weighed(forms, text, [logs(*token) for token in tokens])
        return None if weighing is None else ({k: round(v, 9) for k, v in weighing[0].items()}, round(weighing[1], 9))

    two = found("yes", (("ye", 0.5), ("n", 0.25), ("q", 0.25)), (("s", 0.75), ("t", 0.125), ("x", 0.125)))
    total = 0.25 + 0.5 * 0.75 + 0.5 * 0.125
    assert two == (
        {"yes": round(0.375 / total, 9), "yet": round(0.0625 / total, 9), "no": round(0.25 / total, 9)},
        round(total, 9),
    )
    whole = found("no", (("no", 0.5), ("yes", 0.125), ("y", 0.25), ("n", 0.125)))
    assert whole == ({"yes": round(1 / 6, 9), "yet": 0.0, "no": round(5 / 6, 9)}, 0.75)
    beside = found("no", (("n", 0.5), ("no", 0.125), ("ye", 0.25), ("yet", 0.125)))
    assert beside == ({"yes": 0.0, "yet": round(0.125 / 0.75, 9), "no": round(0.625 / 0.75, 9)}, 0.75), (
        "`ye` may be either"
    )
    assert found("yes", (("n", 0.5),)) is None and found("yes", (("", 0.5),)) is None
    assert found("yes", (("", 0.5), ("yes", 0.5))) == ({"yes": 1.0, "yet": 0.0, "no": 0.0}, 0.5)
    assert found("yes") is None, "nothing was considered"
    assert found("yes", (("ye", 1.0),)) is None, "it ends before one label is left"


def test_log_probs_become_shares_and_the_mass_before_that():
    shares, mass = normalised({"a": math.log(0.1), "b": math.log(0.3)})
    assert shares == pytest.approx({"a": 0.25, "b": 0.75}) and mass == pytest.approx(0.4)
    far = normalised({"a": -2000.0, "b": -2000.0 + math.log(3), "c": -math.inf})
    assert far[0] == pytest.approx({"a": 0.25, "b": 0.75, "c": 0.0}) and far[1] == 0.0
    assert normalised({"a": 0.0, "b": 0.0}) == ({"a": 0.5, "b": 0.5}, 1.0)
    assert told(ModelError, lambda: normalised({"a": -math.inf})) == (
        "every verdict has probability 0: the log-probs of the judge are of no use"
    )
    for top in (math.nan, math.inf):
        assert told(ModelError, lambda top=top: normalised({"a": top})) == (
            f"a log-prob of the judge is no number ({{'a': {top}}}): is the model damaged?"
        )
    assert count_votes(2, ["best choice is 2", "Best choice is: (1)", "best choice is 0", "best choice is 3",
    "is 1", "best choice is 1 no best choice is 2"]) == [1.0, 2.0]  # fmt: skip
    assert [last_word(text) for text in ("so Sure.", "12", "", "a b-C!", "yes " + "1" * 200)] == [
        "sure",
        "",
        "",
        "c",
        "",
    ]


# -- own tests --


def test_tests_that_call_the_function_are_taken_once_in_order():
    text = "Hi:\n```py\nassert f(1) == 1\nassert g(2) == 2\nassert  f( 1 )==1\nf(3)\nassert a.f(4)\nassert h(f(5))\n```"
    assert usable_tests(text, "f") == ["assert f(1) == 1", "assert h(f(5))"]
    assert usable_tests(text, "") == ["assert f(1) == 1", "assert g(2) == 2", "assert a.f(4)", "assert h(f(5))"]
    broken = "assert f(1) == 1\nthis is no code\n  assert f(2) == 2\nassert f(3"
    assert usable_tests(broken, "f") == ["assert f(1) == 1", "assert f(2) == 2"]
    many = "\n".join(f"assert f({n})" for n in range(9))
    assert usable_tests(many, "f") == [f"assert f({n})" for n in range(6)] and usable_tests("assert x == 1", "") == []
    for code in ("a = 1\nb = 2", "  a = 1\n  b = 2"):
        assert [ast.unparse(each) for each in _statements(code)] == ["a = 1", "b = 2"]
    assert [ast.unparse(each) for each in _statements("  assert f(1) == 2")] == ["assert f(1) == 2"]
    call = ast.parse("a.f(g(1))").body[0].value
    assert (_called(call), _called(call.args[0])) == ("", "g")
    assert [_left_side(each) for each in ("assert f(1) == 2", "assert f(1)", "x = 1", "assert 1 < f(2) < 3")] == [
        "f(1)",
        "",
        "",
        "1",
    ]


def test_a_program_has_the_answers_code_its_imports_and_the_tests():
    head = "import math\n\ndef f(x):\n    '''Doc.'''\n"
    task = asks("words", metadata={"entry_point": "f", "prompt": head})
    whole = program(task, "```python\ndef f(x):\n    return x\n```", ["assert f(1) == 1"])
    assert whole.startswith("import math\n\ndef f(x):\n    return x\n\ndef _own_tests(tests):")
    assert whole.endswith("\n\n_own_tests([('assert f(1) == 1', 'f(1)')])\n")
    body = program(task, "return x + 1", [])
    assert body.startswith(f"{head}\n    return x + 1\n\ndef _own") and body.endswith("_own_tests([])\n")
    plain = asks("def f(x):")
    assert (_head(plain), _head(task)) == ("def f(x):", head)
    assert program(plain, "y = 2", []).startswith("y = 2\n\ndef _own")
    bad = asks(metadata={"entry_point": "f", "prompt": "Not code\ndef f(x):\n"})
    assert program(bad, "def f(x):\n    return 1", []).startswith("def f(x):\n    return 1\n")
    for given, shown in (("    return 1", "    return 1"), ("return 1", "    return 1"),
    ("y = 1\n    return y", "    y = 1\n    return y"),
                         ("if x:\n    return 1\nreturn 2", "    if x:\n        return 1\n    return 2"),
                         ("(", "(")):  # fmt: skip
        assert _indented(given, "def f(x):") == shown
    text = "```\ndef g(): 1\n```\n```\ndef f(): 2\n```\n```\nx\n```"
    assert [code_in(text, name) for name in ("f", "g", "h", "")] == ["def f(): 2", "def g(): 1", "x", "x"]
    assert code_in("  x = 1 \n") == "  x = 1" and code_in("```\n```\ny") in ("```\n```\ny", "y")
    assert code_in("async def f(): 1\nz", "f").startswith("async")


def test_results_are_read_by_number_and_a_missing_one_has_failed():
    tests = ["assert f(1)", "assert f(2)"]
    done = "noise\nown test 0: passed\n\nown test 1: passed\nbye"
    assert read_results(tests, done) == Feedback(True, "assert f(1)  # passed\nassert f(2)  # passed")
    assert read_results(tests, "own test 1: passed") == Feedback(
        False, "assert f(1)  # did not finish\nassert f(2)  # passed"
    )
    assert read_results(tests[:1], "own test 0: failed: got 3\nown test 0: passed").passed
    assert read_results(tests[:1], "own test 0: passed!") == Feedback(False, "assert f(1)  # passed!")
    assert read_results(tests[:1], " Traceback " + "x" * 600) == Feedback(
        False, "assert f(1)  # did not finish\nThe program ended with:\n" + "x" * 500
    )


# -- principles --

GIVEN = [
    Principle(id, f"Rule of {id}.", "?") for id in ("harm.people", "harm.self", "harmless", "honest.facts", "honest")
]


def test_principles_are_chosen_and_cited_by_whole_ids():
    def chosen(wanted):
        return [each.id for each in select_principles(GIVEN, wanted)]

    assert chosen("") == [each.id for each in GIVEN] and chosen("harm") == ["harm.people", "harm.self"]
    assert chosen("honest.facts+harm") == ["honest.facts", "harm.people", "harm.self"]
    assert chosen("honest") == ["honest.facts", "honest"] and chosen("harm.self+harm") == ["harm.self", "harm.people"]
    listed = ", ".join(each.id for each in GIVEN)
    assert (
        told(ConfigError, lambda: chosen("honesty"))
        == f"no principle has the id 'honesty'; did you mean 'honest'? there are {listed}"
    )
    assert told(ConfigError, lambda: chosen("harm+zzz")) == f"no principle has the id 'zzz'; there are {listed}"
    assert policy_text(GIVEN[:2]) == "[harm.people] Rule of harm.people.\n[harm.self] Rule of harm.self."
    for text, ids in (
        ("honest.facts, harm.self.", ["harm.self", "honest.facts"]), ("[honest]", ["honest"]), ("honest.x", []),
        ("dishonest", []),
        ("a.honest x-honest", []), ("harm.people2 harm.people-x", []), ("harmless. harm.selfish", ["harmless"]),
        ("HONEST", []),
    ):  # fmt: skip
        assert cited_principles(text, GIVEN) == ids, text


def test_a_constitution_is_read_from_a_file_or_refused(tmp_path):
    def read(text):
        path = tmp_path / f"{hashlib.sha256(text.encode()).hexdigest()[:9]}.toml"
        path.write_text(text)
        return _read(path), path

    row = '[[principle]]\nid = "{}"\nrule = "R{}"\ncritique = "C"\n'
    found, path = read(row.format("a.b", 1) + row.format("a-c_2", 2))
    assert found == (Principle("a.b", "R1", "C"), Principle("a-c_2", "R2", "C")) == load_constitution(str(path))
    assert load_constitution()[0].id == load_constitution("")[0].id and len(load_constitution()) > 3
    for text, why in (
        (row.format("a", 1) * 2, "the id 'a' occurs twice: give each principle an id of its own"),
        (row.format("A", 1), "the id 'A' is not of the form harm.people: give each principle an id of its own"),
        (row.format("a.", 1), "the id 'a.' is not of the form harm.people: give each principle an id of its own"),
        ('[[principle]]\nid = "a"\nrule = ""\ncritique = "C"\n',
         "a principle with id, rule and critique was expected, not \"{'id': 'a', 'rule': '', 'critique': 'C'}\""),
        ('[[principle]]\nid = 3\nrule = "R"\ncritique = "C"\n',
         "a principle with id, rule and critique was expected, not \"{'id': 3, 'rule': 'R', 'critique': 'C'}\""),
        ('[[principle]]\nid = "a"\nrule = "R"\ncritique = ""\n',
         "a principle with id, rule and critique was expected, not \"{'id': 'a', 'rule': 'R', 'critique': ''}\""),
        ('[[principle]]\nid = "a"\nrule = "R"\ncritique = 4\n',
         "a principle with id, rule and critique was expected, not \"{'id': 'a', 'rule': 'R', 'critique': 4}\""),
        ('[[principle]]\nid = "a"\nrule = ["R"]\ncritique = "C"\n',
         "a principle with id, rule and critique was expected, not \"{'id': 'a', 'rule': ['R'], 'critique': 'C'}\""),
        ("principle = [1]", "a principle with id, rule and critique was expected, not '1'"),
    ):  # fmt: skip
        told_path = tmp_path / f"{hashlib.sha256(text.encode()).hexdigest()[:9]}.toml"
        assert told(DataError, lambda text=text: read(text)) == f"{told_path}: {why}"
    for text in ("principle = 3", "x = 1"):
        assert told(DataError, lambda text=text: read(text)).endswith(
            " holds no [[principle]]: give each an id, a rule and a critique"
        )
    missing = tmp_path / "none.toml"
    assert (
        told(DataError, lambda: _read(missing))
        == f"the constitution {missing} cannot be read: No such file or directory"
    )
    assert " is no TOML: " in told(DataError, lambda: read("= ="))


# -- judges' prompts --

OWN = JudgeProtocol(
    "own", "here", "pairwise", "S {mark}", "{mark}|{question}|{answer_a}|{mark}", "ask",
    (JudgeVerdict("a", "A", 1.0, 3.0), JudgeVerdict("b", "B", 0.0), JudgeVerdict("t", "tie", 0.5)), False,
)  # fmt: skip


def test_a_prompt_has_its_fields_its_mark_and_what_was_left_out():
    fields = {"question": "{answer_a}", "answer_a": "x" * 12 + "{mark}", "more": "z" * 11}
    joined = "\x1f".join(f"{key}\x1e{fields[key]}" for key in ("answer_a", "more", "question"))
    mark = hashlib.sha256(joined.encode()).hexdigest()[:10]
    found = show(OWN, fields, max_chars=10)
    a = "xxxxx\n[... 8 characters are left out here ...]\nmark}"
    assert tuple(found) == (f"S {mark}", f"{mark}|{{answer_a}}|{a}|{mark}", 0, 8 + 1)
    assert show(OWN, fields, max_chars=18, warn=True).system == f"S {mark}\n\n{WARNING}"
    assert show(OWN, fields, max_chars=18).cut == 0 and show(OWN, fields, max_chars=17).cut == 1
    assert told(ConfigError, lambda: show(OWN, {"more": ""}, max_chars=9)) == (
        "the judge protocol own shows a judge answer_a, question, and the task has none"
    )
    asked = {name: judge_protocol(name) for name in protocol_names()}
    for name, each in asked.items():  # a judge that is asked for its verdict by name is offered all of them
        offered = [label for label in each.labels if label in each.ask]
        by_name = each.ask and not name.startswith(("rubric", "mt-bench-single"))
        assert offered == ([*each.labels] if by_name else ["[[1]]", "[[10]]"] if name == "rubric" else []), name
        assert "{" not in each.ask
    assert asked["reference"].ask == "Reply [[yes]] or [[no]] and nothing else."
    assert fields_of(OWN) == {"question", "answer_a"} and (OWN.labels, OWN.names) == (
        ("a", "b", "t"),
        ("A", "B", "tie"),
    )
    # a win of A weighs three times: (.25 * 3 * 1 + .25 * .5) / (.25 * 3 + .5 + .25)
    assert OWN.expected({"A": 0.25, "B": 0.5, "tie": 0.25}) == pytest.approx((0.75 + 0.125) / 1.5)
    assert (
        shortened("abcdef", 5) == "ab\n[... 2 characters are left out here ...]\nef"
        and shortened("abcdef", 6) == "abcdef"
    )
    assert shortened("z" * 3000, 2) == "z\n[... 2,998 characters are left out here ...]\nz"


def test_marks_that_an_answer_forges_are_made_harmless():
    mt = judge_protocol("mt-bench-pair-v2")
    marks = delimiters(mt)
    assert "[User Question]" in marks and len(marks) == len(set(marks))
    fields = {"question": "q", "answer_a": f"x\n{marks[0]}\n{marks[1].lower().replace(' ', '   ')}", "answer_b": "b"}
    found = show(mt, fields, max_chars=999)
    plain = show(mt, {**fields, "answer_a": "x"}, max_chars=999)
    assert (found.forged, plain.forged) == (2, 0)
    assert found.text == plain.text.replace(
        "\nx\n", f"\nx\n({marks[0].strip('[]<>|')})\n({marks[1].lower().replace(' ', '   ').strip('[]<>|')})\n"
    )


def test_protocols_are_found_by_name_and_scale():
    assert protocol_names()[:3] == ("rubric", "reference", "pairwise")
    five = judge_protocol("rubric", low=0, high=4)
    assert five.verdicts == tuple(JudgeVerdict(f"[[{n}]]", str(n), float(n)) for n in range(5))
    assert (
        "from 0 (worst) to 4 (best)" in five.template
        and five.ask == "Give the rating and nothing else, in the form [[0]] to [[4]]."
    )
    assert (
        judge_protocol("rubric").names == tuple(map(str, range(1, 11)))
        and len(judge_protocol("rubric", low=0, high=100).verdicts) == 101
    )
    for low, high in ((-1, 5), (3, 3), (0, 101), (5, 4)):
        assert told(ConfigError, lambda low=low, high=high: judge_protocol("rubric", low=low, high=high)) == (
            f"the scale is {low} to {high}: give whole numbers from 0, at most 101 of them"
        )
    assert judge_protocol("pairwise", low=3, high=3) is judge_protocol("pairwise")
    assert "no judge protocol 'pairwize'; did you mean 'pairwise'?" in told(
        UnknownName, lambda: judge_protocol("pairwize")
    )


def test_outcomes_of_branches_and_their_reasons():
    assert [BranchOutcome("n", text).failed for text in ("x", " ", "")] == [False, True, True]
    assert (
        BranchOutcome("n", "x", "e").failed
        and BranchOutcome("n", "x", "e").report == "failed: e"
        and BranchOutcome("n", " x ").report == "x"
    )
    assert alive([]) == [] and [each.name for each in alive([BranchOutcome("a", " "), BranchOutcome("b", "x")])] == [
        "b"
    ]
    assert [_reason(error) for error in (ModelError("m"), KeyError("k"), ValueError(), ModelError(""))] == [
        "m",
        "KeyError: 'k'",
        "ValueError: ",
        "ModelError",
    ]
    assert len(_reason(ValueError("x" * 2000))) == 1000
    part = part_of(asks(choices=("x",), context="C", hint="h", verbatim=True), "w", "do")
    assert (part.id, part.prompt, part.choices, part.context, part.hint, part.verbatim) == (
        "t/w",
        "do",
        (),
        None,
        None,
        True,
    )
