"""Sweeps: a design file to many runs, their cost before and their results in one table.

design.py           the design file
axes.py             what is turned: values, and their combinations
transfer.py         learning rates and batches by published rules
point.py            one run: its experiment, asked for and real sizes
make_point.py       one combination to such a run
held.py             what iso designs hold: parameters, FLOPs, memory, joules
speed.py            what runs will take, and who can tell
measured_speed.py   scaled from measured runs
planned_speed.py    planned for a card
expansion.py        all points of a design, and their cost
expand.py           a design to its points, within its budget
folder.py           the sweep's directory: locked, never of two designs
processes.py        programs as processes, several at a time, stopped cleanly
shared_faults.py    what no run could read is found before the first starts
running.py          what is missing runs; failures are kept, not fatal
results.py          one row a run, in one Parquet file
tables.py           points and results for a terminal
"""
