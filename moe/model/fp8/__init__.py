"""FP8 without a GPU: what Transformer Engine's recipes round, computed in FP32.

The recipes' numbers are in quantization.py; emulation.py puts them into a model's products.
"""
