"""Scaling laws: the loss as a function of sizes, tokens and sparsity.

conventions.py   what a law's symbols count; converters
law.py           what a law is
families/        the published laws, one family a file, with coefficients and sources
registry.py      laws by name
expression.py    a user's own form, parsed without being executed
own_form.py      a law of such a form
quantities.py    the quantities of points, and how one follows from others
model_sizes.py   the quantities that a model determines
points.py        points from CSV and Parquet
run_points.py    points from run directories
law_columns.py   points in a law's conventions, or refused
clark_runs.py    the runs of Clark et al. 2022, shipped
fitting/         seeds, descent, intervals, identifiability, extrapolation
compare.py       one law or several on the same points
fit_document.py  a fit as JSON
fitted_law.py    a law with coefficients: such JSON read, or published ones
optimum.py       the sizes of least loss
predict.py       the best sizes under a limit of FLOPs, with intervals
tables.py        all that for a terminal
"""
