"""Facts of many rooms that drawn or planted changes showed to be untested: exact values, without models or servers."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.claims.benchmarks import hle_questions
from firsthand.embed.embedding_config import _from_template
from firsthand.errors import ModelFileError, ToolError, UnknownName
from firsthand.experiment.on_cluster import is_local
from firsthand.formats.gguf_file import read_gguf
from firsthand.reading.tour_steps import tour_step, tour_steps
from firsthand.tools.mcp.connection import McpConnection
from firsthand.tools.mcp.server_declaration import ServerDeclaration

# -- tools --


@pytest.mark.parametrize(
    "declared_s, asked_s, said", [(0.01, None, "0.01"), (30.0, 0.02, "0.02"), (0.01, 0.03, "0.03")]
)
def test_a_request_waits_for_its_own_time_or_else_the_declared_one(
    declared_s: float, asked_s: float | None, said: str
) -> None:
    async def silent(client: Any) -> None:
        await asyncio.sleep(20)

    async def asked() -> None:
        connection = McpConnection(ServerDeclaration("peer", command="x", timeout_s=declared_s))
        connection._client = object()  # type: ignore[assignment]
        await connection.request(silent, timeout_s=asked_s)

    with pytest.raises(ToolError, match=f"did not answer within {said} s"):
        asyncio.run(asked())


# -- formats --


@pytest.mark.parametrize("left", [32, 33])
def test_a_gguf_header_promises_no_more_tensors_than_33_bytes_each_leave_room_for(left: int, tmp_path: Path) -> None:
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)
    (tmp_path / "m.gguf").write_bytes(header + b"\xff" * left)
    with pytest.raises(ModelFileError) as refused:
        read_gguf(tmp_path / "m.gguf")
    assert ("the header promises 1 tensors, but 32 bytes are left" in str(refused.value)) == (left == 32)


# -- embed --


def test_a_template_puts_its_own_tokens_before_and_after_the_text() -> None:
    tokens = {"[CLS]": {"ids": [1, 2]}, "[SEP]": {"ids": 3}}
    pieces = [{"SpecialToken": {"id": "[CLS]"}}, {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "[SEP]"}}]
    assert _from_template(pieces, tokens, Path("t")) == ((1, 2), (3,))
    assert _from_template(pieces[1:], tokens, Path("t")) == ((), (3,))
    assert _from_template(pieces[:2], tokens, Path("t")) == ((1, 2), ())
    for wrong, told in (
        ([], "0 texts"),
        (pieces[1:2] * 2, "2 texts"),
        ([{"SpecialToken": {"id": "x"}}], "SpecialToken"),
    ):
        with pytest.raises(ModelFileError, match=told):
            _from_template(wrong, tokens, Path("t"))


# -- experiment --


@pytest.mark.parametrize(
    "name, local",
    [
        ("smollm2", True),
        ("openai", True),
        ("hf:a/b", True),
        ("openai:m", False),
        ("anthropic:m@x", False),
        ("C:m", True),
    ],
)
def test_a_model_is_local_unless_its_prefix_is_a_providers(name: str, local: bool) -> None:
    assert is_local(name) is local


# -- messaging --


def test_a_key_of_nats_that_another_program_wrote_has_no_entry() -> None:
    pytest.importorskip("nats", reason="nats-py is not installed")
    from firsthand.messaging.nats_client import NatsClient

    class Junk(NatsClient):
        async def _get(self, bucket: str, key: str) -> Any:
            return None if key.endswith("none") else SimpleNamespace(revision=3, value=b"junk")

    client = Junk.__new__(Junk)
    assert asyncio.run(client.read("key")) is None


# -- claims --


def test_the_size_of_hle_is_its_authors_where_there_is_no_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FIRSTHAND_DATA", str(tmp_path))
    found = hle_questions.measure(None)  # type: ignore[arg-type]
    assert [label for label, _ in found.rows] == ["final set, by its authors", "first release, by the paper"]
    assert (
        found.what == "questions of the final set, by its authors' figure" and found.value == found.rows[0][1] == 2500
    )
    assert "the final set has 2,500, by its authors' figure" in str(hle_questions.judge(found))


# -- bridges --


def test_a_state_of_inspect_is_saved_without_fields_that_are_none() -> None:
    pytest.importorskip("inspect_ai", reason="inspect_ai is not installed")
    from inspect_ai.dataset import Sample

    from firsthand.bridges.inspect.sample_scores import restored, saved

    body = saved(restored(None, Sample(input="q", target="a", id=1), "m"))
    (message,) = body["messages"]
    assert message["content"] == "q" and None not in message.values() and None not in body["output"].values()


# -- reading --


def test_a_step_of_the_tour_is_a_number_an_id_or_a_sentence() -> None:
    last = len(tour_steps())
    assert [tour_step(text).number for text in ("1", str(last), tour_steps()[1].id)] == [1, last, 2]
    for text in ("0", str(last + 1), "-1", "9" * 80, "9" * 80 + "x"):
        with pytest.raises(UnknownName, match=f"give a number from 1 to {last}"):
            tour_step(text)
    for text in ("9" * 79 + "x", "", "1.0"):
        with pytest.raises(UnknownName, match="step of the tour") as refused:
            tour_step(text)
        assert "give a number" not in str(refused.value)
