"""Other stores of vectors with their defaults. Run by ../retrieval.py: `PYTHON retrieval_stores.py NAME FOLDER BELOW`.

FOLDER holds vectors.npy, queries.npy and chunks.jsonl. Prints, as JSON, what was found for each query among the chunks whose
"share" is below BELOW, and milliseconds of processor time.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Search = Callable[[np.ndarray], list[str]]


def chroma(folder: Path, chunks: list[dict[str, Any]], vectors: np.ndarray, below: int) -> Search:
    import chromadb

    client = chromadb.PersistentClient(str(folder / "chroma"))
    made = client.get_or_create_collection(
        "chunks", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
    )
    if made.count() == 0:
        for first in range(0, len(chunks), 5000):
            some = chunks[first : first + 5000]
            made.add(
                ids=[each["id"] for each in some],
                embeddings=vectors[first : first + 5000],
                documents=[each["text"] for each in some],
                metadatas=[{"share": each["share"]} for each in some],
            )
    where = None if below >= 10_000 else {"share": {"$lt": below}}
    return lambda query: made.query(query_embeddings=[query], n_results=10, where=where)["ids"][0]


def lancedb(folder: Path, chunks: list[dict[str, Any]], vectors: np.ndarray, below: int) -> Search:
    import lancedb
    import pyarrow as pa

    base = lancedb.connect(folder / "lance")
    if "chunks" not in base.table_names():
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        columns = {name: [each[name] for each in chunks] for name in ("id", "text", "share")}
        base.create_table("chunks", pa.table({**columns, "vector": flat}))
    table = base.open_table("chunks")

    def search(query: np.ndarray) -> list[str]:
        found = table.search(query).distance_type("cosine").select(["id"]).limit(10)
        found = found if below >= 10_000 else found.where(f"share < {below}", prefilter=True)
        return [row["id"] for row in found.to_list()]

    return search


def langchain(folder: Path, chunks: list[dict[str, Any]], vectors: np.ndarray, below: int) -> Search:
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import InMemoryVectorStore

    class Given(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            raise NotImplementedError

        def embed_query(self, text: str) -> list[float]:
            raise NotImplementedError

    made = InMemoryVectorStore(Given())
    for each, vector in zip(chunks, vectors.tolist(), strict=True):
        made.store[each["id"]] = {
            "id": each["id"], "vector": vector, "text": each["text"], "metadata": {"share": each["share"]}
        }  # fmt: skip
    chosen = None if below >= 10_000 else (lambda document: document.metadata["share"] < below)

    def search(query: np.ndarray) -> list[str]:
        found = made.similarity_search_with_score_by_vector(query.tolist(), 10, filter=chosen)
        return [document.id for document, _ in found]

    return search


def llamaindex(folder: Path, chunks: list[dict[str, Any]], vectors: np.ndarray, below: int) -> Search:
    from llama_index.core.schema import TextNode
    from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, SimpleVectorStore, VectorStoreQuery

    made = SimpleVectorStore()
    made.add([
        TextNode(id_=each["id"], text=each["text"], embedding=vector, metadata={"share": each["share"]})
        for each, vector in zip(chunks, vectors.tolist(), strict=True)
    ])  # fmt: skip
    chosen = (
        None if below >= 10_000 else MetadataFilters(filters=[MetadataFilter(key="share", value=below, operator="<")])
    )

    def search(query: np.ndarray) -> list[str]:
        return made.query(VectorStoreQuery(query_embedding=query.tolist(), similarity_top_k=10, filters=chosen)).ids

    return search


STORES = {"chroma": chroma, "lancedb": lancedb, "langchain": langchain, "llamaindex": llamaindex}


def main(name: str, folder: str, below: str) -> None:
    """Fill the store, unless it was before, and search."""
    chunks = [json.loads(line) for line in (Path(folder) / "chunks.jsonl").open()]
    vectors, queries = np.load(Path(folder) / "vectors.npy"), np.load(Path(folder) / "queries.npy")
    search = STORES[name](Path(folder), chunks, vectors, int(below))
    search(queries[0])
    found, times = [], []
    for query in queries:
        began = time.process_time()
        ids = search(query)
        times.append(1e3 * (time.process_time() - began))
        found.append(list(ids))
        if sum(times) > 60_000:
            break
    print(json.dumps({"found": found, "median": statistics.median(times), "p95": float(np.percentile(times, 95))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
