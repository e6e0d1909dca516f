"""NVML's counter against a fake NVML: GPUs found by UUID, MIG refused."""

import pytest

from benchmarks.energy.source import SourceUnavailableError
from benchmarks.energy.sources.nvml import NvmlSource, current_gpu_uuid
from tests.support.fake_meters import FakeClock, FakeGpu, FakeNvml, one_gpu


def test_masked_devices_are_found_by_uuid(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With CUDA_VISIBLE_DEVICES=1, CUDA's device 0 is NVML's device 1."""
    import torch

    nvml = FakeNvml({"GPU-hidden": FakeGpu(clock, 700.0), "GPU-ours": FakeGpu(clock, 300.0)})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    properties = type("Properties", (), {"uuid": "ours"})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    source = NvmlSource(current_gpu_uuid(), nvml, clock)
    source.read_joules()
    clock.advance(10)
    assert source.read_joules() == pytest.approx(3000)


def test_mig_is_refused_with_the_reason(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, nvml = one_gpu(clock)
    gpu.mig = True
    with pytest.raises(SourceUnavailableError, match="MIG.*all instances together"):
        NvmlSource("GPU-a", nvml, clock)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1234")
    with pytest.raises(SourceUnavailableError, match="MIG instance"):
        current_gpu_uuid()
