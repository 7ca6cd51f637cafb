"""A folder of mixed files: what is told, and the exit code."""

import asyncio
import re
from pathlib import Path

import pytest

from firsthand.commands import rag_index
from firsthand.errors import ToolError
from firsthand.retrieval.documents.folder_files import FolderFilter, LeftOut, walk
from firsthand.tools.fetch import fetch

LOG = '{"msg": "up", "level": "info"}\n' * 150


def indexed(*sources: Path, **settings: str) -> int:
    return rag_index.run(rag_index.Config(tuple(map(str, sources)), model="none", **settings))  # type: ignore[arg-type]


def test_a_log_of_json_lines_in_a_folder_is_a_note_and_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.md").write_text("# Shipping\n\nTwo days.\n")
    (tmp_path / "log.jsonl").write_text(LOG)
    assert indexed(tmp_path) == 0
    told = capsys.readouterr().out
    assert "notes: log.jsonl: no line has a text in a field 'text or contents': name the field by --text-field" in told
    assert "documents: 1 added\n" in told and "failed" not in told
    (tmp_path / "log.jsonl").write_text(LOG + '{"text": "a document"}\n')  # one that is a corpus, with bad lines
    assert indexed(tmp_path) == 3
    (tmp_path / "log.jsonl").write_text(LOG)
    assert indexed(tmp_path) == 3, "what was read from it before stays, so this is told as a failure"


def test_a_log_that_was_named_itself_or_lacks_a_named_field_fails(tmp_path: Path) -> None:
    (log := tmp_path / "log.jsonl").write_text(LOG)
    (tmp_path / "a.md").write_text("Two days.\n")
    assert indexed(log, index=tmp_path / "own.index") == 3  # type: ignore[arg-type]
    assert indexed(tmp_path, index=tmp_path / "all.index", text_field="said") == 3  # type: ignore[arg-type]


def test_a_hidden_file_without_an_ending_is_left_out_for_what_it_is(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1")
    [left] = walk(tmp_path, FolderFilter(), frozenset())
    assert left == LeftOut(".env", "a hidden file whose name has no ending: not a kind that is read", False)


@pytest.mark.parametrize(
    ("allow", "ports", "spec"),
    [("127.0.0.1", "80+443", "fetch:allow=127.0.0.1:ports=80+443+18978"), ("", "8080", "fetch:ports=8080+18978")],
)
def test_a_port_that_is_refused_names_the_spec_that_allows_it(allow: str, ports: str, spec: str) -> None:
    asked = fetch(allow=allow, ports=ports).run({"url": "http://127.0.0.1:18978/"})
    with pytest.raises(ToolError, match=f"may: the spec {re.escape(spec)} allows it too$"):
        asyncio.run(asked)
