"""Rules of single lines in which planted changes lived: each test is a property, or a table of both sides of a limit."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import io
import json
import math
import os
import re
import sqlite3
import zlib
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from firsthand.benchmarks.arithmetic import make_tasks
from firsthand.benchmarks.mteb.labelled_texts import read_labelled
from firsthand.benchmarks.sources.tables import read_table
from firsthand.cluster.replicas.replica_adapters import SharedAdapters
from firsthand.cluster.spread.run_worker import error_of
from firsthand.embed.embedding_config import _from_processor
from firsthand.engine.memory.blocks import BlockPool
from firsthand.errors import (
    ConfigError,
    DataError,
    LimitExceeded,
    ModelError,
    ModelFileError,
    PromptTooLong,
    QueueFull,
    StoreError,
    TransientError,
    UnknownName,
)
from firsthand.hub.inspection import _ratio
from firsthand.hub.model_lookup import _expect_readable
from firsthand.loop.attempt_memory import MemoryChange, apply
from firsthand.memory import MemoryItem
from firsthand.patterns.parts import label_choice
from firsthand.retrieval.documents.file_content import ReadSettings
from firsthand.retrieval.documents.table_reader import read_table as read_table_file
from firsthand.retrieval.rag.modular import _check
from firsthand.runs.forking import Kept
from firsthand.sandbox.programs import box_inside
from firsthand.scorers.patches.test_logs import read_log
from firsthand.serve.http.refusals import refusal_of
from firsthand.show.gate_report import difference_text
from firsthand.telemetry import genai
from firsthand.telemetry.genai import MAX_CONTENT_CHARS
from firsthand.tokens.calls.call_source import CallSink
from firsthand.tools.sql import MAX_ROWS, SqlFile
from firsthand.train.losses.distillation import generalised_jsd
from firsthand.train.recipes import distill


def numbers_of(level: int) -> dict[str, list[int]]:
    """The operands of many problems of a level, by their operators."""
    found: dict[str, list[int]] = {}
    for seed in range(40):
        for task in make_tasks(seed, (level,), 60):
            assert isinstance(task.prompt, str)
            told = task.prompt.removeprefix("What is ").removesuffix("?")
            found.setdefault("".join(re.findall(r"[-+*]", told)), []).extend(map(int, re.findall(r"\d+", told)))
    return found


@pytest.mark.parametrize(
    ("level", "ranges"),
    [
        (1, {"+": (10, 99), "-": (10, 99)}),
        (2, {"*": (3, 99), "++": (10, 99), "+-": (10, 99)}),
    ],
)
def test_the_operands_of_a_level_fill_its_range(level: int, ranges: dict[str, tuple[int, int]]) -> None:
    found = numbers_of(level)
    assert {form: (min(each), max(each)) for form, each in found.items()} == ranges


def test_blank_lines_of_a_table_are_no_rows_and_count_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('\n{"a": 1}\n   \n{"a": 2}\n\n')
    assert [(row.columns["a"], row.where) for row in read_table(path)] == [
        (1, f"{path}, line 2"),
        (2, f"{path}, line 4"),
    ]
    path.write_text('{"a": 1}\n\n{"a":')
    with pytest.raises(DataError, match=r"line 3 \(the last line: is the file cut short\?\)"):
        read_table(path)


@pytest.mark.parametrize(("whole", "parts", "expected"), [(None, 4, None), (4, None, None), (0, 4, None), (9, 2, 4)])
def test_a_ratio_with_an_unknown_side_is_unknown(whole: int | None, parts: int | None, expected: int | None) -> None:
    assert _ratio(whole, parts) == expected


@pytest.mark.parametrize(("texts", "is_sound"), [(0, False), (1, True), (2, False)])
def test_an_embedders_template_has_one_text(texts: int, is_sound: bool) -> None:
    pieces = [
        {"SpecialToken": {"id": "[CLS]"}},
        *[{"Sequence": {"id": "A"}}] * texts,
        {"SpecialToken": {"id": "[SEP]"}},
    ]
    processor = {
        "type": "TemplateProcessing",
        "single": pieces,
        "special_tokens": {"[CLS]": {"ids": [7]}, "[SEP]": {"ids": [8, 9]}},
    }
    if is_sound:
        assert _from_processor(processor, Path("t.json")) == ((7,), (8, 9))
    else:
        with pytest.raises(ModelFileError, match=f"has {texts} texts: expected 1"):
            _from_processor(processor, Path("t.json"))


def test_a_replica_that_refuses_an_adapter_does_not_hide_what_the_others_did() -> None:
    ended: list[int] = []

    class Fleet:
        prepare: Any = None

        async def call(self, body: dict[str, Any], *, slot: int) -> str:
            if slot == 0:
                raise ModelError("no")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            ended.append(slot)
            return f"fingerprint {slot}"

    adapters = SharedAdapters(Fleet())  # type: ignore[arg-type]
    refused, *others = asyncio.run(adapters._call([0, 1, 2], {}))  # type: ignore[list-item]
    assert isinstance(refused, ModelError) and others == ["fingerprint 1", "fingerprint 2"]
    assert ended == [1, 2]


def test_a_snapshot_leaves_out_what_is_no_file_folder_or_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("words")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")

    def snapshot(since: dict[str, Any]) -> dict[str, Any]:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(json.dumps(since).encode())))
        kind, _, raw = box_inside.do_snapshot([str(tmp_path)], 1 << 20).partition(":")
        assert kind == "whole"
        found: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(raw)))
        return found

    changed = {path: found for path, found, _ in snapshot({})["changed"]}
    assert sorted(Path(path).name for path in changed) == ["file", "folder", "link"]
    assert snapshot(changed) == {"gone": [], "changed": []}
    again = {
        path: found for path, found, _ in snapshot(changed | {str(tmp_path / "old"): ["file", 420, ""]})["changed"]
    }
    assert again == {}


@pytest.mark.parametrize("beta", [0.2, 0.5, 0.9])
def test_distillation_passes_its_settings_to_the_divergence(beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    student, taught = (torch.randn(3, 8, generator=generator) for _ in range(2))
    monkeypatch.setattr("firsthand.train.step_loss.logits_of", lambda teacher, batch, rows: taught)
    teacher: Any = SimpleNamespace(architecture=SimpleNamespace(vocab_size=8))
    config = distill.Config("data", teacher="t", model="m", divergence="jsd", beta=beta, temperature=1.7)
    found = distill.soft_loss(teacher, config)(None, torch.arange(3), student)  # type: ignore[arg-type]
    torch.testing.assert_close(found, generalised_jsd(student, taught, beta=beta, temperature=1.7))


class Saying:
    """A Context of a model that cannot score, and says one text."""

    def __init__(self, text: str):
        self.said = text

    async def score(self, labels: object) -> Any:
        raise ModelError("no log-probs")

    def say(self, asked: str) -> Saying:
        return self

    async def generate(self) -> Saying:
        return self


@pytest.mark.parametrize(
    ("said", "chosen"),
    [
        ("Wrong, not right.", "wrong"),
        ("It is RIGHT", "right"),
        ("rightful", "rightful"),
        ("neither", "right"),
        ("", "right"),
    ],
)
def test_a_model_that_cannot_score_has_chosen_the_label_that_it_names_first(said: str, chosen: str) -> None:
    found = asyncio.run(label_choice.choose(Saying(said), ("right", "wrong", "rightful")))  # type: ignore[arg-type]
    assert found.label == chosen
    assert found.probabilities == {label: float(label == chosen) for label in ("right", "wrong", "rightful")}


@pytest.mark.parametrize(
    ("rewrite", "search", "is_sound"),
    [
        ("hyde", "lexical", False),
        ("hyde", "dense", True),
        ("hyde", "hybrid", True),
        ("none", "lexical", True),
        ("multi_query", "lexical", True),
    ],
)
def test_hyde_alone_needs_vectors(rewrite: str, search: str, is_sound: bool) -> None:
    with pytest.raises(ConfigError, match="no index at" if is_sound else "HyDE searches by vectors"):
        _check(rewrite=rewrite, search=search, index="/nowhere", k=5)


@pytest.mark.parametrize(
    ("error", "status", "code", "wait"),
    [
        (PromptTooLong("x"), 400, "context_length_exceeded", None),
        (ConfigError("x"), 400, None, None),
        (LimitExceeded("tokens", "x"), 400, None, None),
        (QueueFull("x"), 429, "queue_full", "1"),
        (TransientError("x"), 503, "try_again", "1"),
        (TransientError("x", 0.4), 503, "try_again", "1"),
        (TransientError("x", 2.6), 503, "try_again", "3"),
        (UnknownName("x"), 404, None, None),
        (DataError("x"), 501, None, None),
        (StoreError("x"), 500, None, None),
        (ValueError("secret"), 500, "internal_error", None),
    ],
)
def test_each_error_has_its_status_its_code_and_its_wait(
    error: Exception, status: int, code: str | None, wait: str | None
) -> None:
    found = refusal_of(error)
    assert (found.status, found.code, (found.headers or {}).get("retry-after")) == (status, code, wait)
    assert "secret" not in found.body().decode()


def test_the_schema_of_a_database_names_more_tables_than_a_query_has_rows(tmp_path: Path) -> None:
    path = tmp_path / "d.sqlite"
    connection = sqlite3.connect(path)
    made = [f"CREATE TABLE t{number:04d} (a);" for number in range(MAX_ROWS + 5)]
    connection.executescript("\n".join(["BEGIN;", *made, "COMMIT;"]))
    connection.close()
    told = SqlFile(path).sql_schema()
    assert told.count("CREATE TABLE") == MAX_ROWS + 5 and "there is more" not in told


@pytest.mark.parametrize("length", [MAX_CONTENT_CHARS - 40, MAX_CONTENT_CHARS + 40, 3 * MAX_CONTENT_CHARS])
def test_exported_json_is_whole_or_cut_and_stays_json(length: int) -> None:
    for value in ({"a": "x" * length}, [{"role": "user", "parts": [{"type": "text", "content": "x" * length}]}]):
        text = genai._json(value)
        assert len(text) <= MAX_CONTENT_CHARS
        found = json.loads(text)
        if length < MAX_CONTENT_CHARS - 100 or len(json.dumps(value)) <= MAX_CONTENT_CHARS:
            assert found == value
        elif isinstance(value, dict):
            assert isinstance(found, str) and found.startswith('{"a": "xxx') and found.endswith("…")
        else:
            assert found[0]["role"] == "user" and found[0]["parts"][0]["content"].endswith("…")


@pytest.mark.skipif(importlib.util.find_spec("inspect_ai") is None, reason="needs pip install 'firsthand[inspect]'")
@pytest.mark.parametrize(
    ("roles", "is_sound"), [(["user"], True), (["user", "assistant"], False), (["system"], False), ([], False)]
)
def test_a_sample_that_ends_with_no_question_is_refused(roles: list[str], is_sound: bool) -> None:
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser

    from firsthand.bridges.inspect.task_samples import task_of

    kinds = {"user": ChatMessageUser, "assistant": ChatMessageAssistant, "system": ChatMessageSystem}
    sample = Sample(input=[kinds[role](content=f"the {role}") for role in roles], id="s1")
    if is_sound:
        assert task_of(sample, "t", "", "").prompt == "the user"
    else:
        with pytest.raises(DataError, match="does not end with a user message"):
            task_of(sample, "t", "", "")


def test_a_table_whose_beginning_is_behind_the_window_enters_nothing_into_the_cache() -> None:
    pool, tokens = BlockPool(12, 4, window=4), list(range(16))
    table: list[int] = []
    assert pool.extend(table, 0, 16) == []
    assert pool.commit(tokens[:8], table, 0, 8) == 2
    pool.trim(table, 16)
    assert table[0] == pool.null_block and table[3] != pool.null_block
    cached = pool.num_cached
    assert pool.commit(tokens, table, 0, 16) == 4
    assert pool.num_cached == cached and pool.match([9] * 16) == []


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "is empty: fetch it again"), (b"GGU", "it starts with b'GGU'"), (b"\0\0\0\0more", "it starts with")],
)
def test_a_file_that_is_no_model_says_how_it_begins(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=re.escape(told)):
        _expect_readable(path)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ConfigError", ConfigError), ("TransientError", TransientError), ("Iterable", RuntimeError), ("difflib", RuntimeError),
     ("KeyError", RuntimeError), ("nearest", RuntimeError), ("__doc__", RuntimeError)],
)  # fmt: skip
def test_a_worker_reports_errors_of_ours_alone(name: str, kind: type[Exception]) -> None:
    found = error_of(name, "told")
    assert type(found) is kind and "told" in str(found)


def test_changes_of_a_memory_are_made_in_the_order_of_their_branches_whatever_came_first() -> None:
    made: list[str] = []

    class Told:
        async def write(self, item: MemoryItem) -> None:
            made.append(item.text)

        async def forget(self, id: str) -> None:
            made.append(f"forget {id}")

    orders = [(0, 2), (0, 10), (1,), (1, 0)]
    changes = [MemoryChange("e", order, MemoryItem.of(str(order), {})) for order in orders]
    changes += [MemoryChange("e", (0, 5), None, "x")]
    expected = ["(0, 2)", "forget x", "(0, 10)", "(1,)", "(1, 0)"]
    for given in permutations(changes):
        made.clear()
        asyncio.run(apply(Told(), given))  # type: ignore[arg-type]
        assert made == expected


def test_rows_of_a_table_are_named_by_their_title_where_they_have_one() -> None:
    data = b"name,age\nAna,3\n,4\nBo\n"
    titled = read_table_file(data, "t.csv", ReadSettings(title_field="name")).documents[0]
    assert [place.label for place in titled.locations] == ["1 (Ana)", "2", "3 (Bo)"]
    plain = read_table_file(data, "t.csv", ReadSettings()).documents[0]
    assert [place.label for place in plain.locations] == ["1", "2", "3"]
    second = read_table_file(data, "t.csv", ReadSettings(title_field="age")).documents[0]
    assert [place.label for place in second.locations] == ["1 (3)", "2 (4)", "3"]


def test_a_test_of_django_that_a_migration_precedes_has_its_own_name() -> None:
    line = "Applying sites.0002_alter_domain_unique...  test_a (app.tests.Case) ... ok"
    assert read_log(line, "django") == {"test_a (app.tests.Case)": "PASSED"}


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (-0.1, 0.2, "+5.00% [-10.00%, +20.00%]"),
        (-math.inf, 0.2, "+5.00% [unknown]"),
        (-0.1, math.inf, "+5.00% [unknown]"),
        (math.nan, math.nan, "+5.00% [unknown]"),
    ],
)
def test_bounds_that_are_unknown_on_a_side_are_not_printed(low: float, high: float, told: str) -> None:
    check: Any = SimpleNamespace(differences=SimpleNamespace(n=3, mean=0.05), bounds=(low, high))
    assert difference_text(check) == told


@pytest.mark.parametrize(
    ("heading", "told"), [("a,b", None), ("a,b,a", "not a"), ("a,a,a,b", "not a"), ("a,,b", "not an empty one")]
)
def test_each_column_of_a_table_has_its_own_name(tmp_path: Path, heading: str, told: str | None) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"{heading}\n{','.join('1' for _ in heading.split(','))}\n")
    if told is None:
        assert list(read_table(path)[0].columns) == ["a", "b"]
    else:
        with pytest.raises(DataError, match=told):
            read_table(path)


@pytest.mark.parametrize(
    ("rows", "told"),
    [("hi,greeting", None), ("hi,", "line 2"), (",greeting", "line 2"), ("hi", "line 2"), ("", "holds no rows")],
)
def test_a_labelled_text_has_both_a_text_and_a_category(tmp_path: Path, rows: str, told: str | None) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"text,category\n{rows}\n")
    if told is None:
        assert read_labelled(path) == (["hi"], ["greeting"])
    else:
        with pytest.raises(DataError, match=told):
            read_labelled(path)


def test_white_space_around_calls_is_dropped_and_within_a_text_kept() -> None:
    for pieces, expected in (
        (["a ", " b", "  "], "a  b"),
        (["a\n", "\n", "b"], "a\n\nb"),
        ([" a"], " a"),
        (["  ", "\n"], ""),
    ):
        source = CallSink()
        for piece in pieces:
            source.add_text(piece)
        assert "".join(map(str, source.take())) == expected
    source = CallSink()
    source.begin_call("f")
    source.end_call("f", {}, None)
    source.take()
    for piece in ("\n\n", " b ", "c"):
        source.add_text(piece)
    assert source.take() == ["b c"]


def test_a_forks_own_reply_comes_before_its_parents() -> None:
    class Own:
        def __init__(self, reply: Any):
            self.reply = reply

        def find(self, effect: str, request: str) -> Any:
            return self.reply

    calls: Any = {
        "e": SimpleNamespace(kind="generate", request="r"),
        "t": SimpleNamespace(kind="tool", request="r"),
    }
    kept = Kept.__new__(Kept)
    kept.of_worlds = {}
    kept.calls, kept.kept = calls, {"e": {"parent": 1}, "t": {"parent": 2}}
    for own, effect, request, expected in (
        ({"own": 1}, "e", "r", {"own": 1}),
        (None, "e", "r", {"parent": 1}),
        (None, "e", "another", {"parent": 1}),
        (None, "t", "r", {"parent": 2}),
        (None, "t", "another", None),
        ({"own": 1}, "t", "another", {"own": 1}),
        (None, "new", "r", None),
    ):
        kept.own = Own(own)  # type: ignore[assignment]
        assert kept.find(effect, request) == expected
