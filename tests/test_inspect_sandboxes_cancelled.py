"""Sandboxes of an Inspect sample whose opening, or restoring, is cancelled: those that were opened are closed."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from firsthand.sandbox.box import Box
from firsthand.task import Task

if importlib.util.find_spec("inspect_ai") is None:
    pytest.skip("needs pip install 'firsthand[inspect]'", allow_module_level=True)

from firsthand.bridges.inspect import sandbox_provider
from firsthand.bridges.inspect.sample_sandboxes import STATE, Sandboxes, _reopened
from firsthand.bridges.inspect.sandbox_provider import sandbox_environment


def test_a_sample_that_is_cancelled_while_its_boxes_open_closes_those_opened_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    closed: list[Any] = []

    class Cancelled(Box):
        def __init__(self, **given: Any):
            made.append(self)

        async def exec(self, *_: Any, **__: Any) -> Any:
            raise asyncio.CancelledError

        async def close(self) -> None:
            closed.append(self)

    monkeypatch.setattr(sandbox_provider, "Box", Cancelled)
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN true\n")
    config = tmp_path / "compose.yaml"
    config.write_text("services:\n  default: {image: bash}\n  db: {build: .}\n")
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(sandbox_environment().sample_init("task", str(config), {}))
    assert len(made) == 2 and closed == [made[1], made[0]]


def test_sandboxes_whose_restoring_is_cancelled_are_closed() -> None:
    did: list[str] = []

    class Restoring(Box):
        def __init__(self, error: BaseException | None):
            self.error = error

        async def restore(self, snapshot: str) -> None:
            did.append(snapshot)
            if self.error is not None:
                raise self.error

    def restored(error: BaseException | None) -> Any:
        sandboxes = Sandboxes(Task("t", "p"), None, None, None)
        sandboxes.boxes = {"default": Restoring(error), "db": Restoring(None)}
        sandboxes._open.callback(did.append, "closed")
        left = {STATE: {"db": {"changes": "of db"}, "default": {"changes": "of default"}}}
        return sandboxes, _reopened(sandboxes, left)

    for error in (asyncio.CancelledError(), OSError("full")):
        with pytest.raises(type(error)):
            asyncio.run(restored(error)[1])
        assert did == ["of default", "closed"]
        did.clear()
    sandboxes, work = restored(None)
    assert asyncio.run(work) is sandboxes and did == ["of default", "of db"]
