"""The record of an MCP server's calls where no call was made: who may run in its folder, and what is left of it."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

from firsthand.errors import ConfigError
from firsthand.runs import store
from firsthand.runs.run_names import MAKING
from firsthand.serve.mcp.agent_offer import CallRecord
from firsthand.system.home import data_home
from firsthand.system.lock import held


def test_the_folder_of_a_record_is_free_again_once_it_is_closed_though_nothing_was_called(tmp_path: Path) -> None:
    folder = tmp_path / "calls"
    record = CallRecord("desk", folder)
    assert record.journal("place") is not None
    with pytest.raises(ConfigError, match="calls is being run by process"):
        CallRecord("desk", folder)
    with store.open_run(folder, data_home()) as run:
        about = (run.id, run.config, run.status)
        with pytest.raises(ConfigError, match="is being run by process"):
            run.expect_idle()
    assert about == ("calls", {"mcp": {}}, "running")
    record.close()
    with store.open_run(folder, data_home()) as run:
        run.expect_idle()
        assert (run.id, run.status, list(run.traces())) == (about[0], "done", [])
    again = CallRecord("other", folder)
    again.close()
    again.close()
    with store.open_run(folder, data_home()) as run:
        run.expect_idle()
        assert (run.id, run.status) == (about[0], "done"), "the run that is there goes on"


def test_a_record_without_a_folder_and_without_a_call_makes_no_run() -> None:
    before = [each.id for each in store.list_runs(data_home())]
    record = CallRecord("desk")
    assert record.tasks is None and record.journal("place") is None
    record.close()
    record.close()
    assert [each.id for each in store.list_runs(data_home())] == before


def test_an_mcp_server_that_begins_with_another_is_told_of_it(tmp_path: Path) -> None:
    folder, told = tmp_path / "calls", []
    folder.mkdir()

    def second() -> None:
        with pytest.raises(ConfigError) as error:
            CallRecord("desk", folder)
        told.append(str(error.value))

    thread = threading.Thread(target=second)
    with ExitStack() as stack:
        with held(folder / MAKING):
            thread.start()
            thread.join(0.1)
            run = stack.enter_context(store._created(folder, {"config": {}, "command": []}, None))
            stack.enter_context(run.working())  # before the second may look
        thread.join(30)
    assert len(told) == 1 and told[0].startswith("calls is being run by process")
