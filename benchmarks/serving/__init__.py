"""Benchmarks of `service`: requests per second, latency, memory, beside other servers and the limit."""
