"""A ladder of models: architectures of any size from few dials, the rest by a cited rule.

dials.py   what is chosen: a size, experts, proportions
build.py   dials, a width and a depth to a model
rungs.py   the legal model nearest to what is asked for, and how far it is from that
"""
