"""Parser and sympy worker for comparing mathematical answers."""
