"""Facts of many rooms that drawn or planted changes showed to be untested: exact values, without models or servers."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.claims.benchmarks import hle_questions
from firsthand.embed.embedding_config import _from_template
from firsthand.errors import ModelFileError, ToolError, UnknownName
from firsthand.experiment.on_cluster import is_local
from firsthand.formats.gguf_file import read_gguf
from firsthand.message import assistant, user
from firsthand.reading.tour_steps import tour_step, tour_steps
from firsthand.scorers.instructions import VERIFIERS
from firsthand.serve.agents.session_store import SessionTurn
from firsthand.serve.agents.session_trace import joined
from firsthand.show.answer_diff import page
from firsthand.stats.figure_stats import FigureDifference
from firsthand.stats.non_inferiority import Check
from firsthand.tools.mcp.connection import McpConnection
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from firsthand.trace import Call, Node, Trace
from firsthand.worlds.aquawar.aquawar_baselines import SeeingPlayer
from firsthand.worlds.aquawar.aquawar_rules import KINDS, AquawarGame

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


# -- scorers --


@pytest.mark.parametrize(
    "words, followed", [([], True), (["red"], False), (["blue", "red"], False), (["blue", "dog"], True), (["re"], True)]
)
def test_one_forbidden_word_is_too_many(words: list[str], followed: bool) -> None:
    assert VERIFIERS["keywords:forbidden_words"]("A red bird.", forbidden_words=words) is followed


# -- serve --


def turn(number: int) -> SessionTurn:
    return SessionTurn(f"i{number}", "s", number, "completed", "q", "a", None, "o", "c")


def attempted(seconds: float) -> Trace:
    nodes = (Node(None, user("q")), Node(0, assistant("a")))
    call = Call(":0", "generate", 0, 0.5, 0.25, "r", nodes=(1,))
    return Trace("t", "b", "x", {"name": "a"}, 0, 0, "", seconds, nodes=nodes, calls=(call,), answer="a")


def test_a_turn_that_is_made_again_leaves_nothing_of_the_first_try() -> None:
    once = joined(None, attempted(2.0), turn(1), [])
    assert once.duration_s == 2.0 and [each.started_s for each in once.calls] == [0.5]
    again = joined(once, attempted(3.0), turn(1), [])
    anew = joined(None, attempted(3.0), turn(1), [])
    for name in ("nodes", "calls", "events", "tools", "duration_s", "final_state"):
        assert getattr(again, name) == getattr(anew, name), name
    second = joined(again, attempted(1.0), turn(2), [user("q"), assistant("a")])
    assert second.duration_s == 4.0 and [each.started_s for each in second.calls] == [0.5, 3.5]
    assert [(each["calls"], each["seconds"]) for each in second.final_state["turns"]] == [(1, 3.0), (2, 4.0)]
    assert [node.message.text for node in again.nodes] == ["q", "a", "q", "a"]
    assert [(node.parent, node.message.text) for node in second.nodes[4:]] == [(3, "q"), (4, "a")], "one history"


# -- show --


def test_a_title_of_a_thousand_characters_is_shown_whole() -> None:
    assert "more characters" not in page("x" * 1000, [], [])
    assert "(1 more characters)" in page("x" * 1001, [], [])


# -- stats --


def test_the_gain_of_a_figure_where_lower_is_better_is_the_other_way_round() -> None:
    down = FigureDifference(-0.25, (-0.5, 0.0), 2, (1, 0), lower_is_better=True, values=(-0.5, 0.0))
    checks = [
        Check("a", "b", "s", 0.1, each, 0.95, "pass", "")  # type: ignore[arg-type]
        for each in (down, replace(down, lower_is_better=False))
    ]
    assert [each.gain.mean for each in checks] == [0.25, -0.25]
    assert [each.drop for each in checks] == ["rise", "drop"]
    reversed_ = checks[0].gain
    assert isinstance(reversed_, FigureDifference)
    assert (reversed_.draws, reversed_.counts, reversed_.values) == ((0.0, 0.5), (0, 1), (0.5, 0.0))


# -- worlds --


def test_the_player_that_sees_all_does_the_most_harm_for_the_least() -> None:
    for first in (0, 1):
        game = AquawarGame.between(KINDS, KINDS[::-1], first)
        game.phase = "act"

        def health(move: Any, game: AquawarGame = game) -> tuple[int, int]:
            after = game.copy()
            after.act(move)
            mine, theirs = (sum(fish.hp for fish in after.living(team)) for team in (game.turn, game.turn ^ 1))
            return mine, theirs

        chosen = health(SeeingPlayer().move(game))
        others = [health(move) for move in game.legal_moves()]
        assert chosen[1] < max(theirs for _, theirs in others), "somebody else's fish are hurt"
        assert not any(mine >= chosen[0] and theirs < chosen[1] for mine, theirs in others)
