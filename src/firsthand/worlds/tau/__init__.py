"""tau-bench (Yao et al., 2024): customer service of an airline and a shop, by tools, under a policy, with a simulated customer."""
