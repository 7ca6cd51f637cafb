"""Relations and attributes of the generated knowledge graph, in Freebase's terms, with the words of questions about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class GraphRelation(NamedTuple):
    """A relation with its reverse, and the words for what each leads to."""

    name: str
    reverse: str
    subject: str
    object: str
    most: int
    """Objects of one subject: from 1 to this many."""
    words: str
    """The objects of `{}`."""
    reverse_words: str


RELATIONS = (
    GraphRelation("film.film.directed_by", "people.person.films_directed", "film.film", "people.person", 1,
                  "the directors of {}", "the films directed by {}"),
    GraphRelation("film.film.starring", "people.person.films_acted_in", "film.film", "people.person", 3,
                  "the actors in {}", "the films in which {} acted"),
    GraphRelation("film.film.genre", "film.film_genre.films_in_this_genre", "film.film", "film.film_genre", 2,
                  "the genres of {}", "the films of the genre {}"),
    GraphRelation("film.film.country", "location.country.films", "film.film", "location.country", 1,
                  "the countries where {} was made", "the films made in {}"),
    GraphRelation("people.person.place_of_birth", "location.location.people_born_here", "people.person",
                  "location.citytown", 1, "the birthplaces of {}", "the people born in {}"),
    GraphRelation("location.citytown.country", "location.country.cities", "location.citytown", "location.country", 1,
                  "the countries of {}", "the cities in {}"),
    GraphRelation("sports.sports_team.location", "location.citytown.teams", "sports.sports_team", "location.citytown", 1,
                  "the home cities of {}", "the sports teams based in {}"),
    GraphRelation("sports.sports_team.owner", "people.person.teams_owned", "sports.sports_team", "people.person", 2,
                  "the owners of {}", "the sports teams owned by {}"),
    GraphRelation("book.book.author", "people.person.books_written", "book.book", "people.person", 1,
                  "the authors of {}", "the books written by {}"),
    GraphRelation("book.book.setting", "location.citytown.books_set_here", "book.book", "location.citytown", 2,
                  "the cities where {} is set", "the books set in {}"),
    GraphRelation("film.film.written_by", "people.person.films_written", "film.film", "people.person", 2,
                  "the writers of {}", "the films written by {}"),
    GraphRelation("film.film.produced_by", "people.person.films_produced", "film.film", "people.person", 2,
                  "the producers of {}", "the films produced by {}"),
    GraphRelation("film.film.music", "people.person.films_scored", "film.film", "people.person", 1,
                  "the composers of {}", "the films with music by {}"),
    GraphRelation("film.film.edited_by", "people.person.films_edited", "film.film", "people.person", 1,
                  "the film editors of {}", "the films edited by {}"),
    GraphRelation("film.film.cinematography", "people.person.films_shot", "film.film", "people.person", 1,
                  "the cinematographers of {}", "the films shot by {}"),
    GraphRelation("film.film.featured_film_locations", "location.citytown.films_shot_here", "film.film",
                  "location.citytown", 2, "the cities where {} was filmed", "the films that were filmed in {}"),
    GraphRelation("people.person.nationality", "location.country.citizens", "people.person", "location.country", 1,
                  "the nationalities of {}", "the citizens of {}"),
    GraphRelation("people.person.place_lived", "location.citytown.residents", "people.person", "location.citytown", 2,
                  "the cities where {} lived", "the people who lived in {}"),
    GraphRelation("location.citytown.mayor", "people.person.mayor_of", "location.citytown", "people.person", 2,
                  "the mayors of {}", "the cities of which {} was mayor"),
    GraphRelation("location.citytown.twin_town", "location.citytown.twin_town_of", "location.citytown",
                  "location.citytown", 2, "the twin towns of {}", "the cities that name {} as twin town"),
    GraphRelation("location.country.capital", "location.citytown.capital_of", "location.country", "location.citytown", 1,
                  "the capitals of {}", "the countries whose capital is {}"),
    GraphRelation("sports.sports_team.head_coach", "people.person.teams_coached", "sports.sports_team",
                  "people.person", 2, "the head coaches of {}", "the sports teams coached by {}"),
    GraphRelation("sports.sports_team.founder", "people.person.teams_founded", "sports.sports_team", "people.person", 2,
                  "the founders of {}", "the sports teams founded by {}"),
    GraphRelation("sports.sports_team.captain", "people.person.teams_led", "sports.sports_team", "people.person", 2,
                  "the captains of {}", "the sports teams whose captain was {}"),
    GraphRelation("sports.sports_team.rival", "sports.sports_team.rival_of", "sports.sports_team", "sports.sports_team",
                  2, "the rivals of {}", "the sports teams that call {} a rival"),
    GraphRelation("book.book.editor", "people.person.books_edited", "book.book", "people.person", 1,
                  "the book editors of {}", "the books edited by {}"),
    GraphRelation("book.book.translator", "people.person.books_translated", "book.book", "people.person", 2,
                  "the translators of {}", "the books translated by {}"),
    GraphRelation("book.book.illustrator", "people.person.books_illustrated", "book.book", "people.person", 1,
                  "the illustrators of {}", "the books illustrated by {}"),
    GraphRelation("book.book.about", "people.person.books_about", "book.book", "people.person", 1,
                  "the people whom {} is about", "the books about {}"),
    GraphRelation("book.book.published_in", "location.country.books_published", "book.book", "location.country", 1,
                  "the countries where {} was published", "the books published in {}"),
    GraphRelation("film.film.production_design", "people.person.films_designed", "film.film", "people.person", 1,
                  "the production designers of {}", "the films designed by {}"),
    GraphRelation("film.film.costume_design", "people.person.films_dressed", "film.film", "people.person", 1,
                  "the costume designers of {}", "the films with costumes by {}"),
    GraphRelation("film.film.narrated_by", "people.person.films_narrated", "film.film", "people.person", 1,
                  "the narrators of {}", "the films narrated by {}"),
    GraphRelation("film.film.premiered_in", "location.citytown.premieres", "film.film", "location.citytown", 1,
                  "the cities where {} premiered", "the films that premiered in {}"),
    GraphRelation("sports.sports_team.president", "people.person.teams_presided", "sports.sports_team", "people.person",
                  2, "the presidents of {}", "the sports teams whose president was {}"),
    GraphRelation("sports.sports_team.physician", "people.person.teams_treated", "sports.sports_team", "people.person",
                  1, "the physicians of {}", "the sports teams whose physician was {}"),
    GraphRelation("sports.sports_team.top_scorer", "people.person.teams_scored_for", "sports.sports_team",
                  "people.person", 1, "the top scorers of {}", "the sports teams whose top scorer was {}"),
    GraphRelation("sports.sports_team.training_ground", "location.citytown.teams_training_here", "sports.sports_team",
                  "location.citytown", 1, "the cities where {} trains", "the sports teams that train in {}"),
    GraphRelation("sports.sports_team.scout", "people.person.teams_scouted", "sports.sports_team", "people.person", 2,
                  "the scouts of {}", "the sports teams whose scout was {}"),
    GraphRelation("book.book.foreword_by", "people.person.forewords_written", "book.book", "people.person", 1,
                  "the writers of the foreword of {}", "the books with a foreword by {}"),
    GraphRelation("book.book.cover_by", "people.person.covers_drawn", "book.book", "people.person", 1,
                  "the cover artists of {}", "the books with a cover by {}"),
    GraphRelation("book.book.dedicated_to", "people.person.books_dedicated", "book.book", "people.person", 1,
                  "the people to whom {} is dedicated", "the books dedicated to {}"),
    GraphRelation("book.book.read_by", "people.person.books_read_aloud", "book.book", "people.person", 1,
                  "the readers of the audio book of {}", "the audio books read by {}"),
    GraphRelation("book.book.written_in", "location.citytown.books_written_here", "book.book", "location.citytown", 2,
                  "the cities where {} was written", "the books written in {}"),
)  # fmt: skip
"""Many relations lead from an entity, as in Freebase, so that a relation drawn at chance is seldom the one asked for."""
ATTRIBUTES: Mapping[str, Mapping[str, tuple[str, str, int, int]]] = {
    "film.film": {
        "film.film.runtime": ("the longest", "the shortest", 60, 240),
        "film.film.initial_release_date": ("the most recent", "the oldest", 1930, 2020),
    },
    "people.person": {"people.person.date_of_birth": ("the youngest", "the oldest", 1900, 2000)},
    "location.citytown": {"location.citytown.population": ("the most populous", "the least populous", 900, 9_000_000)},
    "sports.sports_team": {"sports.sports_team.founded": ("the most recently founded", "the oldest", 1870, 2015)},
    "book.book": {"book.book.number_of_pages": ("the longest", "the shortest", 48, 1200)},
}
"""Type -> attribute -> words for its largest and smallest, and its range; dates have years as their range."""
