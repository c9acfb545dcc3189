"""LOSIKO, Local Similarity Kernel Optimization, as a Python package and an AiiDA plugin."""

__version__ = "0.1.0"
