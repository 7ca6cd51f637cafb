"""Files of somebody else's that took memory or time without end, ran code, or ended in a traceback."""

import asyncio
import contextlib
import gzip
import io
import json
import os
import time
import zipfile

import pytest
from jsonschema import SchemaError

from firsthand.benchmarks.sources.datasets import contents
from firsthand.benchmarks.sources.own import read_benchmark
from firsthand.errors import ConfigError, DataError, ModelFileError, ToolError
from firsthand.loop.form import checked_answers, form_fields
from firsthand.retrieval.documents.docx_reader import read_docx
from firsthand.retrieval.documents.file_content import ReadSettings
from firsthand.runs.track_import import tracked_runs
from firsthand.serve.agents.agent_file import read_agent_file
from firsthand.tools.mcp import bounded_schema
from firsthand.tools.mcp.bounded_schema import ResultValidator
from firsthand.tools.mcp.definitions import ArgumentChecker, ToolDefinition, UnusableDefinition, spec_of
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from firsthand.train import documents


def doubling(keyword, depth=30):
    """A schema each of whose definitions refers to the next one twice: 2^depth steps."""
    defs = {f"d{n}": {keyword: [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(depth)}
    last = {f"d{depth}": {"type": "string"}} if keyword != "allOf" else {f"d{depth}": {"type": "object"}}
    return {"type": "object", "$defs": defs | last, "properties": {"a": {"$ref": "#/$defs/d0"}}}


def checker(schema):
    return ArgumentChecker(spec_of(ToolDefinition("t", "", schema, {}), ServerDeclaration("peer", command="x")))


@pytest.mark.slow
@pytest.mark.parametrize("keyword", ["allOf", "anyOf", "oneOf"])
def test_a_schema_of_a_server_that_doubles_its_steps_is_given_up(keyword):
    began = time.process_time()
    with pytest.raises(ToolError, match="takes too long to apply"):
        checker(doubling(keyword))({"a": {}})
    assert time.process_time() - began < 30
    if keyword != "oneOf":
        fits = {"a": {} if keyword == "allOf" else "x"}
        assert checker(doubling(keyword, 4))(fits) == fits


def test_arguments_that_are_compared_with_each_other_are_bounded():
    check = checker({"properties": {"a": {"uniqueItems": True}}})
    with pytest.raises(ToolError, match="takes too long"):
        check({"a": [{"k": n} for n in range(20_000)]})
    assert check({"a": [{"k": n} for n in range(50)]})
    with pytest.raises(ToolError, match="non-unique"):
        check({"a": [{"k": 1}, {"k": 1}]})


def test_additional_properties_are_refused_by_their_names_and_no_expression_is_searched():
    with pytest.raises(ToolError, match="'b'"):
        checker({"properties": {"a": {}}, "additionalProperties": False})({"a": 1, "b": 2})
    with pytest.raises(ToolError, match="is not of type 'integer'"):
        checker({"properties": {"a": {}}, "additionalProperties": {"type": "integer"}})({"b": "x"})
    smuggled = {"properties": {"patternProperties": {"type": "object"}, "b": {"$ref": "#/properties"}}}
    assert checker(smuggled)({"b": {"a": 1}})


@pytest.mark.slow
def test_a_dialect_named_within_a_schema_does_not_leave_the_count():
    schema = doubling("allOf")
    schema["$defs"]["d1"]["$schema"] = "http://json-schema.org/draft-07/schema#"
    with pytest.raises(ToolError, match="takes too long"):
        checker(schema)({"a": {}})


def test_a_schema_that_is_none_is_still_told():
    with pytest.raises(UnusableDefinition, match="no JSON schema"):
        checker({"properties": {"a": {"type": 5}}})


@pytest.mark.slow
def test_results_are_checked_in_bounded_time_and_without_expressions():
    slow = ResultValidator({"type": "object", "properties": {"t": {"pattern": "^(a+)+$"}}})
    assert list(slow.iter_errors({"t": "a" * 40 + "!"})) == []
    assert list(ResultValidator(doubling("allOf")).iter_errors({"a": {}})) == []
    assert list(ResultValidator({"type": "object"}).iter_errors([]))
    large = {"type": "object", "properties": {f"a{n}": {} for n in range(20_000)}}
    assert list(ResultValidator(large).iter_errors([])) == []


@pytest.mark.parametrize(
    ("schema", "answer"),
    [({"type": "integer"}, 10**400), ({"type": "number"}, 10**400)],
)
def test_a_number_that_no_float_holds_is_no_answer_to_a_form(schema, answer):
    with pytest.raises(ConfigError, match="does not fit"):
        checked_answers(form_fields({"properties": {"a": schema}}), {"a": answer})


def test_a_default_that_no_float_holds_is_not_offered():
    (field,) = form_fields({"properties": {"a": {"type": "integer", "default": 10**400}}})
    assert field.default is None and checked_answers((field,), {"a": None}) == {}


def test_bounds_of_a_form_that_no_float_holds_are_left_out():
    (field,) = form_fields({"properties": {"a": {"type": "integer", "minimum": 10**400, "maximum": -(10**400)}}})
    assert (field.least, field.most) == (None, None) and field.parse("3") == 3


def test_a_form_of_a_million_choices_is_refused_in_a_short_sentence():
    fields = form_fields({"properties": {"a": {"type": "string", "enum": [f"x{n}" for n in range(10_000)]}}})
    with pytest.raises(ConfigError) as told:
        checked_answers(fields, {"a": "q" * 5_000})
    assert len(str(told.value)) < 1_500


def docx(body):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as parts:
        space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
        parts.writestr("word/document.xml", f"<w:document {space}><w:body>{body}</w:body></w:document>")
    return file.getvalue()


@pytest.mark.slow
def test_a_cell_of_many_paragraphs_is_read_in_linear_time():
    count = 150_000
    cell = "".join(f"<w:p><w:r><w:t>{n}</w:t></w:r></w:p>" for n in range(count))
    body = docx(f"<w:tbl><w:tr><w:tc>{cell}</w:tc><w:tc><w:p><w:r><w:t>b</w:t></w:r></w:p></w:tc></w:tr></w:tbl>")
    began = time.process_time()
    (found,) = read_docx(body, "a.docx", ReadSettings()).documents
    assert time.process_time() - began < 5  # 10 s when each paragraph copied the cell
    assert found.text.startswith("| 0 1 2 3 ") and found.text.rstrip().endswith(f"{count - 1} | b |")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (".".join(["a"] * 65) + " = 1", "more than 64 parts"),
        ("x = {" + ".".join(['"a"'] * 65) + " = 1}", "more than 64 parts"),
        ("max-tokens = " + "9" * 5_000, "digits"),
        ("model = " + "[" * 50_000, "not valid TOML"),
    ],
)
def test_toml_that_takes_memory_or_ends_in_a_traceback_is_a_sentence(tmp_path, text, said):
    (tmp_path / "agent.toml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_agent_file(tmp_path / "agent.toml")


def test_toml_of_sixty_parts_of_long_text_and_of_endless_devices(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text('model = "scripted"\n# ' + "word. " * 1000 + '\ndescription = "' + "a.b. " * 20 + '"\n')
    assert read_agent_file(path).model == "scripted"
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="more than 16,777,216 bytes"):
        read_agent_file(path)


def test_a_pipe_or_a_device_in_a_folder_is_no_table(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    for name in ("pipe.csv", "zero.csv"):
        with pytest.raises(DataError, match="no ordinary file"):
            contents(tmp_path / name)


def test_a_target_of_five_thousand_digits_is_no_choice(tmp_path):
    (tmp_path / "d.csv").write_text("q,a,c,d\nx," + "9" * 5_000 + ",u,v\n")
    (tmp_path / "b.toml").write_text('data = "d.csv"\nprompt = "{q}"\ntarget = "{a}"\nchoices = ["{c}", "{d}"]\n')
    with pytest.raises(DataError, match="is not a letter, index") as told:
        read_benchmark(tmp_path / "b.toml")
    assert len(str(told.value)) < 400


def test_parameters_of_mlflow_that_lead_out_of_the_run_are_not_read(tmp_path):
    (tmp_path / "secret").write_text("TOP SECRET")
    run = tmp_path / "mlruns" / "0" / "run"
    for name in ("metrics", "params", "tags"):
        (run / name).mkdir(parents=True)
    (run / "meta.yaml").write_text("a: 1")
    (run / "metrics" / "loss").write_text("1000 2.5 0\n2000 1.5 1\n")
    (run / "params" / "lr").write_text("0.1")
    (run / "params" / "key").symlink_to(tmp_path / "secret")
    (run / "tags" / "mlflow.runName").symlink_to(tmp_path / "secret")
    (found,) = tracked_runs(tmp_path / "mlruns")
    assert found.config == {"lr": "0.1"} and found.name == "run"
    assert [each.value for each in found.values] == [2.5, 1.5]
    with (run / "metrics" / "big").open("wb") as file:
        file.truncate(1 << 28)
    with pytest.raises(DataError, match="line of more than"):
        list(tracked_runs(tmp_path / "mlruns"))


def test_a_line_of_an_imported_memory_runs_no_file_that_it_names(tmp_path, cli):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (tmp_path / "facts.jsonl").write_text(json.dumps({"text": "a", "kind": str(tmp_path / "evil.py")}) + "\n")
    code, _, err = cli("memory", "import", str(tmp_path / "m.db"), str(tmp_path / "facts.jsonl"))
    assert code != 0 and "the name of an installed memory was expected" in err
    assert not (tmp_path / "ran").exists()
    (tmp_path / "facts.jsonl").write_text(json.dumps({"text": "a", "kind": "semantic"}) + "\n")
    code, out, _ = cli("memory", "import", str(tmp_path / "m.db"), str(tmp_path / "facts.jsonl"))
    assert (code, out) == (0, "imported 1 new item\n")


def test_a_gzip_file_of_one_endless_line_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MAX_LINE_BYTES", 1 << 20)
    with gzip.open(tmp_path / "a.jsonl.gz", "wb", 1) as file:
        file.write(b" " * (3 << 20))
    with pytest.raises(DataError, match="line of more than 1 MiB after byte 0"):
        list(documents.json_lines(tmp_path / "a.jsonl.gz"))
    with gzip.open(tmp_path / "b.jsonl.gz", "wb", 1) as file:
        file.write(b'{"text": "a"}' + b" " * ((1 << 20) - 14) + b"\n")
    assert len(list(documents.json_lines(tmp_path / "b.jsonl.gz"))) == 1


def test_settings_of_an_autoencoder_are_an_ordinary_file_and_k_a_whole_number(tmp_path):
    pytest.importorskip("torch")
    from firsthand.interp.saes.sae_files import read_sae
    from firsthand.interp.saes.topk_sae import expect_k

    os.mkfifo(tmp_path / "cfg.json")
    with pytest.raises(ModelFileError, match="no ordinary file"):
        read_sae(tmp_path)
    for wrong in (1.5, True, float("nan")):
        with pytest.raises(ConfigError, match="k is"):
            expect_k(wrong, 8)
    expect_k(8, 8)


def test_the_sdk_checks_results_by_our_validator():
    from firsthand.tools.mcp.connection import _validator_of

    assert isinstance(_validator_of("t", {"type": "object"}), ResultValidator)
    with pytest.raises(RuntimeError, match="Invalid schema for tool t"):
        _validator_of("t", {"type": 5})
    from mcp.client.session import ClientSession

    assert asyncio.iscoroutinefunction(ClientSession.validate_tool_result)
    assert "_output_schema_validator" in ClientSession.validate_tool_result.__code__.co_names


@pytest.mark.slow
def test_a_template_that_names_a_long_column_again_and_again_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"q": "x" * 2**20, "a": "1"}) for _ in range(40)))
    for times, said in ((17, "becomes longer than 16,777,216 characters"), (15, "larger than 256 MiB")):
        (tmp_path / "b.toml").write_text(f'data = "rows.jsonl"\nprompt = "{"{q}" * times}"\ntarget = "{{a}}"\n')
        with pytest.raises(DataError, match=said):
            read_benchmark(tmp_path / "b.toml")
    (tmp_path / "b.toml").write_text('data = "rows.jsonl"\nprompt = "{q}{q}{q}{q}"\ntarget = "{a}"\n')
    assert len(read_benchmark(tmp_path / "b.toml").tasks(0)) == 40


@pytest.mark.slow
def test_examples_that_every_prompt_repeats_are_bounded(tmp_path):
    rows = [json.dumps({"q": f"{number} " + "x" * 2**18, "a": "1"}) for number in range(41)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    about = 'data = "rows.jsonl"\nexamples = "rows.jsonl"\nprompt = "{q}"\ntarget = "{a}"\nshots = '
    (tmp_path / "b.toml").write_text(f"{about}40\n")  # 40 prompts of 10 MiB
    with pytest.raises(DataError, match="larger than 256 MiB"):
        read_benchmark(tmp_path / "b.toml")
    (tmp_path / "b.toml").write_text(f"{about}5\n")
    assert len(read_benchmark(tmp_path / "b.toml").tasks(0)[0].prompt) > 6 * 2**18


@pytest.mark.slow
def test_a_schema_is_checked_once_whatever_comes_of_it(monkeypatch):
    empty = {"type": "object", "properties": {f"p{number}": {"anyOf": [{}] * 3} for number in range(300)}}
    wrong = {"type": "object", "properties": {"p": {"type": 5}}}
    for schema in (empty, empty, wrong, wrong):
        before = bounded_schema._fault.cache_info()
        with contextlib.suppress(SchemaError):
            bounded_schema.BoundedValidator(schema)
    assert bounded_schema._fault.cache_info().hits == before.hits + 1
    with pytest.raises(SchemaError):
        bounded_schema.BoundedValidator(wrong)
    monkeypatch.setattr(bounded_schema, "MAX_READING_STEPS", 2)
    for _ in range(2):
        with pytest.raises(bounded_schema.TooManySteps):
            bounded_schema.BoundedValidator(empty | {"title": "another"})
