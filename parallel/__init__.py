"""How a model is laid out over devices, and what that costs.

measurement/  a number with unit, source, boundary and interval
layout/       ranks, process groups and divisibility, as pure arithmetic
hardware/     what a device can do: probed here, or read off its data sheet
precision/    number formats, and the rules of FP8 recipes
engine/       process groups, and megatron-core's start on GPUs and CPUs
planner/      memory of a layout before it runs
errors.py     what this room raises
"""
