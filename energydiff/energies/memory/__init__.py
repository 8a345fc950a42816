"""Associative memories as energies."""
