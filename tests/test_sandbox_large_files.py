"""Files of a run that its scratch folder does not hold: the run's own failure, and no error of the sandbox."""

import asyncio

import pytest

from firsthand.errors import SandboxError
from firsthand.sandbox.sandbox import Outcome, Sandbox
from firsthand.sandbox.sandbox_limits import RunLimits
from namespaces import WHY_NOT

pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
SIZE, FILES = 2**20, 10
LIMITS = RunLimits(scratch_bytes=SIZE, scratch_files=FILES)


def outcomes(*runs: dict[str, str]) -> list[Outcome]:
    """The outcomes of a program, one after the other in one worker, beside these files."""

    async def run() -> list[Outcome]:
        with Sandbox(LIMITS, workers=1, tier="bubblewrap") as sandbox:
            return [await sandbox.python("print('ran')", files=files) for files in runs]

    return asyncio.run(run())


def test_files_that_do_not_fit_end_their_run_as_memory_and_the_next_one_is_normal() -> None:
    large, many, whole = outcomes({"a": "x" * SIZE * 2}, {f"{n}": "" for n in range(FILES + 1)}, {"a": "x"})
    for outcome in (large, many):
        assert (outcome.ended, outcome.stdout) == ("memory", "")
        assert outcome.stderr.startswith("MemoryError: the files of the run do not fit into its scratch folder")
    assert (whole.ended, whole.stdout) == ("done", "ran\n")


def test_files_that_just_fit_are_there() -> None:
    found = outcomes({"a": "x" * (SIZE - 3 * 4096)}, {f"{n}": "" for n in range(FILES - 1)})
    assert [each.stdout for each in found] == ["ran\n", "ran\n"]


def test_a_long_answer_has_failed_its_tests() -> None:
    async def checked() -> Outcome:
        with Sandbox(LIMITS, workers=1, tier="bubblewrap") as sandbox:
            return await sandbox.check("#" * 2 * SIZE + "\ndef f(x): return x", "assert f(1) == 1")

    assert asyncio.run(checked()).ended == "memory"


def test_files_that_cannot_be_made_for_another_reason_are_still_an_error() -> None:
    with pytest.raises(SandboxError, match="could not be set up: "):
        outcomes({"a": "", "a/b": ""})
