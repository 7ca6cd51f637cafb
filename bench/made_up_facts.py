"""Writes documents of made-up facts, and questions on them, for `firsthand rag decide`: nothing a model can know before.

    python bench/made_up_facts.py FOLDER --documents 40

FOLDER/docs holds a text of a few sentences for each made-up firm; FOLDER/questions.jsonl asks one fact of each.
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


def firm(draw: Random, name: str) -> tuple[str, dict[str, str]]:
    """Returns the text on a firm, and a question on it."""
    town, goods, boss = draw.choice(TOWNS), draw.choice(GOODS), draw.choice(NAMES)
    year, staff = draw.randint(1870, 1999), draw.randint(12, 900)
    text = (
        f"{name} is a firm in {town} that makes {goods}. It was founded in {year}.\n"
        f"The director of {name} is {boss}. The firm employs {staff} people.\n"
        f"Visitors to {name} are welcome on weekdays; the works close in August.\n"
    )
    asked = draw.choice(
        [
            (f"In which town is the firm {name}?", town),
            (f"What does the firm {name} make?", goods),
            (f"Who is the director of {name}?", boss),
            (f"In which year was {name} founded?", str(year)),
            (f"How many people does {name} employ?", str(staff)),
        ]
    )
    return text, {"question": asked[0], "answer": asked[1]}


def main() -> None:
    """Writes the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw = Random(given.seed)
    names = [start + end for start in STARTS for end in ENDS]
    if not 2 <= given.documents <= len(names):
        parser.error(f"--documents is {given.documents}: give 2 to {len(names)}")
    (given.folder / "docs").mkdir(parents=True, exist_ok=True)
    questions = []
    for name in draw.sample(names, given.documents):
        text, asked = firm(draw, name)
        file = f"{name.lower()}.md"
        (given.folder / "docs" / file).write_text(text, encoding="utf-8")
        questions.append({**asked, "document": file})
    lines = "".join(json.dumps(each) + "\n" for each in questions)
    (given.folder / "questions.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
