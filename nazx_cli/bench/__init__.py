"""Benchmarks: named workloads, measured side by side with what users would otherwise run."""
