"""Python sources joined into one program, and the functions that a source defines."""

from __future__ import annotations

import asyncio
import warnings
from textwrap import indent
from types import SimpleNamespace

import pytest

from firsthand import catalog
from firsthand.patterns.parts.python_source import defines, imports, joined_source, last_defining
from firsthand.patterns.parts.self_tests import code_in, program
from firsthand.scorers.code import answered_code, passes_tests
from firsthand.scorers.unit_tests import run_unit_tests
from firsthand.task import Task
from namespaces import WHY_NOT

FIRST = "import math\n\n"
FUTURE = "from __future__ import annotations"


def names_of(program: str) -> dict[str, object]:
    """What a program leaves in its namespace."""
    namespace: dict[str, object] = {"__name__": "joined"}
    exec(compile(program, "<joined>", "exec", dont_inherit=True), namespace)
    return namespace


@pytest.mark.parametrize(
    "head",
    [
        f"{FUTURE}\n",
        f"\n# a comment\n\n{FUTURE}\n",
        f"#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\n{FUTURE}\n",
        f'"""A docstring\nof two lines."""\n{FUTURE}\n',
        f"'one' 'two'\n{FUTURE}  # why\n",
        f"from __future__ import (\n    annotations,\n    division,\n)\n{FUTURE}\n",
        f"from __future__ import \\\n    annotations\n{FUTURE}\n",
        f"{FUTURE}; from __future__ import division; import os\n",
        f"\ufeff{FUTURE}\n",
        f"\r\n{FUTURE}\r\n",
        f"'a docstring'; {FUTURE}; pi = math.pi\n",
    ],
)
def test_imports_of_the_future_come_before_both_sources(head: str) -> None:
    joined = joined_source(FIRST, f"{head}def f(x: int) -> int:\n    return math.floor(x)\n")
    names = names_of(joined)
    assert names["f"](2.5) == 2 and names["f"].__annotations__ == {"x": "int", "return": "int"}  # type: ignore
    assert ("os" in names) == ("import os" in head) and joined.count("annotations") == head.count("annotations")


def test_both_sources_may_begin_with_imports_of_the_future_and_docstrings() -> None:
    first = f'"""First."""\n{FUTURE}\nimport math\n'
    second = '"""Second."""\nfrom __future__ import generator_stop\ny = math.pi\n'
    assert names_of(joined_source(first, second))["y"] > 3  # type: ignore[operator]
    texts = '"""First."""\npass\nimport math\n"""Second."""\npass\ny = math.pi\n'
    assert joined_source(first, second) == f"{FUTURE}\nfrom __future__ import generator_stop\n{texts}"
    for end in ("import math", "import math\ny = math.pi  # the last line"):
        assert names_of(joined_source(end, f"{FUTURE}\nx = math.pi"))["x"] > 3  # type: ignore[operator]
        assert joined_source(end, "x = 1") == f"{end}\nx = 1" and joined_source("", "x = 1") == "x = 1"
    assert joined_source(f"\ufeff{FIRST}", "\ufeffx = 1\n") == FIRST + "x = 1\n"


def test_only_the_imports_that_python_would_take_are_moved() -> None:
    for second in (
        f'x = """\n{FUTURE}\n"""\n',  # a text that holds one
        f"import os\n{FUTURE}\n",
        f"    {FUTURE}\n",
        f"def f():\n    '''x\n{FUTURE}\n'''\n",
        f"from os import path\n{FUTURE}\n",
        f"'unclosed\n{FUTURE}\n",
        "# __future__\nx = 1\n",
        f"...\n{FUTURE}\n",
        f"'''unclosed\n{FUTURE}\n",
        "from __future__ import (annotations\n",
        f"'text'.strip()\n{FUTURE}\n",
        f"('unclosed'\n{FUTURE}\n",
    ):
        assert joined_source(FIRST, second) == FIRST + second
        assert joined_source(FIRST, f"{FUTURE}\n{second}") == f"{FUTURE}\n{FIRST}pass\n{second}"


def test_a_source_alone_stays_as_it_is() -> None:
    second = f'"""Doc."""\n{FUTURE}\nx = 1\n'
    assert (
        joined_source("", second) == joined_source("\ufeff", second) == joined_source("", f"\ufeff{second}") == second
    )
    assert names_of(joined_source("", second))["__doc__"] == "Doc."


def test_long_heads_are_read_in_linear_time() -> None:
    for head in ("#\n" * 100_000, "''\n" * 20_000, "'" + "x" * 500_000, f"{FUTURE}\n" * 5_000, "(" * 100_000):
        assert joined_source(FIRST, f"{head}# __future__").endswith("# __future__")


@pytest.mark.parametrize(
    ("code", "is_defined"),
    [
        ("def f(x): return x", True),
        ("async def f(x): return x", True),
        ("f = lambda x: x", True),
        ("import functools\nf = functools.partial(max, 1)\n", True),
        ("from typing import Callable\nf: Callable[[int], int] = lambda x: x\n", True),
        ("f == 1", False),
        ("f: int", False),
        ("f.x = 1", False),
        ("ff = lambda x: x", False),
        ("    f = lambda x: x", False),
        ("f = 1\nreturn f", False),  # the body of a function, which has lost its indent
        ("f = 1\nif x:\n    return f", False),
        ("def ff(x): return x", False),
        ("f = 1\n" + "#" * 60_000, False),  # too long to be compiled here
        ("if x:\n    def f(x): return x\nelse:\n    f = max", True),
        ("try:\n    import g\nexcept ImportError:\n    async def f(x): return x", True),
        ("with x:\n    def f(x): return x", True),
        ("with x:\n    f = max", True),
        ("for _ in x:\n    def f(x): return x", True),
        ("for _ in x:\n    pass\nelse:\n    f = max", True),
        ("for _ in (f := max,): pass", True),
        ("with (f := max): pass", True),
        ("match x:\n    case 1:\n        f = max", True),
        ("while x:\n    f = max", True),
        ("f, g = max, min", True),
        ("g = f = max", True),
        ("[*f] = 1,", True),
        ("(f := max)", True),
        ("if x: f: object = max", True),
        ("class f:\n    def __new__(cls, x): return x", True),
        ("def make():\n    def inner():\n        global f\n        f = max\n    inner()\nmake()", True),
        ("async def make():\n    global f\n    f = max", True),
        ("class Made:\n    global f\n    def f(x): return x", True),
        ("def make():\n    global g\n    f = max\n    g = f", False),
        ("class Solution:\n    f = max\n    def f(self, x): return x", False),
        ("async def g():\n    f = max", False),
        ("g = lambda: (f := max)", False),
        ("g = [f for f in x]", False),
        ("for f in x: print(f)", False),
        ("async def g():\n    async for f in x: pass", False),
        ("with open(x) as f: print(f)", False),
        ("from math import gcd as f", False),
        ("print(f(1))", False),
        ("x.f = f", False),
        ("x: (f := max) = 1", True),
        ("f" + ".a" * 20_000, False),  # nested too deeply
        ("f = '\ud800'", False),
        ("if x:\n    def f(x): return x\nreturn f(1)", False),
    ],
)
def test_a_function_is_defined_by_what_gives_it_its_name_when_the_program_is_loaded(
    code: str, is_defined: bool
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert defines(code, "f") is is_defined and not defines(code, "")
        assert defines("'\\d'\nif x:\n    f = 1", "f"), "no warning of an answer's text"


@pytest.mark.parametrize(
    ("code", "is_imported"),
    [
        ("from math import gcd as f", True),
        ("from solution import g, f", True),
        ("import f", True),
        ("import f.g", True),
        ("import g.h as f", True),
        ("try:\n    from a import f\nexcept ImportError:\n    from b import f", True),
        ("from f import g", False),
        ("from math import f as g", False),
        ("import g.f", False),
        ("def g():\n    from math import f", False),
        ("class G:\n    import f", False),
        ("from math import f\nreturn f(1)", False),
        ("f = 1", False),
    ],
)
def test_a_function_is_imported_under_its_name(code: str, is_imported: bool) -> None:
    assert imports(code, "f") is is_imported and not imports(code, "")


def test_a_source_that_defines_the_function_counts_before_one_that_imports_it_to_use_it() -> None:
    draft, made, used = "def f(x): return 0", "if True:\n    def f(x): return x", "from solution import f\nprint(f(1))"
    other, renamed = "x = 1", "from math import gcd as f"
    assert last_defining([draft, made, used, other], "f") == made and last_defining([made, draft, used], "f") == draft
    assert last_defining([other, used, renamed, other], "f") == renamed
    assert last_defining([other], "f") is None is last_defining([], "f") and last_defining([draft], "") is None
    for blocks, last in (((draft, used), draft), ((draft, renamed), draft), ((renamed, other), renamed)):
        answer = "\n".join(f"```python\n{block}\n```" for block in blocks)
        assert answered_code(answer, PROMPT, "f") == f"import math\n\n{last}\n"
        assert code_in(answer, "f") == last


def test_the_sources_of_one_answer_are_parsed_up_to_the_bounds_of_one_and_a_def_is_always_seen() -> None:
    bound, whole = "if xy: f = max", "def f(x): return x"
    for filler, is_read in (
        ("f()" + "#" * (50_000 - 3 - len(bound)), True),
        ("f()" + "#" * (50_001 - 3 - len(bound)), False),
        ("f" + "{" * 2_500, True),
        ("f" + "{" * 2_501, False),
        ("#" * 60_000, True),  # without the name it is not parsed
    ):
        assert last_defining([bound, filler], "f") == (bound if is_read else None)
        assert last_defining(["if x: import f", filler, "x"], "f") == ("if x: import f" if is_read else None)
        assert last_defining([bound, whole, filler], "f") == whole and last_defining([filler, bound], "f") == bound


PROMPT = "import math\n\ndef f(x):\n"


def test_answers_are_read_from_every_fence_that_means_python() -> None:
    for language in ("", "python", "py", "python3", "py3", "ipython", "ipython3", "IPython", "Py3"):
        assert answered_code(f"```{language}\ndef f(x): return 1\n```", PROMPT, "f").endswith(
            "\n\ndef f(x): return 1\n"
        )
    assert answered_code("```js\ndef f(x): return 1\n```", "", "f").startswith("```js")


def test_marks_of_the_byte_order_are_no_part_of_an_answer() -> None:
    code = "def f(x):\n    return 1\n"
    for answer in (f"\ufeff```python\n{code}```", f"```python\n\ufeff{code}```", f"\ufeff{code}"):
        assert answered_code(answer, PROMPT, "f") == f"import math\n\n{code}"
        assert answered_code(answer, "", "f") == code
    assert answered_code("\ufeff    return 1", PROMPT, "f") == f"{PROMPT}    return 1"


def test_an_assigned_function_is_the_answer_and_a_bodys_variable_completes_the_prompt() -> None:
    assert answered_code("```python\nf = lambda x: 1\n```", PROMPT, "f") == "import math\n\nf = lambda x: 1\n"
    assert answered_code("f = lambda x: 1", PROMPT, "f") == "import math\n\nf = lambda x: 1"
    for code in (
        "from math import gcd as f",
        "if True:\n    f = math.gcd\nprint(f(1))",
        "from math import floor\nf, g = 1, 2",
    ):
        assert answered_code(code, PROMPT, "f") == f"import math\n\n{code}"
    assert answered_code("x = 1\nif x:\n    f()", entry_point="f") == "x = 1\nif x:\n    f()"
    drafts = "```python\nreturn 0\n```\n```python\nreturn x\n```"
    assert answered_code(drafts, PROMPT, "f").rstrip() == f"{PROMPT}    return x" and code_in(drafts, "f") == "return x"
    assert answered_code("f = x + 1\nreturn f", PROMPT, "f") == f"{PROMPT}    f = x + 1\n    return f"


def test_a_models_own_tests_run_an_answer_with_imports_of_the_future() -> None:
    task = Task("t", PROMPT, metadata={"entry_point": "f", "prompt": PROMPT})
    for answer in (f"{FUTURE}\ndef f(x: int): return math.floor(x)\n", f"{FUTURE}\nf = lambda x: math.floor(x)\n"):
        shown = f"```python\n{answer}```\nIt is used so:\n```python\nf(1.5)\n```"
        assert names_of(program(task, shown, ["assert f(1.5) == 1"]))["f"](2.5) == 2  # type: ignore
    for answer in ("from math import floor as f", "if True:\n    def f(x): return math.floor(x)"):
        assert names_of(program(task, answer, []))["f"](2.5) == 2  # type: ignore
    nameless = Task("t", "Set x.")
    assert program(nameless, "```python\nx = 1\n```", []).startswith("x = 1\n"), "without a name it is no completion"
    assert code_in("x = 1 \n") == "x = 1" and code_in("y" * 30_000) == "y" * 20_000


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "")
def test_right_answers_to_humaneval_pass_in_each_ordinary_form() -> None:
    task = next(each for each in catalog.benchmark("humaneval").tasks(0) if each.secret["setup"].strip())
    right = task.secret["prompt"] + task.secret["solution"]
    name = task.secret["entry_point"]

    async def values() -> list[float]:
        forms = (f"{FUTURE}\n\n{right}", f"\ufeff{right}", f"{right}\n{name} = (lambda g: lambda *a: g(*a))({name})\n")
        body = right.removeprefix(task.secret["setup"])
        forms += (
            f"if True:\n{indent(body, '    ')}",
            f"class C:\n    {name} = 1\ntry:\n{indent(body, '    ')}\nfinally: pass",
        )
        wrong = f"{FUTURE}\n\ndef {name}(*_):\n    return None\n"
        answers = [SimpleNamespace(answer=f"```py3\n{form}\n```") for form in (*forms, wrong)]
        return [(await passes_tests(task, each)).value for each in answers]  # type: ignore[arg-type]

    assert asyncio.run(values()) == [1.0, 1.0, 1.0, 1.0, 1.0, 0.0]


def test_unittest_cases_run_an_answer_after_its_head_with_imports_of_the_future_first() -> None:
    class Kept:
        async def python(self, code: str, *, files: dict[str, str], **_: object) -> str:
            return files["answer.py"]

    task = Task("t", "p", secret={"tests": "x", "before": "import math\ndef f(x):\n    pass\n"})
    joined = asyncio.run(run_unit_tests(f"{FUTURE}\ndef f(x): return math.pi", task, Kept()))  # type: ignore[arg-type]
    assert names_of(str(joined))["f"](1) > 3  # type: ignore[operator]
