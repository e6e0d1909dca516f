"""The model, its training and its life.

config/      the experiment file, and the shipped presets
cost/        parameters, FLOPs and bytes, by component
model/       the network on megatron-core: router, experts, attention, norms, loss
routing/     what routers did: statistics, specialization, replay
training/    steps, guards, optimizer and logs
checkpoint/  the checkpoint format: index, writer, reader, resharding
runs/        the run directory: its format, its writer and every reader
evaluation/  use of a trained model: loss, generation, tasks, memorization
convert/     Hugging Face and back, upcycling
storage/     tensors on disk
cli/         `moe cost`, `moe eval`, `moe generate`, `moe audit`, `moe convert`
errors.py    what this room raises
"""
