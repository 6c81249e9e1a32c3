r"""What several parts of the package share and what concerns no graph."""
