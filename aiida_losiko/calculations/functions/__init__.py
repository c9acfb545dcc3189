"""Calculation functions: light work in the process itself, one per file."""
