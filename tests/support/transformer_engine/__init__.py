"""Transformer Engine's own Python modules on a CPU, over a reference of its compiled extension.

`install.py` puts the reference in the extension's place where there is no GPU. Each function that
Transformer Engine asks for is answered in plain torch, in FP32 inside, in a file named for its
kind; `extension.py` lists them. What is not answered raises an error that names it.

Arguments are those that Transformer Engine's Python code passes, in its order. Shapes: T tokens,
K inner and N outer size of a layer, H heads, D size of a head.
"""
