"""Prompts of Graph RAG, and the JSON schemas that hold their answers.

The wording is our own; the tasks are those of Edge et al. (2024). Text of documents and reports stands between marks of a
random fence in user messages, never in a system message.
"""

from __future__ import annotations

from collections.abc import Sequence

from firsthand.message import Json

ENTITY_TYPES = ("organization", "person", "geo", "event")
MAX_ITEMS = 64
"""Entities or relations of one answer: a small model repeats itself without end otherwise."""
MAX_TEXT = 400
UNKNOWN = "I do not know: no report of the documents says anything about the question."
"""The answer of global search when no map answer has a point."""


def extraction_schema(types: Sequence[str]) -> Json:
    """The entities and relations of a text."""
    text, name = {"type": "string", "maxLength": MAX_TEXT}, {"type": "string", "minLength": 1, "maxLength": 120}
    entity = _object({"name": name, "type": {"enum": list(types)}, "description": text})
    strength = {"type": "integer", "minimum": 1, "maximum": 10}
    relation = _object({"source": name, "target": name, "description": text, "strength": strength})
    return _object({"entities": _list(entity, MAX_ITEMS), "relations": _list(relation, MAX_ITEMS)})


REPORT_SCHEMA: Json = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 1, "maxLength": 160},
        "summary": {"type": "string", "minLength": 1, "maxLength": 2000},
        "rating": {"type": "number", "minimum": 0, "maximum": 10},
        "rating_explanation": {"type": "string", "maxLength": MAX_TEXT},
        "findings": {
            "type": "array",
            "maxItems": 10,
            "items": {
                "type": "object",
                "properties": {
                    "summary": {"type": "string", "maxLength": MAX_TEXT},
                    "explanation": {"type": "string", "maxLength": 1200},
                },
                "required": ["summary", "explanation"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["title", "summary", "rating", "rating_explanation", "findings"],
    "additionalProperties": False,
}
POINTS_SCHEMA: Json = {
    "type": "object",
    "properties": {
        "points": {
            "type": "array",
            "maxItems": 20,
            "items": {
                "type": "object",
                "properties": {
                    "description": {"type": "string", "maxLength": 1200},
                    "score": {"type": "integer", "minimum": 0, "maximum": 100},
                },
                "required": ["description", "score"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["points"],
    "additionalProperties": False,
}
STEP_SCHEMA: Json = {
    "type": "object",
    "properties": {
        "answer": {"type": "string", "maxLength": 2000},
        "score": {"type": "integer", "minimum": 0, "maximum": 100},
        "follow_ups": {"type": "array", "maxItems": 5, "items": {"type": "string", "minLength": 1, "maxLength": 300}},
    },
    "required": ["answer", "score", "follow_ups"],
    "additionalProperties": False,
}


def extraction_prompt(types: Sequence[str], fenced: str) -> str:
    """Asks for all entities and relations of a text.

    The text comes first and the form is shown: asked before the text, without it, a model of 0.5B answers with empty lists.
    """
    return (
        f"{fenced}\n\n"
        f"List every entity of these types that the text above names: {', '.join(types)}. Give each entity's name as the "
        "text has it, its type, and a description of what the text says of it. Then list every relation between two of "
        "these entities that the text states, with a description and a strength from 1 (mentioned together) to 10 "
        "(inseparable). Use nothing but the text. Answer with one JSON object such as "
        '{"entities": [{"name": "...", "type": "...", "description": "..."}], '
        '"relations": [{"source": "...", "target": "...", "description": "...", "strength": 5}]}.'
    )


CONTINUE = (
    "Entities and relations were missed. List those that are not in your answers yet, in the same JSON form, and leave the "
    "lists empty if there are none."
)
ANY_LEFT = "Does the text still name entities that are in none of your answers? Answer Y or N."


def summary_prompt(name: str, fenced: str) -> str:
    """Asks for one description in place of several."""
    return (
        f"These are descriptions of {name} from several places of the documents. Write one description, in the third "
        "person, that holds everything they say and resolves contradictions where it can.\n\n"
        f"{fenced}"
    )


def report_prompt(fenced: str) -> str:
    """Asks for the report of a community."""
    return (
        "The data below are the entities of one community and their relations. Write a report about it: a title that names "
        "its main entities, a summary of its structure and of what is most important, a rating from 0 to 10 of its "
        "importance with the reason in one sentence, and 5 to 10 findings, each with a summary and an explanation that the "
        f"data support. Use nothing but the data. Answer with one JSON object.\n\n{fenced}"
    )


def local_prompt(question: str, fenced: str) -> str:
    """Asks a question about data of a local search."""
    return (
        "Answer the question from the data below: reports, entities, relations and passages of documents. If they do not "
        f"answer it, say that you do not know.\n\n{fenced}\n\nQuestion: {question}"
    )


def map_prompt(question: str, fenced: str) -> str:
    """Asks for the points of a batch of reports that bear on a question."""
    return (
        "The data below are reports about communities of entities. List the points in them that help to answer the "
        "question, each with a score from 0 (of no use) to 100 (decisive). Give an empty list if there are none. Answer "
        f'with one JSON object: {{"points": [{{"description": ..., "score": ...}}]}}.\n\n{fenced}\n\nQuestion: {question}'
    )


def reduce_prompt(question: str, fenced: str) -> str:
    """Asks for an answer made of the points of all batches."""
    return (
        "Several analysts each read a part of the documents. Answer the question from their points below, the most "
        f"important first, and use nothing else.\n\n{fenced}\n\nQuestion: {question}"
    )


def primer_prompt(question: str, fenced: str) -> str:
    """Asks for a first answer and for what to look up next."""
    return (
        "Answer the question as far as the reports below allow, score the answer from 0 to 100 by how well it answers, and "
        "list up to 5 follow-up questions whose answers would improve it. Answer with one JSON object with the keys "
        f"answer, score and follow_ups.\n\n{fenced}\n\nQuestion: {question}"
    )


def follow_up_prompt(question: str, whole: str, fenced: str) -> str:
    """Asks a follow-up question about data of a local search."""
    return (
        f"This question is part of a larger one: {whole}\nAnswer it from the data below, score from 0 to 100 how much the "
        "answer helps with the larger question, and list up to 5 further questions, if any would help. Answer with one "
        f"JSON object with the keys answer, score and follow_ups.\n\n{fenced}\n\nQuestion: {question}"
    )


def relevance_prompt(question: str, fenced: str) -> str:
    """Asks how much a report bears on a question."""
    return (
        "How much does the report below help to answer the question? 0: not at all. 5: it answers it.\n\n"
        f"{fenced}\n\nQuestion: {question}\nAnswer with one digit from 0 to 5."
    )


def _object(properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _list(item: Json, most: int) -> Json:
    return {"type": "array", "items": item, "maxItems": most}
