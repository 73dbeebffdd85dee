"""Evaluation: scores, simple baselines, comparisons, the verdict."""
