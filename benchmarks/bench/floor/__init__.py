"""The floor of a training step: its matrix products alone, and the bytes that the rest must move.

- `parts`: the names of a step's parts, as the time breakdown has them
- `products`: which matrix products a step computes, part by part
- `traffic`: which bytes its memory-bound operations must move
- `kernels`: products, attention and copies alone, on operands made beforehand
- `measure`: step and floor in turn, and what each part costs above its floor
- `table`: the table of it
"""
