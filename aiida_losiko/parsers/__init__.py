"""Parsers of the `losiko` jobs, one per calculation."""
