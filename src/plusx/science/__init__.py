"""Why residual networks work: one paper's experiment a file, its figure in a file beside it."""
