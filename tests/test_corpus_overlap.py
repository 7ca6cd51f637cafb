"""Overlap of items with a corpus, worked out by hand: documents, pieces, counts of n-grams, and the index."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pytest

from firsthand.contamination import corpus_texts
from firsthand.contamination.corpus_texts import BETWEEN, _of_lines, corpus_files, pieces
from firsthand.contamination.leak_evidence import Evidence, report
from firsthand.contamination.ngram_overlap import (
    ASKS,
    LIMITS,
    CorpusIndex,
    FoundItem,
    hashes_of,
    item_grams,
    overlap_evidence,
    scan_corpus,
)
from firsthand.errors import ConfigError, DataError
from firsthand.task import Task
from same_values import same


def test_no_gram_runs_from_one_document_into_the_next(tmp_path: Path):
    words = [f"w{i}" for i in range(13)]
    for name in ("a.jsonl", "b.jsonl.gz"):
        opened = gzip.open if name.endswith("gz") else open
        with opened(tmp_path / name, "wt") as file:
            for part in (words[:6], words[6:], ["other", *words, "é"], ["last"]):
                file.write(json.dumps({"text": " ".join(part)}) + "\n")
        (piece,) = pieces(tmp_path / name)
        documents = ["w0 w1 w2 w3 w4 w5", "w6 w7 w8 w9 w10 w11 w12", "other " + " ".join(words) + " é", "last"]
        assert piece == BETWEEN.join(each.encode() for each in documents)
        grams, wanted = hashes_of(piece, 13)[0].tolist(), hashes_of(" ".join(words).encode(), 13)[0].tolist()
        assert grams.count(wanted[0]) == 1  # of the third document, not of the first two together
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(" ".join(part)) + "\n" for part in (words[:6], words[6:])))
    (tmp_path / "b.jsonl.gz").unlink()
    assert overlap_evidence([Task("t", " ".join(words))], corpus=tmp_path).flagged == ()
    assert not CorpusIndex.build(tmp_path, tmp_path / "index").look_up([Task("t", " ".join(words))])[0]


def test_pieces_hold_whole_documents_and_plain_ones_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(corpus_texts, "PIECE_BYTES", 6)
    monkeypatch.setattr(corpus_texts, "OVERLAP_BYTES", 2)
    (tmp_path / "a.txt").write_bytes(b"abcdefghijklmn")
    assert list(pieces(tmp_path / "a.txt")) == [b"abcdef", b"efghijkl", b"klmn"]
    (tmp_path / "a.jsonl").write_text('"abc"\n  \n"def"\n"ghijkl"\n"m"\n"n"\n')
    assert list(pieces(tmp_path / "a.jsonl")) == [b"abc" + BETWEEN + b"def", b"ghijkl", b"m" + BETWEEN + b"n"]
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"plain") + b"junk")
    with pytest.raises(DataError, match=r"b\.gz cannot be read: "):
        list(pieces(tmp_path / "b.gz"))


def test_each_line_of_a_jsonl_is_a_document_no_longer_than_memory_holds(tmp_path: Path):
    path = Path("f.jsonl")
    rows = [b'"abcd"', b"  ", '"é"'.encode(), b'{"answer": "c", "content": 5, "question": "b\\ud800", "text": "a"}',
            b'{"id": 5}']  # fmt: skip
    body = b"\n".join(rows)
    assert list(_of_lines(io.BytesIO(body), path)) == [b"abcd", "é".encode(), b"a\nb?\nc", b""]
    assert list(_of_lines(io.BytesIO(b'"abcd"\n"a"'), path, 7)) == [b"abcd", b"a"]
    for given, most, said in (
        (b'"a"\n"abcd"\n"b"', 6, "line 2: longer than 6 bytes: one document a line was expected"),
        (b"\n" + b'"' * 5000, 1000, "line 2: longer than 1,000 bytes: one document a line was expected"),
        (b'"a"\n\n[1, 2]', 99, "line 3: '[1, 2]': an object with a text, or a text, was expected"),
        (b"[" + b"1" * 50 + b"]", 99, f"line 1: '[{'1' * 39}': an object with a text, or a text, was expected"),
        (b"null", 99, "line 1: 'None': an object with a text, or a text, was expected"),
        (b"\n{", 99, "line 2: not JSON: is the file cut short?"),
        (b"[" * 90_000, 99_999, "line 1: not JSON: is the file cut short?"),
        (b'"\xff"', 99, "line 1: not JSON: is the file cut short?"),
    ):  # fmt: skip
        file = io.BytesIO(given)
        with pytest.raises(DataError) as refused:
            list(_of_lines(file, path, most))
        assert str(refused.value) == f"f.jsonl, {said}"
        assert file.tell() <= 4 + most + 1, "no more of it is read"
    packed = bytearray(gzip.compress(bytes(range(256)) * 4, mtime=0))
    packed[10] |= 0b110  # a kind of block that there is not
    for damaged in (bytes(packed), gzip.compress(b"plain")[:-9], b"no gzip"):
        (tmp_path / "d.gz").write_bytes(damaged)
        with pytest.raises(DataError, match=r"d\.gz cannot be read: \S"):
            list(pieces(tmp_path / "d.gz"))


def test_the_files_of_a_corpus_are_texts_in_order(tmp_path: Path):
    for name in ("z.txt", "sub/a.md", "b.PNG", "c.gguf", "none"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert corpus_files(tmp_path) == [tmp_path / "none", tmp_path / "sub/a.md", tmp_path / "z.txt"]
    assert corpus_files(tmp_path / "z.txt") == [tmp_path / "z.txt"]
    with pytest.raises(ConfigError, match=r"b\.PNG holds no text: give a folder"):
        corpus_files(tmp_path / "b.PNG")
    with pytest.raises(ConfigError, match=r"no corpus '.*nowhere': give a folder of texts, or one file"):
        corpus_files(tmp_path / "nowhere")


def test_an_item_is_flagged_by_eight_grams_or_half_of_them():
    flagged = {
        (hits, grams): FoundItem("t", hits, grams).flagged
        for hits, grams in ((7, 15), (8, 99), (7, 14), (1, 2), (1, 3))
    }
    assert list(flagged.values()) == [False, True, True, True, False]
    tasks = [Task(str(n), " ".join(f"w{i}" for i in range(n))) for n in (7, 8, 12, 13, 15)]
    grams, short = item_grams([*tasks, Task("again", "a " * 13)])
    assert short == ["7"]
    assert {id: (n, len(own)) for id, (n, own) in grams.items()} == {
        "8": (8, 1), "12": (8, 5), "13": (13, 1), "15": (13, 3), "again": (13, 1),
    }  # fmt: skip
    assert hashes_of(b"", 3)[0].shape == (0,) and hashes_of(b"a b c", 3)[1].tolist() == [5]


def test_half_of_a_surrogate_pair_in_an_item_is_a_sign_between_its_words(tmp_path: Path):
    words = [f"w{i}" for i in range(13)]
    plain = " ".join(words)
    tasks = [
        Task("end", f"{plain} \ud83d"), Task("middle", " \udc00 ".join([" ".join(words[:6]), " ".join(words[6:])])),
        Task("answer", " ".join(words[:12]), secret={"answer": "w12\ud800"}), Task("alone", "\ud800"),
    ]  # fmt: skip
    grams, short = item_grams(tasks)
    wanted = np.unique(hashes_of(plain.encode(), 13)[0]).tolist()
    assert short == ["alone"] and {id: (n, own.tolist()) for id, (n, own) in grams.items()} == {
        id: (13, wanted) for id in ("end", "middle", "answer")
    }
    (tmp_path / "a.txt").write_text(plain)
    assert [(each.task_id, each.hits, each.grams) for each in scan_corpus(tasks, tmp_path)[0]] == [
        (id, 1, 1) for id in ("end", "middle", "answer")
    ]


def test_the_overlap_is_told_with_counts_and_the_file_that_holds_most(tmp_path: Path):
    words = [f"w{i}" for i in range(40)]
    whole, other = " ".join(words[:22]), " ".join(words[20:])
    (tmp_path / "a.txt").write_text(" ".join(words[:15]))
    (tmp_path / "b.txt").write_text(" ".join(words[5:22]) + " " + " ".join(words[20:35]))
    tasks = [
        Task("few", other), Task("most", whole), Task("half", " ".join(words[5:18])),
        Task("eight", "x y " + " ".join(words[:8])),
        Task("none", " ".join(f"v{i}" for i in range(13))), Task("short", "two words"), Task("brief", ""),
    ]  # fmt: skip
    found, short, read, _ = scan_corpus(tasks, tmp_path)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert short == ["short", "brief"] and read == size
    # most: 3 grams in a.txt, 5 in b.txt, of 10; few: 3 of 8 (w20 to w34); eight: 1 of 3, compared by 8 words
    where = {each.task_id: (each.hits, each.grams, Path(each.where).name) for each in found}
    assert where == {
        "few": (3, 8, "b.txt"), "most": (8, 10, "b.txt"), "half": (1, 1, "b.txt"), "eight": (1, 3, "a.txt"),
    }  # fmt: skip
    told = overlap_evidence(tasks, corpus=tmp_path)
    assert told == Evidence(
        "n-grams", told.asks, 2 / 5, None, 5,
        f"2 of 7 items in 0.0 MB ({tmp_path}); most has 8 of 10 n-grams there, in {tmp_path / 'b.txt'}; 2 items with fewer "
        "n-grams than count; 2 items too short to compare", ("most", "half"), told.limits, (), 2,
    )  # fmt: skip
    index = CorpusIndex.build(tmp_path, tmp_path / "new" / "index")
    assert (index.grams, index.read, index.source) == (3 + 20 + 8 + 25, size, str(tmp_path)) and len(index.bits) == 1024
    assert index.false_rate == pytest.approx((np.unpackbits(np.array(index.bits).view(np.uint8)).mean()) ** 7)
    by_index = overlap_evidence(tasks[:2], index=tmp_path / "new" / "index")
    assert (
        by_index.flagged == ("most",)
        and by_index.n == 2
        and by_index.detail
        == (
            f"1 of 2 items in 0.0 MB (an index of {tmp_path}; {index.false_rate:.1e} of foreign n-grams are found too); "
            "most has 8 of 10 n-grams there; 1 item with fewer n-grams than count"
        )
    )
    none = overlap_evidence(tasks)
    assert same(none, Evidence("n-grams", ASKS, detail="not run: no corpus was given (--corpus DIR)", limits=LIMITS))
    assert not none.ran and (told.asks, told.limits) == (ASKS, LIMITS)
    assert overlap_evidence([Task("short", "x")], corpus=tmp_path / "a.txt").statistic == 0.0


def test_the_file_named_for_an_item_holds_most_of_its_own_n_grams(tmp_path: Path):
    one, other, even = ([f"{letter}{i}" for i in range(30)] for letter in "xyz")
    (tmp_path / "a.txt").write_text(" ".join([*one[:16], *even[:20]]))
    (tmp_path / "b.txt").write_text(" ".join([*one[:14], *other, *even[10:]]))
    tasks = [Task("one", " ".join(one)), Task("other", " ".join(other)), Task("even", " ".join(even)),
             Task("brief", " ".join(one[:9])), Task("brief too", " ".join(other[5:13]))]  # fmt: skip
    a, b = str(tmp_path / "a.txt"), str(tmp_path / "b.txt")
    # of 13 words: 4 in a.txt and 2 of them in b.txt; 18 in b.txt; 8 in each, so the first is named; of 8 words: 2, and 1
    assert scan_corpus(tasks, tmp_path) == (
        [FoundItem("one", 4, 18, a), FoundItem("other", 18, 18, b), FoundItem("even", 16, 18, a),
         FoundItem("brief", 2, 2, a), FoundItem("brief too", 1, 1, b)], [],
        sum(path.stat().st_size for path in tmp_path.iterdir()), [],
    )  # fmt: skip
    assert {type(each.hits) for each in scan_corpus(tasks, tmp_path)[0]} == {int}, "as JSON takes them"
    told = overlap_evidence(tasks, corpus=tmp_path)
    assert told.flagged == ("other", "even", "brief", "brief too"), "the most n-grams first"
    assert f"; other has 18 of 18 n-grams there, in {b}; 1 item with fewer n-grams than count" in told.detail
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"", mtime=0) + b"\0" * 12_000)
    size = (tmp_path / "a.txt").stat().st_size
    assert len(CorpusIndex.build(tmp_path / "a.txt", tmp_path / "plain").bits) == 1024 and size < 12_000
    (tmp_path / "c.txt.gz").unlink()
    noise = np.random.default_rng(0).bytes(4000).hex().encode()
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(noise, mtime=0))
    packed = (
        (tmp_path / "d.txt.gz").stat().st_size
    )  # counts four times: 16 bits for each of two n-grams of each six bytes
    words = 4 * packed * 2 * 16 / (6 * 64)
    assert 1024 < words < 2048 and len(CorpusIndex.build(tmp_path / "d.txt.gz", tmp_path / "packed").bits) == 2048


def test_an_index_of_another_version_or_place_is_refused(tmp_path: Path):
    (tmp_path / "a.txt").write_text("x " * 20_000)
    index = CorpusIndex.build(tmp_path / "a.txt", tmp_path / "index")
    assert len(index.bits) == 4096  # 40,000 bytes, 16 bits for each of two n-grams of each six: 3,333 words, rounded up
    for change in ({"version": 1}, {"version": 3}, {"version": None}):
        (tmp_path / "index" / "index.json").write_text(json.dumps({"grams": 1, "source": "s", "bytes": 1, **change}))
        with pytest.raises(
            DataError, match=f"is an index of version {change['version']}, and 4 is read: build it again"
        ):
            CorpusIndex(tmp_path / "index")
    about = json.dumps({"grams": 1, "source": "s", "bytes": 1, "version": 4, "unread": []})
    (tmp_path / "index" / "index.json").write_text(about)
    for bits in (np.zeros(3, np.uint64), np.zeros(0, np.uint64), np.zeros(4, np.int64)):
        np.save(tmp_path / "index" / "bits.npy", bits)
        with pytest.raises(DataError, match="build it again"):
            CorpusIndex(tmp_path / "index")
    with pytest.raises(ConfigError, match=r"a\.txt is a file: give a new folder for the index"):
        CorpusIndex.build(tmp_path, tmp_path / "a.txt")
    (tmp_path / "empty").mkdir()
    assert CorpusIndex.build(tmp_path / "a.txt", tmp_path / "empty").grams == 20_000 - 12 + 20_000 - 7


@pytest.mark.parametrize("name", ["notes.txt", "bits.npy", "index.json", ".hidden", "sub/notes.txt"])
def test_an_index_is_built_in_a_folder_that_holds_nothing(tmp_path: Path, name: str):
    (tmp_path / "a.txt").write_text("x " * 20)
    folder = tmp_path / "index"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("mine")
    with pytest.raises(ConfigError) as refused:
        CorpusIndex.build(tmp_path / "a.txt", folder)
    assert str(refused.value) == f"{folder} is not empty: give a new folder for the index"
    assert [(path, path.read_text()) for path in folder.rglob("*") if path.is_file()] == [(folder / name, "mine")]


def test_an_index_is_not_built_twice_in_one_folder_nor_of_a_corpus_that_is_not_there(tmp_path: Path):
    (tmp_path / "a.txt").write_text("x " * 20)
    folder = tmp_path / "new" / "index"
    with pytest.raises(ConfigError, match=r"^no corpus '.*nowhere': give a folder of texts, or one file$"):
        CorpusIndex.build(tmp_path / "nowhere", folder)
    assert not folder.parent.exists()
    assert CorpusIndex.build(tmp_path / "a.txt", folder).grams == 20 - 12 + 20 - 7
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(kept) == ["bits.npy", "index.json"] and json.loads(kept["index.json"]) == {
        "version": 4, "grams": 21, "source": str(tmp_path / "a.txt"), "bytes": 40, "unread": [],
    }  # fmt: skip
    (tmp_path / "a.txt").write_text("y " * 30)
    with pytest.raises(ConfigError, match=r"index is not empty: give a new folder for the index$"):
        CorpusIndex.build(tmp_path / "a.txt", folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept


def test_an_items_file_is_the_first_of_those_that_hold_most_of_it_and_each_n_gram_counts_once(tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(40)]
    tasks = [Task("all", " ".join(words)), Task("end", " ".join(words[18:31])), Task("few", " ".join(words[:10]))]
    texts = {"a": words[:15], "b": words[5:30], "c": words[6:31], "d": words[5:18] * 2, "e": ["other"] * 30}
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(" ".join(text))
    assert [(each.task_id, each.hits, each.grams, Path(each.where).stem) for each in scan_corpus(tasks, tmp_path)[0]] == [
        ("all", 17, 28, "b"), ("end", 1, 1, "c"), ("few", 3, 3, "a"),
    ]  # fmt: skip


def test_items_that_are_too_short_are_no_clean_ones(tmp_path: Path) -> None:
    brief = [Task(f"t{i}", f"What is {i} times {i + 3}?") for i in range(20)]
    long = Task("long", "Please explain at length why the sky appears blue at noon")
    (tmp_path / "a.txt").write_text("\n".join(each.prompt for each in brief))
    for tasks, counted, rest in (
        ([*brief, long], "20 of 21 items", f" None of the other 1 stands in {tmp_path} in its own words."),
        ([brief[0], long], "1 of 2 items", f" None of the other 1 stands in {tmp_path} in its own words."),
        (brief, "20 of 20 items", ""),
    ):
        made = report("b", "", [overlap_evidence(tasks, corpus=tmp_path)], corpus=str(tmp_path))
        assert made.verdict == "untested" and made.words == (
            f"{counted} of b are too short to look for in {tmp_path}, and nothing is known of them.{rest}"
        )
    assert report("b", "", [overlap_evidence([long], corpus=tmp_path)]).verdict == "no overlap"


@pytest.mark.parametrize(
    ("item", "around"),
    [
        ("小明有三个苹果，他给了小红两个。", "请看{}谢谢"),
        ("リンゴが三つあります。いくつ？", "そして「{}」と言う"),
        ("แอปเปิ้ลมีกี่ลูกในตะกร้า", "x {} y"),
        ("Janet’s ducks lay 16 eggs per day and she eats three of them", "小明 {} 小红"),
    ],
)
def test_scripts_without_blanks_are_compared_by_characters(item: str, around: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(around.format(item))
    tasks = [Task("t", item), Task("other", "".join(reversed(item)) + " w1 w2 w3 w4 w5 w6 w7 w8")]
    CorpusIndex.build(tmp_path / "a.txt", tmp_path / "index")
    for found in (
        overlap_evidence(tasks, corpus=tmp_path / "a.txt"),
        overlap_evidence(tasks, index=tmp_path / "index"),
    ):
        assert (found.flagged, found.short) == (("t",), 0)
    (tmp_path / "a.txt").write_text(item.replace("，", "").replace("。", " "))  # marks part words and are none
    assert overlap_evidence(tasks, corpus=tmp_path / "a.txt").flagged == ("t",)
