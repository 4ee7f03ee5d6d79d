"""The benchmarks: `python -m bench` measures a whole server, the other modules one part each. See README.md."""
