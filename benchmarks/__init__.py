"""One file a question: each measures against its limit in the same run. `python -m benchmarks` runs them all."""
