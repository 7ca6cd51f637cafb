"""What the prompts of Graph RAG ask for, whole, and the scales of their answers beside those of the schemas."""

from __future__ import annotations

import json

from firsthand.retrieval.graph import graph_prompts as prompts
from firsthand.retrieval.graph.graph_prompts import POINTS_SCHEMA, REPORT_SCHEMA, STEP_SCHEMA, extraction_schema


def test_entities_and_relations_are_asked_for_in_the_form_of_their_schema() -> None:
    assert prompts.extraction_prompt(("geo", "event"), "<DATA>") == (
        "<DATA>\n\nList every entity of these types that the text above names: geo, event. Give each entity's name as the "
        "text has it, its type, and a description of what the text says of it. Then list every relation between two of "
        "these entities that the text states, with a description and a strength from 1 (mentioned together) to 10 "
        "(inseparable). Use nothing but the text. Answer with one JSON object such as "
        '{"entities": [{"name": "...", "type": "...", "description": "..."}], '
        '"relations": [{"source": "...", "target": "...", "description": "...", "strength": 5}]}.'
    )
    shown = json.loads(prompts.extraction_prompt(("geo",), "").partition(" such as ")[2].removesuffix("."))
    schema = extraction_schema(("geo", "event"))
    assert list(shown) == schema["required"] == ["entities", "relations"]
    text, name = {"type": "string", "maxLength": 400}, {"type": "string", "minLength": 1, "maxLength": 120}
    fields = {
        "entities": {"name": name, "type": {"enum": ["geo", "event"]}, "description": text},
        "relations": {
            "source": name, "target": name, "description": text,
            "strength": {"type": "integer", "minimum": 1, "maximum": 10},
        },
    }  # fmt: skip
    for kind, properties in fields.items():
        assert list(shown[kind][0]) == list(properties)
        item = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
        assert schema["properties"][kind] == {"type": "array", "items": item, "maxItems": 64}
    assert prompts.CONTINUE == (
        "Entities and relations were missed. List those that are not in your answers yet, in the same JSON form, and "
        "leave the lists empty if there are none."
    )
    left = "Does the text still name entities that are in none of your answers? Answer Y or N."
    assert left == prompts.ANY_LEFT


def test_summaries_and_reports_are_asked_for_with_the_numbers_of_their_schema() -> None:
    assert prompts.summary_prompt("<NAME>", "<DATA>") == (
        "These are descriptions of <NAME> from several places of the documents. Write one description, in the third "
        "person, that holds everything they say and resolves contradictions where it can.\n\n<DATA>"
    )
    assert prompts.report_prompt("<DATA>") == (
        "The data below are the entities of one community and their relations. Write a report about it: a title that names "
        "its main entities, a summary of its structure and of what is most important, a rating from 0 to 10 of its "
        "importance with the reason in one sentence, and 5 to 10 findings, each with a summary and an explanation that the "
        "data support. Use nothing but the data. Answer with one JSON object.\n\n<DATA>"
    )
    properties = REPORT_SCHEMA["properties"]
    assert properties["rating"] == {"type": "number", "minimum": 0, "maximum": 10}
    assert properties["findings"]["maxItems"] == 10
    assert (
        REPORT_SCHEMA["required"] == [*properties] == ["title", "summary", "rating", "rating_explanation", "findings"]
    )


def test_questions_are_asked_of_data_with_the_scales_of_their_schemas() -> None:
    end = "\n\n<DATA>\n\nQuestion: <Q>"
    assert prompts.local_prompt("<Q>", "<DATA>") == (
        "Answer the question from the data below: reports, entities, relations and passages of documents. If they do not "
        f"answer it, say that you do not know.{end}"
    )
    assert prompts.map_prompt("<Q>", "<DATA>") == (
        "The data below are reports about communities of entities. List the points in them that help to answer the "
        "question, each with a score from 0 (of no use) to 100 (decisive). Give an empty list if there are none. Answer "
        f'with one JSON object: {{"points": [{{"description": ..., "score": ...}}]}}.{end}'
    )
    assert prompts.reduce_prompt("<Q>", "<DATA>") == (
        "Several analysts each read a part of the documents. Answer the question from their points below, the most "
        f"important first, and use nothing else.{end}"
    )
    assert prompts.primer_prompt("<Q>", "<DATA>") == (
        "Answer the question as far as the reports below allow, score the answer from 0 to 100 by how well it answers, and "
        "list up to 5 follow-up questions whose answers would improve it. Answer with one JSON object with the keys "
        f"answer, score and follow_ups.{end}"
    )
    assert prompts.follow_up_prompt("<Q>", "<WHOLE>", "<DATA>") == (
        "This question is part of a larger one: <WHOLE>\nAnswer it from the data below, score from 0 to 100 how much the "
        "answer helps with the larger question, and list up to 5 further questions, if any would help. Answer with one "
        f"JSON object with the keys answer, score and follow_ups.{end}"
    )
    assert prompts.relevance_prompt("<Q>", "<DATA>") == (
        "How much does the report below help to answer the question? 0: not at all. 5: it answers it."
        f"{end}\nAnswer with one digit from 0 to 5."
    )
    hundred = {"type": "integer", "minimum": 0, "maximum": 100}
    point = POINTS_SCHEMA["properties"]["points"]["items"]
    assert list(point["properties"]) == point["required"] == ["description", "score"]
    assert point["properties"]["score"] == hundred == STEP_SCHEMA["properties"]["score"]
    assert STEP_SCHEMA["properties"]["follow_ups"]["maxItems"] == 5
    assert STEP_SCHEMA["required"] == [*STEP_SCHEMA["properties"]] == ["answer", "score", "follow_ups"]
