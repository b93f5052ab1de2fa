"""Objectives side by side: the same prompts, rollouts, budget and evaluation points, several seeds, intervals."""
