"""job.yaml -> JobSpec: the first station of a job's way. Imports no other room."""
