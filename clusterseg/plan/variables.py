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
    *("CLUSTERSEG_RANK", "CLUSTERSEG_LOCAL_RANK", "CLUSTERSEG_WORLD_SIZE"),
)
# Besides, what Slurm leaves in a shell inside of a job: mpirun would start its ranks there.
# Settings that a site makes in the same name space, such as OMPI_MCA_btl, are not among them.
OUTER_JOB = ("SLURM_*", "SBATCH_*", "SRUN_*", *_OUTER_RANK)
# A batch script of Slurm keeps what Slurm says about its job (clusterseg.plan.job_variables), and
# loses all else of these: it may have been submitted inside of another job, of which sbatch passes
# everything on. (A leaked SLURM_CPU_BIND once pinned 8 ranks to 4 cores.)
OUTER_STEP = ("SBATCH_*", "SALLOC_*", "SRUN_*", *_OUTER_RANK)
OUTER_ARRAY = "SLURM_ARRAY_*"  # and, in a job that is no array, that of another one

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
    ClustersegError (`environment`) for a name whose value would not arrive, or be shown to others.
    """
    own = spec.environment.variables
    for name in own:
        _check(name)
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
    parts = name.upper().split("_")
    if _SECRET.intersection(parts) or name.upper().endswith(_SECRET_END):
        raise _refusal(
            name,
            "looks like a credential, and the script would show it",
            "export it before you submit (ranks inherit it), or read it from a file in "
            "environment.setup",
        )


def _refusal(name: str, what: str, help: str) -> ClustersegError:
    return ClustersegError(
        f"environment.variables.{name}: it {what}", code="environment", help=help
    )
