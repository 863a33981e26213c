"""JobSpec -> plan for this machine -> run directory -> started job."""
