"""The jobs of jobs/ can be planned, and start what their recipes start."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from clusterseg.plan.model import Host, Plan
from clusterseg.plan.rank_table import rank_table_of
from clusterseg.shipped import shipped_folder
from clusterseg.spec.model import JobSpec
from clusterseg.spec.reader import parse_job
from tests.plan.plans import HERE, plan, site, slurm_plan
from tests.plan.test_rank_table import EIGHT, parsed

JOBS = sorted(shipped_folder("jobs").glob("*.yaml"))
TOPAZ = (shipped_folder("slurm") / "sites" / "topaz.yaml").read_text()

# The launch of the Habana recipe for 8 cards, as its README has it.
HABANA = shlex.split("""
mpirun --allow-run-as-root --tag-output --merge-stderr-to-stdout --output-filename /tmp/demo_segnet
--bind-to core --map-by socket:PE=4 -np 8 $PYTHON -m keras_segmentation train
--train_images=dataset1/images_prepped_train/
--train_annotations=dataset1/annotations_prepped_train/ --n_classes=12 --model_name=vgg_segnet
--val_images=dataset1/images_prepped_test/ --val_annotations=dataset1/annotations_prepped_test/
--input_height=320 --input_width=640 --epochs=125 --data_type=bf16 --distributed
--num_workers_per_hls=8 --batch_size=16 --learning_rate=0.00002
""")


def read(name: str, **environ: str) -> JobSpec:
    file = shipped_folder("jobs") / f"{name}.yaml"
    return parse_job(file.read_text(), str(file), environ=environ).spec


def habana(hosts: tuple[Host, ...] = (HERE,)) -> Plan:
    spec = read("habana-vgg-segnet-8", PYTHON="$PYTHON")
    return plan(spec, "openmpi4", hosts=hosts, as_root=True)


@pytest.mark.parametrize("file", JOBS, ids=lambda file: file.stem)
def test_every_job_reads_and_has_its_name(file: Path) -> None:
    spec = parse_job(file.read_text(), str(file), environ={}).spec
    assert spec.name == file.stem


def test_the_line_of_the_habana_recipe() -> None:
    """Word for word, but for the folder of the output, what else ranks are told, and one flag."""
    made = habana()
    at = HABANA.index("$PYTHON")
    launcher, program = HABANA[:at], HABANA[at:]
    words = list(made.argv)
    assert words[-len(program) :] == program
    own = words[: words.index("-x")]
    # Between the recipe's words stands the report of the binding, and nothing else.
    report = own.index("--report-bindings")
    assert own[report - 2] == "--output-filename"
    assert own[report + 1] == "--bind-to"
    own.remove("--report-bindings")
    own[own.index("--output-filename") + 1] = "/tmp/demo_segnet"
    own[0] = Path(own[0]).name
    assert own == launcher


def test_after_it_come_only_variables_and_the_rank() -> None:
    words = list(habana().argv)
    rest = words[words.index("-x") : words.index("$PYTHON")]
    rank = ["train", "{run_dir}", "--"]
    assert rest[-3:] == rank
    assert rest[:-4:2] == ["-x"] * (len(rest[:-4]) // 2)


def test_the_cores_of_a_worker_follow_from_the_host() -> None:
    wide = Host(name="n", cores=96, sockets=2, here=True)
    assert "socket:PE=12" in habana(hosts=(wide,)).argv


def test_the_processes_of_the_ascend_recipe() -> None:
    made = plan(read("ascend-deeplab-8p"), "local")
    assert (made.ranks, made.threads) == (8, 4)
    assert made.environment["CLUSTERSEG_DEVICES"] == "npu:1"
    table = rank_table_of(made)
    assert table is not None
    assert parsed(table) == parsed(EIGHT)


def test_the_gpus_of_topaz() -> None:
    spec = read("cuda-horovod-8", CITYSCAPES_DATASET="/scratch/cityscapes")
    made = slurm_plan(spec, at=site(TOPAZ, "topaz"))
    assert (made.ranks, made.geometry.nodes, made.threads) == (8, 4, 8)
    assert made.slurm is not None
    assert {"--gres=gpu:2", "--ntasks-per-node=2", "--cpus-per-task=8"} <= {*made.slurm.options}
    assert made.environment["CLUSTERSEG_DEVICES"] == "cuda:1"
    at = made.argv.index("train.py")
    assert made.argv[at + 1 : at + 5] == ("--model", "fastscnn", "--path", "/scratch/cityscapes")


def test_the_container_of_blueoil_sees_the_gpu_of_its_rank() -> None:
    made = plan(read("blueoil-camvid", PWD="/data", BLUEOIL_IMAGE="blueoil_ada:v1"), "local")
    assert made.environment["CLUSTERSEG_DEVICES"] == "cuda:1"
    assert made.argv[-5:] == ("blueoil_ada:v1", "blueoil", "train", "-c", "config/camvid.py")
    assert "/data/CamVid:/home/blueoil/CamVid" in made.argv
