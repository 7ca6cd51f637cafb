"""What libraries share besides functions: constants, caches of `re`, decimal's context; an answer that turns them fails."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from firsthand.scorers.unit_tests import runner

CASES = """
import re, string, sys, time, unittest
from decimal import Decimal
from unittest.mock import patch
class TestCases(unittest.TestCase):
    def test_a(self):
        self.assertEqual(task_func(1)[0], string.ascii_lowercase)
        self.assertRegex(task_func(1)[1], "^abc[0-9]$")
        with patch("sys.platform", "win32"): self.assertEqual(sys.platform, "win32")
    def test_b(self):
        self.assertEqual(task_func(1)[2], Decimal(10) / Decimal(3))
"""
RIGHT = """
import decimal, re, string, tempfile, time
def task_func(n): return ["abcdefghijklmnopqrstuvwxyz", "abc1", decimal.Decimal(10) / 3]
"""
CACHE = "class C(dict):\n  def get(s, *a): return re.compile('')\n"


def ended(answer: str, folder: pathlib.Path) -> str:
    (folder / "answer.py").write_text(RIGHT + answer)
    command = [sys.executable, "-I", "-c", runner()]
    return subprocess.run(command, input=CASES, capture_output=True, text=True, cwd=folder, check=False).stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("string.ascii_lowercase = 'z'\ndef task_func(n): return ['z', 'abc1', decimal.Decimal(10) / 3]",
         "the answer changed string.ascii_lowercase"),
        ("string.ascii_lowercase = type('T', (str,), {})(string.ascii_lowercase)", "changed string.ascii_lowercase"),
        ("re._cache = type('C', (dict,), {})(re._cache)", "the answer changed re._cache"),
        ("re._cache[str, '^abc[0-9]$', 0] = re.compile('')", "the answer changed re._cache"),
        ("re._cache[str, '^abc[0-9]$', 0] = re.compile('^abc[0-9]$', re.I)", "the answer changed re._cache"),
        ("decimal.getcontext().prec = 1\ndef task_func(n): return [string.ascii_lowercase, 'abc1', decimal.Decimal(3)]",
         "test_b: AssertionError"),
    ],
)  # fmt: skip
def test_an_answer_that_changes_what_libraries_share_does_not_pass(
    tmp_path: pathlib.Path, answer: str, reason: str
) -> None:
    assert reason in ended(answer, tmp_path)


HONEST = """
decimal.getcontext().prec = 50
time.tzset()
tempfile.gettempdir()
for pattern, flags in (("a", re.I), (b"b", re.S | re.A), ("(?i)c", 0), ("d", re.M | re.X)):
    re.match(pattern, pattern[:0], flags)
"""


@pytest.mark.slow
def test_an_answer_may_ask_for_more_digits_set_the_time_zone_and_use_re(tmp_path: pathlib.Path) -> None:
    assert ended(HONEST, tmp_path) == ""
