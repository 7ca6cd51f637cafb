"""Training: pretraining, fine-tuning and reinforcement learning as one loop over token streams."""
