"""Task files of lm-evaluation-harness read no private file of the user, in whatever way they name it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from firsthand.bridges.lm_eval.data_guard import expect_below
from firsthand.bridges.lm_eval.task_files import read_yaml
from firsthand.bridges.lm_eval.task_loading import load_tasks
from firsthand.errors import ConfigError, DataError

TASK = """
task: mine
dataset_path: %s
test_split: train
output_type: generate_until
doc_to_text: "{{text}}"
doc_to_target: "x"
metric_list: [{metric: exact_match}]
"""


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("!!set {? /p.txt }", "!!set"),
        ("!!omap [a: /p.txt]", "!!omap"),
        ("!!pairs [a: /p.txt]", "!!pairs"),
        ("!!binary L3AudHh0", "!!binary"),
        ("!!python/tuple [/p.txt]", "!!python/tuple"),
        ("!other /p.txt", "!other"),
        ("[{a: {b: !!set {? /p.txt }}}]", "!!set"),
    ],
)
def test_a_task_file_has_plain_values_alone(tmp_path: Path, value: str, kind: str) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(f"task: x\ndataset_kwargs:\n  data_files: {value}\n")
    with pytest.raises(DataError) as refused:
        read_yaml(file)
    assert str(refused.value) == (
        f"{file} has a value of the type {kind} in line 3: text, numbers, lists and mappings are read; write it as one of "
        "these"
    )


def test_dates_of_a_task_file_are_text_and_other_values_are_themselves(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(
        "base: &b {x: 1}\nmore: {<<: *b, y: 0x10}\ndate: 2024-01-31\nat: 2024-01-31 10:00:00\nnone: ~\nyes: true\n"
        "f: 1.5\nlist: [a, *b]\ncall: !function m.f\nid: !!str 5\n"
    )
    assert read_yaml(file) == {
        "base": {"x": 1}, "more": {"x": 1, "y": 16}, "date": "2024-01-31", "at": "2024-01-31 10:00:00", "none": None,
        True: True, "f": 1.5, "list": ["a", {"x": 1}], "call": "m.f", "id": "5",
    }  # fmt: skip


def test_data_is_found_below_the_folders_and_on_the_web_alone(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out.txt"
    inside.mkdir()
    outside.touch()
    (inside / "link.txt").symlink_to(outside)
    for found in (
        inside / "a.txt",
        "https://x/a.txt",
        "hf://datasets/o/n@1/a",
        "zip://a::hf://x",
        f"zip://a::{inside}/b",
    ):
        expect_below(str(found), [tmp_path / "other", inside])
    for found in (outside, inside / "link.txt", f"file://{inside}/a", f"zip://a::{outside}", f"{outside}::https://x",
                  "file:///out::https://x", "ftp://x", "https", "hf"):  # fmt: skip
        with pytest.raises(ConfigError, match=r"outside of its folder.*:data=FOLDER$"):
            expect_below(str(found), [inside])


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("lm_eval"), reason="needs pip install 'firsthand[lm-eval]'")
@pytest.mark.parametrize("card", ["README.md", ".huggingface.yaml"])
def test_a_card_in_a_folder_of_data_names_no_file_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, card: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "p.txt").write_text("private line\n")
    data = tmp_path / "bench" / "data"
    data.mkdir(parents=True)
    (data / "a.txt").write_text("own line\n")
    file = tmp_path / "bench" / "t.yaml"
    file.write_text(TASK % data)
    marks = "---\n" if card == "README.md" else ""
    named = data / card
    named.write_text(f"{marks}configs:\n- config_name: default\n  data_files: a.txt\n{marks}")
    assert next(iter(load_tasks(str(file), "", False)[0].values())).dataset["train"]["text"] == ["own line"]
    named.write_text(named.read_text().replace("a.txt", str(tmp_path / "private" / "p.txt")))
    for trust in (False, True):
        with pytest.raises(ConfigError, match=r"private/p.txt', outside of its folder"):
            load_tasks(str(file), "", trust)
    allowed = load_tasks(str(file), "", False, str(tmp_path / "private"))[0]
    assert next(iter(allowed.values())).dataset["train"]["text"] == ["private line"]
