"""Benchmarks of `training`: what a network reaches in a given time."""
