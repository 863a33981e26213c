"""Checkpoint files in a run directory: names, headers, verification, which one to resume from.

Everything here works without TensorFlow: the supervisor chooses with it, the trainer writes.
"""
