"""The run directory: layout, identity, claims and ends of attempts, event log, checkpoints."""
