"""Libraries that unittest cases call: an answer that replaces a function of theirs is found out, and honest use is not."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from firsthand.scorers.programs.unit_cases import imported
from firsthand.scorers.programs.unit_libraries import Libraries
from firsthand.scorers.unit_tests import runner

CASES = """
import math, os, re, tempfile, warnings
from collections import Counter
from unittest.mock import MagicMock, patch
import unittest
class TestCases(unittest.TestCase):
    def setUp(self):
        self.patcher = patch("os.getpid", return_value=3)
        self.patcher.start()
    def tearDown(self): self.patcher.stop()
    def test_a(self):
        self.assertTrue(math.isclose(task_func(1), 17.5))
        self.assertTrue(os.path.exists(os.getcwd()))
        with patch("os.path.exists", return_value=False): self.assertFalse(os.path.exists("."))
    def test_b(self):
        self.assertEqual(os.getpid(), 3)
        self.assertEqual(Counter(str(task_func(1))), Counter("17.5"))
        setattr(os, "getlogin", lambda: "x")
        re.purge = MagicMock()
"""


def ended(answer: str, folder: pathlib.Path) -> str:
    """What the runner says of an answer: nothing where it passes."""
    (folder / "answer.py").write_text(answer)
    command = [sys.executable, "-I", "-c", runner()]
    done = subprocess.run(command, input=CASES, capture_output=True, text=True, cwd=folder, check=False)
    return done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("math.isclose = lambda *a, **k: True", "math.isclose"),
        ("os.path.exists = bool", "posixpath.exists"),
        ("collections.Counter = lambda *a: 1", "collections.Counter"),
        ("collections.Counter.__eq__ = lambda *a: True", "collections.Counter.__eq__"),
        ("os.path.exists.__code__ = (lambda path: True).__code__", "genericpath.exists"),
        ("import sys, types\nsys.modules['tempfile'] = types.ModuleType('tempfile')", "tempfile"),
        ("os.path = type(os)('posixpath')", "os.path"),
        ("os.path.exists = os.path.lexists", "posixpath.exists"),
        ("re._compile = print", "re._compile"),
        ("def task_func(n):\n    math.isclose = lambda *a, **k: True\n    return 17.5", "math.isclose"),
        (
            "def task_func(n):\n    math.isclose = __import__('unittest.mock').mock.MagicMock()\n    return 17.5",
            "math.isclose",
        ),
    ],
)
def test_an_answer_that_replaces_a_function_of_a_library_does_not_pass(
    tmp_path: pathlib.Path, change: str, name: str
) -> None:
    answer = f"import collections, math, os, re\ndef task_func(n): return 17.5\n{change}\n"
    assert f"the answer changed {name}" in ended(answer, tmp_path)


HONEST = """
import collections, logging, math, os, re, ssl, sys, warnings
ssl._create_default_https_context = ssl._create_unverified_context
warnings.showwarning = lambda *a, **k: None
warnings.filterwarnings("ignore")
sys.excepthook = print
os.environ["A"] = "1"
logging.basicConfig()
class Words(collections.Counter):
    def total_words(self): return 1
def task_func(n):
    re.compile("a")
    return 17.5
"""


def test_a_right_answer_that_sets_hooks_and_a_library_that_mends_itself_pass(tmp_path: pathlib.Path) -> None:
    assert ended(HONEST, tmp_path) == ""


@pytest.mark.slow
def test_a_library_may_replace_what_it_keeps_to_itself_by_its_own_or_by_a_function_of_that_name() -> None:
    libraries = Libraries(["shutil"])
    for owner, name, now, counts in (
        ("os", "fwalk", os.walk, False),
        ("typing", "walk", os.walk, False),
        ("typing", "other", os.walk, True),
        ("typing", "Any", eval("lambda: 1"), True),
        ("shutil", "_private", shutil.copy, False),
        ("shutil", "copy2", shutil.copy, True),
        ("threading", "excepthook", print, False),
    ):
        assert libraries._counts(owner, name, now) is counts, (owner, name)


def test_modules_that_the_tests_name_are_read_from_their_imports() -> None:
    tests = "import numpy as np, os.path\nfrom a.b import c as d\nnp.testing.f(1)\nos.path.join\nd.e\nx.y"
    assert imported(tests) == [
        "a.b", "a.b.c", "a.b.c.e", "numpy", "numpy.testing", "numpy.testing.f", "os.path", "os.path.join",
    ]  # fmt: skip
