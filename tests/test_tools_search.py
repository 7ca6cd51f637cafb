"""Search: documents of one's own against BM25 by hand, ReAct's two actions, and web services in their own layout."""

import asyncio
import json
import math
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firsthand import catalog, cli
from firsthand.agent import Agent
from firsthand.errors import ConfigError, ToolError
from firsthand.patterns.react import react
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.corpus import close_corpora, open_corpus
from firsthand.retrieval.document import Document
from firsthand.retrieval.documents.formats import FORMATS
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.retrieval.tools.search import SearchIndex, search, split
from firsthand.rollout import rollout
from firsthand.runs import store
from firsthand.system.home import data_home
from firsthand.task import Task
from firsthand.tool import tool_from_function
from firsthand.tools.web_search import SERVICES, web_search

PAGES = {
    "milhouse": ("Milhouse Van Houten", "Milhouse is a character of The Simpsons. He was created by Matt Groening. "
                 "Milhouse was named after Richard Nixon's middle name. Groening liked the name."),
    "nixon": ("Richard Nixon", "Richard Milhous Nixon was a president. He resigned in 1974."),
    "pie": ("Apple pie", "An apple pie is a pie with apples. Café owners bake it."),
}  # fmt: skip


def jsonl(path: Path, pages: Any = PAGES) -> Path:
    lines = [json.dumps({"id": id, "title": title, "text": text}) for id, (title, text) in pages.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def index(tmp_path: Path) -> SearchIndex:
    return SearchIndex(jsonl(tmp_path / "pages.jsonl"))


# -- documents of one's own --


def test_the_ranking_is_bm25_by_hand(tmp_path: Path) -> None:
    texts = [
        "red fox",
        "red red hen and a fox in the yard",
        "blue whale",
        "a blue fox",
        "grey goose by the lake",
        "owl",
    ]
    pages = {str(n): (f"T{n}", text) for n, text in enumerate(texts)}
    found = SearchIndex(jsonl(tmp_path / "p.jsonl", pages)).find("red fox", k=6)
    documents = [f"t{n} {text}".split() for n, text in enumerate(texts)]
    average = sum(map(len, documents)) / len(documents)

    def score(words: list[str]) -> float:
        total = 0.0
        for word in ("red", "fox"):
            holding = sum(word in each for each in documents)
            idf = math.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
            count = words.count(word)
            total += idf * count / (count + 1.2 * (0.25 + 0.75 * len(words) / average))
        return total

    expected = {str(n): score(words) for n, words in enumerate(documents) if score(words) > 0}
    assert {each.id: each.score for each in found} == pytest.approx(expected)
    assert [each.id for each in found] == sorted(expected, key=lambda id: -expected[id])


def test_search_gives_titles_passages_and_ids(index: SearchIndex) -> None:
    shown = index.search("who created Milhouse?", k=2)
    assert shown.startswith("[milhouse] Milhouse Van Houten\n  Milhouse is a character") and shown.count("\n\n") <= 1
    assert "[pie] Apple pie" in index.search("APPLES cafe")  # stems, and letters without their marks
    assert index.search("zebra") == "(nothing was found for 'zebra': try other words)"


def test_the_actions_of_react_can_be_played(index: SearchIndex) -> None:
    """The paper's first example: Search[Milhouse Van Houten], then Lookup[named after]."""
    assert index.search("richard nixon", k=1).startswith("[nixon] Richard Nixon")  # its very title comes first
    first = index.lookup("named after", "Milhouse Van Houten")
    assert first == (
        "(result 1 of 1) [milhouse] Milhouse Van Houten\n  Milhouse was named after Richard Nixon's middle name."
    )
    assert index.lookup("named after", "milhouse", after=1) == "(no more results: 1 sentences hold 'named after')"
    assert index.lookup("groening", after=1).startswith(
        "(result 2 of 2) [milhouse] Milhouse Van Houten\n  Groening liked"
    )
    with pytest.raises(ToolError, match="search for it first"):
        index.lookup("x", "no such page")


def test_a_folder_is_read_by_kind(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    (docs / "deep").mkdir(parents=True)
    (docs / "a.md").write_text("# The Title\n\nAbout lions.")
    (docs / "deep" / "b.html").write_text(
        "<html><head><title>x</title></head><script>lions</script><p>About tigers.</html>"
    )
    (docs / "c.bin").write_bytes(b"lions\0")
    (docs / "d.txt").write_bytes(b"About bears \xff\0 and more.")
    (docs / "e.txt").symlink_to("/etc/passwd")
    jsonl(docs / "f.jsonl")
    index = SearchIndex(docs)
    assert [each.id for each in index.find("lions")] == ["a.md"] and index.find("lions")[0].title == "The Title"
    assert [each.id for each in index.find("tigers")] == ["deep/b.html"]
    assert [each.id for each in index.find("bears")] == ["d.txt"]
    assert [each.id for each in index.find("apple")] == ["f.jsonl:pie"] and not index.find("root")


def test_an_index_in_a_file_is_kept_until_the_documents_change(tmp_path: Path) -> None:
    documents, kept = jsonl(tmp_path / "p.jsonl"), tmp_path / "p.index"
    assert SearchIndex(documents, kept).find("apple")
    first = kept.stat()
    assert SearchIndex(documents, kept).find("apple")[0].id == "pie"
    assert kept.stat().st_mtime_ns == first.st_mtime_ns and kept.stat().st_ino == first.st_ino
    jsonl(documents, {"new": ("New", "zebra")})
    assert SearchIndex(documents, kept).find("zebra") and not SearchIndex(documents, kept).find("apple")
    names = {each.name for each in tmp_path.iterdir()}
    assert names - {f"p.index{more}" for more in ("-wal", "-shm", ".lock", ".lock.holder")} == {"p.index", "p.jsonl"}
    notes = tmp_path / "notes.txt"
    notes.write_text("somebody else's notes")
    with pytest.raises(ConfigError, match="is no index"):
        SearchIndex(documents, notes)
    assert notes.read_text() == "somebody else's notes"


def test_only_the_documents_that_changed_are_stored_again(tmp_path: Path) -> None:
    documents, kept = tmp_path / "docs", tmp_path / "p.index"
    documents.mkdir()
    for name in "abc":
        (documents / f"{name}.txt").write_text(f"About lions, by {name}.")
    assert len(SearchIndex(documents, kept).find("lions")) == 3
    (documents / "b.txt").write_text("About zebras.")
    (documents / "c.txt").unlink()
    index = SearchIndex(documents, kept)
    assert [each.id for each in index.find("lions")] == ["a.txt"] and index.find("zebra")[0].id == "b.txt"
    with open_index(kept) as stored:
        assert [*stored.hashes()] == ["a.txt", "b.txt"] and stored.verify() == []


class CountsLetters:
    """An embedder whose vectors are letter counts."""

    name, fingerprint = "letters", "letters-1"

    async def embed(self, texts: Any) -> list[list[float]]:
        rows = np.array([[text.lower().count(letter) + 1e-3 for letter in "abcdefghijklmnop"] for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).tolist()


def test_an_index_that_was_made_before_is_searched_by_vectors_and_terms(tmp_path: Path) -> None:
    embedder, path = CountsLetters(), tmp_path / "made.index"
    with open_index(path, IndexHeader("letters", "letters-1", 16, "lines")) as made:
        for id, text in (("one", "aaaa bbbb. And more."), ("two", "cccc dddd"), ("three", "eeee zebra")):
            vectors = np.array(asyncio.run(embedder.embed([text])), dtype=np.float32)
            made.put([IndexedDocument(Document(id, text, f"Title {id}"), [Chunk(id, 0, len(text), text)], vectors)])
    try:
        open_corpus(path, embedder=embedder)
        found, lookup = search(str(path))
        assert asyncio.run(found({"query": "aabb", "k": 1})).startswith("[one] Title one\n  aaaa")  # no word in common
        assert asyncio.run(found({"query": "zebra", "k": 2})).startswith("[three]")
        assert asyncio.run(found({"query": "title two", "k": 1})).startswith("[two]")
        assert "And more." in asyncio.run(lookup({"text": "and more"}))
    finally:
        close_corpora()
    with pytest.raises(ConfigError, match="leave out index="):
        search(str(path), index=str(tmp_path / "other"))
    foreign = sqlite3.connect(tmp_path / "foreign.sqlite")
    foreign.execute("CREATE TABLE mine (x)")
    foreign.close()
    with pytest.raises(ConfigError, match="is no index"):
        search(str(tmp_path / "foreign.sqlite"))


HOSTILE = [
    '"', "'", "*", "NEAR(a b)", "title:x", "a OR", "AND", "NOT", "(", ")", '"; DROP TABLE passages; --', "^a", "a*",
    "{a b}:c", "-a", "a" * 100_000, "a " * 100_000, "\ud800 x", "\0 apple", "apple\x1b[2J", "￿ apple", "٣ apple", "日本語",
    "%", "_",
]  # fmt: skip


@pytest.mark.parametrize("query", HOSTILE, ids=range(len(HOSTILE)))
def test_a_query_is_words_and_no_language(index: SearchIndex, query: str) -> None:
    for ask in (index.search, index.lookup):
        try:
            assert isinstance(ask(query), str)
        except ToolError:
            continue
    assert index.find("apple")


@pytest.mark.parametrize("k", [0, -1, 21, 10**9])
def test_k_has_bounds(index: SearchIndex, k: int) -> None:
    with pytest.raises(ToolError, match="give 1 to 20"):
        index.find("apple", k)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no texts"),
        ("not json\n", "line 1 of .* is no JSON object"),
        ('{"id": "a"}\n', "line 1"),
        ('{"text": "x"}\n{"text": 3}\n', "line 2"),
        ("[1]\n", "line 1"),
        ("[" * 100_000 + "\n", "line 1"),
        ('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}\n', "two documents have the id 'a'"),
    ],
)
def test_documents_that_cannot_be_read_are_errors_that_say_where(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(ConfigError, match=said):
        SearchIndex(tmp_path / "x.jsonl")
    with pytest.raises(ConfigError, match="no documents at"):
        SearchIndex(tmp_path / "missing")


def test_the_document_of_that_very_title_comes_first_in_any_case(tmp_path: Path) -> None:
    pages = {
        "many": ("Lion lion", "Lion lion lion. A lion is a lion."),
        "one": ("Lion", "A large cat, among other animals."),
    }
    index = SearchIndex(jsonl(tmp_path / "pages.jsonl", pages))
    for query in ("Lion", "LION", "lion"):
        assert [each.id for each in index.find(query, k=2)] == ["one", "many"]
    assert index.find("lion lion", k=1)[0].id == "many"


def test_control_characters_in_documents_are_kept_from_titles_and_end_no_text(tmp_path: Path) -> None:
    body = {"id": "a\x1b[2J\0", "title": "T\x1b]0;x\x07\ud800", "text": "before\0 after\x1b[31m"}
    (tmp_path / "x.jsonl").write_text(json.dumps(body))
    shown = SearchIndex(tmp_path / "x.jsonl").search("after")
    assert shown.startswith("[a\\x1b[2J] T\\x1b]0;x\\x07?\n  before  after")


@given(st.text(alphabet="ab .!?\n", max_size=4000))
def test_passages_hold_every_word_once(text: str) -> None:
    assert "".join("".join(split(text)).split()) == "".join(text.split())
    assert all(passage.strip() and len(passage) <= 1700 for passage in split(text))


def test_many_threads_can_ask(index: SearchIndex) -> None:
    async def main() -> list[str]:
        made = tool_from_function(index.search, effect="read")
        return list(await asyncio.gather(*(made({"query": "apple"}) for _ in range(40))))

    assert len(set(asyncio.run(main()))) == 1


def test_the_catalog_makes_the_tools(tmp_path: Path) -> None:
    made = catalog.tools(f"search:{jsonl(tmp_path / 'p.jsonl')}:index={tmp_path / 'p.index'}")
    assert [(each.name, each.effect, each.origin) for each in made] == [
        ("search", "read", "documents in p.jsonl"), ("lookup", "read", "documents in p.jsonl")]  # fmt: skip
    assert "[pie]" in asyncio.run(search(str(tmp_path / "p.jsonl"))[0]({"query": "pie", "k": "1"}))


# -- the web --

HITS = [
    {
        "title": f"Page <b>{n}</b>",
        "url": f"https://e.org/{n}",
        **dict.fromkeys(("description", "content"), f"words &amp; {n}"),
    }
    for n in range(9)
]


class Service:
    """A search service on this machine, in the layout of all three."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answer: tuple[int, bytes] | None = None
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                service.asked.append((self.command, self.path, dict(self.headers.items()), self.rfile.read(length)))
                body = {"web": {"results": HITS}} if self.path.startswith("/res/") else {"results": HITS}
                status, content = service.answer or (200, json.dumps(body).encode())
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Location", "http://169.254.169.254/")
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    for known in SERVICES.values():
        monkeypatch.delenv(known.variable, raising=False)
    made = Service()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


KEY = "the-secret-key"


def test_each_service_is_asked_in_its_own_layout(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = "Page 0\nhttps://e.org/0\nwords & 0\n\nPage 1\nhttps://e.org/1\nwords & 1"
    monkeypatch.setenv("BRAVE_API_KEY", KEY)
    assert asyncio.run(web_search(url=f"{service.url}/res/v1/web/search")({"query": "a b&c", "k": 2})) == shown
    method, path, headers, _ = service.asked.pop()
    assert (method, path) == ("GET", "/res/v1/web/search?q=a+b%26c&count=2")
    assert headers["X-Subscription-Token"] == KEY
    monkeypatch.setenv("TAVILY_API_KEY", KEY)
    assert asyncio.run(web_search(service="tavily", url=f"{service.url}/search")({"query": "a b", "k": 2})) == shown
    method, path, headers, sent = service.asked.pop()
    assert (method, path, headers["Authorization"]) == ("POST", "/search", f"Bearer {KEY}")
    assert json.loads(sent) == {"query": "a b", "max_results": 2}
    monkeypatch.setenv("SEARXNG_URL", service.url + "/")
    assert asyncio.run(web_search(service="searxng")({"query": "a b", "k": 2})) == shown
    method, path, headers, _ = service.asked.pop()
    assert (method, path) == ("GET", "/search?q=a+b&format=json") and KEY not in str(headers)


def test_without_a_key_the_error_says_what_to_set(service: Service) -> None:
    with pytest.raises(
        ConfigError, match="BRAVE_API_KEY for brave, TAVILY_API_KEY for tavily, SEARXNG_URL for searxng"
    ):
        web_search()
    with pytest.raises(ConfigError, match="tavily needs the environment variable TAVILY_API_KEY"):
        catalog.tool("web_search:service=tavily")
    with pytest.raises(ConfigError, match="no search service 'bing' is known"):
        web_search(service="bing")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, b"no"), "the key is not accepted"),
        ((429, b"no"), "too many searches"),
        ((500, b"x" * 100), "status 500"),
        ((302, b""), "status 302"),
        ((200, b"<html>"), "does not answer with JSON"),
        ((200, b"[" * 100_000), "does not answer with JSON"),
        ((200, b"x" * 5_000_000), "more than 4000000 bytes"),
        ((200, b"[1]"), None),
        ((200, b'{"results": {"a": 1}}'), None),
        ((200, b'{"results": [1, null, {"title": 3, "url": null}]}'), None),
    ],
)
def test_a_service_that_fails_or_lies_is_a_result(
    service: Service, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, bytes], said: str | None
) -> None:
    monkeypatch.setenv("TAVILY_API_KEY", KEY)
    service.answer = answer
    tool = web_search(url=f"{service.url}/search")
    if said is None:
        assert isinstance(asyncio.run(tool({"query": "x"})), str)
        return
    with pytest.raises(ToolError, match=said) as error:
        asyncio.run(tool({"query": "x"}))
    assert KEY not in str(error.value)


def test_a_service_that_is_not_there_is_a_result_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAVILY_API_KEY", KEY)
    for url in ("http://127.0.0.1:1/search", "nonsense", "http://[/"):
        with pytest.raises(ToolError, match="cannot be asked") as error:
            asyncio.run(web_search(service="tavily", url=url)({"query": "x"}))
        assert KEY not in str(error.value)


# -- in an attempt --


def test_react_plays_its_actions_and_the_trace_says_what_came_from_outside(tmp_path: Path) -> None:
    script = Scripted(
        [
            "Thought: I look him up.\nAction: Search[Milhouse Van Houten]",
            "Thought: Whom was he named after?\nAction: Lookup[named after]",
            "Thought: Nixon.\nFinal Answer: Richard Nixon",
        ]
    )
    agent = Agent("a", script, react, tools=search(str(jsonl(tmp_path / "pages.jsonl"))))
    trace = asyncio.run(rollout(agent, Task("1", "Whom was Milhouse named after?")))
    assert trace.answer == "Richard Nixon"
    observed = [node.message.text for node in trace.nodes if node.message.text.startswith("Observation")][-2:]
    assert observed[0].startswith(
        'Observation: <untrusted from="documents in pages.jsonl">\n[milhouse] Milhouse Van Houten'
    )
    assert "named after Richard Nixon's middle name.\n</untrusted>" in observed[1]
    assert [call.detail["origin"] for call in trace.calls if call.kind == "tool"] == ["documents in pages.jsonl"] * 2


@pytest.mark.slow
def test_a_replay_reads_what_was_read_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    Path("notes").mkdir()
    Path("notes/a.txt").write_text("as it was")
    Path("reads.py").write_text(
        "from firsthand.message import ToolCall\n"
        "async def reads(task, ctx) -> str:\n"
        "    return (await ctx.call(ToolCall('1', 'read_file', {'path': 'a.txt'}))).content\n"
    )
    words = [
        "run",
        "arithmetic",
        "--limit",
        "1",
        "--model",
        "scripted:echo",
        "--pattern",
        "reads.py",
        "--tools",
        "files:notes",
    ]
    assert cli.main(words) == 0
    Path("notes/a.txt").write_text("as it is now")
    assert cli.main(["run", "--replay", "last"]) == 0
    with store.open_run("last", data_home()) as run:
        [trace] = run.traces()
    assert trace.answer == '<untrusted from="files in notes">\nas it was\n</untrusted>'


def test_a_lines_id_is_its_number_where_it_has_none_and_its_title_its_id(tmp_path: Path) -> None:
    lines = [
        {"text": "zebra"},
        {"id": "i", "contents": "apple"},
        {"title": "T", "body": "pear"},
        {"title": "", "text": "fig"},
    ]
    (tmp_path / "x.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    index = SearchIndex(tmp_path / "x.jsonl")
    words = ("zebra", "apple", "pear", "fig")
    found = [(each.id, each.title) for word in words for each in index.find(word)]
    assert found == [("1", "1"), ("i", "i"), ("5", "T"), ("7", "7")]


@pytest.mark.parametrize("k", [-1, 0, 1, 20, 21])
def test_a_search_asks_for_1_to_20_pages(service: Service, monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    monkeypatch.setenv("TAVILY_API_KEY", KEY)
    tool = web_search(url=f"{service.url}/search")
    if 1 <= k <= 20:
        asyncio.run(tool({"query": "x", "k": k}))
        assert json.loads(service.asked.pop()[3])["max_results"] == k
        return
    with pytest.raises(ToolError, match=f"k is {k}: give words, and 1 to 20"):
        asyncio.run(tool({"query": "x", "k": k}))
    assert service.asked == []


def test_a_large_page_is_searched_to_its_end_and_read_again_by_a_newer_reading(tmp_path: Path) -> None:
    pages, kept = tmp_path / "pages", tmp_path / "kept.idx"
    pages.mkdir()
    (pages / "a.html").write_text(f"<!--{'x' * 1_000_000}--><table><tr><td>The zanzibarcode is<td>4711</table>")
    made = SearchIndex(pages, kept)
    assert "The zanzibarcode is | 4711" in made.search("zanzibarcode", 1)
    stamps = [each.meta["stamp"] for each in made.index.outlines()]
    assert all(stamp.endswith(f", reading {FORMATS['html'].version}") for stamp in stamps)
    made.index.close()
