"""Slurm as the world outside: its programs, its jobs, its answers."""
