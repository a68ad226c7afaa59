"""Workloads whose figures are those of processes of their own."""
