"""What summing the gradients over two ranks costs, by how they are grouped.

A whole step (forward, backward, sum, SGD) of a network of few weights and of one of many, on one
core a rank, over mpi4py and over Horovod where it is built. The ways take turns in one process,
round after round; "one vector" is what clusterseg does, "no sum" is the floor. Buckets are sent
as the backward pass fills them, so that it overlaps with the sum of those before; "one by one"
leaves the grouping to Horovod's fusion, "grouped" is Horovod's own call for it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from result import Result

NETWORKS = {"fastscnn": ((96, 128), 4), "unet": ((32, 48), 2)}  # (height, width), batch
CLASSES, ROUNDS, STEPS, BUCKETS = 11, 5, 8, 4
PATIENCE = 1200.0  # seconds for one communicator and network
FLOOR, OURS = "no sum", "one vector"

Sum = Callable[[Sequence[Any]], list[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--rank", nargs=2, help=argparse.SUPPRESS)  # this process is a rank
    options = parser.parse_args()
    if options.rank:
        rank(*options.rank, rounds=options.rounds)
        return
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("this benchmark needs two cores")
    for kind in ("mpi", "horovod"):
        for network in NETWORKS:
            print(f"{kind}, {network}", file=sys.stderr)
            try:
                done = launch(kind, network, options.rounds)
            except subprocess.TimeoutExpired:
                print(f"not done in {PATIENCE:.0f} s: left out", file=sys.stderr)
                continue
            if done.returncode == 3:
                print(f"{kind} is not built: left out", file=sys.stderr)
                break
            if done.returncode != 0:
                sys.exit(f"the ranks failed ({done.returncode}):\n{done.stderr}")
            report(kind, network, json.loads(done.stdout.splitlines()[-1]))


def launch(kind: str, network: str, rounds: int) -> subprocess.CompletedProcess[str]:
    mpirun = str(Path(sys.executable).with_name("mpirun"))
    # As a rank of clusterseg: one that waits leaves its core to the other threads of the job.
    variables = {"OMPI_MCA_mpi_yield_when_idle": "1"}
    variables |= {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if os.geteuid() == 0:  # Open MPI asks root twice
        variables |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    program = [sys.executable, __file__, "--rounds", str(rounds), "--rank", kind, network]
    process = subprocess.Popen(
        [mpirun, "-n", "2", "--bind-to", "core", *program],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        printed, said = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.terminate()  # mpirun ends its ranks; killed it would leave them
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, printed, said)


def report(kind: str, network: str, seconds: dict[str, float]) -> None:
    (height, width), batch = NETWORKS[network]
    for way, value in seconds.items():
        if way == FLOOR:
            continue
        Result(
            bench="reduce",
            what=f"{network}, {height}x{width}, batch {batch}, {kind}: {way}",
            value=value,
            unit="s a step",
            beside=FLOOR,
            ratio=value / seconds[FLOOR],
        ).emit()


def rank(kind: str, network: str, *, rounds: int) -> None:
    """One of the two; the first prints the median seconds of a step, by the way of summing."""
    import keras
    import tensorflow as tf

    from clusterseg.models import build_model

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    communicator = connected(kind)
    size, batch = NETWORKS[network]
    keras.utils.set_random_seed(0)
    model = build_model(network, CLASSES, size)
    images = tf.random.stateless_uniform([batch, *size, 3], [0, communicator.rank])
    labels = tf.zeros([batch, *size], tf.int32)
    steps = {
        way: build_step(model, summed, images, labels)
        for way, summed in ways(communicator, kind).items()
    }
    seconds: dict[str, list[float]] = {way: [] for way in steps}
    for step in steps.values():
        step()  # builds the graph
    for _ in range(rounds):
        for way, step in steps.items():
            for _ in range(STEPS):
                communicator.barrier()
                begin = time.perf_counter()
                step()
                seconds[way].append(time.perf_counter() - begin)
    medians = {way: statistics.median(values) for way, values in seconds.items()}
    # The slower rank is what a job waits for.
    slowest = {
        way: max(communicator.gather(int(value * 1e9))) / 1e9 for way, value in medians.items()
    }
    if communicator.rank == 0:
        print(json.dumps(slowest))
    communicator.close()


def connected(kind: str) -> Any:
    from clusterseg.train.communicator.mpi import MpiCommunicator

    if kind == "mpi":
        return MpiCommunicator(0)
    try:
        from clusterseg.train.communicator.horovod import HorovodCommunicator

        return HorovodCommunicator(0)
    except ImportError:
        sys.exit(3)


def build_step(model: Any, summed: Sum, images: Any, labels: Any) -> Callable[[], Any]:
    import keras
    import tensorflow as tf

    variables = model.trainable_variables
    optimizer = keras.optimizers.SGD(1e-3)
    optimizer.build(variables)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def graph() -> Any:
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(each)
        gradients = tape.gradient(loss, [one.value for one in variables])
        optimizer.apply(summed(gradients), variables)
        return loss

    return lambda: graph().numpy()


def ways(communicator: Any, kind: str) -> dict[str, Sum]:
    """How to sum a list of gradients, by name."""

    def one_vector(gradients: Sequence[Any]) -> list[Any]:
        return in_one(gradients, communicator._sum_in_graph)

    def buckets(gradients: Sequence[Any]) -> list[Any]:
        parts = filled_backwards([one.shape.num_elements() for one in gradients], BUCKETS)
        sums: dict[int, Any] = {}
        for number, part in enumerate(parts):
            chosen = [gradients[index] for index in part]
            sums |= zip(part, in_one(chosen, named(communicator, kind, f"b{number}")), strict=True)
        return [sums[index] for index in range(len(gradients))]

    found: dict[str, Sum] = {FLOOR: list, OURS: one_vector, f"{BUCKETS} buckets": buckets}
    if kind == "horovod":
        import horovod.tensorflow as hvd

        found["one by one"] = lambda gradients: [
            hvd.allreduce(one, op=hvd.Sum, name=f"g{number}")
            for number, one in enumerate(gradients)
        ]
        found["grouped"] = lambda gradients: hvd.grouped_allreduce(
            list(gradients), op=hvd.Sum, name="group"
        )
    return found


def named(communicator: Any, kind: str, name: str) -> Callable[[Any], Any]:
    """A sum of its own: Horovod knows those in flight by their names."""
    if kind == "mpi":
        return communicator._sum_in_graph  # type: ignore[no-any-return]
    import horovod.tensorflow as hvd

    return lambda vector: hvd.allreduce(vector, op=hvd.Sum, name=name)


def in_one(gradients: Sequence[Any], total: Callable[[Any], Any]) -> list[Any]:
    import tensorflow as tf

    vector = tf.concat([tf.reshape(one, [-1]) for one in gradients], 0)
    summed = tf.ensure_shape(total(vector), vector.shape)
    parts = tf.split(summed, [one.shape.num_elements() for one in gradients])
    return [tf.reshape(part, one.shape) for part, one in zip(parts, gradients, strict=True)]


def filled_backwards(sizes: Sequence[int], count: int) -> list[list[int]]:
    """Indices in `count` groups of about equal size, the last variables (whose gradients are
    ready first) in the first group."""
    groups: list[list[int]] = [[]]
    filled, share = 0, sum(sizes) / count
    for index in reversed(range(len(sizes))):
        if filled >= share * len(groups) and len(groups) < count:
            groups.append([])
        groups[-1].append(index)
        filled += sizes[index]
    return groups


if __name__ == "__main__":
    main()
