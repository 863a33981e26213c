"""What a cluster is and where its files are. Everything of it is below one folder, <base>/<name>.

So several can't collide, and `down` knows what is its own. cluster.json is what `up` was asked
for; it is written first and replaced as a whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from failure import DevclusterError

MAX_NODES = 32
# A Unix socket's path has at most 107 bytes, and slurmstepd's for PMIx is the longest here.
MAX_FOLDER_BYTES = 107 - len("/spool-n32/pmix.1000000.100/stepd.slurm.pmix.1000000.100")
# One digit, because that is all that dash redirects (processes.py closes it in daemons).
LOCK_FD = 9

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,15}")


@dataclass(frozen=True)
class Options:
    """What `up` was asked for. `conf`: more settings of slurm.conf, "Key=Value" each."""

    nodes: int = 4
    cores: int = 2
    accounting: bool = False
    preempt_signal: bool = False
    conf: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cluster:
    """One development cluster.

    `index` picks its network 10.77.<index>.0/24, its bridge and its ports; None until they are
    taken. `complete`: all of it was started. `boot_id`: of the boot in which it was started.
    """

    name: str
    folder: Path
    options: Options
    boot_id: str = ""
    index: int | None = None
    complete: bool = False
    memory_mb: int = 0
    slurm_version: tuple[int, ...] = field(default=(0, 0))
    controller_host: str = ""

    @property
    def slurm_name(self) -> str:
        """ClusterName, by which slurm/sites/devcluster.yaml knows it."""
        return f"devcluster-{self.name}"

    @property
    def node_names(self) -> list[str]:
        return [f"n{number}" for number in range(1, self.options.nodes + 1)]

    @property
    def can_bind(self) -> bool:
        """Whether the machine has the cores that a node says it has, so that ranks can be bound."""
        return self.options.cores <= (os.cpu_count() or 1)

    @property
    def bridge(self) -> str:
        return bridge_name(self.taken_index)

    @property
    def taken_index(self) -> int:
        if self.index is None:
            raise DevclusterError(f"cluster {self.name!r} has no network")
        return self.index

    @property
    def mark(self) -> str:
        """The bridge's hardware address: says whose it is, from the moment that it exists."""
        digest = hashlib.sha256(os.fsencode(self.folder)).digest()
        return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))

    @property
    def controller_address(self) -> str:
        return f"10.77.{self.taken_index}.254"

    def address(self, node: str) -> str:
        return f"10.77.{self.taken_index}.{node_number(node)}"

    def namespace(self, node: str) -> str:
        return f"{self.bridge}-{node}"

    def port(self, node: str) -> str:
        """The host's end of the node's network cable."""
        return f"{port_prefix(self.taken_index)}{node_number(node)}"

    @property
    def etc(self) -> Path:
        return self.folder / "etc"

    @property
    def slurm_conf(self) -> Path:
        return self.etc / "slurm.conf"

    @property
    def munge_socket(self) -> Path:
        return self.folder / "munge" / "socket"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def database(self) -> Path:
        return self.folder / "db"

    @property
    def node_tmp(self) -> Path:
        """A path at which every node has a folder of its own."""
        return self.folder / "tmp"

    def node_folder(self, node: str) -> Path:
        """What a node has at `node_tmp`, as the machine sees it."""
        return self.folder / "nodes" / node

    def spool(self, node: str) -> Path:
        return self.folder / f"spool-{node}"

    @property
    def ports(self) -> dict[str, int]:
        base = 16800 + 10 * self.taken_index
        return {"slurmctld": base, "slurmd": base + 1, "slurmdbd": base + 2}

    def make_folders(self) -> None:
        """Makes what is private private, the rest readable: also for jobs of other users."""
        for folder, mode in (
            (self.etc, 0o755),
            (self.folder / "munge", 0o711),
            (self.folder / "state", 0o700),
            (self.run, 0o755),
            (self.log, 0o755),
            (self.node_tmp, 0o1777),
            (self.folder / "nodes", 0o755),
            *((self.node_folder(node), 0o1777) for node in self.node_names),
            *((self.spool(node), 0o755) for node in self.node_names),
        ):
            folder.mkdir()
            folder.chmod(mode)

    def save(self) -> None:
        """Replaces cluster.json."""
        text = json.dumps({**asdict(self), "folder": str(self.folder)}, indent=1)
        new = self.folder / "cluster.json.new"
        new.write_text(text + "\n")
        new.replace(self.folder / "cluster.json")


def bridge_name(index: int) -> str:
    return f"csdev{index}"


def port_prefix(index: int) -> str:
    return f"csv{index}-"


def node_number(node: str) -> int:
    return int(node.removeprefix("n"))


def load(name: str) -> Cluster | None:
    """The cluster `name` as `up` recorded it; None if there is none, or no record of it."""
    folder = folder_of(name)
    try:
        held = json.loads((folder / "cluster.json").read_text())
        options = Options(**{**held["options"], "conf": tuple(held["options"]["conf"])})
        version = tuple(held["slurm_version"])
        return replace(
            Cluster(**{**held, "options": options, "slurm_version": version}), folder=folder
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def base_folder() -> Path:
    """`$CLUSTERSEG_DEVCLUSTER`, else a folder in /tmp (not /run: it may be mounted noexec)."""
    return Path(os.environ.get("CLUSTERSEG_DEVCLUSTER") or "/tmp/clusterseg-devcluster").absolute()  # noqa: S108


def folder_of(name: str) -> Path:
    """The folder of cluster `name`; refuses a name that is none, or a path that is too long."""
    if not _NAME.fullmatch(name):
        raise DevclusterError(
            f"{name!r} is no name for a cluster",
            help="a name has 1 to 16 small letters, digits or dashes, and no dash first",
            exit_code=2,
        )
    folder = base_folder() / name
    if len(os.fsencode(folder)) > MAX_FOLDER_BYTES:
        raise DevclusterError(
            f"the path {folder} is too long for the sockets below it "
            f"({len(os.fsencode(folder))} bytes; {MAX_FOLDER_BYTES} are possible)",
            help="choose a shorter --name, or a shorter folder by CLUSTERSEG_DEVCLUSTER",
            exit_code=2,
        )
    return folder


def names() -> list[str]:
    """Every cluster of which there is a folder."""
    try:
        entries = sorted(entry.name for entry in base_folder().iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []
    return [name for name in entries if _NAME.fullmatch(name)]


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Holds the cluster against another `up`, `down` or `fault`; waits for one under way.

    The commands started meanwhile inherit the lock, so one whose devcluster was killed ends
    before the next devcluster looks.
    """
    path = folder_of(name).with_suffix(".lock")
    while True:
        with contextlib.suppress(FileNotFoundError):  # `down` removed the base just now
            _make_base()
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            os.dup2(fd, LOCK_FD)
            os.close(fd)
            fcntl.flock(LOCK_FD, fcntl.LOCK_EX)
            # Whoever held it may have removed the file: then another may hold a new one.
            if path.exists() and os.path.samestat(os.fstat(LOCK_FD), path.stat()):
                break
            os.close(LOCK_FD)
    try:
        yield
    finally:
        os.close(LOCK_FD)


def busy(name: str) -> bool:
    """Whether an `up`, `down` or `fault` is under way (only its user can tell)."""
    try:
        with folder_of(name).with_suffix(".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def forget(name: str) -> None:
    """Removes the lock of a cluster that is gone, and the base folder with the last one.

    The last thing to be done under the lock: whoever comes next makes a new one.
    """
    folder_of(name).with_suffix(".lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        base_folder().rmdir()


def _make_base() -> None:
    """Makes the base folder; refuses one that another user could have prepared."""
    base = base_folder()
    try:
        base.mkdir(mode=0o755, exist_ok=True)
    except OSError as error:
        raise DevclusterError(f"can't make the folder {base}: {error.strerror}") from None
    info = base.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o022:
        raise DevclusterError(
            f"{base} is not a folder that only root can write to",
            help="remove it, or name another one by CLUSTERSEG_DEVCLUSTER",
        )
