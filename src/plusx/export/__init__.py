"""From a model to a file that other programs run, preprocessing included."""
