"""How a model is laid out over devices, and what that costs.

measurement/     a number with unit, source, boundary and interval
layout/          ranks, process groups and divisibility, as pure arithmetic
hardware/        what a device can do: probed here, or from its data sheet
precision/       number formats, kernel sets, and the rules of FP8 recipes
engine/          megatron-core in this process, on GPUs and CPUs; launching ranks
planner/         the memory that a layout needs, before it runs
errors.py        the errors of this room
frozen_model.py  the strict base of configuration classes
"""
