"""Fertility: tokens for each word, and the price of one text in many languages as a multiple of English.

The texts are article 1 of the Universal Declaration of Human Rights (United Nations, 1948), one content in every language
(Petrov et al., 2023, arXiv:2305.15425, measure this premium). Words are separated by blanks; Chinese and Japanese have none,
so they have no fertility here.
"""

from __future__ import annotations

from dataclasses import dataclass

from firsthand.tokens.tokenizer import Tokenizer

ARTICLE_1 = {
    "English": "All human beings are born free and equal in dignity and rights. They are endowed with reason "
    "and conscience and should act towards one another in a spirit of brotherhood.",
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und "
    "Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
    "French": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués "
    "de raison et de conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
    "Spanish": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están "
    "de razón y conciencia, deben comportarse fraternalmente los unos con los otros.",
    "Portuguese": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos. Dotados de razão "
    "e de consciência, devem agir uns para com os outros em espírito de fraternidade.",
    "Italian": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di "
    "ragione e di coscienza e devono agire gli uni verso gli altri in spirito di fratellanza.",
    "Russian": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом "
    "и совестью и должны поступать в отношении друг друга в духе братства.",
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. Είναι "
    "προικισμένοι με λογική και συνείδηση, και οφείλουν να συμπεριφέρονται μεταξύ τους με πνεύμα "
    "αδελφοσύνης.",
    "Turkish": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler "
    "ve birbirlerine karşı kardeşlik zihniyeti ile hareket etmelidirler.",
    "Finnish": "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan. Heille on "
    "annettu järki ja omatunto, ja heidän on toimittava toisiaan kohtaan veljeyden hengessä.",
    "Arabic": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. وقد وهبوا عقلا وضميرا وعليهم أن يعامل "
    "بعضهم بعضا بروح الإخاء.",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। "
    "उन्हें बुद्धि और अन्तरात्मा की देन प्राप्त है और परस्पर उन्हें भाईचारे के भाव से बर्ताव "
    "करना चाहिए।",
    "Korean": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과 "
    "양심을 부여받았으며 서로 형제애의 정신으로 행동하여야 한다.",
    "Japanese": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等であ"
    "る。人間は、理性と良心とを授けられており、互いに同胞の精神をもって行動しなければ"
    "ならない。",
    "Chinese": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相"
    "对待。",
}  # fmt: skip
_UNSPACED = ("Japanese", "Chinese")


@dataclass(frozen=True)
class Fertility:
    """A tokenizer's count for one language."""

    language: str
    tokens: int
    words: int | None
    """None for languages that put no blanks between words."""
    premium: float
    """Tokens as a multiple of those of the English text."""

    @property
    def tokens_per_word(self) -> float | None:
        """Fertility; None where words are not separated."""
        return None if self.words is None else self.tokens / self.words


def fertility(tokenizer: Tokenizer) -> list[Fertility]:
    """Returns the counts of each language, English first."""
    counts = {language: len(tokenizer.encode(text)) for language, text in ARTICLE_1.items()}
    words = {language: None if language in _UNSPACED else len(text.split()) for language, text in ARTICLE_1.items()}
    return [Fertility(name, count, words[name], count / counts["English"]) for name, count in counts.items()]
