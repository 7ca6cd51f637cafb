"""Tests that a model writes for its own code, run by the tool `python`, as in Reflexion (Shinn et al., 2023)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from textwrap import indent

from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.message import ToolCall
from firsthand.patterns.parts.evaluation import Feedback
from firsthand.patterns.parts.fenced_code import fenced_code
from firsthand.patterns.parts.parsed_python import parsable
from firsthand.patterns.parts.python_source import joined_source, last_defining
from firsthand.task import Task

MAX_TESTS = 6
MAX_CHARS = 20_000
_RESULT = re.compile(r"^own test (\d+): (.*)$", re.MULTILINE)
_HARNESS = """
def _own_tests(tests):
    for number, (test, left) in enumerate(tests):
        try:
            exec(test, globals())
            result = "passed"
        except AssertionError:
            result = "failed"
            if left:
                try:
                    result += ": got " + repr(eval(left, globals()))[:200]
                except BaseException as error:
                    result += ": " + type(error).__name__
        except BaseException as error:
            result = "failed: " + type(error).__name__ + ": " + str(error)[:200]
        print("\\nown test %d: %s" % (number, " ".join(result.split())), flush=True)
"""


@dataclass
class SelfTests:
    """An Evaluator that asks once for tests, and runs them on each answer. Without usable tests every answer passes."""

    tests: list[str] | None = None

    async def __call__(self, task: Task, ctx: Context, answer: str) -> Feedback:
        """Feedback: whether the code in the answer passes the model's own tests, and the failures."""
        if "python" not in {tool.name for tool in ctx.tools}:
            raise ConfigError("testing code needs the tool python: add --tools python, or take evaluator=judge")
        name = str(task.metadata.get("entry_point", ""))
        if self.tests is None:
            asked = await ctx.say(_request(task, name)).generate()
            self.tests = usable_tests(asked.said, name)
            ctx.note("tests", tests=self.tests)
        if not self.tests:
            return Feedback(True, "There is no test to fail.")
        call = ToolCall("tests", "python", {"code": program(task, answer, self.tests)})
        result = await ctx.call(call)
        return read_results(self.tests, result.content if result.plain is None else result.plain)


def usable_tests(text: str, name: str) -> list[str]:
    """The first six different `assert` statements in a text that call the function, as `ast` reads them."""
    found: dict[str, None] = {}
    for statement in _statements(code_in(text)):
        calls = [node for node in ast.walk(statement) if isinstance(node, ast.Call)]
        if isinstance(statement, ast.Assert) and any(_called(call) == name or not name for call in calls):
            found[ast.unparse(statement)] = None
    return list(found)[:MAX_TESTS]


def program(task: Task, answer: str, tests: list[str]) -> str:
    """A program with the answer's code that runs each test and prints its result."""
    name, head = str(task.metadata.get("entry_point", "")), _head(task)
    code, begins = code_in(answer, name), _defined(head, name)
    if name and last_defining([code], name) is None:
        code = f"{head}\n{_indented(code, head)}"  # a completion: the task's text is the function's head
    elif begins and _parses(head[: begins.start()]):
        code = joined_source(head[: begins.start()], code)  # imports that the answer may lean on
    pairs = [(test, _left_side(test)) for test in tests]
    return f"{code}\n{_HARNESS}\n_own_tests({pairs!r})\n"


def read_results(tests: list[str], printed: str) -> Feedback:
    """The feedback that a program's output holds; a test without a result has failed."""
    results = {int(number): result for number, result in _RESULT.findall(printed[-MAX_CHARS:])}
    lines = [f"{test}  # {results.get(index, 'did not finish')}" for index, test in enumerate(tests)]
    passed = all(results.get(index) == "passed" for index in range(len(tests)))
    ending = "" if results else f"\nThe program ended with:\n{printed.strip()[-500:]}"
    return Feedback(passed, "\n".join(lines) + ending)


def code_in(text: str, name: str = "") -> str:
    """The code in an answer: its last fenced block that defines or imports the function, else its last, else the whole."""
    blocks = [block.code.rstrip() for block in fenced_code(text[-MAX_CHARS:]) if block.code.strip()]
    found = last_defining(blocks, name)
    return (blocks or [text[-MAX_CHARS:].rstrip()])[-1] if found is None else found


def _head(task: Task) -> str:
    """The function's head as code: some benchmarks wrap it in words and keep it beside them."""
    return str(task.metadata.get("prompt", task.prompt))


def _defined(code: str, name: str) -> re.Match[str] | None:
    return re.search(rf"^(?:async )?def {re.escape(name)}\b", code, re.MULTILINE)


def _indented(body: str, head: str) -> str:
    """The body of a function as it stands, or with the indentation that its first line or all of it has lost."""
    for candidate in (body, f"    {body}", indent(body, "    ")):
        whole = f"{head}\n{candidate}"
        if _parses(whole) and not _returns_outside(ast.parse(whole)):
            return candidate
    return body


def _returns_outside(code: ast.Module) -> bool:
    """True if a `return` stands outside of every function, perhaps in a loop or a condition: the code does not compile."""
    left: list[ast.AST] = [*code.body]
    while left:
        each = left.pop()
        if isinstance(each, ast.Return):
            return True
        if not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.expr):
            left += ast.iter_child_nodes(each)
    return False


def _request(task: Task, name: str) -> str:
    return (
        f"{_head(task)}\n\nWrite up to {MAX_TESTS} tests for {name or 'this function'}, each one line of the form "
        f"`assert {name or 'f'}(...) == ...`. Think of edge cases. Write the tests only, in one code block."
    )


def _statements(code: str) -> Iterable[ast.stmt]:
    """The statements of the code; where it does not parse as a whole, of each line that does."""
    if _parses(code):
        return ast.parse(code).body
    lines = [line.strip() for line in code.splitlines()]
    return [statement for line in lines if _parses(line) for statement in ast.parse(line).body]


def _parses(code: str) -> bool:
    try:
        ast.parse(parsable(code))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _left_side(test: str) -> str:
    """The left side of a test's comparison, so that a failure can show its value."""
    [statement] = ast.parse(test).body
    compared = statement.test if isinstance(statement, ast.Assert) else None
    return ast.unparse(compared.left) if isinstance(compared, ast.Compare) else ""
