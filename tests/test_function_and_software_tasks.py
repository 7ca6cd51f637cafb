"""Tasks made of BFCL's files and of software records: every field of small cases, and the sentence of each refusal."""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from firsthand.benchmarks.bfcl import CATEGORIES, SYSTEM, _as_tool, _schema, bfcl
from firsthand.benchmarks.sessions import (
    SessionHistory,
    SessionSettings,
    ToldFact,
    day_of,
    held_at,
    make_history,
    sessions,
)
from firsthand.benchmarks.swe.swe_tasks import check, default_command, make_script
from firsthand.errors import ConfigError, DataError

HINT = " Note that the provided function is in Python 3 syntax."
FUNCTION = {
    "name": "maps.route",
    "description": "A route.",
    "parameters": {
        "type": "dict",
        "required": ["stops"],
        "properties": {
            "stops": {"type": "array", "items": {"type": "float"}},
            "slope": {"type": "float", "description": "In percent."},
            "by": {"type": "dict", "properties": {"tax": {"type": "float"}, "any": {"type": "any"}}},
            "pair": {"type": "tuple", "items": {"type": "tuple", "items": {"type": "integer"}}},
        },
    },
}
ROW: dict[str, Any] = {
    "id": "simple_1",
    "question": [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which way?"}]],
    "function": [FUNCTION],
}
PLAIN = {"id": "simple_0", "question": [[{"role": "user", "content": "Where?"}]], "function": [FUNCTION]}
ACCEPTED = [{"maps.route": {"stops": [[1.0, 2.0]], "slope": ["", 3]}}]


def folder(root: Path, rows: list[Any], accepted: list[Any], category: str = "simple_python") -> Path:
    (root / "possible_answer").mkdir(parents=True, exist_ok=True)
    name = f"BFCL_v4_{category}.json"
    (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    answers = [{"id": "x", "ground_truth": each} for each in accepted]
    (root / "possible_answer" / name).write_text("".join(json.dumps(row) + "\n" for row in answers), encoding="utf-8")
    return root


def test_functions_become_tools_or_a_system_message_and_names_lose_their_dots(tmp_path: Path) -> None:
    dialogue = {**PLAIN, "question": [[{"role": role, "content": "a"} for role in ("user", "assistant", "user")]]}
    data = folder(tmp_path, [PLAIN, ROW, dialogue], [ACCEPTED] * 3)
    folder(tmp_path, [{**PLAIN, "id": "i"}], [], "live_irrelevance")
    folder(tmp_path, [{**PLAIN, "id": "r"}], [], "live_relevance")
    native = bfcl(data=str(data))
    hashes = [
        hashlib.sha256((data / f"BFCL_v4_{each}.json").read_bytes()).hexdigest()
        for each in ("simple_python", "live_irrelevance", "live_relevance")
    ]
    assert native.options["sha256"] == hashlib.sha256("".join(hashes).encode()).hexdigest()
    assert "4 items (simple_python 2, live_irrelevance 1, live_relevance 1), each counted once" in native.protocol
    first, second, none, some = native.tasks(0)
    described = {**FUNCTION, "name": "maps_route", "description": "A route." + HINT}
    assert second.secret["calls"] == {
        "kind": "calls",
        "accepted": [{"maps_route": ACCEPTED[0]["maps.route"]}],
        "functions": [described],
    }
    assert [each.secret["calls"]["kind"] for each in (first, none, some)] == ["calls", "none", "some"]
    assert [each.secret["calls"]["accepted"] for each in (none, some)] == [[], []]
    assert (second.id, second.metadata["category"], second.metadata["stratum"]) == ("simple_1", *["simple_python"] * 2)
    number = {"type": "number", "format": "float"}
    assert second.metadata["functions"] == [
        {
            "name": "maps_route",
            "description": "A route." + HINT,
            "parameters": {
                "type": "object",
                "required": ["stops"],
                "properties": {
                    "stops": {"type": "array", "items": {"type": "number"}},
                    "slope": {**number, "description": "In percent. This is a float type value."},
                    "by": {
                        "type": "object",
                        "properties": {
                            "tax": {**number, "description": " This is a float type value."},
                            "any": {"type": "string"},
                        },
                    },
                    "pair": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
                },
            },
        }
    ]
    assert FUNCTION["parameters"]["properties"]["slope"]["type"] == "float"
    assert native.environment is not None
    [offered] = native.environment(second).tools
    assert (offered.spec.name, offered.effect) == ("maps_route", "read")

    prompt = bfcl(protocol="prompt", data=str(data), category="simple_python")
    assert prompt.environment is None
    first, second = prompt.tasks(0)
    listed = f"{SYSTEM}{json.dumps([{**FUNCTION, 'description': 'A route.' + HINT}], indent=4)}\n"
    assert json.dumps(listed)[1:-1] in json.dumps([message.to_json() for message in first.conversation])
    assert json.dumps(f"{listed}\n\nBe brief.")[1:-1] in json.dumps([each.to_json() for each in second.conversation])
    assert second.secret["calls"]["accepted"] == ACCEPTED
    assert "functions" not in second.metadata
    assert [len(each.conversation) for each in native.tasks(0)[:2]] == [0, 1]


def test_the_types_of_arguments_become_those_of_json_and_all_else_is_kept() -> None:
    float_ = {"type": "number", "format": "float"}
    for given, made in (
        ({}, {"type": "string"}),
        ({"type": "string", "enum": ["a"], "default": "a"}, {"type": "string", "enum": ["a"], "default": "a"}),
        ({"type": "boolean"}, {"type": "boolean"}),
        ({"type": "any", "description": "x"}, {"type": "string", "description": "x"}),
        ({"type": "float"}, {**float_, "description": " This is a float type value."}),
        ({"type": "float", "description": "A", "default": 0.5},
         {**float_, "description": "A This is a float type value.", "default": 0.5}),
        ({"type": "array", "items": {"type": "float", "description": "Degrees.", "minimum": 0}},
         {"type": "array", "items": {"type": "number", "description": "Degrees.", "minimum": 0}}),
        ({"type": "tuple", "description": "Both.", "items": {"type": "integer", "description": "One."}},
         {"type": "array", "description": "Both.", "items": {"type": "integer", "description": "One."}}),
        ({"type": "array", "items": {"type": "any"}}, {"type": "array", "items": {"type": "string"}}),
        ({"type": "array", "items": {}}, {"type": "array", "items": {"type": "string"}}),
        ({"type": "array", "items": {"type": "array", "description": "Rows.", "items": {"type": "float", "maximum": 1}}},
         {"type": "array", "items": {"type": "array", "description": "Rows.", "items": {"type": "number", "maximum": 1}}}),
        ({"type": "array", "items": {"type": "dict", "required": ["a"], "properties": {"a": {"type": "float"}}}},
         {"type": "array", "items": {"type": "object", "required": ["a"],
          "properties": {"a": {**float_, "description": " This is a float type value."}}}}),
        ({"type": "dict", "properties": {}, "items": None}, {"type": "object", "properties": {}, "items": None}),
        ({"type": "dict", "properties": {"t": {"type": "tuple", "items": {"type": "float", "description": "T"}}}},
         {"type": "object", "properties": {"t": {"type": "array", "items": {"type": "number", "description": "T"}}}}),
    ):  # fmt: skip
        before = copy.deepcopy(given)
        assert _schema(given) == made, given
        assert given == before
    before = copy.deepcopy(FUNCTION)
    tool = _as_tool({**FUNCTION, "response": {"type": "dict"}})
    assert list(tool) == ["name", "description", "parameters"] and before == FUNCTION
    assert (tool["name"], tool["description"]) == ("maps_route", "A route.")
    bare = {"name": "a.b.c", "description": "", "parameters": {"type": "dict", "properties": {}, "optional": ["x"]}}
    assert _as_tool(bare) == {
        "name": "a_b_c", "description": "", "parameters": {"type": "object", "properties": {}, "optional": ["x"]},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": [[], []]}, "'question' is not a list of one list of messages"),
        ({"question": [[{"role": "user", "content": 3}]]}, "'question' is not a list of one list of messages"),
        ({"function": {}}, "'function' is not a list of functions"),
        ({"function": [{**FUNCTION, "parameters": {}}]}, "a function has no name, or no parameters with properties"),
        ({"function": [{**FUNCTION, "name": 3}]}, "a function has no name, or no parameters with properties"),
        (
            {"function": [{**FUNCTION, "name": "a b"}]},
            "a function is named 'a b': letters, digits, _ . - were expected",
        ),
        ({"function": [{**FUNCTION, "name": "a" * 65}]}, f"a function is named {'a' * 65!r}: letters, digits"),
        ({"function": [FUNCTION, {**FUNCTION, "name": "maps_route"}]}, "two functions have the same name after dots"),
        ({"function": [{**FUNCTION, "name": "other"}]}, "the accepted call 'maps.route' is not of an offered function"),
    ],
)
def test_a_row_of_functions_that_cannot_be_is_told_with_its_place(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    data = folder(tmp_path, [PLAIN, {**ROW, **change}], [ACCEPTED] * 2)
    with pytest.raises(DataError) as told:
        bfcl(data=str(data), category="simple_python")
    assert message in str(told.value)
    assert "2" in str(told.value).split(message)[0].removeprefix(str(tmp_path))  # the second row


def test_types_answers_and_files_are_checked(tmp_path: Path) -> None:
    def told(rows: list[Any], accepted: list[Any], **how: str) -> str:
        with pytest.raises((DataError, ConfigError)) as error:
            bfcl(data=str(folder(tmp_path, rows, accepted)), **{"category": "simple_python", **how})
        return str(error.value)

    for schema in ({"type": "void"}, {"type": "array"}, {"type": "tuple", "items": {"type": "void"}}, 3):
        wrong = copy.deepcopy(FUNCTION)
        wrong["parameters"]["properties"]["slope"] = schema
        assert "argument 'slope' of maps.route has no type of " in told([{**PLAIN, "function": [wrong]}], [ACCEPTED])
    for accepted in ({"maps.route": {}, "b": {}}, {"maps.route": {"stops": 3}}, {"maps.route": []}, 3, {}):
        assert "an accepted call is not {name: {argument: [values]}}: " in told([PLAIN], [[accepted]])
    assert "'ground_truth' is not a list of calls" in told([PLAIN], [[]])
    assert "has 1 rows, and" in told([PLAIN, ROW], [ACCEPTED])
    assert (
        told([PLAIN], [ACCEPTED], category="java")
        == f"category is 'java': give one of {', '.join(CATEGORIES)}, or none for all"
    )
    assert "has no BFCL_v4_multiple.json: put the file there" in told([PLAIN], [ACCEPTED], category="multiple")
    (tmp_path / "possible_answer" / "BFCL_v4_simple_python.json").unlink()
    with pytest.raises(DataError, match="is missing: put the accepted answers next to the questions"):
        bfcl(data=str(tmp_path))
    with pytest.raises(DataError, match="no BFCL_v4_"):
        bfcl(data=str(tmp_path / "possible_answer" / "none"))
    inner = folder(tmp_path / "set" / "agents" / "bfcl", [PLAIN], [ACCEPTED])
    assert len(bfcl(data=str(inner.parent.parent)).tasks(0)) == 1


PATCH = """diff --git a/test_old.py b/test_old.py
--- a/test_old.py
+++ b/test_old.py
@@ -1 +1 @@
-a
+b
diff --git a/in ner/test_new.py b/in ner/test_new.py
new file mode 100644
--- /dev/null
+++ b/in ner/test_new.py
@@ -0,0 +1 @@
+c
diff --git a/conftest.py b/conftest.py
--- a/conftest.py
+++ b/conftest.py
@@ -1 +1 @@
-a
+b
diff --git a/deep/conftest.py b/deep/conftest.py
--- a/deep/conftest.py
+++ b/deep/conftest.py
@@ -1 +1 @@
-a
+b
diff --git a/data.txt b/data.txt
--- a/data.txt
+++ b/data.txt
@@ -1 +1 @@
-a
+b
"""


def test_a_script_restores_the_tests_applies_the_patch_and_runs_its_python_files() -> None:
    assert default_command(PATCH) == "python -m pytest -rA -v test_old.py 'in ner/test_new.py'"
    mark = f"EOF_{hashlib.sha256(PATCH.encode()).hexdigest()[:12]}"
    expected = [
        "#!/bin/bash", "set -uxo pipefail", "cd /testbed",
        "git checkout abc test_old.py conftest.py deep/conftest.py data.txt", f"git apply -v - <<'{mark}'",
        *PATCH.rstrip("\n").split("\n"), mark, ": '>>>>> Start Test Output'", "make test", ": '>>>>> End Test Output'",
    ]  # fmt: skip
    assert make_script("make test", "abc", PATCH + "\n").replace(
        f"EOF_{hashlib.sha256((PATCH + chr(10)).encode()).hexdigest()[:12]}", mark
    ).split("\n") == [*expected, ""]
    new = PATCH[PATCH.index("diff --git a/in ner") : PATCH.index("diff --git a/conftest")]
    assert "git checkout" not in make_script("make test", "abc", new)
    row = {
        "instance_id": "a__b-1", "repo": "a/b", "base_commit": "0" * 40, "problem_statement": "s", "patch": None,
        "test_patch": PATCH, "FAIL_TO_PASS": '["t"]', "PASS_TO_PASS": [],
    }  # fmt: skip
    found = check(row, "here")
    assert (found["log_parser"], found["eval_type"], found["image"], found["text"], found["patch"]) == (
        "pytest", "pass_and_fail", "", "", ""
    )  # fmt: skip
    assert found["eval_script"] == make_script(default_command(PATCH), "0" * 40, PATCH)
    assert (found["FAIL_TO_PASS"], found["PASS_TO_PASS"]) == (["t"], [])


def test_a_history_tells_changes_and_withdrawals_and_knows_what_held_when() -> None:
    facts = (
        ToldFact(0, "Ann", "car", "Bako", None),
        ToldFact(2, "Ann", "car", "Dofe", "Bako"),
        ToldFact(2, "Bo", "car", "Lime", None),
        ToldFact(4, "Ann", "car", None, "Dofe"),
    )
    history = SessionHistory((), facts)
    assert [held_at(history, "Ann", "car", session) for session in range(-1, 6)] == [
        None, "Bako", "Bako", "Dofe", "Dofe", None, None
    ]  # fmt: skip
    assert held_at(history, "Ann", "dentist", 5) is None
    assert [day_of(session) for session in (0, 1, 9)] == ["2026-01-05", "2026-01-08", "2026-02-01"]
    made = make_history(SessionSettings(12, 3, 2, 2), 5)
    assert [len(each["messages"]) for each in made.sessions] == [5] * 12
    held: dict[tuple[str, str], str | None] = {}
    for fact in made.facts:
        assert fact.before == held.get((fact.name, fact.attribute))
        held[fact.name, fact.attribute] = fact.value
        line = f"The {fact.attribute} of {fact.name} is {fact.value}{' now' if fact.before else ''}."
        if fact.value is None:
            line = f"The {fact.attribute} of {fact.name} is no longer {fact.before}."
        assert line in [message["content"] for message in made.sessions[fact.session]["messages"]]
    assert {fact.value is None for fact in made.facts} == {True, False}
    values = [fact.value for fact in made.facts if fact.value]
    assert len(set(values)) == len(values)
    tasks = sessions(sessions=12, facts=3, distractors=2, people=2, questions=8, then=25).tasks(5)
    asked = [str(task.metadata["asks"]).split(",")[0] for task in tasks]
    assert asked == ["now", "now", "now", "then", "now", "now", "now", "then"]
    for task in tasks:
        now = task.metadata["asks"] == "now"
        attribute, _, name = task.prompt.split(" the ")[1].partition(" of ")
        words = name.rstrip("?").split(" on ")
        session = 11 if len(words) == 1 else next(n for n in range(12) if day_of(n) == words[1])
        value = held_at(made, words[0], attribute, session)
        others = {f.value for f in made.facts if (f.name, f.attribute) == (words[0], attribute)} - {value, None}
        assert task.secret == {"answer": value or "unknown", "wrong": sorted(map(str, others))}
        assert not now or task.prompt.startswith("What is the ")
    for wrong in ({"sessions": 0}, {"facts": 51}, {"distractors": -1}, {"people": 13}, {"questions": 0}, {"then": 101}):
        with pytest.raises(ConfigError):
            sessions(**wrong)
    sessions(sessions=5_000, facts=50, distractors=500, people=12, questions=10_000, then=100)
    sessions(sessions=1, facts=1, distractors=0, people=1, questions=1, then=0)
