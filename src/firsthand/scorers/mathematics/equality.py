"""Decides whether the tree of an answer equals that of a reference: relations, collections, units, words and values."""

from __future__ import annotations

import re
from functools import cached_property
from itertools import chain, product
from typing import Any

from firsthand.scorers.mathematics.asked_names import in_order, listed_names, same_names
from firsthand.scorers.mathematics.asked_order import asks_for_order
from firsthand.scorers.mathematics.high_precision import agree, constant_ratio, exact, has, near, variables
from firsthand.scorers.mathematics.latex_tokens import Tree
from firsthand.scorers.mathematics.left_off_units import SIGNS, may_add, may_be_bare, other_readings
from firsthand.scorers.mathematics.left_sides import is_one_name
from firsthand.scorers.mathematics.letter_words import are_numbers, letters_of
from firsthand.scorers.mathematics.matrix_products import has_matrices, same_products
from firsthand.scorers.mathematics.quantities import asks_for_percent, read_unit
from firsthand.scorers.mathematics.real_sets import same_real_set

MAX_COMPARISONS = 400
"""Comparisons by high precision of one answer with its reference."""
MAX_SIGNS = 4
"""Plus-minus signs of one answer."""
_RATIO = re.compile(
    r"\b(?:ratios?|odds|scale|proportions?|fraction|quotient)\b|\$[^$\d]*[a-z]\s*:\s*[a-z]", re.IGNORECASE
)
_VERDICTS = ({"t", "f", "true", "false"}, {"y", "n", "yes", "no"})
_SPANS = ("union", "interval", "reals", "without")
_COLLECTIONS = ("tuple", "list", "or", "and", "set", "matrix", "det", "ratio", "both", *_SPANS)


class TooManyComparisonsError(Exception):
    """The answer has too many parts to compare."""


def same_trees(
    answer: Tree, reference: Tree, question: str | None = None, *, asked: bool = False, cross: bool = False
) -> tuple[bool, str]:
    """Return whether they are equal, and the method: `tree`, `numbers`, `points` or `unread`.

    The question tells which units an answer may add to its reference, and whether the elements of a list and the capitals in
    a row are in an order; without one, any units, and no order. `asked` is whether it asks for the left side of an answer
    that is an equation, so that `a + b = 5` states 5; otherwise the left side must be one name.
    `cross` is whether products are cross products.
    """
    if answer == reference:
        return True, "tree"
    try:
        comparer = _Comparer(question, asked=asked)
        comparer.cross, comparer.has_matrices = cross, has_matrices(reference, question)
        is_word = _are_capitals(reference)
        signs = any(has(each, "pm", "mp") for each in (answer, reference))  # their two values are in no order
        comparer.ordered = (is_word or has(reference, "list")) and not signs and asks_for_order(question)
        comparer.ordered |= _are_verdicts(reference)
        if comparer.ordered and is_word and (letters := _spelled(answer)):
            return letters == _spelled(reference), "tree"
        pairs = chain(((answer, reference),), other_readings(answer, reference, question))
        equal = any(comparer.same(_settled(_expanded(ours)), _settled(_expanded(theirs))) for ours, theirs in pairs)
    except (TooManyComparisonsError, RecursionError):
        return False, "unread"
    return equal, comparer.by


class _Comparer:
    """Compares trees, with a bound on the work."""

    def __init__(self, question: str | None = None, *, asked: bool = False) -> None:
        self.left, self.by, self.question, self.asked = MAX_COMPARISONS, "tree", question, asked
        self.ordered = False
        """True if the elements of a list must be in the reference's order."""
        self.cross, self.has_matrices = False, False

    def same(self, answer: Tree, reference: Tree) -> bool:
        if answer == reference:
            return True
        if "named" in (answer[0], reference[0]) or "equation" in (answer[0], reference[0]):
            return self.same_relation(answer, reference)
        if "relation" in (answer[0], reference[0]):
            return self.same_inequality(answer, reference)
        if {answer[0], reference[0]} & {*SIGNS}:
            return self.same_quantity(answer, reference)
        if answer[0] in _COLLECTIONS or reference[0] in _COLLECTIONS:
            return self.same_collection(answer, reference)
        if has(answer, "word", "based") or has(reference, "word", "based"):
            return _spelled(answer) == _spelled(reference) is not None
        if self.is_word(reference):
            return letters_of(answer) == letters_of(reference)
        return self.same_value(answer, reference)

    def is_word(self, reference: Tree) -> bool:
        """Return whether a reference is letters in a row that are no product."""
        letters = letters_of(reference)
        return len(letters) > 1 and not (self.cross or self.has_matrices or are_numbers(letters, self.question))

    def same_value(self, answer: Tree, reference: Tree) -> bool:
        values = exact(answer), exact(reference)
        if values[0] is not None and values[1] is not None:
            # A rounded decimal does not equal the fraction, as in the published graders.
            self.by = "numbers"
            return values[0] == values[1]
        self.left -= 1
        if self.left < 0:
            raise TooManyComparisonsError
        self.by = "points"
        if self.cross or self.has_matrices:
            return same_products(answer, reference, cross=self.cross)
        return agree(answer, reference)

    def same_quantity(self, answer: Tree, reference: Tree) -> bool:
        """A unit may be left out, and added where the question allows it; two units must agree, after conversion."""
        kinds = answer[0], reference[0]
        if kinds == ("quantity", "quantity"):
            ours, theirs = read_unit(answer[2]), read_unit(reference[2])
            if not ours.powers or not theirs.powers:
                return may_add(answer, self.question) and self.same(answer[1], reference[1])
            if ours.powers != theirs.powers:
                return False
            left, right = (
                ["*", tree[1], ["num", str(unit.factor)]] for tree, unit in ((answer, ours), (reference, theirs))
            )
            return self.same(left, right)
        if kinds[0] == kinds[1]:
            return self.same(answer[1], reference[1])
        one, other = (answer, reference) if kinds[0] in SIGNS else (reference, answer)
        if other[0] in SIGNS or other[0] in _COLLECTIONS:
            return False
        fits = one is reference or may_add(one, self.question)
        if one[0] == "quantity":
            return fits and self.same(one[1], other)
        if one[0] == "deg" and fits and self.same(one[1], other):
            return True
        if one[0] == "percent" and fits and self.same(one[1], other):
            return may_be_bare(one, self.question)
        if one[0] == "percent" and asks_for_percent(self.question):  # then 2 is 2 %, not 200 %
            return False
        return self.same_value(one, other)

    def same_collection(self, answer: Tree, reference: Tree) -> bool:
        kinds = answer[0], reference[0]
        if "ratio" in kinds and kinds[0] != kinds[1]:
            return self.same_ratio(answer, reference)
        lists = ("list", "or", "set")
        if kinds == ("tuple", "matrix") and all(len(row) == 2 for row in reference[1:]):  # a column vector
            return self.same(answer, ["tuple", *(row[1] for row in reference[1:])])
        if self.ordered and reference[0] == "list" and answer[0] in lists:
            return len(answer) == len(reference) and all(map(self.same, answer[1:], reference[1:]))
        if kinds[0] == kinds[1] and len(answer) == len(reference) and self.same_parts(answer, reference):
            return True
        if kinds in (("and", "list"), ("list", "and")):  # `x > 1, x < 3` may mean either
            return self.same_elements(answer[1:], reference[1:], both_sets=False)
        if {*kinds} & {*_SPANS, "and"}:
            return same_real_set(answer, reference)
        if kinds[0] in lists and kinds[1] in lists:
            return self.same_elements(answer[1:], reference[1:], both_sets=kinds == ("set", "set"))
        return False

    def same_ratio(self, answer: Tree, reference: Tree) -> bool:
        """Compare `1:2` with one half, where the reference is a ratio, the question asks for one, or is not known."""
        if reference[0] != "ratio" and self.question is not None and not _RATIO.search(self.question):
            return False
        ours, theirs = (
            ["/", *each[1:]] if each[0] == "ratio" and len(each) == 3 else each for each in (answer, reference)
        )
        return "ratio" not in (ours[0], theirs[0]) and self.same(ours, theirs)

    def same_parts(self, answer: Tree, reference: Tree) -> bool:
        ours, theirs = answer[1:], reference[1:]
        kind = answer[0]
        if kind == "interval":
            return bool(ours[0] == theirs[0]) and all(map(self.same, ours[1:], theirs[1:]))
        if kind == "ratio":
            if any(self.same(each[0], ["num", "0"]) for each in (ours, theirs)):
                return all(map(self.same, ours, theirs))
            return all(
                self.same(["*", a, theirs[0]], ["*", b, ours[0]]) for a, b in zip(ours[1:], theirs[1:], strict=True)
            )
        if kind in ("matrix", "det"):
            return all(
                len(a) == len(b) and all(map(self.same, a[1:], b[1:])) for a, b in zip(ours, theirs, strict=True)
            )
        if kind in ("tuple", "without", "both"):
            return all(map(self.same, ours, theirs))
        if kind in ("list", "or", "and", "set", "union"):
            return self.same_elements(ours, theirs, both_sets=kind in ("set", "union"))
        return False

    def same_elements(self, ours: list[Tree], theirs: list[Tree], *, both_sets: bool) -> bool:
        """Compare in any order; sets ignore how often an element is listed, lists do not."""
        if both_sets:
            return all(any(self.same(a, b) for b in theirs) for a in ours) and all(
                any(self.same(a, b) for a in ours) for b in theirs
            )
        if len(ours) != len(theirs):
            return False
        left_over = list(theirs)
        for each in ours:
            match = next((place for place, other in enumerate(left_over) if self.same(each, other)), None)
            if match is None:
                return False
            del left_over[match]
        return True

    def same_relation(self, answer: Tree, reference: Tree) -> bool:
        """Compare `x = 5` with 5 or another equation; an equation with its multiples."""
        kinds = answer[0], reference[0]
        relations = ("named", "equation")
        if all(each[0] == "named" and each[1][0] == "tuple" for each in (answer, reference)):
            answer = in_order(answer, reference[1][1:])
        else:
            answer, reference = self.in_asked_order(answer), self.in_asked_order(reference)
        if kinds[0] in relations and kinds[1] in relations:
            if (
                kinds == ("named", "named")
                and _same_name(answer[1], reference[1])
                and self.same(answer[2], reference[2])
            ):
                return True
            return self.multiples(_difference(answer), _difference(reference))
        if kinds[0] in relations:
            if not self.states(answer[1]):
                return False
            if answer[0] == "equation" and (variables(answer[2]) or not variables(answer[1])):
                return False
            return self.same(answer[2], reference)
        value = reference[2]
        if reference[0] == "equation" or (variables(value) & variables(reference[1])):
            return False
        return self.same(answer, value)

    def in_asked_order(self, tree: Tree) -> Tree:
        """Return names and their values in the order in which the question lists these names, else as they were written."""
        if tree[0] != "named" or tree[1][0] != "tuple":
            return tree
        lists = (each for each in self.listed_names if same_names(each, tree[1][1:]))
        return in_order(tree, next(lists, tree[1][1:]))

    @cached_property
    def listed_names(self) -> list[list[Tree]]:
        return listed_names(self.question)

    def states(self, left: Tree) -> bool:
        """Return whether an equation with this left side states its right side as the answer."""
        if is_one_name(left) or self.asked:
            return True
        # Nothing is known of the question: x + y may be asked for, 2x hardly.
        return self.question is None and len(variables(left)) > 1 and not has(left, "num")

    def multiples(self, left: Tree | None, right: Tree | None, *, positive: bool = False) -> bool:
        if left is None or right is None or any(has(each, "word", *_COLLECTIONS) for each in (left, right)):
            return False
        self.left -= 1
        self.by = "points"
        return constant_ratio(left, right, positive=positive)

    def same_inequality(self, answer: Tree, reference: Tree) -> bool:
        if same_real_set(answer, reference):
            return True
        if answer[0] != "relation" or reference[0] != "relation":
            return False
        ours, theirs = _above_zero(answer), _above_zero(reference)
        if ours is None or theirs is None or ours[0] != theirs[0]:
            return False
        return self.multiples(ours[1], theirs[1], positive=ours[0] != "!=")


def _spelled(tree: Tree) -> str | None:
    """Return the letters of a word, in `\\text` or not: `\\text{ACF}` is ACF, which alone reads as a product."""
    if tree[0] == "*":
        parts = _spelled(tree[1]), _spelled(tree[2])
        return None if parts[0] is None or parts[1] is None else (parts[0] + parts[1]).casefold()
    return tree[1] if tree[0] in ("word", "var", "const") else None


def _are_capitals(tree: Tree) -> bool:
    """Return whether a tree is capital letters in a row."""
    if tree[0] == "*":
        return all(map(_are_capitals, tree[1:]))
    return tree[0] == "var" and bool(tree[1].isupper())


def _are_verdicts(tree: Tree) -> bool:
    """Return whether a tree is a list of `T` and `F`, or of `yes` and `no`: each answers the question of its place."""
    return tree[0] == "list" and any(
        all((_spelled(each) or "").casefold() in said for each in tree[1:]) for said in _VERDICTS
    )


def _same_name(left: Tree, right: Tree) -> bool:
    """True if two left sides may name one thing: `f(x)` and y may, x and y may not."""
    return left == right or left[0] != "var" or right[0] != "var"


def _difference(tree: Tree) -> Tree | None:
    if tree[0] == "named" and (tree[2][0] in _COLLECTIONS or tree[1][0] == "word"):
        return None
    return ["-", tree[1], tree[2]]


def _above_zero(tree: Tree) -> tuple[str, Tree] | None:
    """Return an inequality as `> 0`, `>= 0` or `!= 0` of one expression."""
    signs, parts = tree[1], tree[2:]
    if len(signs) != 1:
        return None
    if signs[0] in ("<", "<="):
        return {"<": ">", "<=": ">="}[signs[0]], ["-", parts[1], parts[0]]
    return (signs[0], ["-", parts[0], parts[1]]) if signs[0] in (">", ">=", "!=") else None


def _expanded(tree: Tree) -> Tree:
    """Return the tree with both signs of plus-minus, as a list of trees."""
    if not has(tree, "pm", "mp"):
        return tree
    if tree[0] in ("list", "or"):
        found: list[Tree] = []
        for each in tree[1:]:
            expanded = _expanded(each)
            found += expanded[1:] if expanded[0] == "list" and has(each, "pm", "mp") else [expanded]
        return ["list", *found]
    together = has(tree, "mp") and has(tree, "pm")  # then the upper signs belong together, and the lower ones
    count = 1 if together else _signs(tree)
    if count > MAX_SIGNS:
        raise TooManyComparisonsError
    choices = list(product((1, -1), repeat=count))
    trees = [_signed(tree, list(each) * (1 if not together else _signs(tree))) for each in choices]
    if tree[0] == "relation" and all(each[2] == tree[2] for each in trees) and tree[1] == ["="] and len(tree) == 4:
        return ["relation", tree[1], tree[2], ["list", *(each[3] for each in trees)]]
    return ["list", *trees]


def _signs(tree: Any) -> int:
    return isinstance(tree, list) and (tree[:1] in (["pm"], ["mp"])) + sum(_signs(each) for each in tree[1:])


def _signed(tree: Any, signs: list[int]) -> Any:
    if not isinstance(tree, list) or not tree:
        return tree
    if tree[0] in ("pm", "mp"):
        sign = signs.pop() * (1 if tree[0] == "pm" else -1)
        return ["+" if sign > 0 else "-", *(_signed(each, signs) for each in tree[1:])]
    return [tree[0], *(_signed(each, signs) for each in tree[1:])]


def _settled(tree: Tree) -> Tree:
    """Return a relation as `named` (a name and its value) or `equation`, and a list of such as one named value."""
    if tree[0] == "relation" and not {*tree[1]} & {"<", ">", "<=", ">=", "!="}:
        return _equation(tree[1], tree[2:])
    if tree[0] in ("list", "or"):
        parts = [_settled(each) for each in tree[1:]]
        if parts[0][0] == "named":
            return _assignments(tree[0], parts)
        return [tree[0], *parts]
    if tree[0] == "set" and len(tree) == 2 and tree[1][0] == "relation":
        return _settled(tree[1])
    return tree


def _equation(signs: list[str], parts: list[Tree]) -> Tree:
    if "~" in signs:  # what is exact counts: \frac{10}{3} \approx 3.33, but x \approx 3.33
        exact_parts = parts[: signs.index("~") + 1]
        if len(exact_parts) > 1 or not _is_name(parts[0]):
            if not all(near(exact_parts[-1], each) for each in parts[len(exact_parts) :]):
                return ["word", "untrue"]
            parts = exact_parts
    if len(parts) == 1:
        return parts[0]
    if _is_name(parts[-1]) and not _is_name(parts[0]) and len(parts) == 2:
        parts = parts[::-1]
    name, *values = parts
    last = values[-1]
    checker = _Comparer()
    steps = values if _is_name(name) or variables(name) else parts
    if any(not checker.same(each, last) for each in steps[:-1] if each[0] != "relation"):
        return ["word", "untrue"]
    if _is_name(name):
        return ["named", name, last]
    return ["equation", name, last] if variables(name) or variables(last) else last


def _is_name(tree: Tree) -> bool:
    """Return whether a left side is a name: x, AB, f(x), (x, y), words."""
    if tree[0] in ("var", "word"):
        return True
    if tree[0] == "^" and tree[2] == ["*", ["num", "-1"], ["num", "1"]]:
        return tree[1] in (["var", "f"], ["var", "g"], ["var", "h"])  # an inverse function
    return tree[0] in ("*", "tuple") and all(each[0] == "var" or _is_name(each) for each in tree[1:])


def _assignments(kind: str, parts: list[Tree]) -> Tree:
    """Return `x = 1, x = 2` as one name with a list, and `x = 1, y = 2` as `(x, y) = (1, 2)`, in the order as written."""
    named = [each for each in parts if each[0] == "named"]
    if all(each[1] == parts[0][1] for each in named):
        values = [each[2] if each[0] == "named" else each for each in parts]
        flat = [value for each in values for value in (each[1:] if each[0] in ("list", "or") else [each])]
        return ["named", parts[0][1], [kind, *flat] if len(flat) > 1 else flat[0]]
    if len(named) != len(parts) or len({str(each[1]) for each in named}) != len(named):
        return [kind, *parts]
    return ["named", ["tuple", *(each[1] for each in named)], ["tuple", *(each[2] for each in named)]]
