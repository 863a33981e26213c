"""`submit`, `resume`, `cancel` and scripts for sbatch on a real Slurm, as a person uses them."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clusterseg.runs import files, store
from clusterseg.runs.attempts import iter_attempts
from clusterseg.runs.claims import read_claims
from clusterseg.runs.paths import RunPaths
from tests.devcluster import DevCluster

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

CLUSTERSEG = str(Path(sys.executable).with_name("clusterseg"))


class Login:
    """A login node: a folder with a job.yaml, and commands."""

    def __init__(self, cluster: DevCluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.runs = folder / "runs"
        self.environ = {
            "XDG_CACHE_HOME": str(folder / "cache"),
            "CLUSTERSEG_RUNS": str(self.runs),
        }

    def job(self, line: str, *more: str, name: str = "tiny") -> Path:
        path = self.folder / f"{name}.yaml"
        lines = [
            f"name: {name}",
            f"command: [bash, -c, {json.dumps(line)}]",
            "launcher: local",
            "resources: {nodes: 1, ranks: 1, cpus_per_rank: 1, time: 5}",
            *more,
        ]
        path.write_text("\n".join(lines) + "\n")
        return path

    def __call__(
        self, *words: object, code: int | None = 0, env: dict[str, str] | None = None, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        done = self.cluster.run(
            CLUSTERSEG,
            *map(str, words),
            check=False,
            env=self.environ | (env or {}),
            cwd=more.pop("cwd", self.folder),
            timeout=120,
        )
        assert code is None or done.returncode == code, (words, done.stdout, done.stderr)
        return done

    def submit(self, *words: object) -> RunPaths:
        return RunPaths(Path(json.loads(self("submit", *words, "--json").stdout)["run_dir"]))

    def state(self, run: RunPaths) -> str:
        return str(json.loads(self("status", run.root, "--json").stdout)["state"])

    def until(self, run: RunPaths, *states: str, seconds: float = 60) -> str:
        deadline = time.monotonic() + seconds
        while (state := self.state(run)) not in states:
            assert time.monotonic() < deadline, self("status", run.root).stdout
            time.sleep(0.3)
        return state

    @property
    def all_runs(self) -> list[RunPaths]:
        return store.find_runs(self.runs)

    @property
    def jobs(self) -> list[str]:
        return self.cluster.squeue("-t", "all", "-o", "%A")


def job_id(run: RunPaths, submission: int = 0) -> str:
    found = store.read_job_id(run.submission(submission))
    assert found is not None
    return found


POLITE = 'while sleep 0.2; do [ -s "$CLUSTERSEG_STOP_FILE" ] && exit 75; done'


@pytest.fixture
def login(slurm_cluster: DevCluster, tmp_path: Path) -> Login:
    return Login(slurm_cluster, tmp_path)


@pytest.fixture
def nothing_starts(slurm_cluster: DevCluster) -> Iterator[None]:
    """Jobs wait in the queue."""
    slurm_cluster.scontrol("update", "partitionname=low", "state=down")
    yield
    slurm_cluster.scontrol("update", "partitionname=low", "state=up")


def test_a_job_from_yaml_to_its_end(login: Login) -> None:
    done = login("submit", login.job("echo hello from $SLURM_JOB_ID"), "--wait")
    (run,) = login.all_runs
    assert done.stdout == f"{run.run_id}\n"
    (claim,) = read_claims(run)
    intent = store.read_intent(run.submission(0))
    assert intent is not None
    assert (claim.job_id, claim.key) == (job_id(run), intent.key)
    job = login.cluster.job(claim.job_id)
    assert job["Comment"] == f"clusterseg:{intent.key}"
    assert job["JobName"] == f"tiny.{intent.key[:12]}"
    assert run.attempt(0).log(0).read_text() == f"hello from {claim.job_id}\n"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("slurm.partition=nowhere", "Invalid partition name specified"),
        ("slurm.constraint=nothing", "Invalid feature specification"),
        ("slurm.extra=[--begin=someday]", "Invalid time specification"),
        ("resources={nodes: 9, ranks: 9}", "More processors requested than permitted"),
        ("slurm.extra=[--reservation=none]", "reservation"),
    ],
)
def test_a_refusal_is_shown_whole_and_leaves_nothing(
    login: Login, override: str, said: str
) -> None:
    before = login.jobs
    path = login.job("true")
    options = ("--set", "slurm.partition=high", "--set", "launcher=auto", "--set", override)
    done = login("submit", path, *options, code=None)
    assert done.returncode == 3, done.stderr
    assert said in done.stderr
    assert login.jobs == before
    assert not list(login.runs.iterdir())


def test_a_refused_resume_leaves_the_run_as_it_was(login: Login) -> None:
    done = login("submit", login.job("exit 3", "restart: {crash: 0}"), "--wait", code=1)
    (run,) = login.all_runs
    before = sorted(path.name for path in run.submissions.iterdir())
    done = login("resume", run.root, "--set", "slurm.partition=nowhere", code=3)
    assert "Invalid partition name" in done.stderr
    assert sorted(path.name for path in run.submissions.iterdir()) == before
    assert login.state(run) == "failed"


def test_without_sbatch_or_without_room_nothing_is_submitted(login: Login, tmp_path: Path) -> None:
    before = login.jobs
    path = login.job("true", "scheduler: slurm")
    bare = tmp_path / "bin"
    bare.mkdir()
    for program in ("bash", "git"):
        (bare / program).symlink_to(f"/usr/bin/{program}")
    done = login("submit", path, code=3, env={"PATH": str(bare)})
    assert "there is no sbatch on the PATH" in done.stderr
    assert not login.runs.exists()
    done = login("submit", path, "--runs-dir", "/proc/nowhere", code=2)
    assert "can't be written" in done.stderr
    full = tmp_path / "full"
    full.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "none", full], check=False
    ).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        done = login("submit", path, "--runs-dir", full, code=2)
        assert "No space left on device" in done.stderr
        assert not list(full.iterdir())
    finally:
        subprocess.run(["umount", full], check=True)
    assert login.jobs == before


def test_from_inside_another_job_and_another_folder(login: Login, tmp_path: Path) -> None:
    """Nothing of the outer job gets into the inner one: neither options nor its place."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = login.job("pwd; echo $SLURM_JOB_NUM_NODES $SLURM_CPU_BIND. $SLURM_ARRAY_TASK_ID.")
    outer = f"#!/bin/bash\ncd {elsewhere}\nexport CLUSTERSEG_RUNS={login.runs}\n" + (
        "export SLURM_CPU_BIND=verbose,mask_cpu:0x1 SBATCH_TIMELIMIT=1 SBATCH_NO_REQUEUE=1\n"
        f"exec {CLUSTERSEG} submit {path} --wait\n"
    )
    job = login.cluster.sbatch("--nodes=2", "--array=7", script=outer, cwd=tmp_path)
    login.cluster.wait_until(job)
    (run,) = login.all_runs
    inner = login.cluster.job(job_id(run))
    assert run.attempt(0).log(0).read_text() == f"{elsewhere}\n1 . .\n"
    assert (inner["NumNodes"], inner["TimeLimit"], inner["Requeue"]) == ("1", "00:05:00", "1")


def test_odd_folders(login: Login, tmp_path: Path) -> None:
    """Slurm fills in what begins with a per cent sign, and takes backslashes away."""
    path = login.job("echo in $CLUSTERSEG_RUN_DIR")
    runs = [
        login.submit(path, "--runs-dir", tmp_path / folder)
        for folder in ("a b%j/c%%x", "back\\slash%j", "it's #1")
    ]
    for run in runs:
        login.until(run, "done")
        assert run.attempt(0).log(0).read_text() == f"in {run.root}\n"
        assert "attempt 0" in run.submission(0).output.read_text()


def test_a_notice_while_the_script_sets_up_ends_nothing(login: Login) -> None:
    setup = "environment: {setup: ['touch begun', 'sleep 3']}"
    run = login.submit(login.job("grep SigIgn /proc/self/status", setup))
    deadline = time.monotonic() + 30
    while not (login.folder / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    login.cluster.run("scancel", "--batch", "--signal=USR1", job_id(run))
    assert login.until(run, "done", "failed", "stopped") == "done"
    assert len(read_claims(run)) == 1
    ignored = int(run.attempt(0).log(0).read_text().split()[1], 16)
    assert not ignored & 1 << (signal.SIGUSR1 - 1)


def test_cancel_while_it_waits(login: Login, nothing_starts: None) -> None:
    stranger = login.cluster.sbatch("-p", "low", "--wrap", "true")
    run = login.submit(login.job("true"), "--set", "slurm.partition=low")
    assert login.state(run) == "queued"
    login("cancel", run.root)
    assert login.state(run) == "stopped"
    assert login.cluster.job(job_id(run))["JobState"] == "CANCELLED"
    assert login.cluster.job(stranger)["JobState"] == "PENDING"
    login("resume", run.root)
    login("cancel", "--now", run.root)
    assert login.state(run) == "cancelled"
    assert not read_claims(run)


def test_from_another_cluster_a_waiting_job_is_neither_started_again_nor_called_gone(
    login: Login, nothing_starts: None, make_devcluster: Callable[..., DevCluster]
) -> None:
    """Both see the run directory; only one of them knows its job."""
    other = make_devcluster(nodes=1)
    run = login.submit(login.job("true"), "--set", "slurm.partition=low")
    elsewhere = {"SLURM_CONF": str(other.slurm_conf)}
    here, there = (
        login.cluster.run("scontrol", "show", "config", env=env)
        .stdout.split("ClusterName")[1]
        .split()[1]
        for env in ({}, elsewhere)
    )
    assert here != there
    noted = run.submission(0).job_id.read_bytes()
    for is_noted, command in ((False, "resume"), (True, "resume"), (True, "cancel")):
        run.submission(0).job_id.unlink(missing_ok=True)
        if is_noted:
            files.replace(run.submission(0).job_id, noted)
        done = login(command, run.root, env=elsewhere, code=3)
        assert f"is in the cluster {here}; from here only {there} can be asked" in done.stderr
        assert f"from a login node of {here}" in done.stderr
    assert not other.squeue("-t", "all")
    key = store.read_identity(run).key
    assert [line for line in login.cluster.squeue("-o", "%T %k") if key in line] == [
        f"PENDING clusterseg:{key}"
    ]


def test_a_client_that_waits_for_slurm_does_not_start_what_was_resumed_meanwhile(
    login: Login, tmp_path: Path
) -> None:
    """Its own controller is away; elsewhere the run is cancelled, resumed, and done."""
    shims, away = tmp_path / "shims", tmp_path / "away"
    shims.mkdir()
    away.touch()
    silent = "echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1"
    (shims / "sbatch").write_text(
        f'#!/bin/bash\n[ -e {away} ] && {{ {silent}; }}\nexec /usr/bin/sbatch "$@"\n'
    )
    (shims / "sbatch").chmod(0o755)
    path = f"{shims}:{login.cluster.environ['PATH']}"
    with subprocess.Popen(
        [CLUSTERSEG, "submit", login.job(f"echo ran >> {tmp_path}/ran"), "--timeout", "60"],
        env={**login.cluster.environ, **login.environ, "PATH": path},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stderr is not None
        assert any("trying again" in line for line in client.stderr)
        (run,) = login.all_runs
        login("cancel", run.root)
        login("resume", run.root, "--wait")
        away.unlink()
        _, said = client.communicate(timeout=60)
    assert client.returncode == 1
    assert "resumed by a newer submission" in said
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert store.read_job_id(run.submission(0)) is None
    assert login.state(run) == "done"


def test_cancel_while_it_waits_to_go_on(login: Login) -> None:
    run = login.submit(login.job("sleep 60"), "--set", "slurm.partition=low")
    login.until(run, "running")
    login.cluster.scontrol("update", "partitionname=low", "state=down")
    try:
        login.cluster.scontrol("requeue", job_id(run))
        # Later than that its first life has ended for Slurm, too.
        deadline = time.monotonic() + 60
        while login.cluster.job(job_id(run))["Reason"] != "PartitionDown":
            assert time.monotonic() < deadline, login.cluster.job(job_id(run))
            time.sleep(0.3)
        login.until(run, "queued")
        login("cancel", run.root)
        status = json.loads(login("status", run.root, "--json").stdout)
    finally:
        login.cluster.scontrol("update", "partitionname=low", "state=up")
    assert (status["state"], status["cause"], status["note"]) == ("stopped", "cancelled", None)
    login("wait", run.root, code=75)
    assert len(read_claims(run)) == 1


def test_cancel_and_go_on_with_other_nodes(login: Login) -> None:
    run = login.submit(login.job(f"echo $CLUSTERSEG_ATTEMPT $SLURM_JOB_NUM_NODES; {POLITE}"))
    login.until(run, "running")
    alive = login("resume", run.root, code=2)
    assert "is running" in alive.stderr
    login("cancel", run.root)
    assert login.state(run) == "stopped"
    login("resume", run.root, "--set", "resources.nodes=2", "--set", "resources.ranks=2",
          "--set", "launcher=auto")  # fmt: skip
    login.until(run, "running")
    assert [claim.ranks for claim in read_claims(run)] == [1, 2]
    assert len(read_claims(run)[1].hosts) == 2
    login("cancel", "--now", run.root)
    assert login.state(run) == "cancelled"
    assert job_id(run) != job_id(run, 1)


def test_cancel_now_ends_a_supervisor_that_does_not_react(login: Login) -> None:
    run = login.submit(login.job("sleep 100", "environment: {setup: ['sleep 100']}"))
    deadline = time.monotonic() + 30
    while login.cluster.job(job_id(run))["JobState"] != "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    done = login("cancel", "--now", run.root)
    assert "cancelling its job" in done.stderr
    assert login.state(run) == "cancelled"
    assert login.cluster.job(job_id(run))["JobState"] == "CANCELLED"


def test_a_job_waits_for_a_run(login: Login) -> None:
    first = login.submit(login.job("sleep 2; date +%s%N"))
    second = login.submit(login.job("date +%s%N", f"slurm: {{after: {first.run_id}}}"))
    assert job_id(first) in login.cluster.job(job_id(second))["Dependency"]
    login.until(second, "done")
    times = [int(run.attempt(0).log(0).read_text()) for run in (first, second)]
    assert times[0] < times[1]
    third = login.submit(login.job("true", f"slurm: {{after: {first.run_id}}}"))
    login.until(third, "done")  # what is over needs not be waited for
    unknown = login("submit", login.job("true", "slurm: {after: nobody}"), code=2)
    assert "no run 'nobody'" in unknown.stderr
    local = login("submit", login.job("sleep 20"), "--set", "scheduler=local").stdout.strip()
    refused = login("submit", login.job("true", f"slurm: {{after: {local}}}"), code=2)
    assert "runs without Slurm" in refused.stderr
    login("cancel", "--now", local)


def test_an_array_is_one_run_a_task(login: Login) -> None:
    line = "echo task $SLURM_ARRAY_TASK_ID; exit $((SLURM_ARRAY_TASK_ID == 5))"
    path = login.job(line, "restart: {crash: 0}")
    said = json.loads(login("submit", path, "--set", "slurm.array=1,4-5%2", "--json").stdout)
    runs = [RunPaths(Path(one["run_dir"])) for one in said["runs"]]
    assert [one["job_id"] for one in said["runs"]] == [f"{said['job_id']}_{n}" for n in (1, 4, 5)]
    for run, state in zip(runs, ("done", "done", "failed"), strict=True):
        login.until(run, state)
    assert [run.attempt(0).log(0).read_text() for run in runs] == [
        f"task {task}\n" for task in (1, 4, 5)
    ]
    assert [read_claims(run)[0].job_id for run in runs] == [one["job_id"] for one in said["runs"]]
    # One of them goes on by itself, and is still the same task.
    login("resume", runs[2].root, "--wait", code=1)
    assert runs[2].attempt(1).log(0).read_text() == "task 5\n"
    assert job_id(runs[2], 1).endswith("_5")
    assert job_id(runs[2], 1) != job_id(runs[2])


def test_an_array_that_is_too_large_makes_no_run(login: Login) -> None:
    path = login.job("true")
    said = login("submit", path, "--set", "slurm.array=0-1001", code=2)
    assert "allows 1000 at most (MaxArraySize)" in said.stderr
    assert login.all_runs == []


def test_a_sweep_is_one_array(login: Login, nothing_starts: None) -> None:
    path = login.job("echo $V", "environment: {variables: {V: zero}}", "slurm: {partition: low}")
    over = ("--over", "environment.variables.V=one,two", "--over", "notes=x,y")
    said = json.loads(login("sweep", path, *over, "--json").stdout)
    runs = [RunPaths(Path(one["run_dir"])) for one in said["runs"]]
    assert len(runs) == 4
    assert len({store.read_identity(run).key for run in runs}) == 4
    # One is cancelled before it starts; the others know nothing of it.
    login("cancel", runs[1].root)
    assert [login.state(run) for run in runs] == ["queued", "stopped", "queued", "queued"]
    login.cluster.scontrol("update", "partitionname=low", "state=up")
    for run in (runs[0], runs[2], runs[3]):
        login.until(run, "done")
    assert runs[2].attempt(0).log(0).read_text() == "two\n"
    assert not read_claims(runs[1])
    login("resume", runs[1].root, "--wait")
    assert runs[1].attempt(0).log(0).read_text() == "one\n"
    assert "_" not in job_id(runs[1], 1)
    refused = login("sweep", path, "--over", "resources.time=5,6", code=2)
    assert "another allocation" in refused.stderr


def test_a_requeued_task_leaves_the_others(login: Login) -> None:
    path = login.job("sleep $((8 - 8 * CLUSTERSEG_ATTEMPT)); echo end")
    said = json.loads(login("sweep", path, "--over", "notes=x,y", "--json").stdout)
    runs = [RunPaths(Path(one["run_dir"])) for one in said["runs"]]
    for run in runs:
        login.until(run, "running")
    login.cluster.scontrol("requeue", said["runs"][0]["job_id"])
    assert login.until(runs[1], "done") == "done"
    assert login.until(runs[0], "done", seconds=150) == "done"
    assert [len(read_claims(run)) for run in runs] == [2, 1]


@pytest.fixture
def script(login: Login) -> Callable[[str], Path]:
    """Renders a script for sbatch."""

    def render(line: str) -> Path:
        path = login.folder / "job.sh"
        login("render", login.job(line), "-o", path, "--set", "notes=it's")
        return path

    return render


def test_a_script_for_sbatch_makes_its_own_run(
    login: Login, script: Callable[[str], Path], tmp_path: Path
) -> None:
    path = script("cat; echo attempt $CLUSTERSEG_ATTEMPT; sleep $((3 - 3 * CLUSTERSEG_ATTEMPT))")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    first = login.cluster.sbatch(path, cwd=tmp_path)
    second = login.cluster.sbatch(path, cwd=elsewhere)
    deadline = time.monotonic() + 60
    while len(login.all_runs) < 2 or not all(map(read_claims, login.all_runs)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    runs = {job_id(run): run for run in login.all_runs}
    assert set(runs) == {str(first), str(second)}
    run = runs[str(first)]
    assert run.run_id.startswith(f"tiny-j{first}-")
    listed = {row["run"] for row in json.loads(login("list", "--json").stdout)}
    assert listed == {one.run_id for one in runs.values()}
    login.cluster.scontrol("requeue", str(first))
    login.until(run, "done", seconds=150)
    login.until(runs[str(second)], "done")
    assert len(login.all_runs) == 2
    assert [attempt.number for attempt in iter_attempts(run)] == [0, 1]
    # The here-document is not the ranks' input, and the script is the one that was given.
    assert run.attempt(1).log(0).read_text() == "attempt 1\n"
    assert run.submission(0).batch_script.read_text() == path.read_text()


def test_sbatch_takes_a_script_of_a_job_with_the_line_breaks_of_dos(login: Login) -> None:
    job, path = login.job("echo one"), login.folder / "job.sh"
    job.write_bytes(job.read_bytes().replace(b"\n", b"\r\n"))
    login("render", job, "-o", path)
    assert login.cluster.run("sbatch", "--test-only", path, check=False).returncode == 0


def test_a_script_without_scontrol_is_known_after_a_requeue(
    login: Login, script: Callable[[str], Path], tmp_path: Path
) -> None:
    """As in a container: neither scontrol nor squeue; the id and the script must do."""
    path = script("echo attempt $CLUSTERSEG_ATTEMPT; [ $CLUSTERSEG_ATTEMPT -gt 0 ] || sleep 60")
    bare = tmp_path / "bin"
    bare.mkdir()
    for program in ("bash", "env", "git", "sleep"):
        (bare / program).symlink_to(f"/usr/bin/{program}")
    text = path.read_text().replace("\nset -e\n", f"\nset -e\nexport PATH={bare}\n", 1)
    path.write_text(text)
    job = login.cluster.sbatch(path, cwd=tmp_path)
    deadline = time.monotonic() + 60
    # Once it runs: a rank that ends while it starts looks like a crash to who can't ask Slurm.
    while not any(has_started(run) for run in login.all_runs):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    login.cluster.scontrol("requeue", str(job))
    (run,) = login.all_runs
    login.until(run, "done", seconds=150)
    assert login.all_runs == [run]
    assert len(read_claims(run)) == 2


def has_started(run: RunPaths) -> bool:
    log = run.attempt(0).log(0)
    return log.exists() and "attempt 0" in log.read_text()


@pytest.mark.parametrize("away", [("squeue",), ("squeue", "scontrol")])
def test_a_script_whose_key_slurm_did_not_keep_at_first_is_known_after_a_requeue(
    login: Login, script: Callable[[str], Path], tmp_path: Path, away: tuple[str, ...]
) -> None:
    """Slurm gives it another time of submission; the run made before is its own all the same."""
    path = script("[ $CLUSTERSEG_ATTEMPT -gt 0 ] || sleep 60")
    shims, is_away = tmp_path / "shims", tmp_path / "away"
    shims.mkdir()
    is_away.touch()
    for name in away:
        (shims / name).write_text(
            f'#!/bin/bash\n[ -e {is_away} ] && exit 1\nexec /usr/bin/{name} "$@"\n'
        )
        (shims / name).chmod(0o755)
    text = path.read_text().replace("\nset -e\n", f"\nset -e\nexport PATH={shims}:$PATH\n", 1)
    path.write_text(text)
    job = login.cluster.sbatch(path, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not any(run.attempt(0).log(0).exists() for run in login.all_runs):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    (run,) = login.all_runs
    key = store.read_identity(run).key
    comment = login.cluster.job(job).get("Comment")
    # The supervisor tries again when it has claimed.
    assert comment == (None if "scontrol" in away else f"clusterseg:{key}")
    is_away.unlink()
    login.cluster.scontrol("requeue", str(job))
    login.until(run, "done", seconds=150)
    assert login.all_runs == [run]
    assert len(read_claims(run)) > 1
    assert login.cluster.job(job)["Comment"] == f"clusterseg:{key}"


@pytest.mark.parametrize("launcher", ["srun", "openmpi5"])
def test_a_script_in_a_smaller_job_than_it_is_for_starts_nothing(
    login: Login, tmp_path: Path, launcher: str
) -> None:
    path = login.folder / "job.sh"
    two = ("--set", "resources.ranks=2", "--set", f"launcher={launcher}")
    login("render", login.job("true"), "-o", path, *two)
    job = login.cluster.sbatch("-n1", path, cwd=tmp_path)
    login.cluster.wait_until(job)
    (run,) = login.all_runs
    assert not read_claims(run)
    said = (tmp_path / f"tiny-{job}.out").read_text()
    why = "gives this job 1 core, and the plan runs 2 ranks × 1 core there"
    assert why in said
    # What the job printed is in a file that `status` does not know.
    assert login.state(run) == "failed"
    assert why in login("status", run.root).stdout
    assert stat.S_IMODE(run.submission(0).output.stat().st_mode) == 0o600
    whole = login.cluster.sbatch(path, cwd=tmp_path)
    login.cluster.wait_until(whole)
    assert {login.state(one) for one in login.all_runs} == {"failed", "done"}


def test_a_script_as_an_array_is_one_run_a_task(
    login: Login, script: Callable[[str], Path], tmp_path: Path
) -> None:
    """The last task's own number is that of the whole array: its notice is no one else's."""
    path = script(f"echo $SLURM_ARRAY_TASK_ID; test $CLUSTERSEG_ATTEMPT = 1 || {POLITE}")
    array = login.cluster.sbatch("--array=0-2", path, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while len(login.all_runs) < 3 or {login.state(run) for run in login.all_runs} != {"running"}:
        assert time.monotonic() < deadline
        time.sleep(0.3)
    runs = {job_id(run): run for run in login.all_runs}
    assert set(runs) == {f"{array}_{task}" for task in range(3)}
    assert len({read_claims(run)[0].key for run in runs.values()}) == 3
    last = runs[f"{array}_2"]
    assert last.run_id.startswith(f"tiny-j{array}_2-")
    assert login.cluster.job(f"{array}_2")["JobId"] == str(array)
    login.cluster.run("scancel", "--batch", "--signal=USR1", f"{array}_2")
    login.until(last, "done", seconds=90)
    assert [len(read_claims(run)) for _, run in sorted(runs.items())] == [1, 1, 2]
    assert last.attempt(1).log(0).read_text() == "2\n"
    for task in range(2):
        assert login.cluster.job(f"{array}_{task}")["Restarts"] == "0"
        login("cancel", runs[f"{array}_{task}"].root)
    assert [login.state(run) for _, run in sorted(runs.items())] == ["stopped", "stopped", "done"]


def test_a_script_submitted_inside_of_an_array_is_no_task_of_it(
    login: Login, script: Callable[[str], Path], tmp_path: Path
) -> None:
    path = script("echo task $SLURM_ARRAY_TASK_ID")
    outer = f"#!/bin/bash\nexport CLUSTERSEG_RUNS={login.runs}\nsbatch --parsable {path} > inner\n"
    login.cluster.wait_until(login.cluster.sbatch("--array=7", script=outer, cwd=tmp_path))
    inner = (tmp_path / "inner").read_text().strip()
    login.cluster.wait_until(inner)
    (run,) = login.all_runs
    assert read_claims(run)[0].job_id == job_id(run) == inner
    assert run.attempt(0).log(0).read_text() == "task\n"


def test_a_script_given_to_bash_says_what_it_is_for(
    login: Login, script: Callable[[str], Path]
) -> None:
    done = login.cluster.run("bash", script("true"), check=False)
    assert done.returncode == 3
    assert "this script is for sbatch" in done.stderr
    assert not login.runs.exists()
