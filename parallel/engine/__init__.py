"""megatron-core in this process: start and stop, process groups, the CPU host, the watchdog."""
