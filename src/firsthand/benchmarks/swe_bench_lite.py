"""SWE-bench Lite: 300 issues of 12 Python projects, resolved if hidden tests pass (Jimenez et al., 2024)."""

from __future__ import annotations

from pathlib import Path

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.sources.datasets import Source
from firsthand.benchmarks.swe.swe_tasks import SweProtocol, find_records, swe_benchmark
from firsthand.scorers.resolved import TaskWorkplaces

PROTOCOLS = {
    "agent": SweProtocol("SWE-bench's harness, for an agent that works in the repository"),
    "oracle": SweProtocol(
        "the prompt shows the files that the reference patch changes, and one answer holds the patch"
    ),
}
SOURCE = Source(
    path="swe/SWE-bench_Lite_test.jsonl",
    rows=300,
    licence="MIT",
    dataset="SWE-bench/SWE-bench_Lite",
    config="default",
    split="test",
    from_hub=dict,
    also=("swe/SWE-bench_Lite_test.parquet", "data/test-00000-of-00001.parquet"),
)


def swe_bench_lite(
    *,
    protocol: str = "",
    data: str = "",
    repos: str = "",
    network: bool = False,
    test_s: float = 1800.0,
    engine: str = "",
) -> Benchmark:
    """Return the benchmark over 300 issues with small reference patches. `data` is a file, a folder, or `hub`.

    Each task runs in its own image by Docker or Podman (`engine`), without a network unless `network` is true, its tests for
    up to `test_s` seconds. `repos` is a folder with clones, which the protocol `oracle` needs.
    """
    records = find_records(SOURCE, data)
    folder = Path(repos).expanduser() if repos else records.folder
    return swe_benchmark(
        "swe_bench_lite",
        records,
        protocol=protocol,
        description="Issues of 12 Python projects with small reference patches (Jimenez et al., 2024).",
        places=TaskWorkplaces(folder=folder, network=network, test_s=test_s, engine=engine),
    )
