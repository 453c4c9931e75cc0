"""The door to the command line: `python -m benchmark VERB`."""

from benchmark.cli.main import cli, main

__all__ = ["cli", "main"]

if __name__ == "__main__":
    main()
