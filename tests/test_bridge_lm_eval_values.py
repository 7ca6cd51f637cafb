"""Values of a task file of lm-evaluation-harness: each is looked at once, the empty ones too."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.bridges.lm_eval import result_models
from firsthand.bridges.lm_eval.result_models import ResultModels
from firsthand.bridges.lm_eval.sample_lines import import_samples
from firsthand.bridges.lm_eval.task_files import code_in
from firsthand.bridges.lm_eval.task_yaml import leaves
from firsthand.commands.studio_transfer import import_logs
from firsthand.errors import DataError
from firsthand.runs import store


def test_every_value_of_a_task_file_is_looked_at_the_empty_ones_too(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "class: 0\nb: {include: false, data_dir: '', d: {}}\nmetric: [null, [0.0, {hf_evaluate: x}], []]\n"
        "loop: &l [!function f, *l]\nuse_prompt: {class: {use_prompt: [3, 3]}}\n"
    )
    assert [(key, value) for key, value, _ in leaves(path)] == [
        ("class", 0), ("include", False), ("data_dir", ""), ("metric", None), ("", "f"), ("metric", 0.0),
        ("hf_evaluate", "x"), ("use_prompt", 3), ("use_prompt", 3),
    ]  # fmt: skip
    path.write_text("odd: !function ''\nclass: ''\nhf_evaluate: false\nuse_prompt: 0\nclasses: x.Y\n")
    assert code_in(path, ()) == ["!function  (a.yaml)"]


def test_samples_of_more_json_values_than_are_decoded_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firsthand.bridges.lm_eval.sample_lines.MAX_VALUES", 1000)
    row = {"doc_id": 0, "doc": {}, "target": "", "filtered_resps": ["a"], "acc": 1.0}  # seven marks
    path = tmp_path / "samples_t.jsonl"
    path.write_text("\n".join(json.dumps(row | {"doc_id": number}) for number in range(142)))
    assert import_samples(path, tmp_path / "home")[1] == 142
    path.write_text(path.read_text() + "\n" + json.dumps(row | {"doc_id": 142, "target": ",{[" * 1000}))
    with pytest.raises(DataError, match=r"samples_t\.jsonl, line 143: more than 1,000 JSON values up to this line"):
        import_samples(path, tmp_path / "home")
    path.write_text(json.dumps(row | {"x": [{}] * 600}))
    with pytest.raises(DataError, match="line 1: more than 1,000"):
        import_samples(path, tmp_path / "home")


def test_a_model_is_not_read_from_results_of_too_many_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m").mkdir()
    path = tmp_path / "m" / "samples_t.jsonl"
    (tmp_path / "m" / "results_1.json").write_text(json.dumps({"model_name": "told", "x": [0] * 97}))  # 99 marks
    assert ResultModels().of(path) == "told"
    monkeypatch.setattr("firsthand.bridges.lm_eval.result_models.MAX_RESULTS_VALUES", 99)
    assert ResultModels().of(path) == "told"
    monkeypatch.setattr("firsthand.bridges.lm_eval.result_models.MAX_RESULTS_VALUES", 98)
    assert ResultModels().of(path) == "m"


def test_results_beside_many_samples_are_read_once_for_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read: list[int] = []
    monkeypatch.setattr(result_models, "values_in", lambda text, most: read.append(len(text)) or 0)
    row = {"doc_id": 0, "doc": {}, "target": "", "filtered_resps": ["a"], "acc": 1.0}
    for name, told in (("m", {}), ("n", {"model_name": "told"})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results_1.json").write_text(json.dumps(told))
        for number in range(3):
            (tmp_path / name / f"samples_t{number}.jsonl").write_text(json.dumps(row))
    (tmp_path / "m" / "results_2.json").symlink_to("results_1.json")
    (tmp_path / "n" / "results_0.json").symlink_to("../m/results_1.json")
    home = tmp_path / "home"
    assert import_logs(tmp_path, home) == 0
    assert read == [2, len('{"model_name": "told"}')], "each file once, whatever its names"
    runs = [store.open_run(line.split()[-1], home) for line in capsys.readouterr().out.splitlines()]
    assert [[*run.agents()] for run in runs] == [["m"]] * 3 + [["told"]] * 3


def test_an_agent_of_several_filters_is_kept_with_its_filter_in_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, Any] = {}
    traces: list[Any] = []
    run = SimpleNamespace(id="r", add_agent=kept.__setitem__, add_tasks=lambda *_: None, append=traces.append)
    monkeypatch.setattr("firsthand.bridges.lm_eval.sample_lines.whole_run", lambda *_: nullcontext(run))
    row = {"doc_id": 0, "doc": {}, "target": "", "filtered_resps": ["a"], "acc": 1.0}
    path = tmp_path / "samples_t.jsonl"
    (tmp_path / "results_1.json").write_text(json.dumps({"model_name": "told"}))
    for filters, names in ((["strict"], ["told"]), (["strict", "loose"], ["told:strict", "told:loose"])):
        kept.clear()
        traces.clear()
        path.write_text("\n".join(json.dumps(row | {"filter": each}) for each in filters))
        assert import_samples(path, tmp_path / "home") == ("r", len(filters))
        assert kept == {name: {"name": name, "model": "told"} for name in names}
        assert [each.agent for each in traces] == list(kept.values()), "as each attempt has it"
