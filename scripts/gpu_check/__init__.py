"""What the benchmark does on a GPU: whether it computes the same, how fast it is, and its records.

`agreement`, `speed` and `records` are the three parts; `results` keeps what a part finds as it goes; `luggage` is what
a machine needs that has neither a network nor git. docs/gpu.md says how to read what comes out.
"""
