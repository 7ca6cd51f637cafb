"""Writes documents of made-up facts, and questions on them, for `firsthand rag decide`: nothing a model can know before.

    python bench/made_up_facts.py FOLDER --documents 40
    python bench/made_up_facts.py FOLDER --documents 40 --linked

FOLDER/docs holds a text of a few sentences for each made-up firm; FOLDER/questions.jsonl asks one fact of each, and
FOLDER/train.jsonl the other four, for `--train-questions`. With --linked each text names a supplier, another firm, and
FOLDER/questions.jsonl asks one fact of that supplier, so that an answer needs two documents. FOLDER/facts.toml makes the
questions a benchmark: `firsthand run FOLDER/facts.toml --pattern naive:index=FOLDER/docs`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

STARTS = ("Vel", "Tor", "Mar", "Ken", "Sol", "Bri", "Dun", "Hal", "Lor", "Pem", "Quor", "Rast")
ENDS = ("dane", "mik", "vex", "tola", "rune", "sby", "gard", "nia", "quist", "low")
NAMES = (
    "Ada",
    "Boris",
    "Chen",
    "Dora",
    "Emil",
    "Farah",
    "Goran",
    "Hanna",
    "Igor",
    "Jonas",
    "Kaya",
    "Lena",
    "Milan",
    "Nora",
)
TOWNS = ("Bergen", "Graz", "Leiden", "Porto", "Turku", "Ghent", "Split", "Cork", "Basel", "Malmo", "Trieste", "Tartu")
GOODS = (
    "kettles",
    "lanterns",
    "saddles",
    "violins",
    "compasses",
    "umbrellas",
    "anchors",
    "quilts",
    "clocks",
    "ladders",
)


BENCHMARK = """data = "questions.jsonl"
prompt = "{question}"
target = "{answer}"
scorer = ["includes"]
"""
ASKED = (
    "In which town is {firm}?",
    "What does {firm} make?",
    "Who is the director of {firm}?",
    "In which year was {firm} founded?",
    "How many people does {firm} employ?",
)


def firm(draw: Random, name: str) -> tuple[str, list[str], int]:
    """Returns the text on a firm, the answers of its five questions, and the number of the one that is asked."""
    town, goods, boss = draw.choice(TOWNS), draw.choice(GOODS), draw.choice(NAMES)
    year, staff = draw.randint(1870, 1999), draw.randint(12, 900)
    text = (
        f"{name} is a firm in {town} that makes {goods}. It was founded in {year}.\n"
        f"The director of {name} is {boss}. The firm employs {staff} people.\n"
        f"Visitors to {name} are welcome on weekdays; the works close in August.\n"
    )
    return text, [town, goods, boss, str(year), str(staff)], draw.choice(range(5))


def question(place: int, name: str, answers: list[str], files: list[str]) -> dict[str, object]:
    """Returns a line of questions on one fact. The firm's own questions on town and goods call it a firm."""
    called = f"the firm {name}" if place < 2 and " " not in name else name
    return {"question": ASKED[place].format(firm=called), "answer": answers[place], "document": files}


def main() -> None:
    """Writes the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--linked", action="store_true", help="questions that need two documents")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw = Random(given.seed)
    names = [start + end for start in STARTS for end in ENDS]
    if not 2 <= given.documents <= len(names):
        parser.error(f"--documents is {given.documents}: give 2 to {len(names)}")
    (given.folder / "docs").mkdir(parents=True, exist_ok=True)
    names = draw.sample(names, given.documents)
    firms = {name: firm(draw, name) for name in names}
    asked, others = [], []
    for n, (name, (text, answers, place)) in enumerate(firms.items()):
        supplier = names[n - 1]
        files = [f"{name.lower()}.md"]
        if given.linked:
            text += f"The parts of {name} are supplied by {supplier}.\n"
            of, files = f"the firm that supplies {name}", [f"{supplier.lower()}.md", *files]
            asked.append(question(place, of, firms[supplier][1], files))
        else:
            asked.append(question(place, name, answers, files))
        others += [question(each, name, answers, files[-1:]) for each in range(5) if each != place]
        (given.folder / "docs" / f"{name.lower()}.md").write_text(text, encoding="utf-8")
    (given.folder / "facts.toml").write_text(BENCHMARK, encoding="utf-8")
    for file, lines in (("questions.jsonl", asked), ("train.jsonl", others)):
        (given.folder / file).write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
