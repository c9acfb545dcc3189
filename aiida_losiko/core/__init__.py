"""The LOSIKO method on numpy, scipy and torch; no AiiDA, no network."""
