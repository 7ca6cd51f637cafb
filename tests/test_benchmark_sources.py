"""Protocols as templates, and readers of benchmark data, on small files in which every field differs."""

import gzip
import hashlib
import json
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import pytest

from firsthand.benchmarks import hellaswag, mmlu_pro, truthfulqa
from firsthand.benchmarks.long_context.haystack import Essays, essays, sentences
from firsthand.benchmarks.long_context.lengths import LazyTasks, largest, meter, parse_lengths
from firsthand.benchmarks.long_context.ruler_counting import _chain, _list, frequent_words
from firsthand.benchmarks.long_context.ruler_needles import _among, _singular
from firsthand.benchmarks.long_context.ruler_sample import SampleKey
from firsthand.benchmarks.protocols.competition import solved, stated
from firsthand.benchmarks.protocols.multiple_choice import choices_of, labelled, question_item
from firsthand.benchmarks.protocols.protocol import (
    Item,
    Protocol,
    check_template,
    choose,
    fill,
    letter,
    make_benchmark,
    make_task,
    opening,
    whole,
)
from firsthand.benchmarks.sources.bias_files import bias_object, bias_rows, text_cell
from firsthand.benchmarks.sources.chat_histories import iso_time, locomo_sessions, longmemeval_sessions
from firsthand.benchmarks.sources.datasets import Source, find, in_folder, load, located, read, text_field
from firsthand.benchmarks.sources.tables import read_table
from firsthand.benchmarks.sources.tot_data import find as find_paper
from firsthand.benchmarks.sources.xlsx_rows import xlsx_rows
from firsthand.errors import ConfigError, DataError, UnknownName
from firsthand.task import Task


def test_a_template_is_filled_once_and_braces_are_doubled():
    fields = {"a": "{b}", "b": "2", "Total, %": "9"}
    assert fill("{a}{b}{{b}} {Total, %} {no name}", fields) == "{b}2{b} 9 {no name}"
    with pytest.raises(ConfigError, match=r"names \{aa\}; did you mean \{a\}\? there are Total, %, a, b"):
        fill("{aa}", fields)
    for name in ("a_1", "_", "b2", "é"):
        with pytest.raises(ConfigError, match=rf"^the template .* names \{{{name}\}};.* there are Total, %, a, b;"):
            fill(f"{{{name}}}", fields)
    assert fill("{1a}{a-b}{}{ a}", fields) == "{1a}{a-b}{}{ a}", "no identifiers"
    check_template("{a} {{x}} {b}", ["a", "b"])
    for template, said in (("{c}", r"names \{c\}"), ("a } b", "has a single }"), ("{a} {", "has a single {")):
        with pytest.raises(ConfigError, match=said):
            check_template(template, ["a", "b"])
    assert [letter(index) for index in (0, 3, 25)] == ["A", "D", "Z"]


ITEM = Item("i", {"question": "Q?", "topic": "T"}, ("one", " two "), 1, {"more": 5}, {"stratum": "s"})


def test_choices_are_scored_by_text_by_letter_or_by_what_follows_them():
    text = make_task(ITEM, Protocol("r", header="{topic}: ", baseline="Answer:"))
    assert text == Task(
        "i", "Q?", (" one", "  two "), context="T: Question: Q?\nAnswer:", baseline="Answer:", hint="a letter",
        metadata={"stratum": "s"}, secret={"gold": 1, "answer": "B", "more": 5},
    )  # fmt: skip
    lettered = Protocol("r", query="{question}\n{options}", option="({letter}) {stripped}|", continuation=" {letter}")
    by_letter = make_task(ITEM, lettered)
    asked = "Q?\n(A) one|(B) two|"
    assert by_letter.choices == (" one", "  two ") and by_letter.context == asked
    assert by_letter.requests == ((asked, " A"), (asked, " B"))
    assert by_letter.requests[0][0] is by_letter.requests[1][0], "one text in memory, however many choices"
    after = make_task(ITEM, Protocol("r", query="{topic} {choice}", continuation=" end {question}"))
    assert after.context is None and after.requests == (("T one", " end Q?"), ("T  two ", " end Q?"))
    assert whole(after) is after and whole(text).prompt == text.context


def test_examples_stand_before_the_item_with_their_answers():
    shown = [Item("e", {"question": f"E{n}", "answer": f"A{n}"}, ("x", "y"), n % 2) for n in range(3)]
    protocol = Protocol("r", header="H\n", shots=2, separator=" ## ")
    assert opening(ITEM, protocol, shown) == "H\nQuestion: E0\nAnswer: x ## Question: E1\nAnswer: y ## "
    with pytest.raises(ConfigError, match=r"shows 2 examples \(\), and there are 1"):
        opening(ITEM, protocol, shown[:1])
    written = Protocol("r", shots=1, continuation=None, stop=("\n",), max_tokens=9, answer=" <{answer}>")
    task = make_task(Item("i", {"question": "Q"}), written, shown, hint="a word")
    assert task.context == "Question: E0\nAnswer: <A0>\n\nQuestion: Q\nAnswer:" and task.prompt == "Q"
    assert dict(task.sampling) == {"stop": ("\n",), "max_tokens": 9, "temperature": 0.0}
    assert task.verbatim and task.hint == "a word" and task.secret == {}
    target = [Item("e", {"question": "E", "answer": "field"}, target="TARGET")]
    assert "<TARGET>" in str(make_task(Item("i", {"question": "Q"}), written, target).context)
    chat = make_task(ITEM, Protocol("r", continuation=None, chat=True, temperature=None))
    assert chat.context is None and chat.prompt == "Question: Q?\nAnswer:" and "temperature" not in chat.sampling
    listed = make_task(ITEM, Protocol("r", continuation=None))
    assert listed.prompt == "Q?\nA. one\nB.  two " and listed.secret == {"gold": 1, "answer": "B", "more": 5}
    assert Item("i", {"question": "Q"}, question="other").asked == "other"


def test_a_protocol_is_chosen_by_name_and_described_in_the_benchmark():
    first, second = (
        Protocol("R1"),
        Protocol("R2", continuation=None, shots=3, examples="train", stop=("x",), header="H"),
    )
    protocols = {"a": first, "b": second}
    assert (
        choose("n", protocols, "") == ("n", first) == choose("n", protocols, "a")
        and choose("n", protocols, "b")[0] == "n@b"
    )
    with pytest.raises(UnknownName, match="no protocol of n 'c'"):
        choose("n", protocols, "c")
    assert first.describe() == "R1; 0-shot; 'Question: {question}\\nAnswer:'; log-prob of ' {choice}'"
    assert second.describe() == (
        "R2; 3-shot (train); 'HQuestion: {question}\\nAnswer:'; generated as a continuation, stop ['x']"
    )
    assert Protocol("R", examples="in the header", continuation=None, chat=True).describe() == (
        "R; in the header; 'Question: {question}\\nAnswer:'; generated in the chat template, stop []"
    )
    tasks = [Task("t", "x")]
    made = make_benchmark("n", protocols, "b", tasks, description="d", origin="o", licence="l", sha256="s")
    assert made.tasks(7) is tasks and made.protocol == f"o; {second.describe()}" and made.scorers == second.scorers
    assert made.options == {"data": "o", "sha256": "s", "protocol": "b"} and (made.name, made.licence) == ("n@b", "l")


def test_choices_and_questions_are_checked_at_their_limits():
    assert choices_of({"choices": ["a", "b"], "gold": 1}, "w") == (("a", "b"), 1)
    assert len(choices_of({"choices": ["x"] * 26, "gold": 25}, "w")[0]) == 26
    for choices in (["a"], ["x"] * 27, ["a", ""], ["a", 2], "ab", None):
        with pytest.raises(DataError, match=r"w: the field 'choices' is .* 2 to 26 texts"):
            choices_of({"choices": choices, "gold": 0}, "w")
    for gold in (2, -1, True, "0", None):
        with pytest.raises(DataError, match="an index from 0 to 1 was expected"):
            choices_of({"choices": ["a", "b"], "gold": gold}, "w")
    made = question_item({"query": "Question: Why?\nAnswer:", "choices": ["a", "b"], "gold": 1}, "i", "w")
    assert (made.fields, made.gold, made.id) == ({"question": "Why?"}, 1, "i")
    row = {"choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": " B "}
    assert labelled(row, "Why") == {"query": "Question: Why\nAnswer:", "choices": ["x", "y"], "gold": 1}
    assert stated({"answer": 204}, "w") == "204" and stated({"answer": "x"}, "w") == "x"
    with pytest.raises(DataError, match="'answer'"):
        stated({"answer": True}, "w")
    assert solved({"solution": r"so \boxed{1} then \boxed{\frac{1}{2}}."}, "w") == r"\frac{1}{2}"
    with pytest.raises(DataError, match=r"w: the solution has no"):
        solved({"solution": "none"}, "w")


def test_rows_of_single_sets_are_converted_field_by_field():
    row = {
        "activity_label": "Cook",
        "ctx_a": "He cuts [x].",
        "ctx_b": "then he",
        "endings": ["a [title] b", "c"],
        "label": "1",
    }
    assert hellaswag.from_hub({**row, "source_id": "s"}) == {
        "query": "Cook: He cuts . Then he", "choices": ["a. b", "c"], "gold": 1, "source": "s",
    }  # fmt: skip
    assert "source" not in hellaswag.from_hub(row)
    assert hellaswag.cleaned(" a [title] b  c [d] [e") == "a. b c [e"
    question = {
        "question": "Q", "options": ["x", "N/A", "y"], "answer_index": 1, "answer": "B", "category": "law",
        "cot_content": "A: Let's think step by step. So B.",
    }  # fmt: skip
    made = mmlu_pro._item(question, "i", "w")
    assert made.choices == ("x", "y") and made.gold == 1 and made.secret == {"options": 2}
    assert made.metadata == {"category": "law", "stratum": "law"} and made.fields["worked"] == "So B."
    for change in ({"answer_index": 2}, {"answer": "A"}, {"answer_index": True}, {"options": "xy"}):
        with pytest.raises(DataError, match="w: "):
            mmlu_pro._item({**question, **change}, "i", "w")
    hub = {
        "question": "Q", "mc1_targets": {"choices": ["t", "f"], "labels": [1, 0]},
        "mc2_targets": {"choices": ["f", "u", "t"], "labels": [0, 1, 1]},
    }  # fmt: skip
    assert truthfulqa.from_hub(hub) == {"question": "Q", "true": ["t", "u"], "false": ["f"]}
    item = truthfulqa._item(truthfulqa.from_hub(hub), "i", "w")
    assert [item.choices[at] for at in item.secret["true"]] == ["t", "u"] and item.choices[item.gold] == "t"
    assert sorted(item.choices) == ["f", "t", "u"]


def test_lengths_are_parsed_doubled_and_measured():
    assert parse_lengths("4k, 512 ,1k-4K") == (512, 1024, 2048, 4096) and parse_lengths("64-300") == (64, 128, 256)
    assert parse_lengths("4096k") == (4 * 2**20,)
    for text in ("63", "4097k", "4k-2k", "x", "", "4k--8k"):
        with pytest.raises(ConfigError, match="lengths is"):
            parse_lengths(text)
    assert meter("words*2").measure("a_b 1234 é-x") == 2 * 8 and meter("words").unit == "estimated as words x 1"
    assert meter("").unit == "estimated as words x 1.4" and meter("words*0.1").measure("a " * 24) == 2
    assert meter("words*20").measure("a b") == 40 and meter("words*20").unit == "estimated as words x 20"
    for text in ("words*0", "words*21", "words*x", "words*0.0999", "words*20.0001"):
        with pytest.raises(ConfigError, match=r"give words times a factor from 0\.1 to 20"):
            meter(text)
    for least, most, guess in ((1, 1, 8), (1, 77, 2), (5, 5, 5), (1, 100, 1000)):
        assert largest(lambda size, most=most: size <= most, least, guess) == most
    assert largest(lambda size: size <= 4, 5, 9) is None
    made: list[int] = []
    tasks = LazyTasks([10, 20, 30], lambda place: made.append(place) or Task(str(place), "x"))
    assert (
        len(tasks) == 3 and tasks[1].id == "20" and [t.id for t in tasks[1:]] == ["20", "30"] and made == [20, 20, 30]
    )
    assert [task.id for task in tasks] == ["10", "20", "30"] and tasks[-1].id == "30"


def test_texts_are_split_into_sentences_and_repeat_from_their_beginning(tmp_path: Path):
    assert sentences('He left. "Why?" she asked! 3 came (all). so it is. End') == [
        "He left.", '"Why?" she asked!', "3 came (all). so it is.", "End",
    ]  # fmt: skip
    assert sentences("") == [] and sentences("One.") == ["One."]
    text = Essays(("a", "b", "c"), "o", "s")
    assert [text.first(count) for count in (0, 2, 3, 7)] == ["", "a b", "a b c", "a b c a b c a"]
    folder = tmp_path / "longctx" / "PaulGrahamEssays"
    folder.mkdir(parents=True)
    (folder / "b.txt").write_text("two " * 60)
    (folder / "a.txt").write_text("one " * 60)
    found = essays(str(tmp_path), "or not")
    assert found.words == ("one",) * 60 + ("two",) * 60 and found.origin.endswith("PaulGrahamEssays, 120 words")
    assert found.sha256 == hashlib.sha256(("one " * 60 + "\n" + "two " * 60).encode()).hexdigest()
    whole_file = tmp_path / "PaulGrahamEssays.json"
    whole_file.write_text(json.dumps({"text": "x " * 100}))
    assert len(essays(str(tmp_path), "").words) == 100 == len(essays(str(whole_file), "").words)
    for body, said in (
        ('{"text": "x"}', "holds 1 words"),
        ('{"text": 3}', "is a int, not text"),
        ("[]", "JSON object with"),
    ):
        whole_file.write_text(body)
        with pytest.raises(DataError, match=said):
            essays(str(tmp_path), "")
    with pytest.raises(DataError, match=r"of \.txt files; or not$"):
        essays(str(tmp_path / "longctx" / "PaulGrahamEssays"), "or not")


def test_rulers_texts_have_their_parts_in_the_published_numbers():
    text, names = _chain(9, Random(4), 3, "777")
    lines = text.split("\n")
    at = [next(n for n, line in enumerate(lines) if line.startswith(f"VAR {name} = ")) for name in names]
    assert len(set(names)) == 5 and at == sorted(at) and f"VAR {names[0]} = 777" in lines
    assert f"VAR {names[3]} = VAR {names[2]} " in lines and text.count("The grass is green.") == 9
    assert all(len(name) == 3 and name.isupper() for name in names) and "5 variables are assigned the value 777" in text
    pool = tuple(f"w{n}" for n in range(30))
    listed, common = _list(pool, 12, 3, 2, Random(1))
    words = [part.split(" ")[0] for part in listed.split(". ")[1:]]
    assert len(common) == 10 and [words.count(word) for word in common] == [3] * 10 and len(words) == 34
    assert listed.startswith("1. ") and " 34. " in listed
    sample = frequent_words("<{task}>").make(400, Random(2), SampleKey("fwe", 550, 0))
    coded = sample.input.partition("coded words. ")[2].partition("\nQuestion")[0].split()
    assert [coded.count(word) for word in ("...", *sample.answers)] == [
        int(400 * r**-2 / 1.6449340668482264) for r in (1, 2, 3, 4)
    ]
    assert _among(["a", "b", "c", "d"], ["N1", "N2"], Random(3)).replace("N1", "").replace("N2", "").split() == list(
        "abcd"
    )
    assert _singular("Some numbers are all here, they are answers") == "A numbers is here, they is answer"


def test_a_workbook_has_its_rows_with_gaps_strings_and_inline_texts(tmp_path: Path):
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    sheet = (
        f'<worksheet {space}><sheetData><row><c r="A1" t="s"><v>1</v></c><c r="C1"><v>7.5</v></c>'
        '<c t="inlineStr"><is><t>in</t><t>line</t></is></c></row><row/><row><c r="B3" t="s"><v>0</v></c>'
        '<c r="AA3"><f>1+1</f><v>2</v></c></row></sheetData></worksheet>'
    )
    strings = f"<sst {space}><si><r><t>Hel</t></r><r><t>lo</t></r><rPh><t>no</t></rPh></si><si><t>World</t></si></sst>"

    def book(name: str, sheet: str, strings: str | None) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("xl/worksheets/sheet1.xml", sheet)
            if strings is not None:
                archive.writestr("xl/sharedStrings.xml", strings)
        return tmp_path / name

    rows = xlsx_rows(book("a.xlsx", sheet, strings))
    assert rows[0] == ["World", "", "7.5", "inline"] and rows[1] == [] and rows[2] == ["", "Hello", *[""] * 24, "2"]
    with pytest.raises(DataError, match=r"c\.xlsx: a cell refers to string '1', and there are 0"):
        xlsx_rows(book("c.xlsx", sheet, None))
    assert xlsx_rows(book("d.xlsx", f"<worksheet {space}><row><c><v>5</v></c></row></worksheet>", None)) == [["5"]]


def test_tables_are_read_by_their_ending_with_the_place_of_each_row(tmp_path: Path):
    def table(name: str, text: str) -> list[tuple[dict[str, Any], str]]:
        path = tmp_path / name
        path.write_bytes(text.encode())
        return [(row.columns, row.where.removeprefix(f"{path}, ")) for row in read_table(path)]

    assert table("a.csv", ' a ,b\n1,"x\ny"\n\n2,z\n') == [
        ({"a": "1", "b": "x\ny"}, "line 3"),
        ({"a": "2", "b": "z"}, "line 5"),
    ]
    assert table("a.tsv", "a\tb\n1\t2,3\n") == [({"a": "1", "b": "2,3"}, "line 2")]
    assert table("a.jsonl", '{"a": 1}\n\n{"a": 2}') == [({"a": 1}, "line 1"), ({"a": 2}, "line 3")]
    assert table("a.json", '[{"a": 1}, {"b": 2}]') == [({"a": 1}, "item 1"), ({"b": 2}, "item 2")]
    for name, text, said in (
        ("b.csv", "a,a\n1,2\n", "each column needs its own name, not a"), ("b.csv", "a,\n1,2\n", "not an empty one"),
        ("b.csv", "a,b\n1\n", "line 2: 1 cells, and the header has 2"), ("b.csv", 'a,b\n1,"x\n', "is a quote not closed"),
        ("b.csv", "a;b\n1;2\n", "semicolons between its columns"), ("b.csv", "a\tb\n1\t2\n", "tabs between its columns"),
        ("b.csv", "a,b\n", "holds no rows"), ("b.jsonl", '{"a": 1}\n{"a"', "the last line: is the file cut short"),
        ("b.jsonl", "[1]\n", "line 1: an object of columns was expected"),
        ("b.json", "{}", "a list of objects was expected"),
        ("b.txt", "a", r"a file \.csv, \.tsv, \.jsonl, \.json was expected"), ("b.csv", "a,b\n1,\0\n", "has zero bytes"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=said):
            table(name, text)


def test_tables_of_more_rows_or_cells_than_fit_in_memory_are_refused(tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr("firsthand.benchmarks.sources.tables.MAX_VALUES", 60)
    monkeypatch.setattr("firsthand.benchmarks.sources.tables.MAX_COMMAS", 20)
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + '"1,2,3",4\n' * 10)  # six values a row
    assert len(read_table(path)) == 10
    for text, said in (
        ("a,b\n" + "1,2\n" * 11, "line 12: more rows than can be read, 60 cells with 4 for each row: split it"),
        ("a\n" + "," * 21, "line 2: a row of more than 20 cells: is it the right file"),
        ("," * 21, "line 1: a row of more than 20 cells"),
        ("a\n" + '"' + ",,,,,\n" * 5 + '"', "line 6: a row of more than 20 cells"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=said):
            read_table(path)
    path.write_text("a\n" + '"' + "," * 20 + '"\n' + '"' + "," * 20 + '"\n')
    assert len(read_table(path)) == 2


def test_data_files_are_found_in_their_order_and_say_how_many_rows_of_how_many(tmp_path: Path, monkeypatch: Any):
    monkeypatch.setenv("FIRSTHAND_DATA", str(tmp_path / "env"))
    source = Source("math/x.jsonl", 3, "l", "", "", "", dict, also=("y.jsonl",))
    for folder, name, rows in (("given", "x.jsonl.gz", 3), ("given", "y.jsonl", 1), ("env/math", "x.jsonl", 2)):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        text = "".join(f'{{"n": {n}}}\n' for n in range(rows)).encode()
        (tmp_path / folder / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    rows = load(source, str(tmp_path / "given"))
    assert rows.origin == "data folder, 3 items" and rows.path.name == "x.jsonl.gz" and len(rows.rows) == 3
    assert load(source).origin == "$FIRSTHAND_DATA, 2 of 3 items" and load(source).where(1).endswith("x.jsonl, line 2")
    assert load(source, str(tmp_path / "given" / "y.jsonl")).origin == "data folder, 1 of 3 items"
    (tmp_path / "given" / "x.jsonl.gz").unlink()
    assert load(source, str(tmp_path / "given")).path.name == "y.jsonl"
    assert (
        located("math/x.jsonl", "") == tmp_path / "env" / "math" / "x.jsonl" and located("math/x.jsonl", "hub") is None
    )
    assert find(tmp_path, "none", "given/y.jsonl") == tmp_path / "given" / "y.jsonl" and find(tmp_path, "z") is None
    with pytest.raises(DataError, match=r"data is '.*env', which has neither q/z\.json nor w\.json nor z\.json"):
        in_folder(tmp_path / "env", "data", "q/z.json", "w.json")
    with pytest.raises(DataError, match=r"which has no z\.json: put"):
        in_folder(tmp_path / "env", "data", "z.json")
    with pytest.raises(DataError, match=r"no slice of x\.jsonl is packaged"):
        load(source, "packaged")
    requests = tmp_path / "r.jsonl"
    docs = [(0, "a"), (0, "a"), (1, "b"), (1_000_000, "c")]
    requests.write_text("".join(json.dumps({"doc": {"q": q}, "doc_id": id, "request": {}}) + "\n" for id, q in docs))
    found = read(requests, source, "o")
    assert (
        [row["q"] for row in found.rows] == ["a", "b"] and found.lines == (1, 3) and found.where(1).endswith("line 3")
    )
    assert text_field({"a": " x "}, "a", "w") == " x "
    for row, said in (({}, "is missing"), ({"a": " "}, "holds ' '"), ({"a": 3}, "holds '3'")):
        with pytest.raises(DataError, match=f"w: the field 'a' {said}"):
            text_field(row, "a", "w")


def test_bias_files_and_papers_are_named_with_their_hash(tmp_path: Path, monkeypatch: Any):
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    raw = b",a\n0,x\n"
    (tmp_path / "t.csv").write_bytes(raw)
    rows, digest = bias_rows("bias/t.csv", str(tmp_path), "there")
    assert rows[0].columns == {"row": "0", "a": "x"} and digest == hashlib.sha256(raw).hexdigest()
    assert text_cell(rows[0], "a") == "x"
    with pytest.raises(DataError, match=r"'b' is 'None', and a text was expected"):
        text_cell(rows[0], "b")
    with pytest.raises(DataError, match=r"u\.json is not on this machine: fetch it from there"):
        bias_object("bias/u.json", "", "there")
    (tmp_path / "u.json").write_text('{"a": 1}')
    assert bias_object("bias/u.json", str(tmp_path), "there")[0] == {"a": 1}
    (tmp_path / "reasoning").mkdir()
    (tmp_path / "reasoning" / "p.txt").write_text("é")
    found = find_paper(("q.txt", "p.txt"), "none", str(tmp_path))
    assert found is not None and (found.text, found.origin) == ("é", "data folder")
    with pytest.raises(DataError, match=r"which has none of q\.txt: put the file there"):
        find_paper(("q.txt",), "none", str(tmp_path))
    monkeypatch.setenv("FIRSTHAND_DATA", str(tmp_path))
    assert find_paper(("p.txt",), "none", "").origin == "$FIRSTHAND_DATA"  # type: ignore[union-attr]


def test_histories_are_sorted_by_time_and_captions_are_told():
    assert [iso_time(text, "w") for text in ("2023/05/20 (Sat) 02:21", " 1:56 pm on 8 May, 2023 ", "2023-01-02")] == [
        "2023-05-20T02:21:00", "2023-05-08T13:56:00", "2023-01-02T00:00:00",
    ]  # fmt: skip
    with pytest.raises(DataError, match="w: 'May' is no date"):
        iso_time("May", "w")
    turn = {"role": "user", "content": "hi", "extra": 1}
    record = {
        "haystack_session_ids": ["b", "a"], "haystack_dates": ["2023/05/20", "2023/05/19"],
        "haystack_sessions": [[turn], []],
    }  # fmt: skip
    assert longmemeval_sessions(record, "w") == [
        {"id": "a", "time": "2023-05-19T00:00:00", "messages": []},
        {"id": "b", "time": "2023-05-20T00:00:00", "messages": [{"role": "user", "content": "hi"}]},
    ]
    with pytest.raises(DataError, match="w: 1 ids, 2 dates and 2 sessions"):
        longmemeval_sessions({**record, "haystack_session_ids": ["b"]}, "w")
    said = {"speaker": "Ann", "text": "look", "dia_id": "D1:1", "blip_caption": "a dog"}
    talk = {"session_10": [], "session_2": [said], "speaker_a": "Ann"}
    talk |= {"session_10_date_time": "2023-02-02", "session_2_date_time": "2023-02-01"}
    sessions = locomo_sessions(talk, "w")
    assert [each["id"] for each in sessions] == ["session_2", "session_10"]
    assert sessions[0]["messages"] == [{"role": "Ann", "content": "look [shares an image: a dog]", "id": "D1:1"}]
