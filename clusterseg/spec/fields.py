"""What single values of a job.yaml may be, as types: numbers, lines of text, names, times, sizes.

The sections that hold them are `clusterseg.spec.model`.

`Meta(extra=...)` says what a Python type can't:

- `scalar`: how a value is written in YAML where that differs from its type: `time` (as Slurm
  writes times, held in seconds), `size` (`64G`, held in bytes), `interval` (`10m`, an `Every`);
- `also`: a mapping that may be written as one text too, of this form: `hosts`;
- `expect`: what a pattern asks for, in words;
- `table`: the value is a name in that table of `clusterseg.spec.tables`;
- `options`: the field gathers the further keys of its section, those that the table's entry
  called `name` defines; it is no key itself;
- `entry`: the value is a mapping with one key, a name in that table, and its setting.
"""

from typing import Annotated, Literal

from msgspec import Meta

Positive = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
AboveZero = Annotated[float, Meta(gt=0)]

# Text that becomes part of a line of the batch script or of a command: no control characters.
Line = Annotated[
    str,
    Meta(
        pattern=r"^[^\x00-\x1f\x7f-\x9f]+$",
        extra={"expect": "one line of text, not empty"},
    ),
]
# Text for programs and people; only NUL can't travel in an argument or a variable.
Text = Annotated[str, Meta(pattern=r"^[^\x00]*$", extra={"expect": "text without NUL"})]

TimeLimit = Annotated[int, Meta(ge=1, extra={"scalar": "time"})]
Size = Annotated[int, Meta(ge=1, extra={"scalar": "size"})]

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
JobName = Annotated[
    str,
    Meta(
        pattern=f"^{NAME_PATTERN}$",
        extra={"expect": "letters, digits, `.`, `_`, `-`; at most 64, a letter or digit first"},
    ),
]
# At most 253 characters (RFC 1035, section 2.3.4, without the lengths of labels).
HOST_PATTERN = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?"
HostName = Annotated[
    str,
    Meta(
        pattern=f"^{HOST_PATTERN}$",
        extra={"expect": "a host name: letters, digits, `.`, `_`, `-`"},
    ),
]
VariableName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        extra={"expect": "a variable's name: letters, digits and `_`, no digit first"},
    ),
]
LauncherName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        extra={"expect": "a launcher's name", "table": "launchers"},
    ),
]
# A word of a `#SBATCH` line, which knows no quoting that all releases of Slurm agree on.
_SAFE = r"[A-Za-z0-9_.,:@%+=/&|()\[\]*-]+"
SlurmWord = Annotated[
    str,
    Meta(
        pattern=f"^{_SAFE}$",
        extra={"expect": "one word of letters, digits and . , : @ % + = / & | ( ) [ ] * - _"},
    ),
]
SlurmOption = Annotated[
    str,
    Meta(
        pattern=f"^--[a-z][a-z0-9-]*(={_SAFE})?$",
        extra={"expect": "`--name` or `--name=value`, one word without blanks, quotes or #"},
    ),
]
SlurmMpi = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9_]+$",
        extra={"expect": "a type that `srun --mpi=list` names: pmix, pmi2"},
    ),
]
SiteName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        extra={"expect": "the name of a site profile: letters, digits, `.`, `_`, `-`"},
    ),
]
ArrayTasks = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]+(-[0-9]+(:[0-9]+)?)?(,[0-9]+(-[0-9]+(:[0-9]+)?)?)*(%[0-9]+)?$",
        extra={"expect": "tasks as sbatch writes them: 0-7, 0-7%2, 1,3,5-9:2"},
    ),
]

AcceleratorKind = Literal["none", "cuda", "hpu", "npu"]
SchedulerName = Literal["auto", "slurm", "local"]
BindTo = Literal["core", "socket", "numa", "none"]
MapBy = Literal["core", "socket", "numa", "node"]
Budget = NotNegative | Literal["unlimited"]


def about(description: str) -> Meta:
    """The description of a key, for the JSON Schema and `clusterseg schema`."""
    return Meta(description=description)
