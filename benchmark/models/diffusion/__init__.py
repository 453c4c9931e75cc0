"""Diffusion, and flows in continuous time."""
