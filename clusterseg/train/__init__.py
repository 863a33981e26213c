"""One rank of a training job: loop, communicator, checkpoints, optimizers, schedules."""
