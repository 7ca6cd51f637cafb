"""Files of a given folder: no link leads out of it unseen."""

import logging
from pathlib import Path

import pytest

from firsthand.boards.board_spec import load_board
from firsthand.boards.read_results import read_results
from firsthand.contamination.corpus_texts import corpus_files
from firsthand.errors import ConfigError, DataError
from firsthand.system.given_folder import files_below, leads_out
from firsthand.train.documents import read_documents

SECRET = "AWS_SECRET_ACCESS_KEY=not-a-real-key\n"


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A folder of somebody else with a table of results, and links named like results to a file of the user."""
    (tmp_path / "mine.txt").write_text(SECRET)
    folder = tmp_path / "strange"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "scores.csv").write_text("model,benchmark,score\na,b,0.5\n")
    for name in ("x.json", "x.jsonl", "inner/x.csv", "x.txt"):
        (folder / name).symlink_to(tmp_path / "mine.txt")
    return folder


def test_a_walk_leaves_out_links_that_lead_out_and_tells_it(strange: Path, caplog: pytest.LogCaptureFixture):
    (strange / "again.csv").symlink_to("inner/scores.csv")
    with caplog.at_level(logging.WARNING, "firsthand"):
        found = files_below(strange)
    assert [str(each.relative_to(strange)) for each in found] == ["again.csv", "inner/scores.csv"]
    assert "4 of 6 files are links to files outside of the folder" in caplog.text
    assert files_below(strange, "*.json") == []


def test_a_folder_without_such_links_is_read_whole_and_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "real").mkdir()
    for name in ("b", "a"):
        (tmp_path / "real" / name).write_text("")
    (tmp_path / "named").symlink_to("real")
    assert [each.name for each in files_below(tmp_path / "named")] == ["a", "b"], "the folder itself may be a link"
    assert caplog.text == ""


def test_links_of_the_hubs_cache_to_its_blobs_are_read(tmp_path: Path):
    repo = tmp_path / "datasets--one--scores"
    (repo / "blobs").mkdir(parents=True)
    (repo / "blobs" / "ab12").write_text("model,benchmark,score\na,b,0.5\n")
    (repo / "refs").write_text(SECRET)
    revision = repo / "snapshots" / "c0ffee" / "data"
    revision.mkdir(parents=True)
    (revision / "scores.csv").symlink_to("../../../blobs/ab12")
    (revision / "refs.csv").symlink_to("../../../refs")
    for folder in (revision, revision.parent):
        assert [each.name for each in files_below(folder)] == ["scores.csv"]
    assert not leads_out(revision / "scores.csv", revision)


def test_no_board_quotes_a_file_that_a_link_in_its_folder_leads_to(strange: Path, tmp_path: Path):
    read = read_results([strange], tmp_path)
    assert [each.model for each in read.results] == ["a"]
    assert "not-a-real" not in " ".join(read.remarks)


def test_the_files_beside_a_result_are_read_through_no_link_that_leads_out(tmp_path: Path):
    run = tmp_path / "strange" / "run"
    run.mkdir(parents=True)
    (tmp_path / "mine.json").write_text('{"name": "not-a-real-name", "adapter_spec": {"model": "not-a-real-model"}}')
    (run / "run_spec.json").symlink_to(tmp_path / "mine.json")
    (run / "stats.json").write_text("[]")
    with pytest.raises(DataError, match="no file of results"):
        read_results([tmp_path / "strange"], tmp_path)
    task = tmp_path / "task.json"
    task.write_text('{"task_name": "T", "mteb_version": "1", "scores": {"test": [{"main_score": 0.5}]}}')
    (tmp_path / "mteb").mkdir()
    (tmp_path / "mteb" / "T.json").write_bytes(task.read_bytes())
    (tmp_path / "mteb" / "model_meta.json").symlink_to(tmp_path / "mine.json")
    assert "not-a-real" not in str(read_results([tmp_path / "mteb"], tmp_path))


def test_results_of_a_definition_lie_beside_it(strange: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (strange / "out").symlink_to(tmp_path)
    for named in (str(tmp_path), "..", "../mine.txt", "x.json", "out", "mine.txt", "nothing/here"):
        (strange / "b.toml").write_text(f'results = ["{named}"]\n')
        with pytest.raises(ConfigError, match="beside the definition"):
            load_board(str(strange / "b.toml"))
    for named in ("inner", "inner/scores.csv", "."):
        (strange / "b.toml").write_text(f'results = ["{named}"]\n')
        assert load_board(str(strange / "b.toml")).results == (str(strange / named),)
    (strange / "b.toml").write_text('results = ["last", "20260101-one"]\n')
    assert load_board(str(strange / "b.toml")).results == ("last", "20260101-one")


def test_neither_training_nor_a_corpus_reads_what_a_link_leads_to(strange: Path):
    assert [each.source for each in read_documents([strange])] == [str(strange / "inner" / "scores.csv")]
    assert corpus_files(strange) == [strange / "inner" / "scores.csv"]
