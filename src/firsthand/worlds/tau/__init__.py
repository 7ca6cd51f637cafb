"""tau-bench (Yao et al., 2024): customer service by tools, under a policy, with a simulated customer."""
