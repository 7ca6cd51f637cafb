"""The attacks once more as nobody, where the tests run as root: what isolates an ordinary user's sandbox is not the same."""

import os
import re
from pathlib import Path

import pytest

from namespaces import WHY_NOT
from ordinary_user import as_nobody, interpreter

pytestmark = [
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
    pytest.mark.skipif(os.geteuid() != 0, reason="these tests run as an ordinary user already"),
]
HERE = Path(__file__).parent
OPTIONS = ["-q", "-m", "slow or not slow", "-rs", "-p", "no:cacheprovider", "-p", "no:schemathesis", "-o", "addopts="]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_sandbox_attacks.py", "test_sandbox_between_runs.py"])
def test_the_attacks_are_held_as_an_ordinary_user(name):
    python = interpreter("pytest", "hypothesis")
    if python is None:
        pytest.skip("no Python with pytest that nobody can run")
    if as_nobody(["/bin/cat", str(HERE / name)]).returncode != 0:
        pytest.skip("nobody cannot read these tests")
    done = as_nobody([python, "-m", "pytest", *OPTIONS, str(HERE / name)], cwd=str(HERE.parent), timeout=500)
    passed = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0 and passed, done.stdout[-3000:] + done.stderr[-1000:]
    tests = (HERE / name).read_text().count("\ndef test_")
    assert int(passed[1]) >= tests - 4, done.stdout[-1000:]  # a few need root, or a memory cgroup
