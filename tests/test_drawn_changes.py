"""Facts that changes drawn by `bench/mutants.py` for 0.14.0 showed to be untested, or that reading showed."""

from __future__ import annotations

import hashlib
import hmac
import resource
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.bridges.lm_eval.document_scores import SHOWN_CHARS, measured
from firsthand.errors import DownloadError
from firsthand.hub.download import download
from firsthand.kernels.attention.query_tiles import SEGMENT
from firsthand.kernels.attention.work_split import QUERIES, TASKS, plan
from firsthand.retrieval.chunking.chunkers import open_chunker
from firsthand.retrieval.document import Document
from firsthand.scorers.unit_tests import runner
from firsthand.serve.http import connection_room
from firsthand.show.board_words import money
from firsthand.system.home_seal import KEY, is_ours, seal_of
from loopback import serve

# -- kernels --

BLOCK = 16


@pytest.mark.parametrize(
    ("starts", "count", "threads"),
    [([9, 3], 1, 4), ([40, 0], 1, 2), ([1, 0, 6, 1, 0, 3], 1, 2), ([5, 7, 5, 7, 5, 7], 1, 4), ([200, 0], 2, 3)],
)
@pytest.mark.parametrize("shared", [0, 2, 4])
@pytest.mark.parametrize("window", [0, 2 * SEGMENT + 5])
def test_the_work_of_a_step_has_each_row_and_segment_once(
    starts: list[int], count: int, threads: int, shared: int, window: int
) -> None:
    # `starts` are pairs: segments, and positions more
    begins = [SEGMENT * whole + more for whole, more in zip(starts[::2], starts[1::2], strict=True)]
    tables: list[int] = []
    spans = []
    for c, begin in enumerate(begins):
        spans.append([c * count, begin, count, len(tables)])
        size = (begin + count - 1) // BLOCK + 1
        tables += [j if j < shared * SEGMENT // BLOCK else 1000 * (c + 1) + j for j in range(size)]
    tasks, members, slots, merged, cuts, used = plan(np.array(spans), np.array(tables), BLOCK, 4, window, threads)
    wanted = {
        (c * count + i, segment)
        for c, begin in enumerate(begins)
        for i in range(count)
        for segment in range(max(begin + i - window + 1, 0) // SEGMENT if window else 0, (begin + i) // SEGMENT + 1)
    }
    read: Counter[tuple[int, int]] = Counter()
    split: set[int] = set()
    for table, first, last, member, size, is_split in tasks.tolist():
        assert 0 < size <= QUERIES // 4
        for row in members[member : member + size].tolist():
            begin, own = begins[row // count], spans[row // count][3]
            read.update((row, segment) for segment in range(first, last))
            blocks = range(first * SEGMENT // BLOCK, min(last * SEGMENT, begin + count) // BLOCK)
            assert [tables[table + j] for j in blocks] == [tables[own + j] for j in blocks]
            split |= {row} if is_split else set()
    assert {pair for pair in read if pair in wanted} == wanted and max(read.values()) == 1
    assert all(segment * SEGMENT <= begins[row // count] + count - 1 for row, segment in read)
    assert split == set(merged.tolist())
    assert sorted(slots[row] + segment for row, segment in wanted if row in split) == list(range(used))
    assert cuts[0] == 0 and cuts[-1] == len(tasks) and (np.diff(cuts) >= 0).all()


def test_a_long_sequence_is_cut_into_tasks_of_equal_segments() -> None:
    tables = np.arange(200 * SEGMENT // BLOCK + 1)
    tasks, *_ = plan(np.array([[0, 200 * SEGMENT, 1, 0]]), tables, BLOCK, 4, 0, 3)
    most = 201 // (TASKS * 3)
    assert [last - first for _, first, last, *_ in tasks.tolist()] == [most] * (201 // most) + [201 % most]
    alone, *_ = plan(np.array([[0, 200 * SEGMENT, 1, 0]]), tables, BLOCK, 4, 0, 1)
    assert alone.tolist() == [[0, 0, 201, 0, 1, 0]]  # one thread has nobody to share with


# -- scorers --

FORGED = """
import ast, json, os, socket
for fd in range(3, 30):
    try: link = socket.socket(fileno=os.dup(fd))
    except OSError: continue
    frame = sys._getframe()
    while 'word' not in frame.f_locals: frame = frame.f_back
    word = frame.f_locals['word']
    link.sendall(json.dumps({'word': word}).encode() + b'\\n')
    spiked, case = json.loads(link.makefile().readline())
    failing = [m.name for c in ast.parse(spiked).body if getattr(c, "name", "") == case for m in c.body]
    link.sendall(json.dumps({"ran": RAN, "problems": PROBLEMS, "word": word}).encode() + b'\\n')
    os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ran", "problems"),
    [
        ("failing", "{name: 'AssertionError: no' for name in failing}"),
        ("[]", "{name: 'AssertionError: no' for name in failing}"),
        ("sorted([*failing, 'test_one'])", "[]"),
    ],
)
def test_a_report_that_leaves_tests_out_did_not_run_to_its_end(tmp_path: Path, ran: str, problems: str) -> None:
    (tmp_path / "answer.py").write_text(FORGED.replace("RAN", ran).replace("PROBLEMS", problems))
    tests = (
        "import unittest\nclass TestCases(unittest.TestCase):\n  def test_one(self): self.assertEqual(task_func(), 1)\n"
    )
    command = [sys.executable, "-I", "-c", runner()]
    done = subprocess.run(command, cwd=tmp_path, input=tests, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "the tests did not run to their end\n")


# -- hub --


def test_wrong_content_is_asked_for_once_and_a_damaged_half_twice(tmp_path: Path) -> None:
    body = bytes(range(256)) * 64
    with serve() as site:
        site.files["/f"] = body
        with pytest.raises(DownloadError, match="SHA-256"):
            download(f"{site.url}/f", tmp_path / "f", sha256="0" * 64)
        assert len(site.asked) == 1
        (tmp_path / "g.part").write_bytes(b"x")
        download(f"{site.url}/f", tmp_path / "g", sha256=hashlib.sha256(body).hexdigest(), size_bytes=len(body))
        assert len(site.asked) == 3


# -- bridges --


@dataclass(frozen=True)
class Instance:
    """An instance of lm-evaluation-harness, as far as scores read it."""

    resps: list[Any] = field(default_factory=list)
    filtered_resps: dict[str, Any] = field(default_factory=dict)


class FilteringTask:
    """A task with two filters: the first response, and all of them in capitals."""

    def apply_filters(self) -> None:
        for each in self._instances:
            each.filtered_resps.update(none=each.resps[0], capitals="".join(each.resps).upper())

    def process_results(self, doc: str, responses: list[str]) -> dict[str, Any]:
        return {"length": [len(each) for each in responses], "doc": doc}


@pytest.mark.parametrize(("requests", "shown"), [(1, "a" * SHOWN_CHARS), (2, 2)])
def test_each_request_gets_its_own_responses_of_all_repeats(requests: int, shown: object) -> None:
    entry = SimpleNamespace(task=FilteringTask(), doc="d", instances=[Instance()] * requests)
    long = "a" * (SHOWN_CHARS + 1)
    found, filtered = measured(entry, [[long, "b"][:requests], ["c", "de"][:requests]])  # type: ignore[arg-type]
    assert found["length", "none"] == [len(long), 1][:requests]
    assert found["length", "capitals"] == [len(long) + 1, 3][:requests] and found["doc", "capitals"] == "d"
    assert filtered["none"] == shown and (requests > 1 or filtered["capitals"] == "A" * SHOWN_CHARS)


# -- retrieval --


@pytest.mark.parametrize(
    ("sizes", "texts"),
    [
        (
            "size=40:overlap=15",
            [
                *("One two three four.", "three four. Five six.", "```\na = 1\nb = 2\n```", "After it come words."),
                *(
                    "it come words. More words here.",
                    "| a |\n|---|\n| 1 |",
                    "Tail text one.",
                    "text one. Tail text two.",
                ),
            ],
        ),
        (
            "size=60:overlap=20",
            [
                *("One two three four. Five six.", "```\na = 1\nb = 2\n```", "After it come words. More words here."),
                *("| a |\n|---|\n| 1 |", "Tail text one. Tail text two."),
            ],
        ),
    ],
)
def test_prose_overlaps_and_code_and_tables_do_not(sizes: str, texts: list[str]) -> None:
    text = "One two three four. Five six.\n\n```\na = 1\nb = 2\n```\n\nAfter it come words. More words here."
    text += "\n\n| a |\n|---|\n| 1 |\n\nTail text one. Tail text two."
    chunks = open_chunker(f"markdown:{sizes}", lambda texts: None).chunk(Document("d", text))  # type: ignore[arg-type, return-value]
    assert [chunk.text for chunk in chunks] == texts


# -- show --


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "-"), (0.012, "$0.012"), (0.0999, "$0.1"), (0.1, "$0.10"), (12.345, "$12.35"), (1234.0, "$1234.00")],
)
def test_money_has_cents_from_a_dime_on(value: float, shown: str) -> None:
    assert money(value) == shown


# -- serve --


@pytest.mark.parametrize(("hard", "target"), [(4096, 4096), (resource.RLIM_INFINITY, 65536)])
def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be(
    monkeypatch: pytest.MonkeyPatch, hard: int, target: int
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1024, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: asked.append(limits))
    assert connection_room.open_files() == target
    assert asked == [(target, hard)]


# -- system --


def test_a_seal_is_bound_to_its_kind_and_older_ones_are_good_for_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    text = '{"a":1}'
    kinds = ("run", "figures", "recipe", "sweep")
    for kind in kinds:
        good = [each for each in kinds if is_ours(text, seal_of(text, kind), each)]
        assert good == [kind] and not is_ours(text + " ", seal_of(text, kind), kind)
    older = hmac.new((tmp_path / KEY).read_bytes(), text.encode(), "sha256").hexdigest()
    assert all(is_ours(text, older, kind) for kind in kinds) and not is_ours(text, None, "run")
