"""Changed arguments, objects that are one and the same, iterators and errors: `Sandbox.check` judges as plain Python."""

from __future__ import annotations

import asyncio
import types

import pytest

from firsthand.sandbox.programs import checker, passed_values, told_errors
from firsthand.sandbox.sandbox import Sandbox
from namespaces import WHY_NOT

needs_bwrap = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

PROGRAMS = r"""
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
## an iterator that gives one list over and over, many times
def f():
    path = []
    for n in range(400):
        path.append(n)
        yield path
--
assert [len(each) for each in f()] == list(range(1, 401))
assert [len(each) for each in list(f())] == [400] * 400

## tests that change what an iterator gave
def f():
    for n in range(3): yield [n]
--
g = f()
one = next(g)
one.append('mine')
two = next(g)
assert one == [0, 'mine'] and two == [1] and list(g) == [[2]] and one == [0, 'mine']

## tests that change one list, which an iterator gave before
def f():
    path = [0]
    yield path
    path.append(1)
    yield path
    yield 2
--
g = f()
path = next(g)
assert next(g) is path
path.append('mine')
assert next(g) == 2 and path == [0, 1, 'mine']

## tests that change an argument between two items
def f(a):
    a.append(1)
    yield 1
    yield 2
    yield 3
--
a = []
g = f(a)
assert next(g) == 1 and a == [1]
a.append('mine')
assert next(g) == 2 and a == [1, 'mine'] and list(g) == [3] and a == [1, 'mine']

## an iterator whose second item takes forever
def f():
    yield 1
    while True: pass
--
assert next(f()) == 1

## an iterator that empties a large argument at its end
def f(a):
    yield 1
    yield 2
    a.clear()
--
a = [*range(5000)]
assert list(f(a)) == [1, 2] and a == []

## the argument of a KeyError
def f(d): return d['a']
--
try: f({})
except KeyError as error: assert error.args == ('a',) and str(error) == "'a'"
else: raise AssertionError

## an error of several arguments
def f(): raise ValueError('bad', 3, [4])
--
try: f()
except ValueError as error: assert error.args == ('bad', 3, [4])
else: raise AssertionError

## an error of none
def f(): raise ValueError
--
try: f()
except ValueError as error: assert error.args == () and str(error) == ''
else: raise AssertionError

## an error of another argument
def f(): raise ValueError('bad', 3)
--
try: f()
except ValueError as error: assert error.args == ('bad', 4)
else: raise AssertionError

## an error whose arguments are no plain values
def f(): raise ValueError(print)
--
try: f()
except ValueError as error: assert str(error) == '<built-in function print>'
else: raise AssertionError

## error classes of the answer's
class Poor(Exception): pass
class Poorer(Poor, KeyError):
    def __init__(self, left): self.left = left; super().__init__('x', left)
    def __str__(self): return f'only {self.left} left'
class Other(Poor): pass
def f(n):
    if n > 3: raise Poorer(n)
    return n
--
assert f(1) == 1
for kind in (Poor, Poorer, KeyError, Exception):
    try: f(5)
    except kind as error:
        assert str(error) == 'only 5 left' and error.args == ('x', 5) and error.left == 5
        assert type(error) is Poorer and issubclass(Poorer, Poor) and Poorer.__name__ == 'Poorer'
try: f(5)
except Other: raise AssertionError
except Poor: pass
try: raise Other('here')
except Poor as error: assert str(error) == 'here'

## an error class of the answer's that is not raised
class Poor(Exception): pass
class Other(Exception): pass
def f(): raise Other
--
try: f()
except Poor: pass

## what went wrong with a file
def f(p): open(p)
--
import errno
try: f('/nope')
except FileNotFoundError as error: assert (error.errno, error.filename) == (errno.ENOENT, '/nope')
else: raise AssertionError

## bytes that are no text
def f(b): return b.decode()
--
try: f(b'a\xff')
except UnicodeDecodeError as error: assert (error.start, error.encoding) == (1, 'utf-8')
else: raise AssertionError

## errors of the standard library
import decimal, json, re
def f(s): return json.loads(s)
def g(s): return decimal.Decimal(s)
def h(s): return bool(re.compile(s))
--
import decimal, json, re
for call, kind in ((lambda: f('{'), json.JSONDecodeError), (lambda: g('x'), decimal.InvalidOperation)):
    try: call()
    except kind: pass
    else: raise AssertionError
try: h('(')
except re.error: pass
else: raise AssertionError
try: f('{"a" 1}')
except ValueError as error: assert error.pos == 5 and error.doc == '{"a" 1}'

## an error of a module that the tests have not loaded
import graphlib
def f():
    sorter = graphlib.TopologicalSorter({1: [2], 2: [1]})
    return list(sorter.static_order())
--
try: f()
except ValueError as error: assert type(error).__name__ == 'CycleError'
else: raise AssertionError

## a long message
def f(): raise ValueError('x' * 600)
--
try: f()
except ValueError as error: assert len(str(error)) == 600
else: raise AssertionError

## a value that shows itself as something else
import enum
class C(str, enum.Enum):
    R = 'r'
class N(enum.IntEnum):
    ONE = 1
def f(): return C.R, N.ONE
--
assert f() == ('r', 1) and {'r': 2}[f()[0]] == 2

## an object in an argument, and an error that tests expect
def f(a):
    a[0] = object(); raise TypeError('no')
--
a=[1,2]
try: f(a)
except TypeError: pass
assert a == [1,2]

## an object as a key of an argument
def f(a):
    a[object()] = 1; raise TypeError('no')
--
a={}
try: f(a)
except TypeError: pass
assert a == {}

## an object in one argument hides no change of another
def f(a, b):
    a.append(print); b.clear(); raise TypeError('no')
--
a=[];b=[1]
try: f(a, b)
except TypeError: pass
assert b == [1]

## an object of the answer's in an argument that tests do not look at
def f(memo):
    memo['x'] = print; return 1
--
m={}
assert f(m) == 1
assert 'x' in m

## an iterator that spoils a large argument before its first item
def f(a):
    x = a[0]; a.clear(); yield x
    yield 2
--
a=list(range(10000))
assert next(f(a)) == 0
assert len(a) == 10000

## an iterator that changes a large argument as it goes
def f(a):
    for i in range(len(a)):
        a[i] += 1; yield i
--
a=[0]*1000
for i in f(a): assert a[i] == 1, i

## an iterator that adds to its argument, watched for long
def f(a):
    for i in range(500):
        a.append(i); yield i
--
a=[]
for i in f(a): assert len(a) == i+1, i

## an iterator that changes a name, watched for long
count = 0
def f():
    global count
    for i in range(500):
        count += 1; yield i
--
for i in f(): assert count == i+1, i

## an iterator that works no item ahead where that shows
done = []
def f():
    for i in range(500):
        done.append(i); yield i
--
it = f()
for _ in range(150): next(it)
assert len(done) == 150

## an iterator that ends the process
import sys
def f():
    yield 1
    sys.exit(0)
--
try: list(f())
except KeyError: pass

## the cause of an error
def f():
    try: {}['a']
    except KeyError as e: raise ValueError('x') from e
--
try: f()
except ValueError as e: assert isinstance(e.__cause__, KeyError)
else: assert False

## notes of an error
def f():
    e = ValueError('x'); e.add_note('hi'); raise e
--
try: f()
except ValueError as e: assert e.__notes__ == ['hi']

## the name of a module that is missing
def f(): import nosuchmod
--
try: f()
except ImportError as e: assert e.name == 'nosuchmod'

## errors of more modules
import argparse, calendar, tomllib
def f(): tomllib.loads('a')
def g(): calendar.monthrange(2000, 13)
def h(): raise argparse.ArgumentError(None, 'wrong')
--
import argparse, calendar, tomllib
kinds = tomllib.TOMLDecodeError, calendar.IllegalMonthError, argparse.ArgumentError
for call, kind, word in zip((f, g, h), kinds, ('=', '13', 'wrong')):
    try: call()
    except kind as error: assert word in str(error)
    else: raise AssertionError

## an object in a set
def f(a):
    a.add(print)
    raise TypeError
--
s = {1}
try: f(s)
except TypeError: pass
assert s == {1}
"""
"""Each: a name, an answer, and tests of it after `--`."""


def programs(text: str) -> dict[str, tuple[str, str]]:
    found = {}
    for each in text.split("## ")[1:]:
        name, _, program = each.partition("\n")
        answer, _, tests = program.partition("\n--\n")
        found[name] = answer, tests
    return found


def in_plain_python(answer: str, tests: str) -> bool:
    namespace = {"__name__": "tests"}
    exec(answer, namespace)
    try:
        exec(tests, namespace)
    except (Exception, SystemExit):
        return False
    return True


REFUSED = """
## an error that ends a loop
def f(n): raise StopIteration
--
assert list(map(f, [1, 2])) == []

## an error that skips a test
import unittest
class Skip(unittest.SkipTest): pass
def f(n): raise Skip if n else unittest.SkipTest
--
import unittest
for n in (0, 1):
    try: f(n)
    except unittest.SkipTest: continue
    raise AssertionError

## an error of the answer's that ends a loop
class Last(StopIteration): pass
def f(n): raise Last
--
assert list(map(f, [1, 2])) == []

## an end of the process
import sys
def f(n): sys.exit(0)
--
try: f(1)
except SystemExit: pass

## errors in a group
def f(): raise ExceptionGroup('x', [ValueError('a')])
--
try: f()
except* ValueError: pass
"""
"""Tests that pass in plain Python and are failed here."""


def verdicts(text: str) -> dict[str, bool]:
    async def judged() -> dict[str, bool]:
        async with Sandbox() as sandbox:
            return {name: (await sandbox.check(*program)).ok for name, program in programs(text).items()}

    return asyncio.run(judged())


@needs_bwrap
def test_verdicts_are_those_of_plain_python() -> None:
    expected = {name: in_plain_python(*program) for name, program in programs(PROGRAMS).items()}
    assert verdicts(PROGRAMS) == expected and {True, False} == set(expected.values()) and len(expected) == 81


@needs_bwrap
def test_errors_that_would_end_a_loop_a_test_or_the_process_are_other_errors() -> None:
    assert all(in_plain_python(*program) for program in programs(REFUSED).values())
    assert verdicts(REFUSED) == dict.fromkeys(programs(REFUSED), False)


def test_an_iterator_that_tests_give_is_read_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passed_values, "_MOST_GIVEN", 3)
    assert passed_values.encode(iter("abc")) == {"iterator": ["a", "b", "c"]}
    with pytest.raises(TypeError, match=r"^a str_\w+ of more than 3 items: give a list$"):
        passed_values.encode(iter("abcd"))


def test_an_answers_numbers_name_objects_of_its_call_alone() -> None:
    mine: list[object] = [1]
    values = passed_values.Values(reader=lambda number, forked: iter([number]))
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
        passed_values.decode({"stream": 7})


def test_an_answers_message_makes_no_other_errors() -> None:
    reader = told_errors.ErrorReader()
    for described in ("print", "int", "KeyboardInterrupt", "SystemExit", "StopIteration", "nothing", "__name__"):
        assert type(reader.error({"class": described, "text": "t"})) is RuntimeError, described
    for module in ("unittest", "unittest.case", "os", "sys", "doctest", "answer"):
        told = {"class": {"known": module, "name": "SkipTest", "bases": ["Exception"]}, "text": "t"}
        assert type(reader.error(told)).__module__ == "answer"
    odd = {"class": "ValueError", "text": "t", "args": {"tuple": [1]}, ".a b": 1, ".ok": {"list": [2]}, ".__class__": 1}
    found = reader.error(odd)
    assert (found.args, vars(found)) == ((1,), {"ok": [2]})
    needs_five = reader.error({"class": "UnicodeDecodeError", "text": "t", "args": {"tuple": [1]}})
    assert type(needs_five) is RuntimeError and str(needs_five) == "UnicodeDecodeError: t"
    both = {"known": None, "own": 0, "name": "Both", "bases": ["OSError", "SyntaxError"]}
    assert isinstance(reader.error({"class": both, "text": "t"}), OSError), "two that do not go together"


def test_long_arguments_of_an_error_are_told_by_its_text() -> None:
    told = told_errors.ErrorTeller().told(ValueError("x" * (1 << 16)))
    assert told == {"class": "ValueError", "text": "x" * 500}


def test_iterators_cost_by_their_items_and_nothing_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    changes = passed_values.Values.changes
    monkeypatch.setattr(passed_values.Values, "changes", lambda self: looks.append(self.cost()) or changes(self))
    module, streams = types.ModuleType("answer"), checker.Streams()
    many = 20_000
    module.__dict__["f"] = lambda rows: [*map(iter, rows), ([] for _ in range(many))]
    rows = {"list": [{"list": [n]} for n in range(1_000)]}
    checker.answered(module, {"name": "f", "args": {"tuple": [rows]}, "kwargs": {"dict": []}}, streams)
    assert len(streams.open) == 1_001 and all(each.values is None for each in streams.open.values())
    looks.clear()
    names, num_read, is_done = checker.Names(module), 0, False
    while not is_done:
        body = streams.read(1_001, names)
        num_read, is_done = num_read + len(body["items"]), body["done"]
    assert num_read == many and len(streams.open) == 1_000
    most = checker._LOOKS + checker._LOOKS_AN_ITEM * many
    assert most / 2 < sum(looks) < most + 10 * many, "the last look is made whatever it costs"


@needs_bwrap
def test_what_tests_send_into_an_answers_iterator_is_refused() -> None:
    answer = "def f():\n    while True: yield 1"
    sent = "g = f(); next(g)\ntry: g.send({})\nexcept TypeError as error: assert 'send:' in str(error)\nelse: assert {}"
    judged = "".join(f"## {n}\n{answer}\n--\n{sent.format(n, ok)}\n" for n, ok in ((5, False), (None, True)))
    assert verdicts(judged) == {"5": True, "None": True}


def test_an_object_that_is_no_plain_value_is_let_through_in_a_change_alone() -> None:
    mine: list[object] = [1]
    values = passed_values.Values()
    values.encode(mine)
    values.apply({"changes": [[0, {"set": [{"other": "t"}]}]]})
    values.apply({"changes": [[0, {"list": [{"other": "told"}]}]]})
    with pytest.raises(TypeError, match=r"^told$"):
        _ = mine == [1]
    assert len({mine[0]}) == 1
    with pytest.raises(TypeError, match="'other' is no kind of value"):
        values.decode({"other": "told"})
    with pytest.raises(TypeError, match="is the number of no object"):
        values.apply({"changes": [[5, {"list": []}]]})
    with pytest.raises(TypeError, match="'other' is no kind of value"):
        values.decode({"list": [{"other": "told"}]})


def test_only_so_many_causes_of_an_error_are_told() -> None:
    last = ValueError("0")
    last.__cause__ = last
    told, depth = told_errors.ErrorTeller().told(last), 0
    made: BaseException | None = told_errors.ErrorReader().error(told)
    while made is not None and made.__cause__ is not None:
        made, depth = made.__cause__, depth + 1
    assert depth == 3


def test_what_the_first_item_does_to_an_argument_is_told_whatever_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker, "_LOOKS", 0)
    module, streams = types.ModuleType("answer"), checker.Streams()
    module.__dict__["f"] = lambda row: (row.clear() or n for n in range(9))
    asked = {"name": "f", "args": {"tuple": [{"list": [*range(1_000)]}]}, "kwargs": {"dict": []}}
    checker.answered(module, asked, streams)
    body = streams.read(1, checker.Names(module))
    assert body == {"items": [0], "changes": [[0, {"list": []}]], "done": False}
