"""clusterseg trains segmentation networks on SLURM and MPI clusters and resumes them exactly."""

__version__ = "0.1.0"
