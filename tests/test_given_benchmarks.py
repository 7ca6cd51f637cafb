"""Data of a benchmark that may be somebody else's: no name and no link leads to a private file of the user."""

from pathlib import Path

import pytest

from firsthand import catalog
from firsthand.benchmarks.retrieval_sets.beir_folder import existing, read_corpus
from firsthand.benchmarks.retrieval_sets.set_folder import file_in
from firsthand.benchmarks.sources.datasets import in_folder, located
from firsthand.bridges.lm_eval.task_data import expect_own_data
from firsthand.errors import ConfigError, DataError
from firsthand.system.given_data import held, is_own, named_data

TOML = 'data = "{}"\nprompt = "What is {{x}}?"\ntarget = "{{y}}"\n'
TABLE = "x,y\none,two\n"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of somebody else, beside a table of the user."""
    monkeypatch.setenv("FIRSTHAND_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    (tmp_path / "mine.csv").write_text(TABLE)
    (tmp_path / "bench").mkdir()
    return tmp_path / "bench"


def described(bench: Path, data: str, more: str = "") -> Path:
    (bench / "b.toml").write_text(TOML.format(data) + more)
    return bench / "b.toml"


def test_a_table_outside_of_the_benchmarks_folder_is_refused_by_name_and_through_a_link(bench: Path) -> None:
    (bench / "link.csv").symlink_to(bench.parent / "mine.csv")
    (bench / "sub").symlink_to(bench.parent)
    (bench / "rows.csv").write_text(TABLE)
    for data in ("../mine.csv", "link.csv", "sub/mine.csv", str(bench.parent / "mine.csv")):
        with pytest.raises(DataError, match=f"outside of its folder.*:data={bench.parent}$"):
            catalog.benchmark(str(described(bench, data)))
    with pytest.raises(DataError, match="outside of its folder"):
        catalog.benchmark(str(described(bench, "rows.csv", 'shots = 1\nexamples = "../mine.csv"\n')))


def test_a_table_beside_or_below_and_one_in_a_folder_that_the_user_allows_is_read(bench: Path) -> None:
    (bench / "sub").mkdir()
    for place in ("rows.csv", "sub/rows.csv"):
        (bench / place).write_text(TABLE)
        assert catalog.benchmark(str(described(bench, place))).tasks(0)[0].prompt == "What is one?"
    (bench / "again.csv").symlink_to("sub/rows.csv")
    assert catalog.benchmark(str(described(bench, "again.csv"))).tasks(0)
    assert catalog.benchmark(f"{described(bench, '../mine.csv')}:data={bench.parent}").tasks(0)
    with pytest.raises(DataError, match="outside of its folder"):
        catalog.benchmark(f"{described(bench, '../mine.csv')}:data={bench}")


def test_a_link_out_of_a_data_folder_is_refused_and_those_of_your_own_are_followed(bench: Path) -> None:
    (bench.parent / "mine.jsonl").write_text('{"_id": "1", "text": "my private note"}\n')
    (bench.parent / "data" / "retrieval" / "x").mkdir(parents=True)
    own = bench.parent / "data" / "retrieval" / "x"
    for folder in (bench, own):
        (folder / "corpus.jsonl").symlink_to(bench.parent / "mine.jsonl")
    for read in (
        lambda: read_corpus(bench),
        lambda: existing(bench, "corpus.jsonl"),
        lambda: file_in(bench, "corpus.jsonl"),
        lambda: in_folder(bench, "data", "corpus.jsonl"),
        lambda: located("retrieval/corpus.jsonl", str(bench)),
    ):
        with pytest.raises(DataError, match=r"outside of the folder.*set FIRSTHAND_DATA"):
            read()
    assert read_corpus(own)[0].text == "my private note"
    assert located("retrieval/x/corpus.jsonl", "") == own / "corpus.jsonl"
    assert in_folder(bench / "corpus.jsonl", "data", "any.jsonl") == bench / "corpus.jsonl", (
        "a file that the user types"
    )


def test_a_folder_is_your_own_by_where_it_lies_and_not_by_how_its_path_begins(bench: Path) -> None:
    own = bench.parent / "data"
    own.mkdir()
    for folder in (own, bench):
        (folder / "corpus.jsonl").symlink_to(bench.parent / "mine.csv")
    (bench.parent / "shortcut").symlink_to(own)
    for folder in (own, bench.parent / "shortcut", bench / ".." / "data"):
        assert held(folder / "corpus.jsonl", folder) == folder / "corpus.jsonl"
    with pytest.raises(DataError, match=r"outside of the folder .*set FIRSTHAND_DATA"):
        held(own / ".." / "bench" / "corpus.jsonl", own / ".." / "bench")


def test_the_folder_that_a_user_allows_may_be_one_of_the_home_folder(
    bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(bench.parent))
    assert named_data(bench / "b.toml", "../mine.csv", "~") == bench / "../mine.csv"
    monkeypatch.setenv("FIRSTHAND_DATA", "~/data")
    assert is_own(bench.parent / "data" / "sets") and not is_own(bench)


@pytest.mark.parametrize(
    "body",
    [
        "dataset_path: json\ndataset_kwargs: {data_files: {test: MINE}}",
        "dataset_path: text\ndataset_kwargs: {data_files: [../mine.csv]}",
        "dataset_path: text\ndataset_kwargs: {data_files: none/../mine.csv}",
        "dataset_path: text\ndataset_kwargs: {data_files: mine.csv}",
        "dataset_path: text\ndataset_kwargs: {data_files: 'm*.csv'}",
        "dataset_path: text\ndataset_kwargs: {data_files: 'file://MINE'}",
        "dataset_path: text\ndataset_kwargs: {data_files: bench/link.csv}",
        "dataset_path: text\ndataset_kwargs: {data_dir: bench}",
        "task: [{task: inner, dataset_path: ..}]",
        "include: sub/inner.yaml",
    ],
)
def test_data_of_a_task_file_of_lm_eval_lies_below_it_or_where_the_user_allows(
    bench: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.chdir(bench.parent)
    (bench / "link.csv").symlink_to("../mine.csv")
    (bench / "sub").mkdir()
    (bench / "sub" / "inner.yaml").write_text("dataset_path: text\ndataset_kwargs: {data_files: mine.csv}\n")
    task = bench / "t.yaml"
    task.write_text(body.replace("MINE", str(bench.parent / "mine.csv")))
    with pytest.raises(ConfigError, match=r"outside of its folder.*:data=FOLDER"):
        expect_own_data(task)
    if "://" not in body and ".." not in body:
        expect_own_data(task, str(bench.parent))


def test_names_of_the_hub_web_addresses_and_files_below_a_task_file_are_read(
    bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bench.parent)
    (bench / "rows.json").write_text("[]")
    for body in (
        "dataset_path: allenai/ai2_arc\ndataset_name: ARC-Easy",
        "dataset_path: json\ndataset_kwargs: {data_files: {test: bench/rows.json}, trust_remote_code: true}",
        f"dataset_path: json\ndataset_kwargs: {{data_files: '{bench}/*.json'}}",
        "dataset_path: json\ndataset_kwargs: {data_files: 'https://example.org/rows.json'}",
        "dataset_path: org/set\ndataset_kwargs: {data_files: test.jsonl, revision: main}",
    ):
        (bench / "t.yaml").write_text(body)
        expect_own_data(bench / "t.yaml")
