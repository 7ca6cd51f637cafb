"""Reads result files of MTEB: one JSON for each task, in folders MODEL/REVISION, with model_meta.json.

A file may hold more splits and languages than a benchmark counts. Of a task of MTEB(eng, v2) only the split `test` counts,
and of the six tasks that have more languages only English, as in that benchmark. Of any other task all splits and
subsets count.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from firsthand.boards.board_results import BoardResult
from firsthand.errors import DataError
from firsthand.message import Json

TASK_TYPES = {
    "Classification": "AmazonCounterfactualClassification Banking77Classification ImdbClassification "
    "MTOPDomainClassification MassiveIntentClassification MassiveScenarioClassification "
    "ToxicConversationsClassification TweetSentimentExtractionClassification",
    "Clustering": "ArXivHierarchicalClusteringP2P ArXivHierarchicalClusteringS2S BiorxivClusteringP2P.v2 "
    "MedrxivClusteringP2P.v2 MedrxivClusteringS2S.v2 StackExchangeClustering.v2 StackExchangeClusteringP2P.v2 "
    "TwentyNewsgroupsClustering.v2",
    "PairClassification": "SprintDuplicateQuestions TwitterSemEval2015 TwitterURLCorpus",
    "Reranking": "AskUbuntuDupQuestions MindSmallReranking",
    "Retrieval": "ArguAna CQADupstackGamingRetrieval CQADupstackUnixRetrieval ClimateFEVERHardNegatives "
    "FEVERHardNegatives FiQA2018 HotpotQAHardNegatives SCIDOCS TRECCOVID Touche2020Retrieval.v3",
    "STS": "BIOSSES SICK-R STS12 STS13 STS14 STS15 STS17 STS22.v2 STSBenchmark",
    "Summarization": "SummEvalSummarization.v2",
}
"""The types of the 41 tasks of MTEB(eng, v2); result files do not state them."""
ENGLISH = ("default", "en", "en-en")
"""The subsets that MTEB(eng, v2) counts."""
_TYPE_OF = {task: kind for kind, tasks in TASK_TYPES.items() for task in tasks.split()}


def is_mteb(body: Any) -> bool:
    """True for a result of an MTEB task."""
    return isinstance(body, dict) and "task_name" in body and isinstance(body.get("scores"), dict)


def mteb_results(body: Json, path: Path, meta: Json) -> Iterator[BoardResult]:
    """The main score of the task: the mean over the splits and subsets that count, as MTEB's `get_score`."""
    task = str(body["task_name"])
    splits = {str(split): subsets for split, subsets in body["scores"].items() if isinstance(subsets, list)}
    if task in _TYPE_OF and "test" in splits:
        splits = {"test": splits["test"]}
    named = {str(each.get("hf_subset") or "default") for subsets in splits.values() for each in subsets}
    english = named & set(ENGLISH) if task in _TYPE_OF and len(named) > 1 else set()
    found: list[float] = []
    for split, subsets in splits.items():
        for each in subsets:
            if english and str(each.get("hf_subset") or "default") not in english:
                continue
            score = each.get("main_score")
            if not isinstance(score, int | float) or isinstance(score, bool):
                raise DataError(f"{path}: a main_score of {task} on {split} is {score!r:.40}: a number was expected")
            found.append(float(score))
    if not found:
        raise DataError(f"{path}: the task {task} has no scores: is the file cut short?")
    kept = sorted(english or named - {"default", *ENGLISH})
    languages = f", subset {kept[0]}" if len(kept) == 1 else f", {len(kept)} subsets" if kept else ""
    yield BoardResult(
        model=str(meta.get("name") or path.parent.parent.name.replace("__", "/")),
        benchmark=task,
        value=sum(found) / len(found),
        protocol=f"MTEB, split {'+'.join(sorted(splits))}{'' if english else languages}",
        metric="main_score",
        group=_TYPE_OF.get(task, ""),
        source=str(path),
        commit=f"mteb {body.get('mteb_version')}",
        data_hash=str(body.get("dataset_revision") or ""),
    )
