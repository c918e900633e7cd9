"""Processes, devices and collectives: the only package that uses Accelerate, DeepSpeed and torch.distributed."""
