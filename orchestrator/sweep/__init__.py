"""One spec, many runs, a ranking.

space (which points there are) · study (which comes next; Optuna) · trial (a point as a run) · ranking (what each is
worth) · records (the sweep's folder) · sweeper (the loop) · winner (its test, its values in a spec)
"""
