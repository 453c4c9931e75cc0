"""A research benchmark of generative models: one harness, every family, numbers that can be reproduced."""

__version__ = "0.1.0"
