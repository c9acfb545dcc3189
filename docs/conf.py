"""Settings of Sphinx; build with ``sphinx-build -W docs docs/_build`` after ``pip install -e ".[docs]"``."""

from importlib.metadata import version as installed_version

project = "aiida-losiko"
author = "The aiida-losiko developers"
version = release = installed_version("aiida-losiko")
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"aiida-losiko {release}"
