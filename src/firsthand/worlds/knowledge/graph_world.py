"""Questions to a knowledge graph by AgentBench's seven functions (Liu et al., ICLR 2024, knowledge graph).

A function over a set of entities gives a variable `#n`, numbered from 0, or lists what can be followed. `get_neighbors`
needs a relation that `get_relations` listed, `argmax` and `argmin` an attribute that `get_attributes` listed, and
`intersection` two variables of one type, as in the paper's code. The answer is a variable; its entities are scored by F1.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import NamedTuple

from firsthand.message import Json
from firsthand.task import Task
from firsthand.worlds.knowledge.triples import TripleStore, extreme
from firsthand.worlds.world import InvalidAction, WorldCall

FUNCTIONS = ("get_relations", "get_neighbors", "intersection", "get_attributes", "argmax", "argmin", "count")
MAX_SHOWN = 300
"""Relations or attributes that an observation lists."""
MAX_LISTED = 1000
"""Entities of an answer that a run keeps; all of them are scored."""
MAX_MEMBERS = 1_000_000
_CALL = re.compile(r"(\w+)\s*\(([^()]*)\)")
_FINAL = re.compile(r"final[_ ]answer\s*[:(]\s*(#?\d+)\s*\)?", re.IGNORECASE)
_ENTITY = re.compile(r"[mg]\.\w+|f\.\w+")


class GraphVariable(NamedTuple):
    """A set of entities of one type, or a number."""

    kind: str
    members: frozenset[str]
    number: int | None = None


class GraphWorld:
    """One question to a graph. `World` describes the interface."""

    examples = ("get_relations(Ann Lee)", "get_neighbors(Ann Lee, people.person.parents)", "Final Answer: #0")

    def __init__(self, graph: TripleStore, task: Task) -> None:
        """A question whose entities are public and whose actions and answer are secret."""
        self.graph, self.task = graph, task
        self._given = frozenset(task.metadata["entities"].values())

    async def open(self) -> None:
        """Begin without variables."""
        self.variables: list[GraphVariable] = []
        self.answer: int | None = None
        self._relations: dict[str, list[str]] = {}
        self._attributes: dict[str, list[str]] = {}
        self._played = 0

    async def close(self) -> None:
        """Nothing is held: the graph is shared."""

    @property
    def ending(self) -> str | None:
        """`answered` once there is an answer."""
        return None if self.answer is None else "answered"

    @property
    def form(self) -> str | None:
        """A function with one or two arguments, or the final answer."""
        return rf"({'|'.join(FUNCTIONS)})\([^()\n]{{1,200}}\)|Final Answer: #[0-9]{{1,3}}"

    @property
    def moves(self) -> Sequence[Callable[..., Awaitable[str]]]:
        """The seven functions, and `final_answer`."""
        return (
            self.get_relations,
            self.get_neighbors,
            self.intersection,
            self.get_attributes,
            self.argmax,
            self.argmin,
            self.count,
            self.final_answer,
        )

    def read(self, action: str) -> WorldCall:
        """The function that a text action calls."""
        if found := _FINAL.fullmatch(action.strip()):
            return WorldCall("final_answer", {"variable": found[1]})
        call = _CALL.fullmatch(action.strip())
        names = {
            "get_neighbors": ("variable", "relation"),
            "intersection": ("first", "second"),
            "argmax": ("variable", "attribute"),
            "argmin": ("variable", "attribute"),
        }
        if call is None or call[1] not in FUNCTIONS:
            raise InvalidAction(
                f"{action[:60]!r} is no action: write one of {', '.join(FUNCTIONS)} with its arguments, such as "
                "get_relations(#0), or Final Answer: #n"
            )
        wanted = names.get(call[1], ("variable",))
        given = [each.strip() for each in call[2].split(",")]
        if len(given) != len(wanted) or not all(given):
            raise InvalidAction(
                f"{call[1]} takes {len(wanted)} arguments, {' and '.join(wanted)}: {call[2].strip()[:60]!r} came"
            )
        return WorldCall(call[1], dict(zip(wanted, given, strict=True)))

    def admissible(self) -> Sequence[str]:
        """The calls that are possible now: what was listed can be followed, and each variable can be the answer."""
        found = [
            f"get_relations({each})" for each in [*sorted(self._given), *self._names()] if each not in self._relations
        ]
        for name, relations in self._relations.items():
            found += [f"get_neighbors({name}, {relation})" for relation in relations]
        for first, one in enumerate(self.variables):
            if one.number is not None:
                continue
            pairs = range(first + 1, len(self.variables))
            alike = [n for n in pairs if self.variables[n].number is None and self.variables[n].kind == one.kind]
            found += [f"intersection(#{first}, #{second})" for second in alike]
            found += [f"get_attributes(#{first})"] * (f"#{first}" not in self._attributes) + [f"count(#{first})"]
        for name, attributes in self._attributes.items():
            found += [f"{verb}({name}, {attribute})" for attribute in attributes for verb in ("argmax", "argmin")]
        return found + [f"Final Answer: #{n}" for n in range(len(self.variables))]

    def render(self) -> str:
        """The question, and each variable with the names of up to ten of its entities."""
        lines = [self.task.metadata.get("question", self.task.prompt)]
        for number, variable in enumerate(self.variables):
            names = ", ".join(self.graph.name(each) for each in sorted(variable.members)[:10])
            size = "" if variable.number is not None else f" ({len(variable.members)})"
            lines.append(
                f"#{number} {variable.kind}{size}: {variable.number if variable.number is not None else names}"
            )
        return "\n".join(lines)

    async def result(self) -> Json:
        """The answer, counted whole: its size, and how many of the wanted it has; and up to 1,000 of it for people to read.

        `answer` has ids sorted, or a number as text, and is empty if there is none.
        """
        variable = GraphVariable("", frozenset()) if self.answer is None else self.variables[self.answer]
        numbers = frozenset() if variable.number is None else frozenset({str(variable.number)})
        given, wanted = variable.members | numbers, frozenset(self.task.secret.get("answer", ()))
        shown = sorted(given)[:MAX_LISTED]
        names = [] if numbers else [self.graph.name(each) for each in shown[:20]]
        return {"answer": shown, "names": names, "size": len(given), "hits": len(given & wanted)}

    def optimal(self) -> str:
        """The next of the question's own functions."""
        self._played += 1
        return str(self.task.secret["actions"][self._played - 1])

    def random(self, rng: Random) -> str:
        """One of the calls that are possible now."""
        return rng.choice(self.admissible())

    async def get_relations(self, variable: str) -> str:
        """The relations that lead from an entity or a variable to others.

        Args:
            variable: An entity such as m.0abc, or a variable such as #0.
        """
        name, members = self._set(variable)
        self._relations[name] = relations = self.graph.relations(members)
        return _shown(relations)

    async def get_neighbors(self, variable: str, relation: str) -> str:
        """A new variable: all that a relation leads to from an entity or a variable.

        Args:
            variable: An entity or a variable whose relations were listed.
            relation: One of these relations.
        """
        name, members = self._set(variable)
        if relation not in self._relations.get(name, ()):
            listed = _shown(self._relations[name]) if name in self._relations else "not listed yet: get_relations first"
            raise InvalidAction(f"{relation[:80]} is no listed relation of {name}; its relations are {listed}")
        found = self.graph.neighbors(members, relation)
        return self._add(GraphVariable(self.graph.range_of(relation) or "common.topic", found))

    async def intersection(self, first: str, second: str) -> str:
        """A new variable: the entities that are in both of two variables of one type.

        Args:
            first: A variable.
            second: Another variable of the same type.
        """
        one, two = self._variable(first), self._variable(second)
        if one.kind != two.kind and "common.topic" not in (one.kind, two.kind):
            raise InvalidAction(
                f"{first} is of type {one.kind} and {second} of {two.kind}: they must have the same type"
            )
        return self._add(GraphVariable(one.kind, one.members & two.members))

    async def get_attributes(self, variable: str) -> str:
        """The numbers and dates that the entities of a variable have.

        Args:
            variable: A variable such as #0.
        """
        members = self._variable(variable).members
        self._attributes[_normal(variable)] = attributes = self.graph.attributes(members)
        return _shown(attributes)

    async def argmax(self, variable: str, attribute: str) -> str:
        """A new variable: the entities of a variable with the largest value of an attribute.

        Args:
            variable: A variable whose attributes were listed.
            attribute: One of these attributes.
        """
        return self._extreme(variable, attribute, largest=True)

    async def argmin(self, variable: str, attribute: str) -> str:
        """A new variable: the entities of a variable with the smallest value of an attribute.

        Args:
            variable: A variable whose attributes were listed.
            attribute: One of these attributes.
        """
        return self._extreme(variable, attribute, largest=False)

    async def count(self, variable: str) -> str:
        """A new variable: the number of entities of a variable.

        Args:
            variable: A variable such as #0.
        """
        members = self._variable(variable).members
        self.variables.append(GraphVariable("type.int", frozenset(), len(members)))
        return f"Variable #{len(self.variables) - 1}, which is a number."

    async def final_answer(self, variable: str) -> str:
        """Give the answer: a variable.

        Args:
            variable: The variable that holds the answer, such as #2.
        """
        self._variable(variable, numbers=True)
        self.answer = int(_normal(variable)[1:])
        return f"The answer is {_normal(variable)}."

    def _extreme(self, variable: str, attribute: str, *, largest: bool) -> str:
        held, name = self._variable(variable), _normal(variable)
        if attribute not in self._attributes.get(name, ()):
            listed = (
                _shown(self._attributes[name]) if name in self._attributes else "not listed yet: get_attributes first"
            )
            raise InvalidAction(f"{attribute[:80]} is no listed attribute of {name}; its attributes are {listed}")
        found = extreme(self.graph.values(held.members, attribute), largest=largest)
        return self._add(GraphVariable(held.kind, found))

    def _names(self) -> list[str]:
        return [f"#{n}" for n, each in enumerate(self.variables) if each.number is None]

    def _set(self, given: str) -> tuple[str, frozenset[str]]:
        given = given.strip()
        if not _ENTITY.fullmatch(given):
            return _normal(given), self._variable(given).members
        if not self.graph.knows(given):
            raise InvalidAction(f"the graph has no entity {given[:40]}: use the question's entities or a variable #n")
        return given, frozenset({given})

    def _variable(self, given: str, *, numbers: bool = False) -> GraphVariable:
        name = _normal(given)
        if not re.fullmatch(r"#\d{1,6}", name) or int(name[1:]) >= len(self.variables):
            known = f"#0 to #{len(self.variables) - 1}" if self.variables else "none yet"
            raise InvalidAction(f"{given[:40]!r} is no variable: there are {known}")
        variable = self.variables[int(name[1:])]
        if variable.number is not None and not numbers:
            raise InvalidAction(f"{name} is a number: it can only be the final answer")
        return variable

    def _add(self, variable: GraphVariable) -> str:
        if len(variable.members) > MAX_MEMBERS:
            raise InvalidAction(f"that are more than {MAX_MEMBERS:,} entities: choose a narrower relation")
        self.variables.append(variable)
        return f"Variable #{len(self.variables) - 1}, which are instances of {variable.kind}"


def _normal(given: str) -> str:
    digits = given.strip().removeprefix("#")
    return f"#{int(digits)}" if digits.isascii() and digits.isdigit() and len(digits) < 7 else given.strip()[:40]


def _shown(names: Sequence[str]) -> str:
    more = f", and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return f"[{', '.join(names[:MAX_SHOWN])}{more}]"


def answer_f1(hits: int, given: int, wanted: int) -> float:
    """The F1 of two sets of answers of these sizes with `hits` in both, 0 if there are none."""
    return 2 * hits / (given + wanted) if hits else 0.0
