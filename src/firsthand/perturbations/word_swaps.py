"""Perturbations of words: synonyms, dialect, names of persons, and gender terms.

Word lists are short, ours, and open to view in this file: they are no model of a dialect or of a group. HELM downloads
longer lists (Ziems et al., 2022; Caliskan et al., 2017), which may be given in their place to `swapped`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from random import Random

from firsthand.perturbations.answer_harms import listed
from firsthand.perturbations.surface_noise import cased

SYNONYMS: dict[str, tuple[str, ...]] = {
    "begin": ("start",), "begins": ("starts",), "big": ("large",), "buy": ("purchase",), "buys": ("purchases",),
    "car": ("automobile",), "choose": ("select",), "correct": ("right",), "difficult": ("hard",), "each": ("every",),
    "end": ("finish",), "fast": ("quick",), "find": ("determine",), "gave": ("handed",), "gives": ("hands",),
    "house": ("home",), "kids": ("children",), "large": ("big",), "little": ("small",), "many": ("numerous",),
    "needs": ("requires",), "often": ("frequently",), "picture": ("image",), "remaining": ("leftover",),
    "shop": ("store",), "sick": ("ill",), "small": ("little",), "smart": ("clever",), "start": ("begin",),
    "store": ("shop",), "street": ("road",), "total": ("overall",), "trip": ("journey",), "whole": ("entire",),
}  # fmt: skip
DIALECT: dict[str, tuple[str, ...]] = {
    "about": ("bout",), "and": ("an",), "are": ("is",), "asked": ("aksed",), "because": ("cause",), "brother": ("brotha",),
    "doing": ("doin",), "going": ("goin",), "isn't": ("ain't",), "nothing": ("nothin",), "playing": ("playin",),
    "something": ("somethin",), "that": ("dat",), "the": ("da",), "them": ("dem",), "then": ("den",), "there": ("dere",),
    "these": ("dese",), "they": ("dey",), "this": ("dis",), "trying": ("tryna",), "were": ("was",), "with": ("wit",),
}  # fmt: skip
"""Words of written African-American English beside those of standard English."""
NAMES = {
    "female": ("Emily", "Anne", "Jill", "Allison", "Laurie", "Sarah", "Meredith", "Carrie"),
    "male": ("Greg", "Brad", "Todd", "Neil", "Geoffrey", "Brett", "Brendan", "Matthew"),
}
OTHER_NAMES = {
    "female": ("Aisha", "Ebony", "Keisha", "Kenya", "Lakisha", "Latonya", "Latoya", "Tamika"),
    "male": ("Darnell", "Hakim", "Jamal", "Jermaine", "Kareem", "Leroy", "Rasheed", "Tyrone"),
}
"""First names of the audit study of Bertrand and Mullainathan (2004), by what they were taken for."""
COMMON = {
    "female": listed(
        "Anna Betty Carla Clara Emma Irene Jane Janet Julia Julie Karen Kate Laura Linda Lisa Lucy Maria "
        "Mary Natalia Nancy Olivia Rachel Rosa Susan Tina"
    ),
    "male": listed(
        "Adam Alan Albert Alex Andrew Ben Bob Carl Charles Daniel David George Henry James Jerry Jim "
        "Joe John Josh Ken Kevin Michael Mike Paul Peter Richard Robert Sam Steve Thomas Tim Tom Victor "
        "William"
    ),
}
"""No names that are also common words at the beginning of a sentence, such as Mark, Grace, Frank and Jack."""
FEMALE_TO_MALE = {
    "she": "he", "her": "his", "hers": "his", "herself": "himself", "woman": "man", "women": "men", "girl": "boy",
    "girls": "boys", "mother": "father", "mothers": "fathers", "mom": "dad", "daughter": "son", "daughters": "sons",
    "sister": "brother", "sisters": "brothers", "aunt": "uncle", "niece": "nephew", "wife": "husband", "queen": "king",
    "grandmother": "grandfather", "lady": "gentleman", "ladies": "gentlemen", "waitress": "waiter", "actress": "actor",
}  # fmt: skip
MALE_TO_FEMALE = {male: female for female, male in FEMALE_TO_MALE.items() if male != "his"} | {
    "his": "her",
    "him": "her",
}
_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
_NAME = re.compile(r"[A-Za-z]+")
"""Without what follows an apostrophe, so that `Emma's` is a name too."""


def swapped(text: str, words: Mapping[str, Sequence[str]], rng: Random) -> str:
    """The text with each known word replaced by one of its others, in the case of the old one."""

    def other(found: re.Match[str]) -> str:
        known = words.get(found.group().casefold())
        return cased(rng.choice(list(known)), found.group()) if known else found.group()

    return _WORD.sub(other, text)


def synonyms(text: str, rng: Random) -> str:
    """Known words become a synonym each."""
    return swapped(text, SYNONYMS, rng)


def dialect(text: str, rng: Random) -> str:
    """Known words are written as in African-American English."""
    return swapped(text, DIALECT, rng)


def person_names(text: str, rng: Random) -> str:
    """Known first names become names that are taken for those of Black persons, one for each name, of the same gender.

    The text stays as it is where there are more names than others to give.
    """
    return persons_renamed(text, rng)(text)


def persons_renamed(text: str, rng: Random, *, beside: str = "") -> Callable[[str], str]:
    """The change of the text's known first names, to be made wherever they stand; nobody `beside` the text has a new one."""
    chosen: dict[str, str] = {}
    for name in dict.fromkeys(_NAME.findall(text)):
        for gender, common in COMMON.items():
            if name in common or name in NAMES[gender]:
                free = [
                    each for each in OTHER_NAMES[gender] if each not in chosen.values() and each not in text + beside
                ]
                if not free:
                    return lambda other: other
                chosen[name] = rng.choice(free)
    return lambda other: _NAME.sub(lambda found: chosen.get(found.group(), found.group()), other)


def gender_terms(text: str, rng: Random) -> str:
    """Gender terms are exchanged: female ones for male, or if there are none, male for female.

    `her` becomes `his`, which is wrong where it is an object; the text then reads a little off, as in HELM.
    """
    return genders_exchanged(text, rng)(text)


def genders_exchanged(text: str, rng: Random, *, beside: str = "") -> Callable[[str], str]:
    """The exchange of the text's gender terms, to be made wherever they stand; what is `beside` the text decides nothing."""
    is_female = any(word.casefold() in FEMALE_TO_MALE for word in _WORD.findall(text))
    words = {word: (other,) for word, other in (FEMALE_TO_MALE if is_female else MALE_TO_FEMALE).items()}
    return lambda other: swapped(other, words, rng)
