r"""A web page and an API on a saved recommender: ``python -m gtc_pyg.serve FOLDER``.

:func:`gtc_pyg.serve.api.make_app` gives the application to those who run a server of their own.
Needs the extras ``recommend`` and ``serve``.
"""
