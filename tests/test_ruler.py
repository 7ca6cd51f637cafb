"""RULER's texts have the published shape, are never longer than their length, and are scored as published."""

import json
import re
from collections import Counter
from itertools import pairwise
from random import Random

import pytest

import firsthand
from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmarks.long_context import ruler_qa, ruler_sample
from firsthand.benchmarks.long_context.haystack import NOISE, essays, sentences
from firsthand.benchmarks.long_context.lengths import largest, meter, parse_lengths
from firsthand.benchmarks.long_context.ruler_counting import common_words
from firsthand.benchmarks.long_context.ruler_needles import DEPTHS, NEEDLES, needle_generator
from firsthand.benchmarks.long_context.ruler_sample import SampleKey
from firsthand.benchmarks.ruler import TASKS, SampleSizes, ruler
from firsthand.errors import ConfigError, DataError, FirsthandError, MissingExtra, UnknownName
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.scorers.contained import string_match
from firsthand.trace import Trace

pytest.importorskip("wonderwords")
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
WORD = r"[^\n:.]+-[^\n:.]+"
HEAD = (
    "{Some} special magic {thing} {are} hidden within the following text. Make sure to memorize it. I will quiz you about "
    "the {thing} afterwards."
)
SQUAD = {
    "data": [
        {
            "title": f"Article {article}",
            "paragraphs": [
                {
                    "context": f"Passage {article}.{number} tells that colour {article}.{number} is {colour}.",
                    "qas": [
                        {"question": f"What is colour {article}.{number}?", "is_impossible": False,
                         "answers": [{"text": colour}, {"text": f"all {colour}"}]},
                        {"question": "What is unknown?", "is_impossible": True, "answers": []},
                    ],
                }
                for number, colour in enumerate(("red", "green", "blue"))
            ],
        }
        for article in range(8)
    ]
}  # fmt: skip
HOTPOT = [
    {"question": f"Who is person {n}?", "answer": f"name {n}",
     "context": [[f"T{n}.{d}", ["One. ", f"Two {n}."]] for d in range(10)]}
    for n in range(4)
]  # fmt: skip


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A user's folder: essays that were made up, SQuAD's nested file and HotpotQA's list, by the names of RULER's script."""
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    rng = Random(1)
    told = [
        f"{' '.join(rng.choices(['time', 'work', 'people', 'good', 'idea'], k=9)).capitalize()}." for _ in range(400)
    ]
    (tmp_path / "PaulGrahamEssays.json").write_text(json.dumps({"text": "\n".join(told)}))
    (tmp_path / "squad.json").write_text(json.dumps(SQUAD))
    (tmp_path / "hotpotqa.json").write_text(json.dumps(HOTPOT))
    return tmp_path


def first(name, length=1200, protocol="base", **options):
    [task] = ruler(protocol=protocol, tasks=name, lengths=str(length), samples=1, **options).tasks(0)
    return task


def scored(task, answer):
    return string_match(task, Trace("t", "ruler", task.id, {"name": "a"}, 0, 0, "", 0.0, answer=answer)).value


def test_each_of_the_thirteen_fits_its_length_and_scores_its_own_answer_alone(data):
    made = ruler(lengths="1536,2k", samples=1, data=str(data), count="words*1.4")
    tasks = list(made.tasks(3))
    assert len(tasks) == len(made.tasks(3)) == 13 * 2 and len({task.id for task in tasks}) == 26
    assert {task.metadata["group"] for task in tasks} == set(TASKS)
    for task in tasks:
        length, group, answers = task.metadata["length"], task.metadata["group"], task.secret["answers"]
        tokens = meter("words*1.4").measure(task.context) + task.sampling["max_tokens"]
        assert tokens == task.metadata["tokens"] <= length, task.id
        assert tokens > 0.85 * length or group in ("qa_1", "qa_2"), (task.id, tokens)
        assert scored(task, " " + ", ".join(answers).upper() + ".") == 1.0
        assert scored(task, "I do not know.") == scored(task, "") == 0.0
    assert list(made.tasks(3)[3:5]) == tasks[3:5] != list(made.tasks(4)[3:5])


def test_match_all_counts_a_share_and_match_part_any(data):
    assert scored(first("niah_multivalue", data=str(data)), "") == 0
    several = first("niah_multiquery", data=str(data))
    assert scored(several, "so: " + several.secret["answers"][2] + "\x00 and no more") == 0.25
    question = first("qa_1", data=str(data))
    assert question.secret["answers"] == ["red", "all red"] and scored(question, "It is Red") == 1.0


@pytest.mark.parametrize(
    ("name", "key", "value", "asked"),
    [
        ("niah_single_1", WORD, r"\d{7}", 1),
        ("niah_single_2", WORD, r"\d{7}", 1),
        ("niah_single_3", WORD, UUID, 1),
        ("niah_multikey_1", WORD, r"\d{7}", 1),
        ("niah_multikey_2", WORD, r"\d{7}", 1),
        ("niah_multikey_3", UUID, UUID, 1),
        ("niah_multivalue", WORD, r"\d{7}", 4),
        ("niah_multiquery", WORD, r"\d{7}", 4),
    ],
)
def test_needles_are_told_and_asked_for_as_published(name, key, value, asked, data):
    task = first(name, data=str(data))
    kind, one = NEEDLES[name], asked == 1
    many = kind.values
    thing = many.removesuffix("s") if one else many
    lines = task.context.split("\n")
    assert lines[0] == HEAD.format(Some="A" if one else "Some", thing=thing, are="is" if one else "are")
    query = key if kind.num_queries == 1 else ", ".join([key] * 3) + ", and " + key
    question = (
        f"What (?:{'is the' if one else 'are all the'}) special magic {thing} for ({query}) mentioned in the provided "
        f"text\\? The special magic {thing} for ({query}) mentioned in the provided text (?:{'is' if one else 'are'})"
    )
    found = re.fullmatch(question, lines[-1])
    assert found and found[1] == found[2]
    told = re.findall(rf"One of the special magic {many} for ({key}?) is: ({value})\.", "\n".join(lines[1:-1]))
    if kind.haystack == "needle":
        assert len(told) == len(lines) - 2 > 10
    else:
        assert len(told) == kind.num_keys * kind.num_values
    for answer in task.secret["answers"]:
        [named] = [name for name, number in told if number == answer]
        assert named in found[1]
    if kind.haystack == "noise":
        assert Counter(lines[1:-1])[NOISE] == len(lines) - 3
    assert task.sampling == {"stop": (), "max_tokens": 128, "temperature": 0.0}
    assert ("depth" in task.metadata) == (kind.num_keys * kind.num_values == 1)


def test_needles_lie_at_all_depths(data):
    depths = Counter(
        task.metadata["depth"]
        for task in ruler(tasks="niah_single_2", samples=80, lengths="1k", data=str(data)).tasks(0)
    )
    assert min(depths) <= 10 and max(depths) >= 90 and len(depths) >= 9
    assert DEPTHS[:3] == (0, 3, 5) and DEPTHS[-1] == 100 and len(set(DEPTHS)) == 40


def test_variables_form_one_chain_in_order_after_a_worked_example():
    task = first("vt", 2048)
    example, text = task.context.split("\n\nMemorize and track", 1)
    shown = re.findall(r"^VAR ([A-Z]{3}) = (?:VAR )?(\w+) ?$", example, re.MULTILINE)
    assert len(shown) == 5 and example.endswith("they are:  " + " ".join(name for name, _ in shown))
    chain = re.findall(r"^VAR ([A-Z]{5}) = (\d{5}|VAR [A-Z]{5} )$", text, re.MULTILINE)
    names, value = [name for name, _ in chain], chain[0][1]
    assert names == task.secret["answers"] and len(names) == 5
    assert all(said == f"VAR {before} " for (_, said), (before, _) in zip(chain[1:], chain, strict=False))
    assert text.endswith(
        f"Question: Find all variables that are assigned the value {value} in the text above. Answer: According to the "
        f"chain(s) of variable assignment in the text above, 5 variables are assigned the value {value}, they are: "
    )
    assert task.sampling["max_tokens"] == 30 and meter("").measure(example) <= 500


@pytest.mark.parametrize(("length", "counts", "example"), [(2048, {6: 10, 1: None}, {3: 10, 1: 10}),
                                                           (5000, {30: 10, 3: None}, {10: 10, 3: 30})])  # fmt: skip
def test_common_words_are_ten_and_stand_as_often_as_published(length, counts, example):
    task = first("cwe", length)
    worked, asked = task.context.split("\nBelow is a numbered list of words.")
    for text, expected in ((worked, example), (asked, counts)):
        numbers, words = zip(
            *re.findall(r"(\d+)\. ([^\d]+?)(?= \d+\. |\n)", text.split("Memorize")[1].split("Question")[0]), strict=True
        )
        assert list(numbers) == [str(n + 1) for n in range(len(numbers))]
        often = Counter(Counter(words).values())
        assert all(often[times] == (count or often[times]) > 0 for times, count in expected.items()) and len(often) == 2
        common = {word for word, times in Counter(words).items() if times == max(expected)}
        told = re.findall(r"\d+\. ([^\d]+?)(?= \d+\. |$)", text.split("in the list are:")[1])
        assert common == set(told if text is worked else task.secret["answers"])
    assert task.context.endswith(
        "\nQuestion: What are the 10 most common words in the above list? Answer: The top 10 words that appear most often "
        "in the list are:"
    )


def test_coded_words_fall_with_the_square_of_their_rank():
    task = first("fwe", 4096)
    text = task.context.split("coded words. ", 1)[1].split("\nQuestion")[0].split(" ")
    counts = Counter(text)
    [(dots, most), *others] = counts.most_common()
    assert dots == "..." and [word for word, _ in others[:3]] == task.secret["answers"]
    assert all(re.fullmatch("[a-z]{6}", word) for word, _ in others)
    for rank, (_, count) in enumerate(others[:5], 2):
        assert abs(count - most / rank**2) <= 1.01
    assert len(counts) <= (4096 - 50) // 50


def test_questions_stand_among_documents_of_their_article_first(data):
    task = first("qa_1", 400, data=str(data))
    documents = re.findall(r"Document (\d+):\n(Passage [^\n]+)", task.context)
    assert [int(number) for number, _ in documents] == list(range(1, len(documents) + 1))
    assert sum("Passage 0." in text for _, text in documents) == 3 < len(documents)
    assert task.context.startswith(
        "Answer the question based on the given documents. Only give me the answer and do not "
    )
    assert task.context.endswith("Question: What is colour 0.0? Answer:") and task.cluster.startswith("qa_1 document")
    asked = [each.prompt for each in ruler(tasks="qa_1", lengths="1k", samples=24, data=str(data)).tasks(0)]
    assert len(set(asked)) == 24 and not any("unknown?" in text.split("Question:")[-1] for text in asked)
    hotpot = first("qa_2", 1024, data=str(data))
    assert all(f"T0.{d}\nOne. Two 0." in hotpot.context for d in range(10)) and hotpot.secret["answers"] == ["name 0"]
    with pytest.raises(DataError, match="has 24 questions: give samples=24"):
        list(ruler(tasks="qa_1", lengths="1k", samples=25, data=str(data)).tasks(0))


def test_a_row_of_the_hub_is_a_row_of_the_file(data, tmp_path):
    squad = ruler_qa.SOURCES["qa_1"].from_hub(
        {"title": "t", "context": "c", "question": "q", "answers": {"text": ["a"]}}
    )
    hotpot = ruler_qa.SOURCES["qa_2"].from_hub(
        {"question": "q", "answer": "a", "context": {"title": ["t", "u"], "sentences": [["s. "], ["v.", "w."]]}}
    )
    assert hotpot["context"] == [["t", ["s. "]], ["u", ["v.", "w."]]]
    place = tmp_path / "hub" / "longctx"
    place.mkdir(parents=True)
    (place / "squad_v2_validation.jsonl").write_text(json.dumps(squad) + "\n")
    assert ruler_qa.read_question_set("qa_1", str(tmp_path / "hub")).questions[0].answers == ("a",)


def test_templates_wrap_the_text_and_the_answer_begins_after_them(data):
    for name in ("niah_single_2", "vt", "fwe", "qa_1"):
        task = first(name, 1600, "meta-chat", data=str(data))
        assert task.context.startswith("[INST] ") and re.search(r" \[/INST\] (The|Answer)[^\[]*$", task.context)
    chat = first("niah_single_1", protocol="chat")
    assert chat.context is None and chat.prompt.endswith("mentioned in the provided text is")
    worked = first("cwe", 2048, "meta-chat").context
    assert worked.count("[INST] ") == worked.count(" [/INST] Answer:") == 2  # the worked example has the template too


def test_noise_takes_the_place_of_essays_only_where_the_protocol_says_so(tmp_path, monkeypatch):
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    with pytest.raises(DataError, match=r"no essays of Paul Graham.*ruler@base-noise"):
        ruler(tasks="niah", data=str(tmp_path))
    with pytest.raises(DataError) as caught:
        ruler(data=str(tmp_path))
    for part in (
        "no essays",
        "squad.json",
        "dev-v2.0.json)",
        "hotpotqa.json",
        "data=hub",
        "base-noise:tasks=generated",
    ):
        assert part in str(caught.value)
    assert ruler(protocol="base-noise", tasks="generated", data=str(tmp_path)).tasks(0)
    task = first("niah_multiquery", protocol="base-noise")
    assert NOISE in task.context and len(task.secret["answers"]) == 4
    assert ruler(protocol="base-noise", tasks="niah").name == "ruler@base-noise"


def test_tasks_are_made_when_they_are_asked_for():
    tasks = ruler(tasks="niah_single_1,fwe", lengths="4k-128k", samples=500).tasks(0)
    assert len(tasks) == 2 * 6 * 500
    few = tasks[:1]
    assert len(few) == 1 and few[0] == tasks[0]


def test_the_run_records_what_it_was_made_with_and_a_model_can_pass_it():
    made = catalog.benchmark("ruler@base-noise:tasks=niah_single_1:lengths=512:samples=2:count=words*2")
    assert "512 in estimated as words x 2" in made.protocol and made.options["count"] == "estimated as words x 2"
    [task, other] = made.tasks(0)
    model = Scripted([f" {task.secret['answers'][0]}."] * 2)
    trace = firsthand.run_sync(rollout(Agent("direct", model, direct), task, benchmark=made))
    assert trace.value("string_match") == 1.0
    trace = firsthand.run_sync(rollout(Agent("direct", model, direct), other, benchmark=made))
    assert trace.value("string_match") == 0.0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tasks": "niah_sinlge_1"}, "did you mean 'niah_single_1'"),
        ({"tasks": "fwe", "lengths": "4m"}, "give lengths in tokens"),
        ({"tasks": "fwe", "lengths": "8k-4k"}, "its shortest"),
        ({"tasks": "fwe", "lengths": "1"}, "from 64 on"),
        ({"tasks": "fwe", "samples": 0}, "samples is 0"),
        ({"tasks": "fwe", "count": "words*"}, "words times a factor"),
        ({"tasks": "fwe", "count": "words*0"}, "words times a factor"),
        ({"tasks": "fwe", "count": "no/such.gguf"}, "there is no such file"),
        ({"tasks": "qa_1", "data": "/nowhere"}, "neither squad.json nor dev-v2.0.json"),
    ],
)
def test_what_cannot_work_is_refused_in_a_sentence(options, says, monkeypatch):
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    with pytest.raises(FirsthandError, match=says):
        ruler(**options)


def test_a_text_that_fits_no_length_says_how_long_its_shortest_is():
    with pytest.raises(ConfigError, match=r"vt does not fit 256 tokens: its shortest text has \d+"):
        first("vt", 256)


@pytest.mark.parametrize(
    ("task", "body", "says"),
    [
        ("qa_1", "{", "is not JSON"),
        ("qa_1", "[]", "is not SQuAD's file"),
        ("qa_1", '{"data": [{"title": "t"}]}', "is not SQuAD's file"),
        ("qa_1", '{"data": []}', "no answerable question"),
        ("qa_2", "[" * 100_000, "is not JSON"),
        ("qa_2", '[{"question": "q", "answer": "a", "type": "comparison"}]', "distractor file"),
        ("qa_2", '[{"question": "q", "answer": "a", "context": [1]}]', "distractor file"),
        ("qa_2", "[]", "no answerable question"),
    ],
)
def test_a_broken_set_of_questions_is_named(task, body, says, tmp_path):
    (tmp_path / ruler_qa.FILES[task][0]).write_text(body)
    with pytest.raises(DataError, match=says):
        ruler_qa.read_question_set(task, str(tmp_path))


@pytest.mark.parametrize(("body", "says"), [(b"[]", "not a JSON object"), (b'{"text": 3}', "is a int, not text"),
                                            (b"\xff", "not a JSON"),
                                            (b'{"text": "few words"}', "holds 2 words")])  # fmt: skip
def test_broken_essays_are_named(body, says, tmp_path):
    (tmp_path / "PaulGrahamEssays.json").write_bytes(body)
    with pytest.raises(DataError, match=says):
        essays(str(tmp_path), "")


def test_essays_may_be_a_folder_of_texts_and_repeat_when_more_is_needed(tmp_path):
    folder = tmp_path / "paul_graham_essays"
    folder.mkdir()
    (folder / "b.txt").write_text("Last one. " * 60)
    (folder / "a.txt").write_text("First,\n one. " * 60)
    found = essays(str(tmp_path), "")
    assert found.words[:2] == ("First,", "one.") and len(found.words) == 240
    assert found.first(3) == "First, one. First," and found.first(482).endswith("one. First, one.")
    (folder / "c.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"c\.txt is not UTF-8"):
        essays(str(tmp_path), "")


def test_words_that_are_missing_are_an_extra(monkeypatch):
    monkeypatch.setattr(ruler_sample.importlib.util, "find_spec", lambda name: None)
    ruler_sample.word_list.cache_clear()
    with pytest.raises(MissingExtra, match=r"firsthand\[longctx\]"):
        ruler_sample.word_list("noun")
    ruler_sample.word_list.cache_clear()


def test_the_largest_that_fits_is_found():
    for limit in (1, 2, 7, 100, 4096):
        assert largest(lambda size, limit=limit: size <= limit, 1, 10) == limit
    assert largest(lambda size: False, 1, 10) is None
    assert parse_lengths("4k-32k,5000") == (4096, 5000, 8192, 16384, 32768)
    assert sentences('He left. "Why?" Nobody (we asked) knew, e.g. her. 7 stayed!') == [
        "He left.", '"Why?"', "Nobody (we asked) knew, e.g. her.", "7 stayed!"]  # fmt: skip


def test_an_estimate_without_a_tokenizer_counts_numbers_and_identifiers_too():
    measure = meter("").measure
    assert measure("The grass is green.") == 7 and measure("1234567") == round(1.4 * 3)
    assert measure("0d7ba717-e034-410e-88ab-c13d37cc6499") > 20
    with pytest.raises(UnknownName):
        ruler(protocol="basic")


def test_several_needles_in_noise_stay_in_the_order_they_were_shuffled_into():
    made = needle_generator(NEEDLES["niah_multiquery"], "{task}", None).make(
        8, Random(5), SampleKey("niah_multiquery", 1024, 0)
    )
    at = [made.input.index(f"is: {value}.") for value in made.answers]
    assert len(set(at)) == 4 and all(a != b for a, b in pairwise(sorted(at)))


def test_common_words_come_as_often_as_is_published_from_4096_tokens_on():
    def counts(length):
        key = SampleKey("cwe", length, 0)
        made = common_words("{task}", "").make(60, Random(1), key)
        lists = [
            line for line in made.input.splitlines() if line.startswith("1. ")
        ]  # of the example, and the question's
        times = [Counter(re.findall(r"\d+\. ([^\d]+?)(?= \d+\. |$)", each)) for each in lists]
        assert all(times[1][answer] == max(times[1].values()) for answer in made.answers)
        return [(max(each.values()), min(each.values()), len(each)) for each in times]

    assert counts(4095) == [(3, 1, 20), (6, 1, 60)] and counts(4096) == [(10, 3, 40), (30, 3, 60)]


def test_questions_that_the_authors_call_impossible_are_not_asked(data):
    body = json.loads(json.dumps(SQUAD))
    for article in body["data"]:
        for paragraph in article["paragraphs"]:
            paragraph["qas"][1]["answers"] = [{"text": "plausible"}]
    (data / "squad.json").write_text(json.dumps(body))
    found = ruler_qa.read_question_set("qa_1", str(data))
    assert len(found.questions) == 24 and not any("unknown" in each.query for each in found.questions)


class OneWordEach:
    """A generator of texts of `size` words, of which all but the first sample have some more."""

    least, tokens = 3, 5

    def __init__(self, more):
        self.more, self.made = more, []

    def make(self, size, rng, draw):
        self.made.append(size)
        return ruler_sample.RulerSample("w " * (size + (self.more if draw[2] else 0)), "", ("a",))


class Words:
    def measure(self, text):
        return len(text.split())


@pytest.mark.parametrize(("more", "least_kept"), [(0, 95), (1, 94), (2, 93), (40, 50)])
def test_a_sample_longer_than_the_measured_one_is_made_shorter_until_it_fits(more, least_kept):
    generator = OneWordEach(more)
    sizes = SampleSizes({"t": generator}, Words(), 0)
    assert sizes.sample(SampleKey("t", 100, 0))[1] == 100
    generator.made.clear()
    sample, tokens = sizes.sample(SampleKey("t", 100, 1))
    assert generator.made[0] == 95 and tokens == len(sample.text.split()) + 5 <= 100
    assert generator.made[-1] >= least_kept and all(a > b for a, b in pairwise(generator.made))


def test_the_shortest_sample_that_does_not_fit_is_an_error_that_counts_it():
    sizes = SampleSizes({"t": OneWordEach(200)}, Words(), 0)
    with pytest.raises(ConfigError, match="its shortest text has 208, generated ones included"):
        sizes.sample(SampleKey("t", 100, 1))
