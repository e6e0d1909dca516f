"""Meters of a run, and their readings.

source.py     what every source offers: a growing number of joules, and its origin
sources/      one file for each meter; which of them a run gets
samples/      power samples that another device logged
phases/       seconds and joules by phase, kept over restarts
callback.py   the meter of a training run: rank_meter.py, run_meter.py, record.py
preflight.py  what `[energy]` names, checked before a run starts
remeter.py    a finished run metered again; tables.py shows it
"""
