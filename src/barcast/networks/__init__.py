"""Architectures in torch: each maps windows `[B, L, F]` to logits `[B, 3]`, and knows nothing else."""
