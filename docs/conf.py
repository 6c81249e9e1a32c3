"""Sphinx configuration: ``make docs``."""

import gtc_pyg

project = "gtc-pyg"
author = "gtc-pyg contributors"
copyright = f"2026, {author}"
version = release = gtc_pyg.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",  # formulas without a network
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["amsmath", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False  # the libraries' docstrings use roles of their own
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_use_ivar = True
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"gtc-pyg {version}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
