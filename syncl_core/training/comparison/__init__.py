"""Rows of the paper's tables, trained alike and compared: `syncl ablate`.

asked.py    the comparison that the command line asks for
study.py    what is compared: rows, seeds, data, start; which runs that makes
places.py   where its scenes are; those of the world are drawn once
tasks.py    one run: train, evaluate the last weights, write result.json
cost.py     what a step of training costs next to the baseline's, and what is left of it at inference: nothing
crew.py     tasks in processes of their own, some at a time; clean stops
conduct.py  all of it in order, going on wherever it was interrupted
results.py  every number in one file, means and spreads
page.py     the same as a page to read
picture.py  the same as a picture, and many comparisons in one
"""
