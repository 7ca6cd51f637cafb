"""Reads result files of MTEB: one JSON for each task, in folders MODEL/REVISION, with model_meta.json."""

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
_TYPE_OF = {task: kind for kind, tasks in TASK_TYPES.items() for task in tasks.split()}


def is_mteb(body: Any) -> bool:
    """True for a result of an MTEB task."""
    return isinstance(body, dict) and "task_name" in body and isinstance(body.get("scores"), dict)


def mteb_results(body: Json, path: Path, meta: Json) -> Iterator[BoardResult]:
    """The main score of the task: the mean over all splits and subsets in the file, as MTEB's `get_score`."""
    task = str(body["task_name"])
    found: list[float] = []
    for split, subsets in body["scores"].items():
        for each in subsets if isinstance(subsets, list) else ():
            score = each.get("main_score")
            if not isinstance(score, int | float) or isinstance(score, bool):
                raise DataError(f"{path}: a main_score of {task} on {split} is {score!r:.40}: a number was expected")
            found.append(float(score))
    if not found:
        raise DataError(f"{path}: the task {task} has no scores: is the file cut short?")
    splits = "+".join(body["scores"])
    yield BoardResult(
        model=str(meta.get("name") or path.parent.parent.name.replace("__", "/")),
        benchmark=task,
        value=sum(found) / len(found),
        protocol=f"MTEB, split {splits}",
        metric="main_score",
        group=_TYPE_OF.get(task, ""),
        source=str(path),
        commit=f"mteb {body.get('mteb_version')}",
        data_hash=str(body.get("dataset_revision") or ""),
    )
