"""Code and data of a task file of lm-evaluation-harness are found wherever YAML lets them hide, and code is not imported."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from firsthand.bridges.lm_eval.task_data import expect_own_data
from firsthand.bridges.lm_eval.task_files import code_in, names_in
from firsthand.bridges.lm_eval.task_yaml import Leaf, leaves, read_yaml
from firsthand.errors import ConfigError, DataError

pytest.importorskip("yaml")
needs_harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="needs pip install 'firsthand[lm-eval]'"
)
TASK = (
    "task: mine\ndataset_path: json\ndataset_kwargs: {data_files: {test: d.jsonl}}\ntest_split: test\n"
    'output_type: generate_until\ndoc_to_text: "{{q}}"\ndoc_to_target: "{{a}}"\nmetric_list: [{metric: exact_match}]\n'
)
HIDDEN = {
    "key": "metadata: {? !function evil.f : 1}\n",
    "first of two": "metadata: !function evil.f\nmetadata: {version: 1}\n",
    "anchor": "metadata: &m {a: !function evil.f}\nmetadata: {b: *m}\nmetadata: 1\n",
    "merge": "metadata: {<<: {a: !function evil.f}, a: 1}\n",
    "verbatim": "metadata: {? !<!function> evil.f : 1}\n",
    "value": "metadata: !function {=: evil.f}\n",
}


COLLECTIONS = [
    "!!set {? !function evil.f }",
    "!!pairs [x: !function evil.f]",
    "!!omap [x: !function evil.f]",
    "!!set {x}",
]


@pytest.mark.parametrize("text", COLLECTIONS)
def test_sets_and_pairs_in_which_code_may_hide_are_no_values(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.yaml").write_text(f"{TASK}metadata: {{a: {text}}}\n")
    with pytest.raises(DataError, match=rf"t\.yaml has a value of the type {text.split()[0]} in line 9"):
        code_in(tmp_path / "t.yaml", ("exact_match",))


@pytest.mark.parametrize("text", HIDDEN.values(), ids=HIDDEN)
def test_a_function_is_found_in_keys_twins_and_merges(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.yaml").write_text(TASK + text)
    name = "?" if "=:" in text else "evil.f"
    assert code_in(tmp_path / "t.yaml", ("exact_match",)) == [f"!function {name} (t.yaml)"]
    (tmp_path / "u.yaml").write_text("x: &x [t.yaml]\ninclude: *x\n")
    assert code_in(tmp_path / "u.yaml", ("exact_match",)) == [f"!function {name} (t.yaml)"], "in a list with two names"


def test_a_tag_with_a_handle_of_its_own_is_the_same_tag(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("%TAG !f! !func\n---\ntask: t\na: {? !f!tion evil.f : 1}\n")
    assert code_in(tmp_path / "t.yaml", ()) == ["!function evil.f (t.yaml)"]


@needs_harness
@pytest.mark.slow
@pytest.mark.parametrize("text", [HIDDEN[name] for name in ("key", "first of two", "value")])
def test_the_import_itself_is_refused_without_trust_whatever_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    from firsthand.bridges.lm_eval import task_loading

    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("open('RAN', 'w')\ndef f(): pass\n")
    (tmp_path / "d.jsonl").write_text('{"q": "1", "a": "1"}\n')
    (tmp_path / "t.yaml").write_text(TASK + text)
    with pytest.raises(ConfigError, match=r"t\.yaml runs code of its author with your rights"):
        task_loading.load_tasks("t.yaml", "", False)
    monkeypatch.setattr(task_loading, "code_in", lambda *_: [])
    with pytest.raises(
        ConfigError, match=r"runs code of its author with your rights: !function evil\.f\. Read it, then"
    ):
        task_loading.load_tasks("t.yaml", "", False)
    assert not (tmp_path / "RAN").exists()


@needs_harness
@pytest.mark.slow
def test_functions_of_the_harness_and_those_that_are_trusted_are_imported(tmp_path: Path) -> None:
    from lm_eval.tasks import _yaml_loader

    from firsthand.bridges.lm_eval.function_guard import functions_of_the_harness_alone

    (tmp_path / "mine_here.py").write_text("def f(): return 7\n")
    own = Path(_yaml_loader.__file__).parent
    with functions_of_the_harness_alone(False):
        assert _yaml_loader._import_func_in_yml("os.path.join", own)("a", "b") == "a/b"
        for folder in (tmp_path, own.parent.parent):
            with pytest.raises(ConfigError, match="!function mine_here"):
                _yaml_loader._import_func_in_yml("mine_here.f", folder)
        with functions_of_the_harness_alone(True):
            assert _yaml_loader._import_func_in_yml("mine_here.f", tmp_path)() == 7
        with pytest.raises(ConfigError, match="with your rights"):
            _yaml_loader._import_func_in_yml("mine_here.f", tmp_path)
    assert _yaml_loader._import_func_in_yml("mine_here.f", tmp_path)() == 7, "a program's own use is as it was"


def test_what_names_code_is_found_beside_its_twin_and_below_another_name(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    for text in (
        "m: {metric: ./evil, metric: acc}",
        "m: {metric: !!str {=: ./evil}}",
        "m: {metric: !!str {!!value x: ./evil}}",
        "x: &x [./evil]\nmetric: *x",
    ):
        path.write_text(text)
        assert code_in(path, ("acc",)) == ["metric: ./evil, which is none of lm-eval's own (t.yaml)"], text
    path.write_text("? !!str {=: metric}\n: ./evil\n")
    with pytest.raises(DataError, match="a key is a list or a mapping, where text was expected"):
        code_in(path, ())


def test_data_elsewhere_is_found_in_twins_and_names_of_splits_are_no_paths(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "d.jsonl").write_text("{}")
    path = tmp_path / "tasks" / "t.yaml"
    far = tmp_path / "d.jsonl"
    for text in (f"!!str {{=: {far}}}", f"{far}\ndata_files: 1"):
        path.write_text(f"data_files: {text}\n")
        with pytest.raises(ConfigError, match="outside of its folder"):
            expect_own_data(path)
    path.write_text(f"data_files: {{{far}: rows.jsonl}}\ntask: {far}\n")
    expect_own_data(path)


def test_a_group_lists_the_tasks_of_what_it_includes(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("group: g\ninclude: more.yaml\n")
    (tmp_path / "more.yaml").write_text("task: [evil, {task: other}]\n")
    assert names_in(tmp_path / "g.yaml") == ["evil", "other"]


def test_ordinary_files_are_read_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(TASK + "metadata: {version: 1.0, version: 2.0, 3: [a, {b: c}], d: !!timestamp 2020-01-01}\n")
    assert code_in(path, ("exact_match",)) == []
    assert read_yaml(path)["metadata"]["version"] == 2.0
    assert leaves(path) == [
        Leaf("dataset_path", "json", True), Leaf("", "d.jsonl", True), Leaf("metric", "exact_match", False),
    ]  # fmt: skip


def test_merges_that_copy_one_mapping_over_and_over_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firsthand.bridges.lm_eval.task_yaml.MAX_MERGED", 40)
    path = tmp_path / "t.yaml"
    path.write_text("a: &a {x: 1, y: 2, z: 3}\nb: [" + "{<<: *a}, " * 10 + "]\n")  # ten merges of three keys
    assert read_yaml(path)["b"] == [{"x": 1, "y": 2, "z": 3}] * 10
    path.write_text("a: &a {x: 1, y: 2, z: 3}\nb: [" + "{<<: [*a]}, " * 11 + "]\n")
    with pytest.raises(DataError, match=r"merges \(<<\) copy more than 40 keys"):
        read_yaml(path)
    path.write_text("a: &a {<<: *a}\n")
    with pytest.raises(DataError, match="is not YAML"):
        read_yaml(path)


@pytest.mark.parametrize("text", ["a: !!int ''", "a: !!bool x", "a: {? [1] : 2}", "metric: !!seq x"])
def test_a_value_that_its_tag_does_not_fit_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(DataError, match=r"t\.yaml is not YAML: "):
        read_yaml(tmp_path / "t.yaml")
