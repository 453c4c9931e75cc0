"""A research benchmark of generative models: one harness, every family, numbers that come back."""

__version__ = "0.1.0"
