"""A user's own benchmark: a table and ten lines of TOML; whatever is wrong with them is told with file and line."""

import dataclasses
import inspect
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import firsthand
from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmarks.sources.tables import read_table
from firsthand.cli import main
from firsthand.errors import ConfigError, DataError, MissingExtra, UnknownName
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs.attempt_summary import failures_of
from firsthand.trace import Score
from namespaces import WHY_NOT

CAPITALS = "country,capital\nFrance,Paris\nPeru,Lima\n"
TOML = 'data = "capitals.csv"\nprompt = "What is the capital of {country}?"\ntarget = "{capital}"\n'


def own(folder, toml=TOML, table=CAPITALS, name="capitals.csv", **more):
    """The benchmark described by this text over this table."""
    raw = table if isinstance(table, bytes) else table.encode()
    (folder / name).write_bytes(raw)
    (folder / "mine.toml").write_text(toml + "".join(f"{key} = {json.dumps(value)}\n" for key, value in more.items()))
    return catalog.benchmark(str(folder / "mine.toml"))


def test_ten_lines_and_a_table_make_a_benchmark(tmp_path):
    made = own(tmp_path, scorer=["normalised", "token_f1"], id="{country}", cluster="{capital}", hint="a city")
    assert made.name == "mine" and [task.id for task in made.tasks(0)] == ["France", "Peru"]
    task = made.tasks(0)[0]
    assert task.prompt == "What is the capital of France?" and task.secret["answer"] == "Paris"
    assert task.metadata == {"cluster": "Paris"} and task.public().secret == {}
    agent = Agent("direct", Scripted({"France": "Paris.", "Peru": "Cuzco, I think"}), direct)
    traces = [firsthand.run_sync(rollout(agent, each, benchmark=made)) for each in made.tasks(0)]
    assert [[score.value for score in trace.scores] for trace in traces] == [[1, 1], [0, 0]]


def test_examples_come_from_a_table_of_their_own(tmp_path):
    (tmp_path / "train.csv").write_text("country,capital\nSpain,Madrid\nItaly,Rome\n")
    made = own(tmp_path, shots=1, examples="train.csv")
    assert made.tasks(0)[0].prompt == "What is the capital of Spain? Madrid\n\nWhat is the capital of France?"
    with pytest.raises(ConfigError, match="give both, or neither"):
        own(tmp_path, shots=1)


@pytest.mark.parametrize(
    ("target", "gold"), [("B", 1), ("1", 1), ("Lyon", 1), ("paris", None), ("C", None), ("2", None)]
)
def test_choices_are_scored_by_log_prob_and_a_target_is_letter_index_or_text(tmp_path, target, gold):
    toml = 'data = "q.jsonl"\nprompt = "{q}\\n{options}Answer:"\ntarget = "{a}"\nchoices = ["options"]\n'
    toml += 'continuation = " {letter}"\n'
    table = json.dumps({"q": "Q?", "options": ["Paris", "Lyon"], "a": target}) + "\n"
    if gold is None:
        with pytest.raises(DataError, match="line 1: the target"):
            own(tmp_path, toml, table, "q.jsonl")
        return
    (task,) = own(tmp_path, toml, table, "q.jsonl").tasks(0)
    assert task.scored == (("Q?\nA. Paris\nB. Lyon\nAnswer:", " A"), ("Q?\nA. Paris\nB. Lyon\nAnswer:", " B"))
    assert task.secret["gold"] == gold


def test_choices_may_be_columns(tmp_path):
    toml = 'data = "q.tsv"\nprompt = "{q}"\ntarget = "{right}"\nchoices = ["{right}", "{wrong}"]\n'
    made = own(tmp_path, toml, "q\tright\twrong\nQ?\tx\ty\n", "q.tsv")
    assert made.tasks(0)[0].choices == (" x", " y") and [s.__name__ for s in made.scorers] == ["acc", "acc_norm"]


def test_a_scorer_may_be_a_function_of_ones_own(tmp_path):
    (tmp_path / "judge.py").write_text(
        "from firsthand.trace import Score\ndef long(task, trace):\n    return Score('long', float(len(trace.answer) > 9))\n"
    )
    made = own(tmp_path, scorer=[f"{tmp_path}/judge.py:long"])
    assert [scorer.__name__ for scorer in made.scorers] == ["long"]


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("utf-8", ""), ("utf-8-sig", ""), ("utf-16", ""), ("latin-1", "latin-1"), ("utf-16-le", "utf-16-le")],
)
def test_encodings_are_found_by_their_mark_or_said(tmp_path, encoding, said):
    more = {"encoding": said} if said else {}
    made = own(tmp_path, table="country,capital\nPerú,Lima\n".encode(encoding), **more)
    assert made.tasks(0)[0].prompt == "What is the capital of Perú?"


def test_an_encoding_that_is_not_said_is_named_with_its_line(tmp_path):
    with pytest.raises(DataError, match=r"capitals.csv, line 3: byte \d+ is not utf-8: .*encoding = \"latin-1\""):
        own(tmp_path, table="country,capital\nPeru,Lima\nPerú,Lima\n".encode("latin-1"))
    with pytest.raises(DataError, match="needs an encoding, such as utf-16-le"):
        own(tmp_path, table=CAPITALS.encode("utf-16-le"))
    with pytest.raises(DataError, match="does not know"):
        own(tmp_path, encoding="latin-99")


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("", "capitals.csv holds no rows"),
        ("country,capital\n", "capitals.csv holds no rows"),
        ("country,town\nFrance,Paris\n", r"line 2: target: .*names \{capital\}; .*there are country, town"),
        ("country,capital\nFrance,Paris\nPeru\n", "line 3: 1 cells, and the header has 2"),
        ("country,capital\nFrance,Paris,x\n", "line 2: 3 cells"),
        ("country,country\na,b\n", "line 1: each column needs its own name, not country"),
        ("country,\na,b\n", "line 1: each column needs its own name"),
        ('country,capital\nFrance,"Par', "line 2: .*cut short"),
        ("country,capital\nFrance,\n", "line 2: the target '{capital}' is empty here"),
        ("country,capital\n,Paris\nPeru,Lima\n", None),
    ],
)
def test_broken_tables_are_named_by_file_and_line(tmp_path, table, says):
    if says is None:
        assert own(tmp_path, table=table).tasks(0)
        return
    with pytest.raises(DataError, match=says):
        own(tmp_path, table=table)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (
            '{"country": "France", "capital": "Paris"}\n{"country": "Pe',
            r"line 2 \(the last line: is the file cut short",
        ),
        ('[1, 2]\n{"country": "Peru", "capital": "Lima"}\n', "line 1: an object of columns"),
        ('{"country": "France", "capital": null}\n', r"line 1: target: .*\(capital: not text or a number here\)"),
        ('{"country": ["France"], "capital": "Paris"}\n', r"line 1: prompt: .*\(country: not text or a number here\)"),
        ("[" * 100_000 + "\n", "not JSON"),
    ],
)
def test_broken_lines_of_json_are_named(tmp_path, table, says):
    with pytest.raises(DataError, match=says):
        own(tmp_path, TOML.replace("capitals.csv", "c.jsonl"), table, "c.jsonl")


def test_ids_that_come_twice_are_named_with_both_lines(tmp_path):
    with pytest.raises(DataError, match=r"line 3: the id 'France' is also that of .*line 2"):
        own(tmp_path, table="country,capital\nFrance,Paris\nFrance,Lyon\n", id="{country}")


def test_a_target_in_its_own_prompt_is_found_and_named(tmp_path):
    made = own(tmp_path, table="country,capital\nthe land of PARIS,Paris\nPeru,Lima\nRome,Rome\n")
    assert made.protocol.endswith("LEAK: the prompt contains the target in 2 of 3 rows (line 2, line 4)")
    assert "LEAK" not in own(tmp_path).protocol
    with pytest.raises(ConfigError, match="every question would give its answer away"):
        own(tmp_path, TOML.replace("{country}", "{country} ({capital})"))


def test_one_row_is_enough_and_what_a_column_holds_is_never_a_template(tmp_path):
    (task,) = own(tmp_path, table="country,capital\n{capital} {x.__class__},Paris\n").tasks(0)
    assert task.prompt == "What is the capital of {capital} {x.__class__}?"


@pytest.mark.parametrize(
    ("toml", "error", "says"),
    [
        ('data = "capitals.csv"\n', ConfigError, "prompt is empty"),
        (TOML + "promt = 1\n", ConfigError, "did you mean 'prompt'"),
        (TOML + "scorer = ['normalized']\n", UnknownName, "did you mean 'normalised'"),
        ("data = ", ConfigError, "not valid TOML"),
        (TOML.replace("capitals.csv", "other.csv"), DataError, "other.csv cannot be read"),
        (TOML.replace("capitals.csv", "mine.toml"), DataError, "a file .csv, .tsv, .jsonl, .json was expected"),
    ],
)
def test_a_description_that_cannot_work_says_why(tmp_path, toml, error, says):
    with pytest.raises(error, match=says):
        own(tmp_path, toml)


def test_a_list_in_a_json_file_is_a_table_too(tmp_path):
    (tmp_path / "a.json").write_text('[{"a": 1}]')
    assert [row.where for row in read_table(tmp_path / "a.json")] == [f"{tmp_path / 'a.json'}, item 1"]
    (tmp_path / "a.json").write_text('[{"a": 1}')
    with pytest.raises(DataError, match="cut short"):
        read_table(tmp_path / "a.json")


@pytest.mark.parametrize("heading", ["Question Text", "Größe (cm)", "a.b", "2nd", "q?", "x-y", "__class__", "options"])
def test_any_heading_may_be_named(tmp_path, heading):
    table = f"{heading},capital\nFrance,Paris\n"
    (task,) = own(tmp_path, TOML.replace("{country}", f"{{{heading}}}"), table).tasks(0)
    assert task.prompt == "What is the capital of France?"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{Country}", "line 2: prompt: the template '{Country}.*' names {Country}; did you mean {country}"),
        ("{country.__class__}", "line 2: .*names {country.__class__}"),
        ("{country!r}", "line 2: .*names {country!r}"),
        ("{country:>9}", "line 2: .*names {country:>9}"),
        ("{0}", "line 2: .*names {0}"),
        ("{}", "line 2: .*names {}"),
        ("{country", "line 2: .*has a single {"),
        ("{country}}", "line 2: .*has a single }"),
        ("{options}", "line 2: .*names {options}"),
    ],
)
def test_a_template_that_names_anything_but_a_column_is_an_error_with_file_and_line(tmp_path, template, says):
    with pytest.raises(DataError, match=says) as caught:
        own(tmp_path, TOML.replace("What is the capital of {country}?", template))
    assert "capitals.csv" in str(caught.value)


OWN = {"data": "capitals.csv", "prompt": "Where is {country}?", "target": "{capital}"}


@pytest.mark.parametrize("field", ["prompt", "target", "id", "cluster", "stratum"])
def test_a_column_without_braces_is_refused_since_every_row_would_have_the_same_text(tmp_path, field):
    with pytest.raises(ConfigError, match=f'{field} = "capital" is the same text for every row: write "{{capital}}"'):
        own(tmp_path, "\n".join(f'{key} = "{text}"' for key, text in {**OWN, field: "capital"}.items()))


def test_doubled_braces_are_braces(tmp_path):
    toml = TOML.replace("What is the capital of {country}?", '{{\\"of\\": \\"{country}\\"}}')
    assert own(tmp_path, toml).tasks(0)[0].prompt == '{"of": "France"}'


def test_columns_named_question_and_answer_stay_what_they_are(tmp_path):
    table = "question,answer,right,x,y\nIs 2 = 2?,maybe,A,yes,no\n"
    toml = 'data = "capitals.csv"\nprompt = "{question} Think of {answer}.\\nAnswer:"\ntarget = "{right}"\n'
    (task,) = own(tmp_path, toml, table, choices=["{x}", "{y}"]).tasks(0)
    assert task.context == task.prompt == "Is 2 = 2? Think of maybe.\nAnswer:"
    (tmp_path / "train.csv").write_text("question,answer\nIs 1 = 1?,yes\n")
    asked = 'data = "capitals.csv"\nprompt = "{question} So:"\ntarget = "{answer}!"\n'
    (task,) = own(tmp_path, asked, "question,answer\nIs 2 = 2?,no\n", shots=1, examples="train.csv").tasks(0)
    assert task.prompt == "Is 1 = 1? So: yes!\n\nIs 2 = 2? So:" and task.secret["answer"] == "no!"


def test_a_column_named_like_a_part_of_a_choice_is_refused_where_it_would_be_hidden(tmp_path):
    table = "q,options,x,y,right\nWhich?,none,yes,no,A\n"
    toml = 'data = "capitals.csv"\nprompt = "{q}\\n{options}"\ntarget = "{right}"\n'
    with pytest.raises(DataError, match="line 2: the column 'options' is named like a part of each choice"):
        own(tmp_path, toml, table, choices=["{x}", "{y}"])
    assert own(tmp_path, toml, table).tasks(0)[0].prompt == "Which?\nnone"


def answered(made, answer, task=0):
    """The scores of an answer to a task of the benchmark, by name."""
    agent = Agent("direct", Scripted({"": answer}), direct)
    trace = firsthand.run_sync(rollout(agent, made.tasks(0)[task], benchmark=made))
    assert not any(score.failure for score in trace.scores), trace.scores
    return {score.name: score.value for score in trace.scores}


FAMILIAR = ["includes", "contains", "regex", "regex:pattern=is (\\w+)", "f1", "exact", "string_match_part"]


@pytest.mark.parametrize(
    ("answer", "values"),
    [
        ("Paris", (1, 1, 1, 0, 1, 1, 1)), ("It is paris, is it not", (1, 0, 0, 0, 2 / 7, 0, 1)),
        ("It is paris", (1, 0, 0, 1, 0.5, 0, 1)),
        ("", (0, 0, 0, 0, 0, 0, 0)),
        ("Lima", (0, 0, 0, 0, 0, 0, 0)),
    ],
)  # fmt: skip
def test_scorers_have_the_names_that_users_know(tmp_path, answer, values):
    made = own(tmp_path)
    task = made.tasks(0)[0]
    scorers = [catalog.scorer(name) for name in FAMILIAR]
    trace = firsthand.run_sync(rollout(Agent("direct", Scripted({"": answer}), direct), task, benchmark=made))
    assert tuple(scorer(task, trace).value for scorer in scorers) == pytest.approx(values)


def test_a_pattern_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no regular expression"):
        own(tmp_path, scorer=["regex:pattern=("])


def test_choice_reads_a_letter_or_a_text_in_a_sentence(tmp_path):
    toml = TOML + 'choices = ["Lima", "{capital}"]\n'
    made = own(tmp_path, toml, "country,capital\nFrance,Paris\n", scorer=["choice"])
    assert made.tasks(0)[0].secret["gold"] == 1
    (task,) = made.tasks(0)
    blank = firsthand.run_sync(
        rollout(Agent("direct", Scripted({"": "x"}), direct), dataclasses.replace(task, context=None))
    )
    for answer, right in [
        ("B", 1),
        ("(b)", 1),
        ("Paris", 1),
        ("The answer is B.", 1),
        ("A", 0),
        ("neither", 0),
        (None, 0),
    ]:
        assert catalog.scorer("choice")(task, dataclasses.replace(blank, answer=answer)).value == right


@pytest.mark.parametrize("name", sorted(catalog.scorers()))
def test_a_scorer_works_on_own_data_or_is_refused_with_what_it_needs(tmp_path, name):
    for more in ("", 'choices = ["Lima", "Paris"]\n'):
        try:
            made = own(tmp_path, TOML + more, scorer=[name])
        except (ConfigError, DataError) as error:
            assert any(word in str(error) for word in ("needs", "give", "extra", "judge", "against", "is no number")), (
                error
            )
            continue
        if not hasattr(made.scorers[0], "judged") and not inspect.iscoroutinefunction(made.scorers[0]):
            trace = firsthand.run_sync(rollout(Agent("direct", Scripted({"": "Paris"}), direct), made.tasks(0)[0]))
            try:
                made.scorers[0](made.tasks(0)[0], dataclasses.replace(trace, answer="Paris"))
            except MissingExtra:
                continue
            except DataError as error:  # what only a run can have, or what letters would be found in
                assert any(word in str(error) for word in ("run the model as MODEL+monitor:FILE", "take choice")), error


@pytest.mark.parametrize("name", ["flexible", "numeric", "strict"])
def test_a_scorer_of_numbers_works_on_numbers_and_refuses_a_word_with_its_line(tmp_path, name):
    with pytest.raises(DataError, match=f"capitals.csv, line 2: the reference answer 'Paris' is no number that {name}"):
        own(tmp_path, scorer=["exact", name])
    with pytest.raises(
        ConfigError, match=f"^the scorer {name} compares numbers, and a right choice is a letter: give ch"
    ):
        own(tmp_path, TOML + 'choices = ["Lima", "Paris"]\n', scorer=[name])
    made = own(tmp_path, table='country,capital\nFrance,"1,000"\n', scorer=[name])
    for said, right in (("#### 1000", 1), ("#### 1001", 0)):
        agent = Agent("direct", Scripted({"": said}), direct)
        trace = firsthand.run_sync(rollout(agent, made.tasks(0)[0], benchmark=made))
        assert [(score.name, score.value) for score in trace.scores] == [(name, right)]


@pytest.mark.parametrize(
    ("scorer", "says"),
    [("passes_tests", "line 2: the scorer passes_tests needs the column 'tests'; there are country, capital"),
     ("acc", "acc needs choices"), ("human_agreement", "a benchmark such as judge_mtbench"),
     ("prompt_strict", "'instructions'")],
)  # fmt: skip
def test_a_scorer_without_its_fields_is_refused_before_the_first_call(tmp_path, scorer, says):
    with pytest.raises((ConfigError, DataError), match=says):
        own(tmp_path, scorer=["exact", scorer])


def test_a_scorer_takes_what_it_needs_from_the_columns(tmp_path):
    table = json.dumps({"country": "x", "capital": "y", "tests": "assert f() == 1"}) + "\n"
    toml = TOML.replace("capitals.csv", "c.jsonl")
    (task,) = own(tmp_path, toml, table, "c.jsonl", scorer=["passes_tests"]).tasks(0)
    assert task.secret["tests"] == "assert f() == 1" and "tests" not in task.metadata


@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
def test_a_function_named_as_one_of_pythons_is_the_answers_where_a_row_says_so(tmp_path):
    rows = [{"country": each, "capital": "y", "tests": "assert sum([1, 2]) == 3"} for each in ("x", "z")]
    rows[1]["entry_point"] = "sum"
    toml = TOML.replace("capitals.csv", "c.jsonl")
    made = own(tmp_path, toml, "\n".join(map(json.dumps, rows)), "c.jsonl", scorer=["passes_tests"])
    for said, values in (("x = 1", [1, 0]), ("def sum(xs): return 7", [1, 0]), ("def sum(xs): return 3", [1, 1])):
        agent = Agent("direct", Scripted({"": f"```python\n{said}\n```"}), direct)
        traces = [firsthand.run_sync(rollout(agent, task, benchmark=made)) for task in made.tasks(0)]
        assert [trace.scores[0].value for trace in traces] == values, said


def test_a_scorer_may_return_a_bool_or_a_number(tmp_path):
    (tmp_path / "own.py").write_text(
        "def short(task, trace):\n    return len(trace.answer) < 9\n"
        "async def length(task, trace):\n    return len(trace.answer)\n"
    )
    made = own(tmp_path, scorer=[f"{tmp_path}/own.py:short", f"{tmp_path}/own.py:length"])
    assert answered(made, "Paris") == {"short": 1.0, "length": 5.0}
    assert answered(made, "Paris, of course") == {"short": 0.0, "length": 16.0}


def test_summary_groups_by_any_column_and_agents_do_not_see_columns(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    made = own(
        tmp_path, table="country,capital,continent\nFrance,Paris,Europe\nPeru,Lima,America\nSpain,Madrid,Europe\n"
    )
    assert all("Paris" not in json.dumps(task.public().to_json()) for task in made.tasks(0))
    (tmp_path / "script.json").write_text(json.dumps({"France": "Paris", "": "?"}))
    assert main(["run", str(tmp_path / "mine.toml"), "--model", f"scripted:{tmp_path}/script.json"]) == 0
    capsys.readouterr()
    assert main(["summary", "last", "--by", "continent", "--json"]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert {cell["by"]["continent"]: cell["score"]["value"] for cell in cells} == {"America": 0.0, "Europe": 0.5}
    assert main(["summary", "last", "--by", "capital", "--json"]) == 0


def test_the_scorer_that_the_page_writes_out_finds_the_target(tmp_path, monkeypatch):
    """The line is taken from the page and run."""
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "benchmarks.md").read_text()
    (line,) = re.findall(r"as in `(def exact\(task, trace\): [^`]*)`", page)
    (tmp_path / "mine.py").write_text(line + "\n")
    (scorer,) = own(tmp_path, scorer=["mine.py:exact"]).scorers
    task = own(tmp_path).tasks(0)[0]
    scored = [scorer(task, SimpleNamespace(answer=answer)) for answer in ("Paris", "Rome")]
    assert [float(getattr(each, "value", each)) for each in scored] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("prompt", "more", "baseline"),
    [
        ("Q: {q}\nA:", {}, "A:"),
        ("Choose.\n{q}\nThe answer is:\n", {}, "The answer is:"),
        ("Q: {q} Answer here:", {}, "Answer:"),
        ("Choose.\n{q}", {}, "Answer:"),
        ("Q: {q}\nA:", {"baseline": "Reply:"}, "Reply:"),
        ("Q: {q}\nA:", {"scorer": ["acc", "mc1"]}, None),
    ],
)
def test_mutual_information_has_the_text_without_the_question(tmp_path, prompt, more, baseline):
    toml = f'data = "q.csv"\nprompt = {json.dumps(prompt)}\ntarget = "{{a}}"\nchoices = ["x", "y"]\n'
    made = own(tmp_path, toml, "q,a\nOne?,x\n", "q.csv", **{"scorer": ["acc", "acc_mutual_info"], **more})
    (task,) = made.tasks(0)
    assert task.baseline == baseline and (f"; acc_mutual_info after {baseline!r}" in made.protocol) == (
        baseline is not None
    )
    before = prompt.replace("{q}", "One?")
    said = {(before, " x"): -2.0, (before, " y"): -1.0, (baseline, " x"): -5.0, (baseline, " y"): -1.5}
    agent = Agent("direct", Scripted([""], score=lambda asked, text: said[asked, text]), direct)
    trace = firsthand.run_sync(rollout(agent, task, benchmark=made))
    assert trace.error is None and not any(score.failed for score in trace.scores)
    assert [score.value for score in trace.scores] == ([0, 0] if baseline is None else [0, 1])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"baseline": "A:", "scorer": ["acc"], "choices": ["x", "y"]}, "acc_mutual_info alone reads"),
        ({"baseline": "A:", "scorer": ["acc_mutual_info"]}, "with choices"),
        (
            {"baseline": "{country}:", "scorer": ["acc_mutual_info"], "choices": ["x", "y"]},
            "the same text for every row",
        ),
        ({"baseline": " ", "scorer": ["acc_mutual_info"], "choices": ["x", "y"]}, "the same text for every row"),
    ],
)
def test_a_baseline_that_nothing_reads_or_that_is_no_text_is_refused(tmp_path, more, says):
    with pytest.raises(ConfigError, match=says):
        own(tmp_path, **more)


def test_a_further_score_that_failed_at_every_attempt_has_no_number_and_its_reason_is_told(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    own(tmp_path, choices=["Lima", "Paris"], scorer=["acc", "acc_mutual_info"])
    said = {"direct": "", "cot": ""}
    for pattern in said:
        assert main(["run", str(tmp_path / "mine.toml"), "--model", "scripted:echo", "--pattern", pattern]) == 0
        said[pattern] = " ".join(capsys.readouterr().out.split())
    why = "No acc_mutual_info of cot: the choices were not scored without the question."
    assert why in said["cot"] and "acc_mutual_info 0.00" not in said["cot"]
    assert "acc_mutual_info 0." in said["direct"] and "No acc_mutual_info" not in said["direct"]


def test_a_score_that_failed_at_some_attempts_alone_keeps_its_mean():
    lacking, fine = Score("a", 0.0, failure="no\nlog-probs"), Score("a", 0.0)
    unjudged = Score("a", 0.0, failure="no verdict", unjudged=True)
    made = [SimpleNamespace(score=lambda name, each=each: each) for each in (lacking, fine, unjudged, None)]
    assert failures_of([made[0], made[3]], ["a"]) == {"a": "no log-probs"}
    for attempts in (made[:2], [made[0], made[2]], made[2:3], made[3:], []):
        assert failures_of(attempts, ["a"]) == {}
