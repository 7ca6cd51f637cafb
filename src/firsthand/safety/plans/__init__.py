"""Plans: a small expression language whose values carry labels, for agents that plan before they read."""
