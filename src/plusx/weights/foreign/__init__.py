"""Weights of other libraries: one file per tongue, each a declared table; ``reading`` uses them."""
