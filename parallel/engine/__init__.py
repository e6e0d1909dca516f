"""Process groups and megatron-core's start, the CPU host it runs on, and the watchdog."""
