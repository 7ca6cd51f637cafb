"""Files of a run that its scratch folder does not hold: the run's own failure, and no error of the sandbox."""

import asyncio
import errno

import pytest

from firsthand.errors import SandboxError
from firsthand.sandbox.programs import worker
from firsthand.sandbox.sandbox import Outcome, Sandbox
from firsthand.sandbox.sandbox_limits import RunLimits
from namespaces import WHY_NOT

needs_bwrap = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
SIZE, FILES = 2**20, 10
LIMITS = RunLimits(scratch_bytes=SIZE, scratch_files=FILES)


@needs_bwrap
@pytest.mark.slow
def test_files_that_do_not_fit_end_their_run_as_memory_and_those_that_do_are_there() -> None:
    too_large, fits = {"a": "x" * 2 * SIZE}, {"a": "x" * (SIZE - 3 * 4096)}
    too_many, as_many = {f"{n}": "" for n in range(FILES + 2)}, {f"{n}": "" for n in range(FILES)}
    answer = "#" * 2 * SIZE + "\ndef f(x): return x"

    async def run() -> list[Outcome]:
        with Sandbox(LIMITS, workers=1, tier="bubblewrap") as sandbox:
            found = [await sandbox.python("print('ran')", files=each) for each in (too_large, too_many, fits, as_many)]
            return [*found, await sandbox.check(answer, "assert f(1) == 1")]

    large, many, *whole, checked = asyncio.run(run())
    for outcome in (large, many, checked):
        assert (outcome.ended, outcome.stdout) == ("memory", "")
        assert outcome.stderr.startswith("MemoryError: the files of the run do not fit into its scratch folder")
    assert [(each.ended, each.stdout) for each in whole] == [("done", "ran\n")] * 2


@needs_bwrap
@pytest.mark.slow
def test_files_that_cannot_be_made_for_another_reason_are_still_an_error() -> None:
    async def run() -> Outcome:
        with Sandbox(LIMITS, workers=1, tier="bubblewrap") as sandbox:
            return await sandbox.python("", files={"a": "", "a/b": ""})

    with pytest.raises(SandboxError, match="could not be set up: "):
        asyncio.run(run())


@pytest.mark.parametrize(
    ("number", "raised"), [(errno.ENOSPC, MemoryError), (errno.ENOMEM, MemoryError), (errno.ENOTDIR, OSError)]
)
def test_no_room_for_files_is_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch, number: int, raised: type) -> None:
    def fails(files: dict[str, str]) -> None:
        raise OSError(number, "so it is")

    monkeypatch.setattr(worker, "write_files", fails)
    with pytest.raises(raised, match="so it is"):
        worker.make_scratch({})
