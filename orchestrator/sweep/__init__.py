"""One spec, many runs, a ranking.

space (which points there are) · study (which comes next; Optuna) · trial (a point as a run) · objective (what it is
worth) · ranking · book (the sweep's folder) · sweeper (the loop) · winner (its test, its values in a spec)
"""
