"""Figures and page of a study of memorising."""

from energydiff.report.memorisation.write import write_study

__all__ = ["write_study"]
