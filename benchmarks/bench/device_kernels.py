"""Which kernels a training step really ran, by torch's profiler."""

import os
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.bench.trainer import MeasuredTrainer

MOST_KERNELS = 20


def longest_kernels(subject: MeasuredTrainer) -> list[dict[str, Any]]:
    """Return the kernels of one step that took longest on a GPU; on a CPU, torch's operations.

    Times are those under the profiler, which slows a step; names tell what ran.
    """
    on_gpu = subject.engine.device.type == "cuda"
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    # Else it tells when it starts and stops; read at its first start.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[activity], acc_events=True) as profiler:
        subject.step()
    kernels = [
        {
            "name": event.key,
            "calls": event.count,
            "time_s": (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6,
        }
        for event in profiler.key_averages()
        if event.device_type.name == activity.name
    ]
    if on_gpu:
        torch.cuda.synchronize(subject.engine.device)
    return sorted(kernels, key=lambda kernel: -kernel["time_s"])[:MOST_KERNELS]
