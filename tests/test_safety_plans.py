"""The language of plans: values with labels, what the parser refuses and says, and what each expression gives."""

import asyncio
from contextvars import copy_context

import pytest

from firsthand.loop.concurrency import Branch, enter_branch
from firsthand.safety.plans.labelled import MAX_PARTS, Labelled, carried, carrying, flat
from firsthand.safety.plans.plan_interpreter import MAX_ITEMS, MAX_SIZE, MAX_STEPS, PlanRun
from firsthand.safety.plans.plan_program import MAX_CHARS, MAX_NODES, PlanError, parse_plan
from firsthand.safety.rules.labels import USER, Label

WEB = Label("untrusted", frozenset({"ann"}), frozenset({"web"}))
BOX = Label("untrusted", frozenset({"ann", "bob"}), frozenset({"box"}))
BOTH = Label("untrusted", frozenset({"ann"}), frozenset({"box", "web"}))


def refused(text, tools=("send", "box")):
    with pytest.raises(PlanError) as raised:
        parse_plan(text, tools)
    return str(raised.value)


def test_the_parser_names_the_line_and_what_is_not_allowed_there():
    names = "send, box, read, answer, len, text, first, last, sorted, unique, number"
    functions = names.partition("box, ")[2]
    for text, said in {
        "x = 1\nimport os": "line 2: Import is not part of the language",
        "\nx = y = 1": "line 2: assign to one name",
        "x, y = 1": "line 1: assign to one name",
        "for x, y in z:\n    pass": "line 1: loop over one name",
        "[x for x.a in y]": "line ?: loop over one name",
        "for x in y:\n    pass\nelse:\n    pass": "line 1: a loop has no else",
        "x.__class__": "line 1: __class__ is no field",
        "x = 1j": "line 1: complex is no value of the language",
        "x = ...": "line 1: ellipsis is no value of the language",
        "sent(to=1)": f"line 1: no tool 'sent'; did you mean 'send'? there are {names}",
        "qqqqqq(to=1)": f"line 1: no tool 'qqqqqq'; there are {names}",
        "pass\nsend(1)": "line 2: give send its arguments by name",
        "x.y()": f"line 1: only tools and {functions} are called",
        "send(**x)": "line 1: ** is not part of the language",
        "x = {'a': 1, **y}": "line 1: ** is not part of the language",
        "x = 1\nx = (": "line 2: the plan does not parse",
        "x = '\0'": "line 1: the plan does not parse",
        "x = '\ud800'": "line 1: the plan does not parse",
    }.items():
        assert refused(text).replace("line None", "line ?").startswith(said.partition("?:")[0]), text
        if "?:" not in said:
            assert refused(text) == said, text
    for text in ("-" * 7_990 + "1", "(" * 3_000, "not " * 1_900 + "1"):
        assert refused(text).startswith(("line 1: the plan does not parse", "the plan has ")), text
    assert refused("x.__a") == "line 1: __a is no field" and parse_plan("x.a__", ())
    assert refused("frst(x)") == f"line 1: no tool 'frst'; did you mean 'first'? there are {names}"
    for fine in ("x._a", "x.a_", "len(x)", "send(to=1)", "{'a': 1}", "x = None", "for x in y:\n    pass", "first(x)"):
        assert parse_plan(fine, ("send",))


def test_a_plan_has_at_most_8000_characters_and_2000_parts():
    assert (MAX_CHARS, MAX_NODES) == (8_000, 2_000)
    assert len(parse_plan("#" * MAX_CHARS, ())) == 0
    assert refused("#" * (MAX_CHARS + 1)) == "the plan has 8001 characters: at most 8000 are read"
    assert len(parse_plan("pass\n" * 1_599, ())) == 1_599
    items = ",".join(["1"] * (MAX_NODES - 4))  # with the module, the statement, the list and its context
    assert parse_plan(f"[{items}]", ())
    assert refused(f"[{items},1]") == "the plan has 2001 parts: at most 2000 are carried out"


def run(text, results=None, made=None, strict=False, calls=None, reads=None):
    async def call(name, arguments, labels):
        if calls is not None:
            calls.append((name, arguments, labels))
        return (results or {})[name]

    async def read(text, question, kind):
        if reads is not None:
            reads.append((text, question, kind))
        return f"read {len(reads or ())}"

    plan = PlanRun(call, read, made, strict=strict)
    return asyncio.run(plan.run(parse_plan(text, list(results or {}))))


RESULTS = {
    "box": Labelled(
        [{"id": "7", "text": "hi", "who": {"name": "ann"}}, {"id": "8", "text": "yo", "who": {"name": "bob"}}],
        BOX, ("id", "who.name"), "box",
    ),
    "web": Labelled("page", WEB, origin="web"),
    "size": Labelled(3, WEB),
}  # fmt: skip


def test_expressions_give_what_they_give_in_python():
    for text, value in {
        "7 - 2": 5, "2 - 7": -5, "7 / 2": 3.5, "3 * 4": 12, "'a' + 'b'": "ab", "[1] + [2]": [1, 2], "-3": -3, "not 0": True,
        "2 < 2": False, "2 <= 2": True, "3 > 3": False, "3 >= 3": True, "1 == 1": True, "1 != 1": False,
        "'a' in 'cab'": True,
        "1 not in [1]": False, "1 and 0": False, "1 and 2": 2, "0 or 0": False, "0 or 3": 3,
        "f'a{1}b{[1, None]}c{\"d\"}'": "a1b[1,null]cd", "{'k': [1], 2: 'x'}": {"k": [1], "2": "x"}, "[1, [2]][1][0]": 2,
        "{'a': 5}['a']": 5, "{'a': 5}.a": 5, "[1, 2, 3][-1]": 3, "len([1, 2])": 2,
        "text([1, 'a'])": '[1,"a"]', "text('a')": "a",
        "first([4, 5, 6])": 4, "last([4, 5, 6])": 6, "sorted([3, 1, 2])": [1, 2, 3], "unique([2, 1, 2])": [2, 1],
        "number('2.5')": 2.5, "[x * 2 for x in [1, 2, 3, 4] if x > 1 if x < 4]": [4, 6], "None": None,
    }.items():  # fmt: skip
        assert flat(run(f"answer({text})"))[0] == value, text
    assert run("answer('x')") == Labelled("x", USER) and run("x = 1") == Labelled("")
    assert run("x = 1\nif x == 2:\n    answer('a')\nelse:\n    answer('b')\nanswer('c')").value == "b"
    assert flat(run("x = 9\ny = [x for x in [1]]\nanswer([x, y])"))[0] == [9, [1]]
    assert flat(run("n = 0\nfor x in [3, 4]:\n    n = n + x\nanswer([n, x])"))[0] == [7, 4]


def test_what_cannot_be_computed_names_its_line_and_the_kind_of_error_alone():
    for text, said in {
        "x = 1\ny = {'a': 1}.b": "line 2: KeyError", "x = 'a' * 3": "line 1: TypeError", "x = [1] * 2": "line 1: TypeError",
        "x = [1][1]": "line 1: IndexError", "x = 1 / 0": "line 1: ZeroDivisionError",
        "x = number('a')": "line 1: ValueError",
        "pass\nx = y": "line 2: the name y has no value", "x = [z for z in [1]]\nx = z": "line 2: the name z has no value",
        "x = 1 < 2 < 3": "line 1: compare two values at a time, and join comparisons with and",
        "x = 'a'.b": "line 1: TypeError",
        "answer(1, 2)": "line 1: ValueError", "for x in 3:\n    pass": "line 1: TypeError",
        "x = first([])": "line 1: IndexError",
        "if 1:\n    x = 1 / 0": "line 2: ZeroDivisionError",
    }.items():  # fmt: skip
        with pytest.raises(PlanError) as raised:
            run(text)
        assert str(raised.value) == said, text


@pytest.mark.slow
def test_a_run_has_bounds_of_steps_items_and_sizes_that_can_be_reached():
    assert (MAX_STEPS, MAX_ITEMS, MAX_SIZE, MAX_PARTS) == (5_000, 500, 1_000_000, 50_000)
    whole = {"t": Labelled(list(range(500))), "text": Labelled("x" * 999_999), "u": Labelled(list(range(501)))}
    assert run("n = 0\nfor x in t():\n    n = x\nanswer(n)", whole).value == 499
    for loop in ("for x in u():\n    x", "x = [y for y in u()]"):
        with pytest.raises(PlanError, match=r"^a loop has 501 items: at most 500 are carried out$"):
            run(loop, whole)
    # twice a call and 5 values for each of 499 items are 4992 steps, and each line beside them is one
    steps = "for x in t():\n    1 + 1 + 1\n" * 2 + "1\n" * 8
    assert run(steps, {"t": Labelled(list(range(499)))}).value == ""
    with pytest.raises(PlanError, match=r"^the plan takes more than 5000 steps$"):
        run(steps + "1", {"t": Labelled(list(range(499)))})
    assert len(run("answer(b() + 'y')", {"b": Labelled("x" * 999_999)}).value) == MAX_SIZE
    with pytest.raises(PlanError, match="line 1: ValueError"):
        run("answer(b() + 'yy')", {"b": Labelled("x" * 999_999)})
    assert run("answer(b() * 2)", {"b": Labelled(2**1022)}).value == 2**1023
    with pytest.raises(PlanError, match="line 1: ValueError"):
        run("answer(b() * 4)", {"b": Labelled(2**1022)})


def test_parts_are_counted_through_lists_and_objects():
    assert flat(Labelled([1] * (MAX_PARTS - 1)))[0] == flat([1] * MAX_PARTS)[0][1:]
    for many in ([1] * (MAX_PARTS + 1), {n: n for n in range(MAX_PARTS + 1)}):
        with pytest.raises(ValueError):
            flat(many)


def test_a_field_is_trusted_where_its_path_is_declared_and_inherits_otherwise():
    value = {"id": "7", "text": "hi", "who": {"name": "ann", "age": 4}, "rows": [{"id": 1}], "tags": ["a", "b"]}
    whole = Labelled(value, BOX, ("id", "who.name", "rows", "tags"), "box")

    def trusted(name):
        return Label("trusted", BOX.readers, frozenset({f"box: {name}"}))

    assert whole.at("id") == Labelled("7", trusted("id"), (".",), "box")
    assert whole.at("text") == Labelled("hi", BOX, (), "box")
    assert whole.at("who") == Labelled(value["who"], BOX, ("name",), "box")
    assert whole.at("who").at("name").label == trusted("name") and whole.at("who").at("age").label == BOX
    assert whole.at("rows") == Labelled([{"id": 1}], BOX, (".",), "box")
    assert [each.label for each in whole.at("tags").items()] == [Label("trusted", BOX.readers, frozenset({"box"}))] * 2
    assert whole.at("rows").items()[0].at("id").label == BOX
    star = Labelled({"a": {"id": 1}, "b": 2}, BOX, ("*.id", "."), "box")
    assert star.at("a").at("id").label == trusted("id") and star.at("b").label == BOX
    inner = Labelled(1, WEB)
    assert Labelled([inner, 2], BOX).items() == [Labelled(1, BOTH), Labelled(2, BOX)]
    assert Labelled([inner]).items()[0] is inner and Labelled({"a": inner}, BOX).at("a") == Labelled(1, BOTH)
    for wrong, error in (
        (lambda: whole.at("none"), KeyError),
        (lambda: inner.at("x"), TypeError),
        (whole.items, TypeError),
    ):
        with pytest.raises(error):
            wrong()
    assert inner.under(Label()) is inner and inner.under(BOX) == Labelled(1, BOTH)
    assert flat([{"a": inner}, Labelled([Labelled(2, BOX)])]) == ([{"a": 1}, [2]], BOTH)


def test_labels_flow_through_operators_functions_and_keys():
    for text, label in {
        "web() + text(box())": BOTH, "[web(), 1]": WEB.join(USER), "{web(): 1}": WEB.join(USER),
        "{'k': web()}": WEB.join(USER),
        "len(box())": BOX, "[1, 2][size() - 3]": WEB.join(USER),
        "box()[0].id": Label("trusted", BOX.readers, frozenset({"box: id"})),
        "box()[1].text": BOX, "first(box()).who.name": Label("trusted", BOX.readers, frozenset({"box: name"})),
        "[m.text for m in box()]": BOX, "[1 for m in box() if m.text == 'hi']": USER,
        "-size()": WEB, "size() > 1": WEB.join(USER),
        "f'{web()}{1}'": WEB.join(USER), "size() and 0": WEB.join(USER), "last(box()).text": BOX,
    }.items():  # fmt: skip
        assert flat(run(f"answer({text})", RESULTS))[1] == label, text
    strict = {
        "[1 for m in box()]": BOX.join(USER), "[1 for m in [1] if web() == 'x']": WEB, "[m for m in [1]]": USER,
    }  # fmt: skip
    for text, label in strict.items():
        assert flat(run(f"answer({text})", RESULTS, strict=True))[1].integrity == label.integrity, text
        assert flat(run(f"answer({text})", RESULTS))[1] in (Label(), USER), text


def test_strict_runs_label_what_a_condition_or_a_loop_decides():
    texts = {
        "x = 1\nif web() == 'page':\n    x = 2\nelse:\n    y = 1\nanswer(x)": 2,
        "x = 1\nif web() == 'other':\n    x = 2\nanswer(x)": 1,
        "x = 1\nif web() == 'page':\n    y = 2\nelse:\n    x = 2\nanswer(x)": 1,
        "x = 1\nfor m in box():\n    x = 2\nanswer(x)": 2,
        "x = 1\nfor m in [q for q in box() if 1 == 2]:\n    x = 2\nanswer(x)": 1,
        "if web() == 'page':\n    answer('z')": "z",
    }
    for text, value in texts.items():
        found = run(text, RESULTS, strict=True)
        assert (found.value, found.label.integrity) == (value, "untrusted"), text
        assert run(text, RESULTS).label == USER
    assert run("x = 1\nif 1 == 1:\n    y = web()\nanswer(x)", RESULTS, strict=True).label == USER


def test_what_a_branch_does_not_set_keeps_its_label_and_what_it_would_have_set_does_not():
    branch = "x = 1\ny = 2\nif web() == 'other':\n    z = 5\n    x = y\n"
    for name, integrity in (("x", "untrusted"), ("y", "trusted")):
        found = run(f"{branch}answer({name})", RESULTS, strict=True)
        assert found.label.integrity == integrity and run(f"{branch}answer({name})", RESULTS).label == USER
    loop = "if web() == 'page':\n    for m in [1]:\n        pass\nanswer(m)"
    assert run(loop, RESULTS, strict=True) == Labelled(1, WEB.join(USER)) and run(loop, RESULTS) == Labelled(1, USER)
    for keys in ("{1: 2, web(): 3}", "{web(): 3, 1: 2}", "{1: 2, 5: web()}"):
        assert flat(run(f"answer({keys})", RESULTS))[1] == WEB.join(USER), keys
    assert flat(run("answer({'a': 1, 'b': 2, 3: [4]})"))[0] == {"a": 1, "b": 2, "3": [4]}
    second = "answer([1 for m in [1] if 1 == 1 if web() == 'page'])"
    assert run(second, RESULTS, strict=True).label.integrity == "untrusted" and run(second, RESULTS).label == Label()
    assert run("answer([x for x in []])").value == [] and run("answer(2.5 * 2)").value == 5.0
    for text in ("3 * 'a'", "'a' * 3", "2.5 * [1]"):
        with pytest.raises(PlanError, match=r"^line 1: TypeError$"):
            run(f"answer({text})")
    with pytest.raises(PlanError, match=r"^line 2: OverflowError$"):
        run("x = big()\nx / 2", {"big": Labelled(2**2000)})


def test_a_tool_is_called_with_plain_arguments_the_labels_of_each_and_of_the_place():
    calls = []
    results = {**RESULTS, "send": Labelled("sent")}
    text = "if web() == 'page':\n    send(to=box()[0].id, body=[web(), 'x'])"
    run(text, results, calls=calls, strict=True)
    under = WEB.join(USER)
    trusted = Label("trusted", BOX.readers, frozenset({"box: id"}))
    labels = {"to": trusted.join(under), "body": WEB.join(USER), "": under}
    assert calls[-1] == ("send", {"to": "7", "body": ["page", "x"]}, labels)
    calls.clear()
    run(text, results, calls=calls)
    assert calls[-1][2] == {"to": trusted, "body": WEB.join(USER), "": Label()}


def test_equal_calls_are_told_apart_by_their_number_and_made_once_over_runs():
    calls, reads, made = [], [], {}
    text = "web()\nweb()\na = read(web(), 'who?')\nanswer([a, read(box(), 'n?', 'number')])"
    found = run(text, RESULTS, made, calls=calls, reads=reads)
    assert [name for name, _, _ in calls] == ["web", "web", "web", "box"]
    box = '[{"id":"7","text":"hi","who":{"name":"ann"}},{"id":"8","text":"yo","who":{"name":"bob"}}]'
    assert reads == [("page", "who?", "text"), (box, "n?", "number")]
    assert flat(found) == (["read 1", "read 2"], BOTH.join(USER))
    assert [each.split("{")[0] for each in made][:4] == ["1 web ", "2 web ", "3 web ", '1 read ["page","who?","text"]']
    again = run(f"x = 1\n{text}", RESULTS, made, calls=calls, reads=reads)
    assert again == found and len(calls) == 4 and len(reads) == 2
    run("web()\nweb()\nweb()\nweb()", RESULTS, made, calls=calls)
    assert len(calls) == 5
    other = run("answer(read('page', web()))", RESULTS, reads=reads)
    assert other.label == USER.join(WEB)


def test_arguments_are_equal_in_any_order_and_a_question_may_be_named():
    calls, reads, made = [], [], {}
    text = "box(a=1, b=2)\nbox(b=2, a=1)\nbox(b=1, a=2)\nanswer(read('p', kind=5, question=web()))"
    found = run(text, RESULTS, made, calls=calls, reads=reads)
    assert list(made) == [
        '1 box {"a":1,"b":2}', '2 box {"a":1,"b":2}', '1 box {"a":2,"b":1}', "1 web {}", '1 read ["p","page",5]',
    ]  # fmt: skip
    assert reads == [("p", "page", "5")] and found == Labelled("read 1", WEB.join(USER))
    assert [arguments for _, arguments, _ in calls] == [{"a": 1, "b": 2}, {"a": 1, "b": 2}, {"a": 2, "b": 1}, {}]
    run("answer(read([1, None], 7))", RESULTS, reads=reads)
    assert reads[1:] == [("[1,null]", "7", "text")]


def test_the_labels_of_a_call_are_carried_within_it_alone():
    def within_a_branch():
        enter_branch(Branch())
        with carrying({"a": WEB}):
            with carrying({}):
                assert carried() == {}
            assert carried() == {"a": WEB}
            enter_branch(Branch())
            assert carried() is None, "the calls of another attempt are others"
        assert carried() is None

    copy_context().run(within_a_branch)
