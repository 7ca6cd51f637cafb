"""Prompting and scoring shared by benchmarks: named protocols, multiple choice, competition mathematics, human votes."""
