"""Runs in two processes: DDP, FSDP, DeepSpeed, searches."""
