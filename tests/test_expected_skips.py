"""CI fails for a test that was skipped without a reason that is expected there, in every way that a test is skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
WAYS = {
    "mark": "@pytest.mark.skipif(True, reason='REASON')\ndef test_it(): pass",
    "call": "def test_it(): pytest.skip('REASON')",
    "fixture": "@pytest.fixture\ndef it(): pytest.skip('REASON')\n\ndef test_it(it): pass",
    "module": "pytest.skip('REASON', allow_module_level=True)",
}


def run_pytest(folder: Path, reasons: dict[str, str], *options: str, **environment: str) -> tuple[int, str]:
    """The exit status and output of pytest on a file for each way to skip, and one with a test that passes."""
    for way, text in WAYS.items():
        (folder / f"test_{way}.py").write_text(f"import pytest\n\n{text.replace('REASON', reasons[way])}\n")
    (folder / "test_other.py").write_text("def test_other(): pass\n")
    (folder / "conftest.py").write_text("from conftest_of_ours import pytest_configure\n")
    (folder / "conftest_of_ours.py").write_text((HERE / "conftest.py").read_text())
    (folder / "pytest.ini").write_text("[pytest]\n")
    known = {key: value for key, value in os.environ.items() if key not in ("FIRSTHAND_CI", "FIRSTHAND_DATA")}
    known |= {
        "PYTHONPATH": f"{folder}:{HERE}:{os.environ.get('PYTHONPATH', '')}",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        **environment,
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "xdist", "-p", "no:cacheprovider", *options, str(folder)]
    done = subprocess.run(command, cwd=folder, env=known, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("options", [("-n0",), ("-n2",)])
def test_a_skip_for_an_unexpected_reason_fails_ci_and_no_other_run(tmp_path: Path, options: tuple[str, ...]) -> None:
    unexpected = {way: f"the {way} is not installed" for way in WAYS}
    status, out = run_pytest(tmp_path, unexpected, *options, FIRSTHAND_CI="1")
    assert status == 1, out
    for reason in unexpected.values():
        assert f"SKIPPED UNEXPECTEDLY 1: {reason}" in out, out
    assert run_pytest(tmp_path, unexpected, *options)[0] == 0
    expected = dict.fromkeys(WAYS, "needs a GPU")
    assert run_pytest(tmp_path, expected, *options, FIRSTHAND_CI="1")[0] == 0


@pytest.mark.slow
def test_each_way_to_skip_is_enough_to_fail_ci(tmp_path: Path) -> None:
    expected = dict.fromkeys(WAYS, "needs a GPU")
    for way in WAYS:
        status, out = run_pytest(tmp_path, expected | {way: "broken"}, "-n0", FIRSTHAND_CI="1")
        assert status == 1 and out.count("SKIPPED UNEXPECTEDLY") == 1, f"{way}: {out}"


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
