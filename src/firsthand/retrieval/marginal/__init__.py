"""Answers marginalised over documents: RAG-Sequence and RAG-Token (Lewis et al., 2020)."""
