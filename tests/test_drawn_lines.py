"""Lines of several rooms that could be broken without a test that failed: each by the case that shows it."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from threading import current_thread
from types import SimpleNamespace
from typing import Any

import pytest
from nats.errors import Error

from firsthand import catalog, trace
from firsthand.benchmarks import mbpp
from firsthand.boards import read_results
from firsthand.bridges.inspect import eval_logs
from firsthand.bridges.lm_eval import data_guard
from firsthand.bridges.lm_eval.result_models import ResultModels
from firsthand.cluster.replicas.fleet import Fleet
from firsthand.embed import embedding, relevance
from firsthand.embed.pair_config import PairConfig
from firsthand.engine.decoding.constraint import Grammars
from firsthand.errors import ConfigError, DataError
from firsthand.guard import GuardVerdict
from firsthand.loop.answer_time import RUN_S, check_time, one_answer
from firsthand.loop.listener import Began
from firsthand.message import ToolCall
from firsthand.messaging.nats_connection import connected
from firsthand.nn.pair_classifier import PairClassifier
from firsthand.patterns.parts.value_expressions import part_of_expression
from firsthand.retrieval.corpus import expect_documents
from firsthand.runs import track_import
from firsthand.safety.rules.labels import Label
from firsthand.scorers.code import preamble
from firsthand.stats.figure_stats import FigureDifference
from firsthand.studio.accounts import REFUSALS_A_MINUTE, Accounts
from firsthand.studio.studio_store import SqliteStore
from firsthand.system import json_values
from firsthand.system.bounded_sqlite import connect_bounded
from firsthand.system.json_values import values_in
from firsthand.tokens.templates.untrusted_text import TextMasks
from firsthand.tool import tool
from firsthand.tools.databases import sql_process
from firsthand.tools.mcp import bounded_schema
from firsthand.trace import Score, new_trace_id
from firsthand.train.recipes.toy_bookkeeper import toy_bookkeeper
from firsthand.train.replica_policy import ReplicaPolicy
from firsthand.worlds.browsing.site_server import SiteServer
from firsthand.worlds.puzzles.puzzle_judge import ModelHost
from firsthand.worlds.shop.products import ShoppingGoal
from firsthand.worlds.shop.shop_generator import Shop
from firsthand.worlds.shop.shop_search import ShopSearch
from firsthand.worlds.shop.shop_world import ShopWorld
from fleet_in_memory import SAME, Starter, with_fleet
from grammar_tiny import tokenizer
from opened_context import Opened, asks
from test_embedded_vectors import architecture
from test_embedding_files import tokenizer as words_tokenizer
from test_ingest_redaction import PUT, redacted
from test_safety_call_cases import case
from test_web_shop import product

# -- files and sets --


def test_the_tested_function_of_mbpp_is_the_one_that_tests_name_first() -> None:
    code = "class Pair:\n    pass\ndef add_all(x):\n    return x"
    assert mbpp._tested(code, ["assert add_all([Pair()]) == 1"], "w") == "add_all"
    assert mbpp._tested(code, ["assert max(1, 2)", "assert add_all(Pair())"], "w") == "add_all"


def test_results_that_nest_too_deep_are_no_json(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"a": ' + "[" * 60_000 + "]" * 60_000 + "}")
    with pytest.raises(DataError, match=r"r\.json: not JSON \(is the file cut short\?\)$"):
        read_results._json(tmp_path / "r.json")


def test_results_that_are_a_list_name_no_model(tmp_path: Path) -> None:
    folder = tmp_path / "told-by-folder"
    folder.mkdir()
    (folder / "results_1.json").write_text('[{"model_name": "x"}]')
    assert ResultModels().of(folder / "samples_a.jsonl") == "told-by-folder"


def test_each_file_of_a_pattern_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, outside = str(tmp_path / "task/a.json"), str(tmp_path / "other/b.json")
    found = [inside, outside]
    library = SimpleNamespace(resolve_pattern=lambda pattern, base, *more, **options: found)
    monkeypatch.setattr(data_guard.importlib, "import_module", lambda name: library)
    with data_guard.data_below([tmp_path / "task"]):
        with pytest.raises(ConfigError, match="outside of its folder"):
            library.resolve_pattern("*", "")
        found.reverse()
        with pytest.raises(ConfigError):
            library.resolve_pattern("*", "")
        del found[0]
        assert library.resolve_pattern("*", "") == [inside]


@pytest.mark.parametrize(
    ("kind", "loader"), [("mpnet", "load_encoder"), ("roberta", "load_encoder"), ("llama", "load for embeddings")]
)
def test_an_embedder_is_loaded_by_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, loader: str
) -> None:
    (tmp_path / "config.json").write_text(f'{{"model_type": "{kind}"}}')
    decoders = {False: "load", True: "load for embeddings"}
    loaders = SimpleNamespace(
        load=lambda at, *, for_embeddings=False: decoders[for_embeddings], load_encoder=lambda at: "load_encoder"
    )
    monkeypatch.setattr(embedding, "weights", loaders)
    assert embedding._load_model(tmp_path) == loader  # type: ignore[comparison-overlap]


# -- secrets and values --


def test_secrets_within_json_are_counted() -> None:
    span = redacted(attributes={"note": '{"password": "x1", "inner": {"api key": "y2"}, "n": 1}', "key": "plain"})
    assert json.loads(span.attributes["note"]) == {"password": PUT, "inner": {"api key": PUT}, "n": 1}
    assert span.redactions == 2


def test_a_name_with_a_blank_before_its_last_word_is_a_secrets_name() -> None:
    span = redacted(name="sent api key: abcd1234efgh and refresh token = zyxw9876")
    assert "abcd1234efgh" not in span.name and "zyxw9876" not in span.name and span.redactions == 2


def test_a_label_is_that_of_the_default_only_where_the_argument_is_the_default() -> None:
    web = Label("untrusted", None, frozenset({"web"}))
    given = {"to": "bob", "folder": "elsewhere"}
    for folder, source in (("elsewhere", ""), ("notes", "default")):
        found = case({**given, "folder": folder}, labels={"to": web}).powers
        assert [each.source for each in found if each.argument == "folder"] == [source], folder


@pytest.mark.parametrize("after", [" 1/2", "½", " ½ of it"])
def test_a_whole_number_before_its_fraction_is_no_number_of_its_own(after: str) -> None:
    assert part_of_expression("It is ", after)
    assert not part_of_expression("It is ", " of 1/2")


def test_values_after_the_first_piece_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_values, "_AT_ONCE", 16)
    raw = b'["' + b"," * 40 + b'",' + b"1," * 30 + b"1]"
    assert values_in(raw, 20) > 20 and values_in(raw[:44] + b"1,1]", 20) <= 4


def test_the_code_before_a_function_ends_at_its_own_name() -> None:
    prompt = "import math\n\ndef add_all(x):\n    return sum(x)\n\ndef add(a, b):\n"
    assert preamble(prompt, "add") == prompt[: prompt.index("def add(")]


def test_masks_of_ten_and_more_texts_are_found_again() -> None:
    texts = [f"text {number}" for number in range(12)]
    masks = TextMasks(texts, lambda text: False)
    runs = masks.runs("".join(f"<{masks.mask(each)}>" for each in texts))
    assert runs is not None and [run.text for run in runs if not run.trusted] == texts


def test_draws_equal_to_the_bar_count_for_both_p_values() -> None:
    found = FigureDifference(0.4, (-1.0, 0.0, 0.0, 1.0, 2.0), 9, (0, 0))
    assert (found.p_above(0.0), found.p_below(0.0)) == (4 / 6, 5 / 6)


# -- servers and stores --


def test_refusals_that_were_told_are_not_told_again(tmp_path: Path) -> None:
    now = [1000.0]
    kept = SqliteStore(tmp_path)
    accounts = Accounts(kept, lambda: now[0])
    for number in range(REFUSALS_A_MINUTE + 3):
        accounts.audit_refusal("ada", f"place {number}")
    now[0] += 61
    accounts.audit_refusal("ada", "one")
    accounts.audit_refusal("ada", "two")
    listed = [body["what"] for _, body in kept.logged("audit", 2)]
    kept.close()
    assert listed == ["was refused", "was refused, after 3 refusals that are not listed"]


def test_rows_that_are_written_have_no_bound_of_a_query(tmp_path: Path) -> None:
    kept = connect_bounded(tmp_path / "a.db", "rwc", steps=1000)
    try:
        kept.execute("CREATE TABLE t (a)")
        rows: Iterator[tuple[int]] = ((number,) for number in range(200))
        counted = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)"
        kept.executemany(f"INSERT INTO t {counted} SELECT sum(i) + ? FROM n", rows)
        assert kept.execute("SELECT count(*) FROM t").fetchone() == (200,)
        with pytest.raises(sqlite3.Error):
            kept.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
            ).fetchall()
    finally:
        kept.close()


def test_the_proxy_of_a_browser_listens_on_loopback_alone() -> None:
    server = SiteServer()
    try:
        assert server._server.server_address[0] == "127.0.0.1"
        assert server._server.socket.family == socket.AF_INET
    finally:
        server.close()


def test_a_click_takes_the_option_that_it_names_whole() -> None:
    item = product("B000000000", options={"color": ("light blue", "blue")}, surcharge={})
    shop = Shop((item,), {item.id: item}, ShopSearch([item]))
    world = ShopWorld(shop, ShoppingGoal(item, "buy", (), {"color": "blue"}, 30.0))

    async def walk() -> str:
        await world.open()
        await world.search("shoes")
        await world.click(item.id)
        return await world.click("Blue")

    assert "blue (chosen)" in (shown := asyncio.run(walk())) and "light blue (chosen)" not in shown


def test_a_replica_that_starts_again_is_not_ready_yet() -> None:
    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        await fleet.ready()
        (slot,) = fleet.slots
        assert slot.ready_s is not None
        assert fleet._start_process(slot) is starter.started[-1] is slot.process and slot.ready_s is None

    with_fleet(work, [[SAME]])


def test_grammars_are_compiled_in_threads_of_their_own() -> None:
    grammars = Grammars(tokenizer())
    named: Any = asyncio.run(grammars.in_thread(lambda: current_thread().name))  # type: ignore[arg-type, return-value]
    assert named.startswith("firsthand-grammars")


@tool(effect="external", origin="web")
def look(query: str) -> str:
    """Look a query up."""
    return f"found {query}"


class Rewriting:
    """A guard that calls with another query."""

    async def call(self, view: Any, called: Any, arguments: Any) -> GuardVerdict:
        return GuardVerdict.replaced("rule", {"query": "calm"}, "it was loud")


def test_the_source_of_a_call_counts_before_its_result_is_in_the_conversation() -> None:
    opened = Opened(tools=(look,))

    async def called(ctx: Any) -> tuple[list[str], list[str]]:
        before = ctx.origins
        await ctx.call(ToolCall("1", "look", {"query": "x"}))
        return before, ctx.origins

    assert opened.run(called) == ([], ["web"])


def test_listeners_are_told_of_the_arguments_that_a_tool_is_called_with() -> None:
    opened, heard = Opened(tools=(look,), guard=Rewriting(), task=asks()), list[Any]()
    opened.attempt.tell = heard.append  # type: ignore[method-assign]
    result = opened.run(lambda ctx: ctx.call(ToolCall("1", "look", {"query": "LOUD"})))
    assert "found calm" in result.content
    told = [each.detail for each in heard if isinstance(each, Began) and each.kind == "tool"]
    assert told[-1] == {"name": "look", "arguments": {"query": "calm"}}


def test_a_nats_server_without_tls_is_told_no_password() -> None:
    heard = bytearray()

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.10.0","max_payload":1048576,"proto":1}\r\n')
        heard.extend(await reader.read(4096))
        writer.close()

    async def tried() -> None:
        server = await asyncio.start_server(plain, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(Error, match="it offers no TLS, so it was told no password"):
                await connected(f"tls://ada:secret@127.0.0.1:{port}", connect_timeout=2, allow_reconnect=False)

    asyncio.run(asyncio.wait_for(tried(), 20))
    assert b"secret" not in heard and b"CONNECT" not in heard


# -- traces, logs and catalogs --


def test_every_level_of_a_value_in_a_log_is_counted() -> None:
    assert eval_logs._size(["abc", {"k": ["xy", "z"]}, 5, None]) == 1 + 3 + (1 + 1 + (1 + 2 + 1)) + 1 + 1


def test_a_file_that_helps_others_is_no_thing_of_its_room() -> None:
    for kind in ("pattern", "benchmark", "tool"):
        files = {path.stem for path in catalog._files(kind)}  # type: ignore[arg-type]
        ours = {name for name in files if catalog.is_ours(kind, name)}  # type: ignore[arg-type]
        assert ours == files & set(catalog.names(kind)), kind  # type: ignore[arg-type]
    assert not catalog.is_ours("tool", "nobody")
    helpers = {path.stem for kind in ("pattern", "benchmark", "tool") for path in catalog._files(kind)}  # type: ignore[arg-type]
    assert any(not catalog.is_ours(kind, name) for kind in ("pattern", "benchmark", "tool") for name in helpers)  # type: ignore[arg-type]


def test_only_an_object_is_a_share_of_a_figure_of_the_corpus() -> None:
    assert Score("s", 1.0, {"corpus": {}}).corpus == {} and Score("s", 1.0).corpus is None
    for other in ("text", [1], 3, True):
        assert Score("s", 1.0, {"corpus": other}).corpus is None


def test_ids_of_one_second_sort_by_their_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000_123_456_789
    monkeypatch.setattr(trace.time, "time_ns", lambda: now)
    first = new_trace_id()
    number = 0
    for letter in first[:10]:
        number = number * 32 + "0123456789abcdefghjkmnpqrstvwxyz".index(letter)
    assert (len(first), number) == (26, now // 1_000_000)


def test_the_bytes_of_a_blob_are_counted(tmp_path: Path) -> None:
    assert track_import._left(10, ("abc", b"1234", 5, None), tmp_path) == 3
    with pytest.raises(DataError, match="its rows have more text than the file"):
        track_import._left(10, (b"12345678901",), tmp_path)


# -- models, loops and answers --


def test_compiled_kernels_are_forbidden_where_they_would_be_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relevance, "can_compile", lambda architecture: True)
    monkeypatch.setattr(relevance, "is_fast_here", lambda: True)
    monkeypatch.setattr(relevance, "CompiledEncoder", lambda encoder: "compiled")
    pair = PairConfig((("A", 0), ("B", 1)), 600, "identity")

    def made(compiled: bool | None) -> relevance.RelevanceModel:
        return relevance.RelevanceModel(PairClassifier(architecture()), words_tokenizer(), pair, compiled=compiled)

    assert [made(compiled).is_compiled for compiled in (None, True, False)] == [True, True, False]
    monkeypatch.setattr(relevance, "is_fast_here", lambda: False)
    assert [made(compiled).is_compiled for compiled in (None, True, False)] == [False, True, False]


def test_the_time_of_an_answer_ends_with_it() -> None:
    with one_answer() as spent:
        spent.spent_s = 10 * RUN_S
        with pytest.raises(Exception, match="not run, for the calls of this message ran"):
            check_time(0.0)
    check_time(0.0)


def test_an_index_is_found_by_the_folder_that_it_lies_in(tmp_path: Path) -> None:
    from firsthand.retrieval.chunk_index import IndexHeader
    from firsthand.retrieval.store.sqlite_index import open_index

    open_index(tmp_path / ".firsthand-index", IndexHeader("words", "words", 0, "")).close()
    with pytest.raises(ConfigError, match="holds no documents"):
        expect_documents(tmp_path)


# -- tools --


def test_a_schema_that_names_its_dialect_is_counted_too() -> None:
    from jsonschema import Draft202012Validator

    counting = bounded_schema._counting(Draft202012Validator, ())
    named = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "x", "type": "object"}
    evolved = counting({}).evolve(schema=named)
    assert type(evolved) is counting and evolved.schema == {"$id": "x", "type": "object"}


def test_writes_to_tables_of_sqlite_are_not_told_as_writes() -> None:
    written: dict[str, Any] = {}
    decide = sql_process.authorizer(writes=True, written=written)
    for table in ("notes", "sqlite_master", "sqlite_sequence"):
        assert decide(sqlite3.SQLITE_INSERT, table, None, "main", None) == sqlite3.SQLITE_OK
    assert list(written) == ["notes"]


# -- training and worlds --


def test_the_seed_is_that_of_the_bookkeepers_weights_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def toy_model(pieces: object, *, seed: int, context: int) -> Any:
        seeds.append(seed)
        raise ZeroDivisionError

    monkeypatch.setattr("firsthand.train.toy_tasks.toy_models.toy_model", toy_model)
    for seed in (3, 4):
        (tmp_path / str(seed)).mkdir()
        config = SimpleNamespace(loop=SimpleNamespace(seed=seed), texts=1)
        with pytest.raises(ZeroDivisionError):
            toy_bookkeeper(config, SimpleNamespace(folder=tmp_path / str(seed)))  # type: ignore[arg-type]
    assert seeds == [3, 4]


def test_replicas_are_told_of_weights_by_a_path_that_holds_in_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    policy = ReplicaPolicy(Any, Any, Path("run"), SimpleNamespace(config=lambda number: None))  # type: ignore[arg-type]
    assert policy.folder == tmp_path.resolve() / "run" / "sampler" / "process-0"


def test_what_is_none_of_a_hosts_options_is_the_last_of_them() -> None:
    """A model that is cut off, or that ignores the grammar."""

    answers: list[str] = []

    async def complete(messages: object, sampling: object) -> list[Any]:
        return [SimpleNamespace(usage=SimpleNamespace(total_tokens=1), message=SimpleNamespace(text=answers.pop()))]

    host = ModelHost(SimpleNamespace(complete=complete))  # type: ignore[arg-type]
    for said, found in (("Yes, it is", "yes"), ("no", "no"), ("perhaps", "irrelevant"), ("", "irrelevant")):
        answers.append(said)
        assert asyncio.run(host._asked("Is it?", ("yes", "no", "irrelevant"))) == found
    assert host.tokens == 4
