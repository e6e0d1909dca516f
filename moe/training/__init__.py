"""Training: one start of a run, step by step.

train.py, loop.py   a run from start to end; the loop over steps
trainer.py, step.py what a step needs; one step
startup/            checks, claiming the run, initial weights, building the trainer
objective/          what a step minimizes; micro-batches
optimization/       optimizers; guards that refuse bad steps
logs/               metrics, progress, TensorBoard, totals, the record
saver.py, rejections.py, replay.py, held_out.py, stop_signals.py, loader.py
"""
