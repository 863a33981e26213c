"""What is shipped: a wheel with the data folders, and no address or place of one machine."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
DATA_FOLDERS = ("launchers", "slurm", "jobs")

# Put together from pieces, so that this file does not name them itself.
REGISTRIES = ("py" + r"pi\.org", "python" + "hosted", "anaconda" + r"\.org", "/sim" + "ple/")
# Where this checkout is, and who runs it. (`/home/ada` in a golden plan is nobody's.)
PLACES = tuple(re.escape(f"{path}/") for path in (TOP, Path.home()) if len(path.parts) > 1)


def repository_files() -> list[Path]:
    """Files under version control, and new ones that are not ignored; relative to the top."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TOP,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    names = (name for name in listed.stdout.decode().split("\0") if name)
    return [Path(name) for name in names if (TOP / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=TOP, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_the_data_folders_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    held = {name for name in names if ".dist-info/" not in name}
    expected = set()
    for path in repository_files():
        if path.parts[0] == "clusterseg":
            expected.add(str(path))
        elif path.parts[0] in DATA_FOLDERS:
            expected.add(str(Path("clusterseg/_shipped") / path))
    assert held == expected
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_an_installed_wheel_finds_its_data_folders(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    code = (
        "from clusterseg.shipped import shipped_folder\n"
        f"for name in {DATA_FOLDERS!r}: print(shipped_folder(name))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = [Path(line) for line in done.stdout.splitlines()]
    assert found == [installed / "clusterseg" / "_shipped" / name for name in DATA_FOLDERS]
    assert any(found[0].glob("*.yaml"))


def test_no_file_names_a_registry_or_a_place_of_one_machine() -> None:
    forbidden = re.compile("|".join((*REGISTRIES, *PLACES)).encode())
    found = []
    for path in repository_files():
        for number, line in enumerate((TOP / path).read_bytes().split(b"\n"), start=1):
            if match := forbidden.search(line):
                found.append(f"{path}:{number}: {match[0].decode()}")
    assert not found, "\n".join(found)


LOCKS = (*TOP.glob("requirements*.lock"), *TOP.glob("tools/**/*.lock"))


@pytest.mark.parametrize("lock", sorted(str(path.relative_to(TOP)) for path in LOCKS))
def test_locks_hold_pins_with_hashes_and_no_address(lock: str) -> None:
    text = (TOP / lock).read_text()
    assert "://" not in text
    assert "index-url" not in text
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_the_locks_pin_the_same_versions() -> None:
    """Installing the development lock over the runtime lock changes nothing."""

    def pins(name: str) -> set[str]:
        return set(re.findall(r"^([a-z0-9._-]+==\S+)", (TOP / name).read_text(), re.MULTILINE))

    assert pins("requirements.lock") <= pins("requirements-dev.lock")


def test_no_installed_package_hides_this_folder() -> None:
    """tf2onnx's wheel brings a package `tests`; the set-up (tools/setup.sh) takes it out."""
    assert not (Path(sysconfig.get_paths()["purelib"]) / "tests").exists()
