"""Evaluation: accuracy by rules that say how far they can be trusted, and speed-up that means something."""
