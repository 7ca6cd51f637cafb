"""Compare runs, or agents, task by task: what got better or worse, and whether chance explains it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from firsthand.benchmark import Figure, Figures
from firsthand.commands.compare_config import Config
from firsthand.commands.pairwise import compare_pairwise
from firsthand.commands.sides import (
    benchmarks_with,
    complain_of_directions,
    difference_cells,
    difference_header,
    paired_figures,
    shared_agents,
    unmade_text,
    write,
)
from firsthand.config import confidence, refuse_given
from firsthand.errors import unknown
from firsthand.message import Json
from firsthand.runs import store
from firsthand.runs.flaky import Flaky, flaky
from firsthand.runs.pairing import Comparison, compare
from firsthand.runs.retried_attempts import retried_text
from firsthand.runs.run_folder import Run
from firsthand.show.answer_diff import MAX_SAMPLES, PairBudget, Sample, page, samples, terminal_text
from firsthand.stats.intervals import Scores
from firsthand.stats.multiple_comparisons import difference
from firsthand.stats.paired import PairedDifference, judged
from firsthand.stats.stored_figures import first_score, own_figures
from firsthand.system.home import data_home
from firsthand.system.plurals import count_of
from firsthand.system.terminal import complain, console, print_as_json, print_prose, print_table

EXAMPLES = """
firsthand compare 2026-11-25-0148 last                      # each agent in both runs
firsthand compare last last --agent-a direct --agent-b cot  # two agents of one run
firsthand compare last                                      # every two agents of one run, Holm-corrected
firsthand compare A B C --correct bh                        # every two agents of several runs
firsthand compare A B --diff --only worse --html diff.html
firsthand compare A B --benchmark gsm8k --score strict --json
"""


def main(config: Config) -> int:
    """Compare and print."""
    if not (config.diff or config.html):
        refuse_given(config, {"only"}, "it goes with --diff or --html")
    if len(config.runs) != 2:
        refuse_given(config, {"limit"}, "it is for two runs, A and B")
        return compare_pairwise(config)
    refuse_given(config, {"correct"}, "it is for all pairs of agents, of one run or of three and more")
    with (
        store.open_run(config.runs[0], data_home()) as run_a,
        store.open_run(config.runs[1], data_home()) as run_b,
    ):
        own = own_figures(complain, run_a, run_b)
        complain_of_directions(run_a, run_b, score=config.score)
        having = benchmarks_with(config.score, run_a, run_b, own=own)
        comparisons, paired_by = compare_all(config, run_a, run_b, having), next(iter(having.values()), None)
        if config.html is not None:
            write_page(config, comparisons, run_a, run_b, paired_by)
        results = [differences_of(config, each, run_a, run_b, own) for each in comparisons]
        if config.json:
            bodies = [to_json(each, found) for each, found in zip(comparisons, results, strict=True)]
            print_as_json(bodies)
            return 0
        budget = PairBudget()
        for comparison, found in zip(comparisons, results, strict=True):
            print_comparison(comparison, found, config)
            if config.flaky:
                print_flaky(flaky(comparison), config.limit)
            if config.diff:
                print_samples(comparison, run_a, run_b, config, paired_by, budget)
    return 0


def compare_all(config: Config, run_a: Run, run_b: Run, having: Mapping[str, str | None]) -> list[Comparison]:
    """A comparison for the named agents, or for each agent in both runs."""
    if config.benchmark is not None and config.benchmark not in having:
        raise unknown("benchmark", config.benchmark, having, see=f"firsthand show {run_a.id}")
    found = [
        compare(
            run_a,
            run_b,
            agent_a=a,
            agent_b=b,
            benchmark=config.benchmark,
            score=next(iter(having.values()), None),
            error_value=0.0 if config.errors == "zero" else None,
            strata=config.strata,
            reduce=config.reduce,
        )
        for a, b in shared_agents(config.agent_a, config.agent_b, run_a, run_b)
    ]
    return [replace(each, pairs=tuple(pair for pair in each.pairs if pair.benchmark in having)) for each in found]


def differences_of(
    config: Config, comparison: Comparison, run_a: Run, run_b: Run, own: Mapping[str, Figures]
) -> dict[tuple[str, str], PairedDifference]:
    """B minus A by (benchmark, name): of the chosen score, or of the first score and the figures."""
    found: dict[tuple[str, str], PairedDifference] = {}
    for benchmark in dict.fromkeys(pair.benchmark for pair in comparison.pairs):
        pairs = [pair for pair in comparison.pairs if pair.benchmark == benchmark]
        ranked = config.score or first_score(benchmark, run_a, run_b)
        values = {p.task_id: p.a.drawn for p in pairs}, {p.task_id: p.b.drawn for p in pairs}
        figures = paired_figures(comparison, benchmark, run_a, run_b, own, errors=config.errors == "zero")
        sides: dict[str, tuple[Scores | Figure, Scores | Figure]] = {ranked: values, **figures}
        for name, (a, b) in sides.items():
            if name == ranked or config.score is None:
                lower = benchmark in comparison.harms
                both = difference(b, a, comparison.clusters.get(benchmark), lower_is_better=lower)
                found[benchmark, name] = judged(both, confidence(config.confidence))
    return found


def print_comparison(
    comparison: Comparison, results: Mapping[tuple[str, str], PairedDifference], config: Config
) -> None:
    """Print a table of scores and figures by benchmark, then the changed tasks, and what was left out."""
    rows = [[*place, str(found.n), *difference_cells(found)] for place, found in results.items()]
    header = ["benchmark", "score", "tasks", *difference_header(config.confidence)]
    print_table(f"{comparison.b} vs. {comparison.a}", header, rows)
    out = console()
    for (benchmark, name), found in results.items():
        if found.verdict == "inconclusive" and found.detectable < 1:
            print_prose(f"{benchmark}, {name}: minimum detectable effect {found.detectable:.3f} (80% power)")
    changed = [*comparison.tasks("worse"), *comparison.tasks("better")]
    if changed:
        cells = [
            [
                f"{p.benchmark}/{p.task_id}",
                f"{p.a.value:g}",
                f"{p.b.value:g}",
                p.a.places[0][:8],
                p.b.places[0][:8],
            ]
            for p in changed[: config.limit]
        ]
        print_table(f"changed tasks ({len(changed)})", ["task", "a", "b", "trace in a", "trace in b"], cells)
    for line in (*map(str, comparison.other_scorers), *comparison.settings):
        out.print(line, markup=False, soft_wrap=True)
    for side, unmade in zip("ab", comparison.unmade, strict=True):
        if sum(unmade.values()):
            out.print(unmade_text(sum(unmade.values()), side), markup=False, soft_wrap=True)
    for side, retried in zip((comparison.a, comparison.b), comparison.retried, strict=True):
        if told := retried_text({f"{side} at {name}": each for name, each in retried.items()}):
            out.print(told, markup=False, soft_wrap=True)
    if comparison.evened:
        out.print(f"{count_of(len(comparison.evened), 'task')} reduced over as many attempts as both sides have")
    for side, counts, unjudged in zip("ab", comparison.unscored, comparison.num_unjudged, strict=True):
        if sum(counts.values()):
            unscored = count_of(sum(counts.values()), "attempt")
            harm = sum(count for name, count in counts.items() if name in comparison.harms)
            zero = config.errors == "zero" and harm < sum(counts.values())
            treated = "counted as 0" if zero else "left out"
            but = f", but for {unjudged} without a verdict: left out" if unjudged and zero else ""
            but += f", but for {harm} without a score of harm: left out" if harm and zero else ""
            out.print(f"{unscored} of {side} without a score, {treated}{but}", markup=False)
    for what, keys in (
        ("only in a", comparison.only_a),
        ("only in b", comparison.only_b),
        ("not paired, because the task itself changed", comparison.changed),
    ):
        if keys:
            out.print(f"{count_of(len(keys), 'task')} {what}: {', '.join(task for _, task in keys[:5])}", markup=False)


def print_flaky(found: list[Flaky], limit: int) -> None:
    """Print a table of the flaky tasks."""
    rows = [[f"{f.benchmark}/{f.task_id}", f.where, " ".join(f"{v:g}" for v in f.values)] for f in found[:limit]]
    print_table(f"flaky tasks ({len(found)})", ["task", "in", "scores"], rows)


def print_samples(
    comparison: Comparison, run_a: Run, run_b: Run, config: Config, score: str | None, budget: PairBudget
) -> None:
    """Print the samples side by side."""
    out = console()
    for number, sample in enumerate(samples(comparison, run_a, run_b, config.only, score)):
        if number == config.limit:
            out.print("there are more: --limit shows them, and --html writes them into a file")
            return
        out.print(terminal_text(sample, out.width, budget), soft_wrap=True)


def write_page(config: Config, comparisons: Sequence[Comparison], run_a: Run, run_b: Run, score: str | None) -> None:
    """Write the HTML file."""
    assert config.html is not None
    shown: list[Sample] = []
    for comparison in comparisons:
        for sample in samples(comparison, run_a, run_b, config.only, score):
            if len(shown) > MAX_SAMPLES:
                break
            shown.append(sample)
    counts = [(change, sum(len(each.tasks(change)) for each in comparisons)) for change in ("worse", "better", "same")]
    title = "; ".join(f"{each.b} vs. {each.a}" for each in comparisons)
    write(config.html, page(title, shown, counts))


def to_json(comparison: Comparison, results: Mapping[tuple[str, str], PairedDifference]) -> Json:
    """The comparison as a JSON object."""
    benchmarks: dict[str, Json] = {}
    for (benchmark, name), found in results.items():
        if benchmark in benchmarks:
            benchmarks[benchmark]["figures"][name] = found.to_json()
        else:
            benchmarks[benchmark] = {"score": name, **found.to_json(), "figures": {}}
    others = [each.to_json() for each in comparison.other_scorers]
    return {
        "a": comparison.a,
        "b": comparison.b,
        "benchmarks": benchmarks,
        "tasks": [
            {"benchmark": p.benchmark, "task": p.task_id, "a": p.a.value, "b": p.b.value, "change": p.change}
            for p in comparison.pairs
        ],
        "only_a": [list(key) for key in comparison.only_a],
        "only_b": [list(key) for key in comparison.only_b],
        "changed": [list(key) for key in comparison.changed],
        "unmade": {"a": dict(comparison.unmade[0]), "b": dict(comparison.unmade[1])},
        "retried": {
            side: {name: each.to_json() for name, each in retried.items()}
            for side, retried in zip("ab", comparison.retried, strict=True)
        },
        "evened": [list(key) for key in comparison.evened],
        "unscored": {"a": dict(comparison.unscored[0]), "b": dict(comparison.unscored[1])},
        "flaky": [{"task": f.task_id, "where": f.where, "values": list(f.values)} for f in flaky(comparison)],
        **({"other_scorers": others} if others else {}),
        **({"settings": list(comparison.settings)} if comparison.settings else {}),
    }
