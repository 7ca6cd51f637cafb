"""AgentDojo (Debenedetti et al., 2024): its suites, tools, attacks and checks as a Benchmark of ours."""
