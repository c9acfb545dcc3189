"""Relaxation of structures: the driver, batches, SciPy methods, results."""
