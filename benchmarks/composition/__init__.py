"""Compositions by what samples them: docs/results/composition.md."""
