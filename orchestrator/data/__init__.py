"""Files → conversations → checks → the rows of a run."""
