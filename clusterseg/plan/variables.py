"""The environment variables of the ranks: what clusterseg sets, and what the job adds to it."""

from __future__ import annotations

from collections.abc import Mapping

from clusterseg.errors import ClustersegError
from clusterseg.spec.model import JobSpec

# What the supervisor sets for every attempt; launchers pass it on to the ranks.
ATTEMPT_VARIABLES = ("CLUSTERSEG_RUN_DIR", "CLUSTERSEG_ATTEMPT", "CLUSTERSEG_STOP_FILE")
# A rank on another host finds its programs and libraries as one on this host does.
SEARCH_VARIABLES = ("PATH", "LD_LIBRARY_PATH")
# What an MPI leaves in a rank's environment: whoever inherits it believes to be that rank.
_OUTER_RANK = (
    *("PMI_*", "PMIX_*", "HYDI_*", "MPI_LOCAL*", "MPIR_CVAR_CH3_INTERFACE_HOSTNAME"),
    *("OMPI_COMM_WORLD_*", "OMPI_WORLD_*", "OMPI_UNIVERSE_SIZE", "OMPI_NUM_APP_CTX"),
    *("OMPI_APP_CTX_NUM_PROCS", "OMPI_FIRST_RANKS", "OMPI_COMMAND", "OMPI_ARGV"),
    *("OMPI_FILE_LOCATION", "OMPI_VERSION", "OMPI_TOOL_NAME", "OMPI_LIBDIR_LOC"),
    *("OMPI_MCA_PREFIXES", "OMPI_MCA_orte_*", "OMPI_MCA_ess*", "OMPI_MCA_pmix"),
    *("OMPI_MCA_initial_wdir", "OMPI_MCA_num_procs", "OMPI_MCA_mpi_oversubscribe"),
    *("PRTE_LAUNCHED", "PRTE_SHARED_FS"),
    # Of Hydra, its own and Intel's; a site's HYDRA_LAUNCHER, I_MPI_FABRICS and the like stay.
    *("HYDRA_BSTRAP_*", "HYDRA_LAUNCH_TYPE", "HYDRA_IP_VERSION", "I_MPI_HYDRA_UUID"),
    *("I_MPI_PIN_INFO", "I_MPI_PIN_MAPPING", "I_MPI_PIN_DOMAIN_SIZE"),
    *("I_MPI_INFO_*", "I_MPI_INTERNAL_*"),
    # Of horovodrun and Gloo; what tunes Horovod (HOROVOD_FUSION_THRESHOLD, ...) stays.
    *("HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_*", "HOROVOD_CROSS_*", "HOROVOD_HOSTNAME"),
    *("HOROVOD_GLOO_*", "HOROVOD_CONTROLLER", "HOROVOD_SECRET_KEY"),
    "CLUSTERSEG_RANK",
    "CLUSTERSEG_LOCAL_RANK",
    "CLUSTERSEG_WORLD_SIZE",
)
# What a shell sets for programs of its own, and would undo what ranks are given: where threads are
# bound (which would be the same cores for all ranks of a host), and how many there are. Without
# its own variable each library goes by OMP_NUM_THREADS (MKL, OpenBLAS, BLIS, NumExpr) or by the
# cores of the process (TensorFlow).
_THREADS = (
    *("GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_HW_SUBSET", "OMP_PROC_BIND", "OMP_PLACES"),
    *("OMP_THREAD_LIMIT", "MKL_NUM_THREADS", "MKL_DOMAIN_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("GOTO_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
)
_EVERYWHERE = (*_OUTER_RANK, *_THREADS, "OLDPWD")
# Besides, what Slurm leaves in a shell inside of a job: mpirun would start its ranks there.
# Settings that a site makes in the same name space, such as OMPI_MCA_btl, are not among them.
OUTER_JOB = ("SLURM_*", "SBATCH_*", "SRUN_*", *_EVERYWHERE)
# A batch script of Slurm keeps what Slurm says about its job (clusterseg.plan.job_variables), and
# loses all else of these: it may have been submitted inside of another job, of which sbatch passes
# everything on. (A leaked SLURM_CPU_BIND once pinned 8 ranks to 4 cores.)
OUTER_STEP = ("SBATCH_*", "SALLOC_*", "SRUN_*", *_EVERYWHERE)
OUTER_ARRAY = "SLURM_ARRAY_*"  # and, in a job that is no array, that of another one

# Every launcher tells each rank its own, whatever it was given.
_OF_RANKS = frozenset(
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"}
    | {"OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_NODE_RANK", "PMIX_RANK", "PMIX_NAMESPACE"}
    | {"PMI_RANK", "PMI_SIZE", "PMI_FD", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"}
    | {"SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"}
)
# bash (manual, section 5.2) refuses to set these, or gives them other values than it is told.
_OF_BASH = frozenset(
    {"BASHOPTS", "BASHPID", "COMP_WORDBREAKS", "DIRSTACK", "EPOCHREALTIME", "EPOCHSECONDS", "EUID"}
    | {"FUNCNAME", "GROUPS", "HISTCMD", "IFS", "LINENO", "OLDPWD", "OPTIND", "PIPESTATUS"}
    | {
        "POSIXLY_CORRECT",
        "PPID",
        "PWD",
        "RANDOM",
        "SECONDS",
        "SHELLOPTS",
        "SHLVL",
        "SRANDOM",
        "UID",
        "_",
    }
)
# Bytes of one variable with its name, or of one word, each with its end: MAX_ARG_STRLEN, execve(2).
LONGEST = 131_072
# Parts of names whose values are credentials: the script and the plan show every value.
_SECRET = frozenset(
    {"TOKEN", "SECRET", "SECRETS", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIALS"}
)
_SECRET_END = ("API_KEY", "APIKEY", "ACCESS_KEY", "PRIVATE_KEY", "SECRET_KEY")


def rank_variables(
    spec: JobSpec, *, threads: int, libmpi: str | None, launcher: Mapping[str, str]
) -> dict[str, str]:
    """Every variable that is set for the ranks, by name; the job's own values win.

    `threads` is the cores of a rank, `launcher` what the launcher wants to be set. Raises
    ClustersegError (`environment`) for one that would not arrive, or be shown to others.
    """
    own = spec.environment.variables
    for name, value in own.items():
        _check(name)
        _check_value(name, value)
    # The rank's process reads these while it starts, before clusterseg's own code runs.
    variables = {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",  # the last lines before a kill reach the log
        "TF_CPP_MIN_LOG_LEVEL": "1",  # no INFO lines of TensorFlow's C++ part
    }
    if libmpi is not None:
        variables["MPI4PY_LIBMPI"] = libmpi
    return variables | dict(launcher) | own


def _check(name: str) -> None:
    if name in _OF_BASH or name.startswith("BASH_"):
        raise _refusal(name, "is set by bash itself", "use another name")
    if name.startswith("CLUSTERSEG_"):
        raise _refusal(name, "is set by clusterseg itself", "use another name")
    if name in _OF_RANKS:
        raise _refusal(name, "is what a launcher tells each rank", "use another name")
    parts = name.upper().split("_")
    if _SECRET.intersection(parts) or name.upper().endswith(_SECRET_END):
        raise _refusal(
            name,
            "looks like a credential, and the script would show it",
            "export it before you submit (ranks inherit it), or read it from a file in "
            "environment.setup",
        )


def _check_value(name: str, value: str) -> None:
    """Refuses what no process can be given, on whatever launcher (execve(2))."""
    if "\0" in value:
        raise _refusal(name, "holds a NUL, with which a value ends", "leave it out")
    length = len(f"{name}={value}".encode("utf-8", "surrogateescape")) + 1
    if length > LONGEST:
        raise _refusal(
            name,
            f"is {length} bytes long, and Linux takes {LONGEST} of one variable",
            "put it into a file, and name that",
        )


def _refusal(name: str, what: str, help: str) -> ClustersegError:
    return ClustersegError(
        f"environment.variables.{name}: it {what}", code="environment", help=help
    )
