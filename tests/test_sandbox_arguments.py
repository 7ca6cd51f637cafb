"""Changed arguments, objects that are one and the same, and iterators: `Sandbox.check` judges as plain Python does."""

from __future__ import annotations

import asyncio

import pytest

from firsthand.sandbox.programs import plain_values
from firsthand.sandbox.sandbox import Sandbox
from namespaces import WHY_NOT

needs_bwrap = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

PROGRAMS = """
## a keyword argument is spoiled
def f(arr):
    s = sum(arr); arr.clear(); return s
--
a = [2, 1]
assert f(arr=a) == 3
assert a == [2, 1]

## a keyword argument is sorted
def f(*, arr): arr.sort()
--
a = [2, 1]
f(arr=a)
assert a == [1, 2]

## a call that raises spoils its argument
def f(a):
    a.clear()
    raise ValueError('x')
--
a = [2, 1]
try: f(a)
except ValueError: pass
assert a == [2, 1]

## a call that raises has done its part
def f(a):
    a.append(3)
    raise ValueError('x')
--
a = [2]
try: f(a)
except ValueError as error: assert str(error) == 'x'
assert a == [2, 3]

## a value that is none, and a spoiled argument
def f(a):
    a.clear()
    return object()
--
a = [2]
try: f(a)
except TypeError: pass
assert a == [2]

## rows of a grid are spoiled
def f(g):
    for r in g: r.reverse()
    return len(g)
--
row = [1, 2]
assert f([row]) == 1
assert row == [1, 2]

## a list in a tuple is appended to
def f(p): p[0].append(1)
--
a = []
f((a,))
assert a == [1]

## a list in a dict in a list
def f(p): p[0]['x'].append({'y': {1, 2}})
--
a = []
f([{'x': a}])
assert a == [{'y': {1, 2}}]

## a set
def f(s): s.discard(2); s.add(9)
--
s = {1, 2}
f(s)
assert s == {1, 9}

## a dict, whose order changes
def f(d): d['a'] = d.pop('a')
--
d = {'a': 1, 'b': 2}
f(d)
assert list(d) == ['b', 'a']

## a dict, one of whose values changes
def f(d): d['b'] = 3
--
d = {'a': 1, 'b': 2}
f(d)
assert d == {'a': 1, 'b': 3}

## a bytearray
def f(b): b.extend(b'x'); return type(b) is bytearray
--
b = bytearray(b'a')
assert f(b)
assert b == bytearray(b'ax') and type(b) is bytearray

## equal by value, of another type
def f(a): a[0] = True
--
a = [1]
f(a)
assert a[0] is True

## rows that are one row
def f(g): g[0][0] = 1; return g
--
g = [[0] * 2] * 2
assert f(g) == [[1, 0], [1, 0]]
assert g[0] is g[1]

## rows that are made one
def f(g): g[1] = g[0]
--
g = [[0], [1]]
f(g)
g[0].append(5)
assert g[1] == [0, 5]

## two arguments that are one
def f(a, b): a.append(1); return len(b)
--
a = []
assert f(a, b=a) == 1
assert a == [1]

## the argument itself is returned
def f(a): a.sort(); return a
--
a = [2, 1]
assert f(a) is a and a == [1, 2]

## the argument itself is returned for a copy
def f(a): return a
--
a = [2, 1]
assert f(a) is not a

## a shallow copy is returned for a deep one
def f(a): return list(a)
--
a = [[1]]
assert f(a)[0] is not a[0]

## a list that holds itself
def f(a): return a[0] is a and len(a)
--
a = []
a.append(a)
assert f(a) == 1

## a list that is made to hold itself
def f(a): a.append(a)
--
a = []
f(a)
assert a[0] is a

## nothing is changed
def f(a, *, b): return a + b
--
a, b = [1], [[2]]
assert f(a, b=b) == [1, [2]] and (a, b) == ([1], [[2]])

## a second call sees what the first did
def f(a): a.append(len(a)); return len(a)
--
a = []
assert [f(a), f(a), f(a)] == [1, 2, 3] and a == [0, 1, 2]

## another list than its own is kept
kept = []
def f(a): kept.append(a); a = a[1:]; return a
--
a = [1, 2]
assert f(a) == [2] and a == [1, 2]

## a chain is returned
import itertools
def f(x): return itertools.chain(x, x)
--
assert list(f([1])) == [1, 1]

## an iterator of a list is returned
def f(x): return iter(x)
--
assert list(f([1])) == [1]

## permutations are returned
import itertools
def f(x): return itertools.permutations(x)
--
assert list(f([1, 2])) == [(1, 2), (2, 1)]

## an iterator of one's own is returned
class F:
    n = 2
    def __iter__(s): return s
    def __next__(s):
        if s.n == 0: raise StopIteration
        s.n -= 1; return s.n
def f(): return F()
--
assert list(f()) == [1, 0]

## an iterator without end
def f():
    n = 0
    while True:
        yield n
        n += 1
--
import itertools
assert list(itertools.islice(f(), 5000)) == list(range(5000))
g = f()
assert [next(g), next(g), next(g)] == [0, 1, 2]

## an iterator whose later items take forever
def f():
    yield 1
    yield 2
    while True: pass
--
g = f()
assert (next(g), next(g)) == (1, 2)

## an iterator that is at its end
def f(n): yield from range(n)
--
assert list(f(0)) == [] and list(f(1)) == [0]
g = f(1)
next(g)
assert next(g, 'end') == 'end' and next(g, 'end') == 'end'

## an iterator that fails on its way
def f():
    yield 1
    yield 2
    yield 3
    raise ValueError('no more')
--
found = []
try:
    for each in f(): found.append(each)
except ValueError as error: found.append(str(error))
assert found == [1, 2, 3, 'no more']

## an iterator that ends in a way that loops do not see
class F:
    def __iter__(s): return s
    def __next__(s): raise StopAsyncIteration
def f(): return F()
--
list(f())

## an iterator that gives one list over and over
def f():
    path = []
    for n in range(3):
        path.append(n)
        yield path
--
assert [list(each) for each in f()] == [[0], [0, 1], [0, 1, 2]]
assert [each for each in f()] == [[0, 1, 2]] * 3

## an iterator that gives one list for copies
def f():
    path = []
    for n in range(9):
        path.append(n)
        yield path
--
assert list(f())[0] == [0]

## an iterator that gives one grid over and over
def f():
    grid = [[0], [0]]
    for n in range(3):
        grid[1][0] = n
        yield grid
--
assert [each[1][0] for each in f()] == [0, 1, 2]
assert [each[1][0] for each in list(f())] == [2, 2, 2]

## an iterator over its argument
def f(a): return (n * 2 for n in a)
--
assert list(f([1, 2])) == [2, 4]

## an iterator that spoils its argument
def f(a):
    while a: yield a.pop()
--
a = [1, 2, 3]
assert list(f(a)) == [3, 2, 1]
assert a == [1, 2, 3]

## an iterator that empties its argument
def f(a):
    while a: yield a.pop()
--
a = [1, 2, 3]
assert list(f(a)) == [3, 2, 1]
assert a == []

## an iterator that is not read has done nothing
def f(a):
    a.clear()
    yield 1
--
a = [1]
g = f(a)
assert a == [1]
next(g)
assert a == []

## two iterators, read in turn
def f(a):
    def g(n):
        for _ in range(9):
            a.append(n)
            yield [a, n]
    return g(1), g(2)
--
a = []
one, two = f(a)
assert next(one)[0] is a and a == [1]
assert next(one)[1] == 1 and next(two)[1] == 2
assert len(list(one)) == 7 and len(list(two)) == 8 and len(a) == 18

## iterators in an iterator
def f(): return (iter([n, [n]]) for n in range(3))
--
assert [list(each) for each in f()] == [[0, [0]], [1, [1]], [2, [2]]]

## iterators in a list
def f(a): return [iter(a), map(str, a)]
--
assert [list(each) for each in f([1])] == [[1], ['1']]

## views of a dict
def f(d): return d.keys(), d.values(), d.items()
--
k, v, i = f({1: [2], 3: 4})
assert k == {1, 3} and list(v) == [[2], 4] and len(k) == 2 and list(i) == [(1, [2]), (3, 4)]

## a generator is given
def f(x): return sum(x)
--
assert f(i for i in [1, 2]) == 3

## map, zip and reversed are given
def f(*all): return [list(each) for each in all]
--
assert f(map(int, '12'), zip([1], [2]), reversed([1, 2]), iter([3])) == [[1, 2], [(1, 2)], [2, 1], [3]]

## views of a dict are given
def f(k, v, i): return len(k), 2 in k, sorted(v), sorted(i)
--
d = {2: 1, 1: 1}
assert f(d.keys(), d.values(), d.items()) == (2, True, [1, 1], [(1, 1), (2, 1)])
"""
"""Each: a name, an answer, and tests of it after `--`."""


def programs() -> dict[str, tuple[str, str]]:
    found = {}
    for each in PROGRAMS.split("## ")[1:]:
        name, _, program = each.partition("\n")
        answer, _, tests = program.partition("\n--\n")
        found[name] = answer, tests
    return found


def in_plain_python(answer: str, tests: str) -> bool:
    namespace = {"__name__": "tests"}
    exec(answer, namespace)
    try:
        exec(tests, namespace)
    except Exception:
        return False
    return True


@needs_bwrap
def test_verdicts_are_those_of_plain_python() -> None:
    async def verdicts() -> dict[str, bool]:
        async with Sandbox() as sandbox:
            return {name: (await sandbox.check(*program)).ok for name, program in programs().items()}

    expected = {name: in_plain_python(*program) for name, program in programs().items()}
    assert asyncio.run(verdicts()) == expected and {True, False} == set(expected.values()) and len(expected) > 40


def test_an_iterator_that_tests_give_is_read_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_values, "_MOST_GIVEN", 3)
    assert plain_values.encode(iter("abc")) == {"iterator": ["a", "b", "c"]}
    with pytest.raises(TypeError, match=r"^a str_\w+ of more than 3 items: give a list$"):
        plain_values.encode(iter("abcd"))


def test_an_answers_numbers_name_objects_of_its_call_alone() -> None:
    mine: list[object] = [1]
    values = plain_values.Values(reader=lambda number, forked: iter([number]))
    assert values.encode((mine, mine)) == {"tuple": [{"list": [1]}, {"again": 0}]}
    for hostile in ({"again": 1}, {"again": -1}, {"again": True}, {"again": "0"}, {"now": [5, {"list": []}]}):
        with pytest.raises(TypeError, match="is the number of no object"):
            values.decode(hostile)
    values.apply({"changes": [[0, {"dict": [["a", 1]]}]]})
    assert mine == [1], "a list becomes no dict"
    values.apply({"changes": [[0, {"list": [2, {"again": 0}]}]]})
    assert mine[0] == 2 and mine[1] is mine
    assert list(values.decode({"stream": 7})) == [7]
    with pytest.raises(TypeError, match="'stream' is no kind of value"):
        plain_values.decode({"stream": 7})
