"""Origins of remembered items: texts when they are written, shown as texts whatever a file holds."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.memories.keeping.fenced_items import fenced, joined_origins
from firsthand.memories.keeping.kept_item import check_origins
from firsthand.memories.semantic import semantic
from firsthand.memory import MemoryItem


@pytest.mark.parametrize("origin", [[1], {"a": 1}, 7, ["web", None], [["web"]], True])
def test_an_origin_that_is_no_text_is_refused_when_it_is_written(tmp_path: Path, origin: Any) -> None:
    memory = semantic(str(tmp_path / "m.db"))
    with pytest.raises(ConfigError, match=r"^an origin is .*: give a text, or a list of texts$"):
        asyncio.run(memory.write(MemoryItem.of("Ann lives in Oslo", {"origin": origin})))
    assert asyncio.run(memory.list()) == []


@pytest.mark.parametrize("origin", [None, "", [], "web", ["web", "sql"]])
def test_texts_are_origins(tmp_path: Path, origin: Any) -> None:
    memory = semantic(str(tmp_path / "m.db"))
    check_origins({})
    asyncio.run(memory.write(MemoryItem.of("Ann lives in Oslo", {"origin": origin})))
    shown = fenced(asyncio.run(memory.search("Ann", 1)))
    names = ", ".join([origin] if isinstance(origin, str) else origin or [])
    assert (f"origin: {names}" in shown) if names else ("origin" not in shown)


@pytest.mark.parametrize(
    ("origin", "texts"), [([1], ["1"]), ({"a": 1}, ["{'a': 1}"]), ([None, "web"], ["None", "web"])]
)
def test_an_item_with_other_origins_is_shown_and_joined_all_the_same(origin: Any, texts: list[str]) -> None:
    item = MemoryItem.of("Ann lives in Oslo", json.loads(json.dumps({"origin": origin})))
    assert f"origin: {', '.join(texts)}" in fenced([item]) and joined_origins([item.provenance, {}]) == texts
