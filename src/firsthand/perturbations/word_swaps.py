"""Perturbations of words: synonyms, dialect, names of persons, and gender terms.

Word lists are short, ours, and open to view in this file: they are no model of a dialect or of a group. HELM downloads
longer lists (Ziems et al., 2022; Caliskan et al., 2017), which may be given in their place to `swapped`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
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
    "store": ("shop",), "street": ("road",), "total": ("overall",), "trip": ("journey",),
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
    "girls": "boys", "mother": "father", "mothers": "fathers", "mum": "dad", "mums": "dads", "mom": "dad", "moms": "dads",
    "mommy": "daddy", "daughter": "son", "daughters": "sons", "sister": "brother", "sisters": "brothers", "aunt": "uncle",
    "aunts": "uncles", "niece": "nephew", "nieces": "nephews", "wife": "husband", "wives": "husbands",
    "grandmother": "grandfather", "grandmothers": "grandfathers", "grandma": "grandpa", "granddaughter": "grandson",
    "granddaughters": "grandsons", "stepmother": "stepfather", "stepsister": "stepbrother", "girlfriend": "boyfriend",
    "girlfriends": "boyfriends", "lady": "gentleman", "ladies": "gentlemen", "waitress": "waiter",
    "waitresses": "waiters", "actress": "actor", "actresses": "actors", "bride": "groom", "brides": "grooms",
    "schoolgirl": "schoolboy", "schoolgirls": "schoolboys", "mrs": "mr",
}  # fmt: skip
MALE_TO_FEMALE = {male: female for female, male in FEMALE_TO_MALE.items() if male != "his"} | {
    "his": "her",
    "him": "her",
}
EXCHANGED = {word: (other,) for word, other in {**FEMALE_TO_MALE, **MALE_TO_FEMALE}.items()}
"""Both directions at once, so that boys and girls stay two groups."""
UNPAIRED = frozenset(
    listed(
        "ms madam maam sir sirs guy guys lad lads lass lasses chap chaps mama papa granny grandad stepmom stepdad stepson "
        "stepdaughter policewoman policewomen policeman policemen businesswoman businesswomen businessman businessmen "
        "saleswoman salesman widow widows widower widowers bachelor bachelors nun nuns monk monks"
    )
)
"""Words of one sex that have no other in the list: an exchange beside them could make one group of two."""
DECISIVE = frozenset(
    listed(
        "male males female females sex sexes gender genders feminine masculine feminist feminism "
        "king kings queen queens prince "
        "princes princess princesses "
        "pregnant pregnancy pregnancies birth births born womb uterus uterine ovary ovaries ovarian vagina vaginal cervix "
        "cervical breast breasts breastfeeding menstrual menstruation menopause prostate testes testis testicle "
        "testicles testicular penis scrotum sperm semen ovum ova hormone hormones testosterone estrogen oestrogen "
        "puberty fertile fertility contraception contraceptive chromosome chromosomes gene genes genetic allele alleles "
        "inherit inherits inherited trait traits carrier hemophilia haemophilia mammal mammals species offspring "
        "cell cells patient patients physician diagnosis symptoms surgery vote votes voting suffrage pope priest priests "
        "bishop church law legal court draft olympic olympics championship league history century president"
    )
)
"""Words beside which a term of one sex may decide the answer: sexes, royalty, biology, medicine, law and history."""
_PRONOUNS = frozenset(listed("she he her his hers him herself himself"))
_MARRIED = frozenset(listed("mr mrs"))
_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
_NAME = re.compile(r"[A-Za-z]+")
"""Without what follows an apostrophe, so that `Emma's` is a name too."""
_CAPITAL = re.compile(r"(?<![\w'’])[A-Z][a-z]+")
_SPOKEN = re.compile(r"[A-Za-z]+(?:['’]s)?")
"""A word, with its genitive."""
_TITLES = frozenset(
    listed(
        "King Queen Prince Princess Saint St Pope President Emperor Empress Tsar Czar Sir Lord Lady Duke Earl Sultan Dr"
    )
)
_CALLED_AFTER = frozenset(
    listed(
        "law laws theorem equation equations principle rule constant paradox disease syndrome formula conjecture lemma "
        "inequality method algorithm number numbers comet effect test tests gospel"
    )
)


def swapped(text: str, words: Mapping[str, Sequence[str]], rng: Random) -> str:
    """The text with each known word replaced by one of its others, in the case of the old one."""

    def other(found: re.Match[str]) -> str:
        known = words.get(found.group().casefold())
        return cased(rng.choice(list(known)), found.group()) if known else found.group()

    return _WORD.sub(other, text)


def synonyms(text: str, rng: Random) -> str:
    """Known words become a synonym each, but for names such as `White House` and `Big Bang`."""
    names = {each.start() for each in _capitals(text)}

    def other(found: re.Match[str]) -> str:
        return found[0] if found.start() in names else swapped(found[0], SYNONYMS, rng)

    return _WORD.sub(other, text)


def dialect(text: str, rng: Random) -> str:
    """Known words are written as in African-American English."""
    return swapped(text, DIALECT, rng)


def person_names(text: str, rng: Random) -> str:
    """Known first names become names that are taken for those of Black persons, one for each name, of the same gender.

    The text stays as it is where there are more names than others to give, and where a title, a surname, a numeral or a law
    makes a known person of one: King Charles, George Washington, Henry VIII, Charles's law.
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
    if any(_is_known_person(first, second, chosen) for first, second in _neighbours(text)):
        return lambda other: other
    return lambda other: _NAME.sub(lambda found: chosen.get(found.group(), found.group()), other)


def gender_terms(text: str, rng: Random) -> str:
    """Gender terms are exchanged, female ones for male and male for female at once.

    `her` becomes `his`, which is wrong where it is an object; the text then reads a little off, as in HELM. The text stays
    as it is where only one of two sexes would change, and where a term may decide the answer: beside words of biology,
    medicine, law and history, in a name (`First Lady`, `Martin Luther King`), of relatives of somebody who may be known
    (`the wife of Napoleon`), and in `father of` and the like.
    """
    return genders_exchanged(text, rng)(text)


def genders_exchanged(text: str, rng: Random, *, beside: str = "") -> Callable[[str], str]:
    """The exchange of the text's gender terms, also before `'s`, to be made wherever they stand.

    The texts `beside` it, choices and answers, may hold a word that decides too.
    """
    told = f"{text}\n{beside}"
    words = set(map(str.casefold, _NAME.findall(told)))
    if EXCHANGED.keys().isdisjoint(map(str.casefold, _NAME.findall(text))) or not words.isdisjoint(UNPAIRED | DECISIVE):
        return lambda other: other
    if any(first in _TITLES and second.istitle() for first, second in _neighbours(told)) or _is_of_known(text, beside):
        return lambda other: other
    return lambda other: _NAME.sub(lambda found: swapped(found[0], EXCHANGED, rng), other)


def _is_of_known(text: str, beside: str) -> bool:
    """True if a gender term, no pronoun, stands before `of`, or if there is one and a capital of no common name.

    Names that stand in the text too are no others in the texts beside it: a worked solution repeats them.
    """
    told = f"{text}\n{beside}"
    nouns = {word for word in map(str.casefold, _NAME.findall(told)) if word in EXCHANGED and word not in _PRONOUNS}
    if nouns <= _MARRIED:
        return False
    if any(first.casefold() in nouns and second == "of" for first, second in _neighbours(told)):
        return True
    known = {name for names in (COMMON, NAMES, OTHER_NAMES) for own in names.values() for name in own}
    own, others = ({each[0] for each in _capitals(part)} for part in (text, beside))
    capitals = own | (others - set(_NAME.findall(text)))
    return any(each not in known and each.casefold() not in _MARRIED for each in capitals)


def _capitals(text: str) -> list[re.Match[str]]:
    """The words with a capital first and small letters after it that do not begin a sentence, a line or a quotation."""
    return [each for each in _CAPITAL.finditer(text) if not _begins(text, each.start())]


def _begins(text: str, at: int) -> bool:
    before = text[max(0, at - 8) : at]
    bare = before.rstrip()
    return not bare or "\n" in before[len(bare) :] or bare.rstrip('"”’)')[-1:] in ".?!" or bare[-1] in ':"“‘('


def _neighbours(text: str) -> list[tuple[str, str]]:
    """Pairs of words with blanks alone between them, or a full stop after a title; genitives with their `'s`."""
    found = list(_SPOKEN.finditer(text))
    pairs = []
    for first, second in pairwise(found):
        between = text[first.end() : second.start()]
        if between.strip(" ") == ("." if between[:1] == "." and first[0] in _TITLES else ""):
            pairs.append((first[0], second[0].partition("'")[0].partition("’")[0]))
    return pairs


def _is_known_person(first: str, second: str, names: Collection[str]) -> bool:
    """True if one of two neighbouring words is such a name in a title, before a surname or numeral, or of a law."""
    bare = re.split("['’]", first)[0]
    if bare != first:
        return bare in names and second.casefold() in _CALLED_AFTER
    return (first in _TITLES and second in names) or (first in names and second[:1].isupper())
