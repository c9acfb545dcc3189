"""Calculation jobs that run the `losiko` program, and in `functions` calculation functions."""
