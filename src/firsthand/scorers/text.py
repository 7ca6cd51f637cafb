"""Compares a text with reference texts: token F1, BLEU, chrF, ROUGE, and embedding similarity.

The references are `task.secret["references"]`, or `["answers"]`, or `["answer"]`; the best of several counts, except for
BLEU and chrF, which use all together. BLEU and chrF are sacrebleu's and ROUGE is rouge-score's (extra `text`), with those
packages' defaults. A score is of one text. The BLEU or chrF of a corpus is not their mean: tables compute it from the
statistics in the scores (`stats/corpus_formulas.py`), and `corpus_bleu` and `corpus_chrf` from texts.
"""

from __future__ import annotations

import importlib
import unicodedata
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from operator import mul
from typing import Any

from firsthand.benchmark import needing
from firsthand.errors import DataError, MissingExtra
from firsthand.model import Embedder
from firsthand.scorers.match import normalise, same_words
from firsthand.scorers.reference_answers import reference_texts
from firsthand.scorers.whole_answer import whole_answer
from firsthand.stats.figures import figure_detail
from firsthand.task import Task
from firsthand.trace import Score, Trace

MAX_CHARS = 100_000
"""An answer with more characters scores 0, and a reference with more is refused: some measures take long."""
ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def _sacrebleu() -> Any:
    try:
        import sacrebleu
    except ImportError:
        raise MissingExtra("sacrebleu", "text", "BLEU and chrF") from None
    return sacrebleu


def _rouge_score(name: str = "scoring") -> Any:
    """A module of the package rouge-score."""
    try:
        return importlib.import_module(f"rouge_score.{name}")
    except ImportError:
        raise MissingExtra("rouge-score", "text", "ROUGE") from None


def token_f1(task: Task, trace: Trace) -> Score:
    """Score the word overlap of answer and reference, 0 to 1: SQuAD's F1 (Rajpurkar et al., 2016)."""
    return _best("token_f1", task, trace, f1)


@needing(_sacrebleu)
def bleu(task: Task, trace: Trace) -> Score:
    """Score sentence BLEU with exponential smoothing, 0 to 1 (Papineni et al., 2002; sacrebleu), with corpus statistics."""
    found = _sacrebleu().sentence_bleu(_answer(trace), references(task))
    shares = (*found.counts, *found.totals, found.sys_len, found.ref_len)
    return Score("bleu", min(1.0, found.score / 100), figure_detail("bleu", shares))


@needing(_sacrebleu)
def chrf(task: Task, trace: Trace) -> Score:
    """Score sentence chrF, F-score of character n-grams to 6, 0 to 1 (Popović, 2015; sacrebleu), with corpus statistics."""
    metric = _sacrebleu().CHRF()
    shares = metric._extract_corpus_statistics([_answer(trace)], [[each] for each in references(task)])[0]
    return Score(
        "chrf", metric.sentence_score(_answer(trace), references(task)).score / 100, figure_detail("chrf", shares)
    )


@needing(_rouge_score)
def rouge_l(task: Task, trace: Trace) -> Score:
    """Score the F-measure of the longest common subsequence of words, 0 to 1 (Lin, 2004; rouge-score, stemmed).

    DataError if most letters of a reference are of another script than Latin: rouge-score drops those.
    """
    for each in references(task):
        latin = [unicodedata.name(letter, "").startswith("LATIN") for letter in each if letter.isalpha()]
        if latin and sum(latin) * 2 < len(latin):
            raise DataError(
                f"a reference of task {task.id:.100} is in a script that ROUGE does not read: take chrf, or token_f1 for "
                "languages with blanks between words"
            )
    return _best("rouge_l", task, trace, rouge_l_of)


def embedding_similarity(embedder: Embedder) -> Callable[[Task, Trace], Awaitable[Score]]:
    """Return a scorer: cosine similarity of the answer and its nearest reference under the embedder, -1 to 1."""

    async def similarity(task: Task, trace: Trace) -> Score:
        if not _answer(trace).strip():
            return Score("similarity", 0.0, {"by": embedder.name, "empty": True})
        ours, *theirs = await embedder.embed([_answer(trace), *references(task)])
        cosine = max(sum(map(mul, ours, each)) for each in theirs)
        return Score("similarity", min(1.0, max(-1.0, cosine)), {"by": embedder.name})

    return similarity


def f1(answer: str, reference: str) -> float:
    """Return the F1, 0 to 1, of two bags of words, normalised as SQuAD does; two empty texts agree.

    As published, only ASCII punctuation is dropped, and words are what stands between blanks.

    A reference that SQuAD's rule leaves nothing of (`A`, `The`, `+`) is compared as `normalised` does: 1 or 0.
    """
    ours, theirs = Counter(normalise(answer).split()), Counter(normalise(reference).split())
    if not theirs and reference.strip():
        return float(same_words(answer, reference))
    if not ours or not theirs:
        return float(ours == theirs)
    common = sum((ours & theirs).values())
    return 2 * common / (ours.total() + theirs.total())


def rouge(answer: str, reference: str) -> dict[str, float]:
    """Return the F-measures of ROUGE-1, -2, -L and -Lsum, 0 to 1."""
    found = _rouge_score("rouge_scorer").RougeScorer(list(ROUGE_TYPES), use_stemmer=True).score(reference, answer)
    return {name: float(found[name].fmeasure) for name in ROUGE_TYPES}


def rouge_l_of(answer: str, reference: str) -> float:
    """Return rouge-score's F-measure of ROUGE-L, which takes it minutes for two texts of 20,000 characters."""
    formula = _rouge_score().fmeasure
    tokenizer = _rouge_score("tokenizers").DefaultTokenizer(use_stemmer=True)
    ours, theirs = tokenizer.tokenize(answer), tokenizer.tokenize(reference)
    if not ours or not theirs:
        return 0.0
    common = common_length(ours, theirs)
    return float(formula(common / len(ours), common / len(theirs)))


def common_length(left: Sequence[str], right: Sequence[str]) -> int:
    """Return the length of the longest common subsequence; a row of its table is one number of many bits (Hyyrö, 2004)."""
    places: dict[str, int] = {}
    for at, word in enumerate(left):
        places[word] = places.get(word, 0) | 1 << at
    whole = (1 << len(left)) - 1
    row = whole
    for word in right:
        taken = row & places.get(word, 0)
        row = (row + taken | row - taken) & whole
    return len(left) - row.bit_count()


def corpus_bleu(answers: Sequence[str], references_of: Sequence[Sequence[str]]) -> float:
    """Return the BLEU of a corpus, 0 to 1; each answer has its own references."""
    return min(1.0, float(_sacrebleu().corpus_bleu(list(answers), _streams(references_of)).score) / 100)


def corpus_chrf(answers: Sequence[str], references_of: Sequence[Sequence[str]]) -> float:
    """Return the chrF of a corpus, 0 to 1; each answer has its own references."""
    return float(_sacrebleu().corpus_chrf(list(answers), _streams(references_of)).score) / 100


def references(task: Task) -> list[str]:
    """Return the task's reference texts; DataError if it has none, or one that is too long."""
    texts = reference_texts(task)
    if (longest := max(map(len, texts))) > MAX_CHARS:
        raise DataError(
            f"a reference of task {task.id} has {longest:,} characters, and texts are compared up to {MAX_CHARS:,}: "
            "give a shorter one"
        )
    return texts


def _best(name: str, task: Task, trace: Trace, measure: Callable[[str, str], float]) -> Score:
    is_read = bool(_answer(trace)) or not trace.answer  # no answer meets an empty reference, one too long meets none
    values = [measure(_answer(trace), each) for each in references(task)]
    return Score(name, max(values) if is_read else 0.0, {"answer": _answer(trace)[:200]})


def _answer(trace: Trace) -> str:
    return whole_answer(trace, MAX_CHARS)


def _streams(references_of: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """Return the references in sacrebleu's order: the first of each answer, the second of each, and so on."""
    most = max(map(len, references_of), default=0)
    return [[each[place] if place < len(each) else None for each in references_of] for place in range(most)]
