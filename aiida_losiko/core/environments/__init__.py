"""The environment database: build, thin, match, trace back, save and load."""
