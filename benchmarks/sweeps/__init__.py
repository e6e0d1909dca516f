"""Sweeps: a design file to many runs, their cost before and their results in one table.

design.py     the design file
axes.py       what is turned: values, and their combinations
transfer.py   learning rates and batches by published rules
held.py       what iso designs hold: parameters, FLOPs, memory, joules
point.py      one combination to an experiment
expand.py     a design to points, within its budget
speed.py      seconds and joules of a run: from measured runs, or planned
estimate.py   what a sweep costs before it runs
folder.py     the sweep's directory: locked, never of two designs
processes.py  runs as processes, several at a time, stopped cleanly
running.py    what is missing runs; failures are kept, not fatal
results.py    one row a run, in one Parquet file
tables.py     points and results for a terminal
"""
