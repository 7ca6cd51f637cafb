"""The pages of the Studio, a file for each noun: its routes, and what its template shows."""
