"""Models of any origin against each other, by the clock: what tools/benchmark_latency.py does."""
