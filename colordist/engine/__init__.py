"""The one place that knows Accelerate and ``torch.distributed``."""
