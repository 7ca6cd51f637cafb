"""Search by terms: BM25 by its definition, and without the import or compilation of kernels."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from firsthand.retrieval.store.term_postings import K1, B, TermPostings

LARGEST = 2**32 - 1
ASKED = """
import asyncio, sys
from pathlib import Path
from firsthand.commands.rag_ask import AnswerFlags, Config, answer_body
from firsthand.commands import rag_index
folder = Path(sys.argv[1])
assert rag_index.run(rag_index.Config((str(folder),), model="none")) == 0
asked = Config("How long do refunds take?", folder / ".firsthand-index", AnswerFlags(model="none"))
body = asyncio.run(answer_body(asked))
assert "ten days" in body["text"], body
print(sorted(each for each in ("numba", "llvmlite", "torch") if each in sys.modules))
"""


def test_a_question_to_an_index_of_terms_alone_imports_no_compiler(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Shipping\n\nOrders ship in two days. Refunds take ten days.\n")
    (tmp_path / "b.txt").write_text("The office is in Lyon.\n")
    ran = subprocess.run([sys.executable, "-c", ASKED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "[]"
    assert "compiling" not in ran.stderr


def rows_of(*rows: dict[int, int]) -> TermPostings:
    made = TermPostings()
    words = [np.array(list(row.items()), dtype="<u4").tobytes() for row in rows]
    made.append([sum(row.values()) for row in rows], words, LARGEST)
    made.join()
    return made


@pytest.mark.parametrize("rare", [3, 2**16 + 1, LARGEST])
def test_scores_of_terms_are_bm25_by_its_definition(rare: int) -> None:
    rows = [{1: 2, rare: 1}, {1: 1, 2: 4}, {2: 1}, {rare: 3, 2: 2, 1: 1}]
    alive = np.array([True, True, False, True])
    for living in (np.ones(4, dtype=bool), alive):
        held = [row for row, lives in zip(rows, living, strict=True) if lives]
        mean = sum(sum(row.values()) for row in held) / len(held)
        expected = np.zeros(4)
        for word, times in ((1, 1), (rare, 2)):
            holding = sum(word in row for row in held)
            idf = math.log(1 + (len(held) - holding + 0.5) / (holding + 0.5))
            for at, row in enumerate(rows):
                count = row.get(word, 0)
                expected[at] += times * idf * count / (count + K1 * (1 - B + B * sum(row.values()) / mean))
        found = rows_of(*rows).scores([(1, 1), (rare, 2)], living, len(held))
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_postings_are_sorted_by_word_and_keep_the_order_of_rows() -> None:
    [segment] = rows_of({4: 1}, {1: 2}, {4: 3, 0: 4}, {1: 5}, {4: 6})._segments
    assert segment.words.tolist() == [0, 1, 4] and segment.starts.tolist() == [0, 1, 3, 6]
    assert (segment.rows.tolist(), segment.counts.tolist()) == ([2, 1, 3, 0, 2, 4], [4, 2, 5, 1, 3, 6])
    assert [segment.bounds(word) for word in (0, 1, 3, 4, 9)] == [(0, 1), (1, 3), (0, 0), (3, 6), (0, 0)]
    [empty] = rows_of({}, {})._segments
    assert empty.bounds(0) == (0, 0) and empty.starts.tolist() == [0]


def test_a_word_that_a_foreign_file_has_twice_in_a_row_counts_twice() -> None:
    made = TermPostings()
    made.append([2, 2], [np.array([[1, 1], [1, 1]], dtype="<u4").tobytes(), b""], 1)
    made.join()
    once = rows_of({1: 1, 2: 1}, {3: 2}).scores([(1, 1)], np.ones(2, dtype=bool), 2)
    twice = made.scores([(1, 1)], np.ones(2, dtype=bool), 2)
    idf = {holding: math.log(1 + (2 - holding + 0.5) / (holding + 0.5)) for holding in (1, 2)}
    assert twice[0] / idf[2] == pytest.approx(2 * once[0] / idf[1])
