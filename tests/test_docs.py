"""Every code block in README.md, docs/*.md and docs/patterns/*.md runs: the blocks of a page in order, in a folder and a
data home of its own.

A `python` block is executed in the page's one namespace, a block with a `title="name"` is written to that file, a `bash`
block must end well. A comment on the line before a block says what else is to be known: `<!-- weights -->` needs real
weights, `<!-- sandbox -->` bubblewrap, `<!-- needs=lm_eval -->` that package, `<!-- cluster -->` starts a Ray cluster,
`<!-- exit=2 -->` ends with that code, and a `text` block after `<!-- output -->` is what the block before it printed, apart
from times and the ids of runs; a line `...` in it stands for any lines. Other `text` blocks are not run.

Real weights cost ten seconds for each thousand tokens. In CI a `firsthand run` with real weights whose output the page does
not show has one task and short answers, and on most pages of patterns a model that repeats its question: two of these pages
stand for the others. With `FIRSTHAND_THOROUGH=1` it is the command that the page has.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from namespaces import WHY_NOT
from thorough import THOROUGH
from warm_commands import commands

ROOT = Path(__file__).parent.parent
FOLDERS = (ROOT / "docs", ROOT / "docs" / "patterns")
PAGES = ("README.md", *sorted(str(path.relative_to(ROOT)) for folder in FOLDERS for path in folder.glob("*.md")))
PROSE = ("docs/security.md", "docs/index.md", "docs/architecture.md", "docs/glossary.md", "docs/design.md",
         "docs/claims-measured.md", "docs/studio-pages.md")  # fmt: skip
LONG = dict.fromkeys(
    (
        "docs/a2a.md", "docs/adapters.md", "docs/arena.md", "docs/benchmarks.md", "docs/boards.md",
        "docs/cassettes.md", "docs/chat.md", "docs/claims.md", "docs/contamination.md",
        "docs/gate.md", "docs/generated-worlds.md", "docs/graph-rag.md", "docs/guard.md",
        "docs/guards.md", "docs/helm-metrics.md", "docs/interpretability.md",
        "docs/joint-alignment.md", "docs/judges.md", "docs/long-context.md", "docs/mcp.md",
        "docs/memory.md", "docs/patterns/index.md", "docs/patterns/tree-of-thoughts.md",
        "docs/planning.md", "docs/quantization.md", "docs/rag-variants.md", "docs/reading-list.md",
        "docs/reading-questions.md", "docs/records.md", "docs/reinforcement.md",
        "docs/retrieval-evaluation.md", "docs/retrieval.md", "docs/running.md",
        "docs/scaling-laws.md", "docs/self-rag.md", "docs/serve.md", "docs/served-agents.md",
        "docs/shared-state.md", "docs/statistics.md", "docs/studio.md", "docs/swe-bench.md",
        "docs/tokenization.md", "docs/toolformer.md", "docs/tools.md", "docs/tour.md",
        "docs/tracing.md", "docs/tracking.md", "docs/training.md", "docs/tutorial.md",
        "docs/worlds.md",
    ),
    pytest.mark.slow,
)  # fmt: skip
"""Pages whose blocks take more than a few seconds."""
WEIGHTED = [page for page in PAGES if "<!-- weights" in (ROOT / page).read_text(encoding="utf-8")]
"""Pages with blocks that need real weights."""
STANDING = ("react", "self_consistency")
"""Pages of patterns: one with tools, and one with a pattern inside another and several samples of one prompt."""
WITH_REAL = [
    page
    for page in WEIGHTED
    if THOROUGH or (page != "docs/quickstart.md" and ("/patterns/" not in page or Path(page).stem in STANDING))
]
"""The pages that CI runs with real weights; what docs/quickstart.md shows is what `.ci/run` does at its start."""
WARM: list[Path] = []
"""The folder with the `firsthand` of `warm_commands`, while a page runs; README.md has the installed one."""
LANGUAGES = ("python", "bash", "json", "toml", "text")
_FENCE = re.compile(r'```(\w+)(?: title="([\w./-]+)")?')
_COMMENT = re.compile(r"<!-- (.+) -->")
_CHANGING = (
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(\+00:00|Z)?"), "WHEN"),
    (re.compile(r"\b\d{4}-\d\d-\d\d-\d{4}-[\w.-]+?-[a-z0-9]{4}\b"), "RUN"),
    (re.compile(r"\b\d+(\.\d+)? (ms|s|min)\b"), "TIME"),
    (re.compile(r"/\S*(?=/runs\b)"), "HOME"),
    (re.compile(r"[ \t─]+"), " "),
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    title: str | None
    marks: tuple[str, ...]
    body: str

    @property
    def needs_weights(self) -> bool:
        return "weights" in self.marks

    @property
    def lacks_package(self) -> bool:
        named = [mark.removeprefix("needs=") for mark in self.marks if mark.startswith("needs=")]
        return any(importlib.util.find_spec(name) is None for name in named)

    @property
    def is_output(self) -> bool:
        return "output" in self.marks

    @property
    def is_run(self) -> bool:
        return self.title is not None or self.language in ("python", "bash")

    @property
    def exit_code(self) -> int:
        return next((int(mark.removeprefix("exit=")) for mark in self.marks if mark.startswith("exit=")), 0)


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page. A fence that is not understood is an error: it would be left out in silence."""
    lines = iter(enumerate((ROOT / page).read_text(encoding="utf-8").splitlines(), 1))
    before = ""
    for number, line in lines:
        if line.lstrip().startswith("```"):
            fence, comment = _FENCE.fullmatch(line), _COMMENT.fullmatch(before)
            assert fence and fence[1] in LANGUAGES, f"{page}:{number}: what is {line!r}?"
            body: list[str] = []
            for _, inside in lines:
                if inside == "```":
                    break
                body.append(inside)
            marks = tuple(comment[1].split()) if comment else ()
            yield Block(page, number, fence[1], fence[2], marks, "\n".join(body) + "\n")
        before = line


def run_page(page: str, *, weights: bool, cluster: bool = False) -> None:
    """Run the blocks of a page in the working directory, with those that need weights or a cluster or without."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed: str | None = None
    for block in blocks(page) if THOROUGH else in_short(list(blocks(page)), weights=weights):
        without = (block.needs_weights and not weights) or ("cluster" in block.marks and not cluster)
        if without or ("sandbox" in block.marks and WHY_NOT) or block.lacks_package:
            printed = None
        elif block.title is not None:
            Path(block.title).write_text(block.body, encoding="utf-8")
        elif block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                source = "\n" * block.line + block.body  # so that a traceback names the line of the page
                exec(compile(source, str(ROOT / page), "exec", dont_inherit=True), namespace)
            printed = out.getvalue()
        elif block.language == "bash":
            printed = run_bash(block)
        elif block.is_output and printed is not None:
            assert_printed(block, printed)


_LIMIT, _LENGTH = re.compile(r" --limit \d+"), re.compile(r" --max-tokens \d+")


def in_short(page: list[Block], *, weights: bool = True) -> Iterator[Block]:
    """The blocks of a page; a command that runs a model on some tasks and shows no output has one task and less text.

    Without weights its model is `scripted:echo`.
    """
    for block, after in zip(page, [*page[1:], None], strict=True):
        lines = block.body.splitlines()
        shown = after is not None and after.is_output
        if (
            block.language != "bash"
            or shown
            or not block.needs_weights
            or len(lines) != 1
            or not _LIMIT.search(lines[0])
        ):
            whole = shown or block.language != "bash" or not block.needs_weights or _LIMIT.search(block.body)
            yield block if whole else replace(block, body=_LENGTH.sub(" --max-tokens 8", block.body))
        else:
            short = _LIMIT.sub(" --limit 1 --max-tokens 24", _LENGTH.sub("", lines[0]))
            if weights:
                yield replace(block, body=short + "\n")
            else:
                marks = tuple(mark for mark in block.marks if mark != "weights")
                yield replace(block, body=f"{short} --model scripted:echo\n", marks=marks)


def run_bash(block: Block) -> str:
    """What the block prints, on both streams; its exit code must be the one it says."""
    path = os.pathsep.join([*map(str, WARM), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", block.body],
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert done.returncode == block.exit_code, f"{block.page}:{block.line}: exit {done.returncode}\n{done.stdout}"
    return done.stdout


def assert_printed(block: Block, printed: str) -> None:
    """Each stretch of the block between lines `...` must be in what was printed, one after the other."""
    rest = steady(printed)
    for stretch in re.split(r"^\.\.\.$", block.body, flags=re.MULTILINE):
        if not (wanted := steady(stretch)):
            continue  # the block begins or ends with such a line
        _, found, rest = rest.partition(wanted)
        assert found, f"{block.page}:{block.line} shows\n{wanted}\nbut printed was\n{steady(printed)}"


def steady(text: str) -> str:
    """The text without what differs from run to run, and without empty lines."""
    for pattern, word in _CHANGING:
        text = pattern.sub(word, text)
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


@pytest.fixture(scope="module")
def warm_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with commands(tmp_path_factory.mktemp("warm")) as folder:
        yield folder


@pytest.fixture
def own_place(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A working directory, and a data home that is empty."""
    if page != "README.md":
        monkeypatch.setitem(globals(), "WARM", [request.getfixturevalue("warm_folder")])
    home, work = tmp_path / "home", tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("FIRSTHAND_HOME", str(home))
    monkeypatch.chdir(work)
    return home


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=LONG.get(page, ()))
        for page in PAGES
        if page not in PROSE and not (page in LONG and page in WEIGHTED)  # all blocks of those run with real weights
    ],
)
def test_each_block_of_a_page_runs(page: str, own_place: Path) -> None:
    assert any(block.is_run and not block.needs_weights for block in blocks(page))
    run_page(page, weights=False)


@pytest.mark.weights
@pytest.mark.parametrize("page", WITH_REAL)
def test_each_block_of_a_page_runs_with_real_weights(page: str, smollm2: Path, own_place: Path) -> None:
    models = own_place / "models"
    models.mkdir(parents=True)
    (models / "smollm2").symlink_to(smollm2.parent)
    run_page(page, weights=True)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if "<!-- cluster" in (ROOT / page).read_text()])
def test_each_block_of_a_page_runs_on_a_cluster(page: str, own_place: Path) -> None:
    pytest.importorskip("ray")
    run_page(page, weights=False, cluster=True)


@pytest.mark.parametrize("page", PROSE)
def test_pages_of_prose_have_nothing_to_run(page: str) -> None:
    assert not [block for block in blocks(page) if block.is_run]


@pytest.mark.parametrize("page", PAGES)
def test_data_and_outputs_are_what_they_say(page: str) -> None:
    before = None
    for block in blocks(page):
        if block.language == "json":
            json.loads(block.body)
        elif block.language == "toml":
            tomllib.loads(block.body)
        assert not block.is_output or (before is not None and before.is_run and before.title is None)
        others = {mark for mark in block.marks if not mark.startswith("needs=")}
        assert others <= {"weights", "sandbox", "cluster", "output", f"exit={block.exit_code}"}
        before = block


def test_output_that_differs_is_noticed() -> None:
    block = Block("page", 1, "text", None, ("output",), "score 0.50  12 ms\n...\nlast line\n")
    assert_printed(block, "head\nscore   0.50 3 s\nmore\nlast line\n")
    with pytest.raises(AssertionError, match="but printed was"):
        assert_printed(block, "score 0.25  12 ms\nlast line\n")
    with pytest.raises(AssertionError, match="but printed was"):
        assert_printed(block, "last line\nscore 0.50 12 ms\n")


def test_only_a_run_whose_output_is_not_shown_is_shortened() -> None:
    def page(body: str, *after: Block, marks: tuple[str, ...] = ("weights",)) -> list[str]:
        return [block.body for block in in_short([Block("page", 1, "bash", None, marks, body), *after])]

    long = "firsthand run arithmetic --pattern direct --limit 4 --max-tokens 64 --seed 1\n"
    output = Block("page", 9, "text", None, ("output",), "score\n")
    assert page(long) == ["firsthand run arithmetic --pattern direct --limit 1 --max-tokens 24 --seed 1\n"]
    assert page(long, output) == [long, "score\n"] and page(long, marks=()) == [long]
    assert page(long + "firsthand show last\n") == [long + "firsthand show last\n"]
    tasks = "firsthand run own.py --max-tokens 64\nfirsthand show last\n"
    assert page(tasks) == [tasks.replace("64", "8")] and page(tasks, output) == [tasks, "score\n"]
    assert page("firsthand models inspect smollm2\n") == ["firsthand models inspect smollm2\n"]
    (echoed,) = in_short([Block("page", 1, "bash", None, ("weights", "sandbox"), long)], weights=False)
    assert echoed.body == page(long)[0].replace("\n", " --model scripted:echo\n") and echoed.marks == ("sandbox",)


def test_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert local and not [link for link in local if not (ROOT / link).exists()]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Markdown's table of contents makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.slow
def test_links_between_pages_lead_to_a_page_and_a_heading_that_exist() -> None:
    broken = []
    for page in map(ROOT.__truediv__, PAGES):
        for link, anchor in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", page.read_text(encoding="utf-8")):
            target = page.parent / link if link else page
            if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
                broken.append(f"{page.name}: {link}#{anchor}")
    assert not broken


def test_the_page_of_the_engine_lists_its_files() -> None:
    room = ROOT / "src" / "firsthand" / "engine"
    listed = re.findall(r"^  (\w+\.py) +\S", (ROOT / "docs" / "engine.md").read_text(), re.MULTILINE)
    there = [path.name for path in room.rglob("*.py") if path.name != "__init__.py"]
    assert sorted(listed) == sorted(there), "each file has one line of its own"


PACKAGE = ROOT / "src" / "firsthand"


def tree_in(page: str) -> list[str]:
    """The lines below `src/firsthand/` in the file tree of a page."""
    (tree,) = [block.body for block in blocks(page) if block.body.startswith("src/firsthand/\n")]
    return [line for line in tree.splitlines()[1:] if line.startswith("  ")]


def folders_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir() and any(path.glob("*.py"))}


def names_in(line: str) -> list[str]:
    """What a line of a tree names, before its description."""
    return re.split(r" {2,}", line.strip())[0].split()


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_the_tree_of_a_page_lists_exactly_the_rooms_that_exist(page: str) -> None:
    rooms = [
        name.removesuffix("/")
        for line in tree_in(page)
        for name in names_in(line)[: None if page == "README.md" else 1]
        if name.endswith("/")
    ]
    assert sorted(rooms) == sorted(folders_in(PACKAGE))
    named = re.findall(r"[\w/]+\.py", "\n".join(tree_in(page)))
    assert named and not [name for name in named if not (PACKAGE / name).is_file()]


def test_the_tree_of_the_architecture_lists_the_folders_of_each_room_and_the_files_beside_them() -> None:
    lines = [names_in(line) for line in tree_in("docs/architecture.md")]
    for room, *below in (names for names in lines if names[0].endswith("/")):
        assert {name.removesuffix("/") for name in below} == folders_in(PACKAGE / room), room
    files = [name for names in lines for name in names if name.endswith(".py")]
    assert sorted(files) == sorted(path.name for path in PACKAGE.glob("*.py") if not path.name.startswith("__"))


FIRST_TRY = {
    "**sampl**ing": "engine/decoding/sampler.py",
    "**prefix** caching": "engine/memory/prefix_cache.py",
    "**Wilson** intervals": "stats/intervals.py",
    "**seccomp** filter": "sandbox/seccomp.py",
    "**react** pattern": "patterns/react.py",
    "OpenAI **chat** route": "serve/openai/chat_completions.py",
}
"""What a stranger must find at the first try."""


@pytest.mark.slow
def test_what_is_looked_for_lies_in_the_file_that_the_architecture_names() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (.*\*\*.*) \| (\S+\.py) \|$", page, re.MULTILINE))
    assert len(rows) >= 26
    for term, file in rows.items():
        (word,) = re.findall(r"\*\*(.+?)\*\*", term)
        docstring = ast.get_docstring(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))) or ""
        assert word.lower() in docstring.lower(), f"{file} does not say {word!r}"
    for term, file in FIRST_TRY.items():
        assert [rows[each] for each in rows if term in each] == [file]


def test_the_home_page_shows_the_table_of_the_readme() -> None:
    tables = [
        [block.body for block in blocks(page) if block.body.startswith("arithmetic: numeric")]
        for page in ("README.md", "docs/index.md")
    ]
    assert len(tables[0]) == 1 and tables[0] == tables[1]


def test_each_term_of_the_glossary_has_one_line_in_alphabetical_order() -> None:
    lines = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").split("\n\n", 2)[2].splitlines()
    terms = [match[1].lower() for line in lines if (match := re.fullmatch(r"- \*\*(.+)\*\*: .+\.", line))]
    assert len(terms) == len(lines) >= 60
    assert terms == sorted(set(terms))


def test_each_page_is_in_the_navigation_once_and_the_home_page_links_what_is_there() -> None:
    nav = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    docs = ROOT / "docs"
    assert sorted(nav) == sorted(str(path.relative_to(docs)) for path in docs.rglob("*.md"))
    links = re.findall(r"\]\(([^)#]+)", (docs / "index.md").read_text(encoding="utf-8"))
    assert {"glossary.md", "architecture.md"} <= set(links)
    assert not [link for link in links if "://" not in link and not (docs / link).exists()]


def test_every_file_that_the_design_page_names_exists() -> None:
    named = re.findall(r"`([\w/]+/[\w]+\.py|[\w]+/)`", (ROOT / "docs" / "design.md").read_text(encoding="utf-8"))
    assert len(named) > 40
    assert not [name for name in named if not ((PACKAGE / name).exists() or (ROOT / name).exists() or name == "evals/")]
