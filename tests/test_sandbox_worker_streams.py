"""What code finds in the sandbox's Python: its streams, its module, its path and the lines of its source."""

from __future__ import annotations

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the programs are those of Linux", allow_module_level=True)

from firsthand.sandbox.programs import worker
from forked_process import forked


def python(code: str, kind: str = "python", stdin: bytes = b"", path: tuple[str, ...] = ()) -> tuple[int, str, str]:
    return forked(lambda: worker.run_python(code, "<code>", kind, [*path]), stdin)


@pytest.mark.slow
def test_the_streams_are_of_utf_8_and_show_what_is_not() -> None:
    assert python("import sys\nprint(ascii(sys.stdin.read()))", stdin=b"\xc3\xa9\xff\n") == (
        0, "'\\xe9\\ufffd\\n'\n", ""
    )  # fmt: skip
    said = "import sys\nprint('é\\ud800')\nsys.stderr.write('é\\udfff\\n')"
    assert python(said) == (0, "é\\ud800\n", "é\\udfff\n")
    same = "print([getattr(sys, f'__{name}__') is getattr(sys, name) for name in ('stdin', 'stdout', 'stderr')])"
    assert python(f"import sys\n{same}") == (0, "[True, True, True]\n", "")
    told = "print([(each.encoding, each.errors, each.fileno()) for each in (sys.stdin, sys.stdout, sys.stderr)])"
    assert python(f"import sys\n{told}")[1] == (
        "[('utf-8', 'replace', 0), ('utf-8', 'backslashreplace', 1), ('utf-8', 'backslashreplace', 2)]\n"
    )
    assert python("import sys\nprint(sys.stdout.line_buffering, sys.stderr.line_buffering)")[1] == "False True\n"
    broken_off = (
        "import os, sys\nprint('kept back')\nsys.stderr.write('line\\n')\nsys.stderr.write('rest')\nos._exit(7)"
    )
    assert python(broken_off) == (7, "", "line\n"), "errors are written with each line, output when it is flushed"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["python", "program", "cell"])
def test_code_is_the_main_module_and_knows_its_own_lines(kind: str) -> None:
    code = "import builtins, sys\nmain = sys.modules['__main__']\n"
    code += "print(__name__, vars(main) is globals(), __builtins__ is builtins, sys.argv)"
    assert python(code, kind) == (0, "__main__ True True ['<code>']\n", "")
    names = "print(sorted(name for name in globals() if not name.startswith('__')))"
    assert python(names, kind) == (0, "[]\n", ""), "nothing of ours"
    lines = (
        "def f():\n    return 1\nimport inspect, linecache\nlinecache.checkcache()\nprint(inspect.getsource(f), end='')"
    )
    assert python(lines, kind) == (0, "def f():\n    return 1\n", "")
    assert python("from typing import List\ndef f(x: List): pass\nprint(f.__annotations__)", kind) == (
        0, "{'x': typing.List}\n", ""
    )  # fmt: skip


@pytest.mark.slow
def test_the_folder_of_work_comes_first_only_for_code_of_an_answer() -> None:
    known = [*sys.path]
    for kind, first in (("python", [worker.HOME]), ("cell", [worker.HOME]), ("program", [])):
        whole = [*first, "/a", "/b", *known]
        assert python("import sys\nprint(sys.path)", kind, path=("/a", "/b")) == (0, f"{whole}\n", ""), kind
        assert python("import sys\nprint(sys.path)", kind) == (0, f"{[*first, *known]}\n", ""), kind
