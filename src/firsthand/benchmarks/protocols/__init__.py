"""How benchmarks are prompted and scored: named protocols, multiple choice, competition maths, votes."""
