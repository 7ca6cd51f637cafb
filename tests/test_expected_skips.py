"""CI fails for a test that was skipped without a reason that is expected there, in every way that a test is skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CASES = {
    "mark": "@pytest.mark.skipif(True, reason='REASON')\ndef test_it(): pass",
    "call": "def test_it(): pytest.skip('REASON')",
    "fixture": "@pytest.fixture\ndef it(): pytest.skip('REASON')\n\ndef test_it(it): pass",
    "module": "pytest.skip('REASON', allow_module_level=True)",
}


def run_pytest(folder: Path, text: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(f"import pytest\n\n{text}\n")
    (folder / "test_other.py").write_text("def test_other(): pass\n")
    (folder / "conftest.py").write_text("from conftest_of_ours import pytest_configure\n")
    (folder / "conftest_of_ours.py").write_text((HERE / "conftest.py").read_text())
    (folder / "pytest.ini").write_text("[pytest]\n")
    known = {key: value for key, value in os.environ.items() if key not in ("FIRSTHAND_CI", "FIRSTHAND_DATA")}
    known |= {"PYTHONPATH": f"{folder}:{HERE}:{os.environ.get('PYTHONPATH', '')}", **environment}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:schemathesis",
        "-p",
        "no:cacheprovider",
        *options,
        str(folder),
    ]
    return subprocess.run(command, cwd=folder, env=known, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("options", [("-n0",), ("-n2",)])
@pytest.mark.parametrize("case", CASES)
def test_a_skip_for_an_unexpected_reason_fails_ci_and_no_other_run(
    tmp_path: Path, case: str, options: tuple[str, ...]
) -> None:
    text = CASES[case].replace("REASON", "numba is not installed")
    in_ci = run_pytest(tmp_path, text, *options, FIRSTHAND_CI="1")
    assert in_ci.returncode == 1 and "SKIPPED UNEXPECTEDLY 1: numba is not installed" in in_ci.stdout, in_ci.stdout
    assert run_pytest(tmp_path, text, *options).returncode == 0
    expected = run_pytest(tmp_path, CASES[case].replace("REASON", "needs a GPU"), *options, FIRSTHAND_CI="1")
    assert expected.returncode == 0, expected.stdout


def test_what_is_expected_is_told_from_what_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from expected_skips import is_expected

    missing = "HumanEval is not on this machine"
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    assert is_expected(missing) and is_expected("needs a GPU") and is_expected("this processor has no avx2")
    monkeypatch.setenv("FIRSTHAND_DATA", str(tmp_path))
    assert not is_expected(missing)
    for reason in (
        "could not import 'ray': No module named 'ray'",
        "",
        "broken",
        "needs pip install 'firsthand[inspect]'",
    ):
        assert not is_expected(reason)
