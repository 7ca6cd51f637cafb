import asyncio
import inspect
import json
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from firsthand import benchmarks, catalog
from firsthand.benchmark import Benchmark
from firsthand.cli import main
from firsthand.commands.completion import complete
from firsthand.errors import ConfigError, UnknownName
from firsthand.memories.notes import notes
from firsthand.system.option_spec import Spec, parse_spec

PATTERN = '''
async def shout(task, ctx, *, times: int = 1, loud: bool = False) -> str:
    """Return the question, shouted."""
    return task.prompt.upper() * times

async def other(task, ctx) -> str:
    return "other"
'''


def test_a_name_may_carry_options():
    assert parse_spec("cot") == Spec("cot")
    assert parse_spec("self_consistency:samples=16:temperature=0.5").options == {"samples": "16", "temperature": "0.5"}
    assert parse_spec("my.py:name:a-b=1") == Spec("my.py:name", {"a_b": "1"})
    assert parse_spec(r"a:grader=openai\:x@http\://h\:1:limit=2").options == {
        "grader": "openai:x@http://h:1",
        "limit": "2",
    }
    with pytest.raises(ConfigError, match="key=value"):
        parse_spec("cot:shots=4:oops")
    with pytest.raises(ConfigError, match="'cot:a-b=1:a_b=2' gives a_b twice: give it once"):
        parse_spec("cot:a-b=1:a_b=2")


@pytest.mark.slow
def test_listings_find_things_by_place():
    assert {"direct", "cot", "self_consistency", "react"} <= catalog.names("pattern").keys()
    assert {"arithmetic", "gsm8k", "arc_easy"} <= catalog.names("benchmark").keys()
    assert "calculator" in catalog.names("tool")
    assert {"run", "quickstart", "models", "show"} <= catalog.names("command").keys()
    for kind in ("pattern", "benchmark", "tool", "provider", "command"):
        assert all(catalog.names(kind).values()), f"a {kind} has no description"


@pytest.mark.parametrize("kind", ["pattern", "tool"])
def test_names_are_listed_in_order_whatever_folder_they_come_from(kind):
    found = [path.stem for path in catalog._files(kind)]
    assert found == sorted(found) and len({path.parent for path in catalog._files(kind)}) > 1


def test_a_plugin_is_listed_beside_ours_and_takes_no_name_of_ours(monkeypatch):
    plugins = EntryPoints(EntryPoint(name, f"plugin.{name}:made", "firsthand.memories") for name in ("notes", "other"))
    ours = catalog.names("memory")
    monkeypatch.setattr(catalog, "_entry_points", lambda path: plugins)
    assert catalog.names("memory") == {**ours, "other": "from plugin.other:made"}
    assert catalog.find("memory", "notes") is notes


def test_every_listed_name_can_be_found():
    for name in catalog.names("pattern"):
        assert callable(catalog.pattern(name)[0])
    for name in catalog.names("tool"):
        assert callable(catalog.find("tool", name))
    for name in catalog.names("benchmark"):
        assert callable(catalog.find("benchmark", name))
    assert isinstance(catalog.benchmark("arithmetic:levels=1:tasks=3"), Benchmark)


def test_the_forms_of_tools_say_what_they_are_given_and_what_they_change():
    forms = catalog.tool_forms()
    assert forms.keys() <= catalog.names("tool").keys()
    assert forms["calculator"] == ("calculator", "read") and forms["fetch"] == ("fetch", "read")
    assert forms["files"] == ("files:ROOT", "read, write, external, irreversible")
    assert forms["sql"] == ("sql:DATABASE", "read, irreversible")
    assert forms["python"] == ("python", "read") and forms["shell"] == ("shell", "read")
    assert all(effects for _, effects in forms.values())


def test_a_file_of_ones_own_may_make_several_tools(tmp_path):
    path = tmp_path / "pair.py"
    path.write_text(
        "from firsthand.tool import tool_from_function\n"
        "def pair(word: str, *, times: int = 1):\n"
        "    def say() -> str:\n        return word * times\n"
        "    def shout() -> str:\n        return word.upper()\n"
        "    return [tool_from_function(each, effect='read') for each in (say, shout)]\n"
    )
    say, shout = catalog.tools(f"{path}:pair:ab:times=2")
    assert asyncio.run(say({})) == "abab" and asyncio.run(shout({})) == "AB"
    with pytest.raises(ConfigError, match="names 2 tools, say, shout"):
        catalog.tool(f"{path}:pair:ab")
    with pytest.raises(ConfigError, match=r"write .*pair\.py:pair:WORD"):
        catalog.tools(f"{path}:pair")


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("pattern", "reakt", "no pattern 'reakt'; did you mean 'react'\\? `firsthand list patterns` shows all"),
        ("benchmark", "gsm8", "did you mean 'gsm8k'"),
        ("tool", "calc", "no tool 'calc'"),
        ("pattern", "../evil", "no pattern"),
        ("pattern", "answers", "no pattern"),
    ],
)
def test_a_wrong_name_gets_the_nearest_one(kind, name, message):
    with pytest.raises(UnknownName, match=message):
        catalog.find(kind, name)


@pytest.mark.parametrize("value", ["maybe", "1", "yes"])
def test_a_switch_is_true_or_false_and_nothing_else(value: str) -> None:
    with pytest.raises(ConfigError, match=f"react:native is '{value}': true or false was expected"):
        catalog.pattern(f"react:native={value}")
    with pytest.raises(ConfigError, match="true or false was expected"):
        catalog.benchmark(f"evaluation_gaming:warn={value}")


def test_options_are_checked_against_the_signature():
    _, options = catalog.pattern("self_consistency:samples=5")
    assert options == {"samples": 5}
    with pytest.raises(ConfigError, match="no option 'sampels'; did you mean 'samples'"):
        catalog.pattern("self_consistency:sampels=5")
    with pytest.raises(ConfigError, match="a whole number was expected"):
        catalog.pattern("self_consistency:samples=lots")


def test_a_file_of_ones_own_is_a_name(tmp_path):
    file = tmp_path / "shout.py"
    file.write_text(PATTERN)
    pattern, options = catalog.pattern(f"{file}:times=2:loud=true")
    assert pattern.__name__ == "shout" and options == {"times": 2, "loud": True}
    assert catalog.pattern(f"{file}:other")[0].__name__ == "other"
    with pytest.raises(UnknownName, match="no pattern 'shuot'; did you mean 'shout'"):
        catalog.pattern(f"{file}:shuot")
    with pytest.raises(ConfigError, match="no file"):
        catalog.pattern(str(tmp_path / "nowhere.py"))
    file.write_text("def broken(:\n")
    with pytest.raises(ConfigError, match="does not import: SyntaxError"):
        catalog.pattern(str(file))


@pytest.mark.parametrize("name", ["smolm2", "nosuch:thing", "", "no/such/file.gguf"])
def test_a_wrong_model_name_is_one_sentence(name):
    with pytest.raises((UnknownName, ConfigError)) as error:
        catalog.model(name)
    assert "\n" not in str(error.value) and len(str(error.value)) > 20


ROOM = Path(benchmarks.__file__).parent
HELPERS = sorted({path.stem for path in ROOM.glob("*/*.py")} | {path.name for path in ROOM.iterdir()})


@pytest.mark.slow
def test_only_benchmarks_are_listed_and_completed(capsys):
    listed = catalog.names("benchmark")
    assert {"multiple_choice", "vote_sets", "own", "protocol", "protocols"} <= set(HELPERS)
    assert not set(HELPERS) & set(listed)
    assert {"inspect", "lm_eval", "gsm8k", "ruler"} <= set(listed)
    assert main(["list", "benchmarks", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["benchmarks"]
    assert {name.partition("@")[0] for name in printed} == set(listed)
    assert complete("firsthand run ") == sorted(listed)


@pytest.mark.parametrize("name", [name for name in HELPERS if name.isidentifier()])
def test_a_helper_of_the_benchmarks_is_no_benchmark(name):
    with pytest.raises(UnknownName, match=f"no benchmark {name!r}"):
        catalog.find("benchmark", name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("multiple_choice", "no benchmark 'multiple_choice'; `firsthand list benchmarks` shows all"),
        ("swe_tasks", "no benchmark 'swe_tasks'; `firsthand list benchmarks` shows all"),
        ("ruler_qa", "no benchmark 'ruler_qa'; did you mean 'ruler'? `firsthand list benchmarks` shows all"),
    ],
)
def test_running_a_helper_is_one_sentence(name, message, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    assert main(["run", name, "--model", "scripted:echo"]) == 2
    assert capsys.readouterr().err == f"firsthand: {message}\n"


def test_what_is_listed_is_what_its_list_says() -> None:
    """A helper that lies beside benchmarks or patterns is neither listed nor found under its file's name."""
    for name in catalog.names("benchmark"):
        made = catalog.find("benchmark", name)
        kinds = {each.kind.name for each in inspect.signature(made).parameters.values()}
        assert callable(made) and kinds <= {"KEYWORD_ONLY"}, name
    for name in catalog.names("pattern"):
        assert list(inspect.signature(catalog.find("pattern", name)).parameters)[:2] == ["task", "ctx"], name
    for helper in ("multiple_choice", "protocol", "datasets", "own", "tables"):
        assert helper not in catalog.names("benchmark")
        with pytest.raises(UnknownName):
            catalog.benchmark(helper)


def test_the_options_of_a_pattern_are_completed_after_its_name_and_of_nothing_else():
    assert complete("firsthand run --pattern self_consistency:sam") == ["self_consistency:samples="]
    assert complete("firsthand run --pattern direct,self_consistency:sam") == ["direct,self_consistency:samples="]
    assert complete("firsthand run --model cot:") == complete("firsthand run --name cot:") == []
