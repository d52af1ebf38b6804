"""Sphinx configuration."""

import callfs

project = "CallFS"
author = "The CallFS authors"
copyright = "2026, The CallFS authors"
version = release = callfs.__version__
extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
nitpicky = False
