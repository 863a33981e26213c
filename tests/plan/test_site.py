"""Site profiles: found by name or by the cluster, checked like a job.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterseg.cluster.slurm.configuration import cluster_name, configuration_file
from clusterseg.errors import ClustersegError
from clusterseg.plan.site import Partition, Site, SiteKeys, read_site
from clusterseg.shipped import shipped_folder
from clusterseg.spec.errors import SpecError
from clusterseg.submit.definitions import find_site

PAGE = (Path(__file__).parents[2] / "docs" / "sites.md").read_text()
SHIPPED = sorted((shipped_folder("slurm") / "sites").glob("*.yaml"))


def site(text: str, **environ: str) -> Site:
    return read_site("mine", f"title: Mine\n{text}", "mine.yaml", environ)


def mistake(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        site(text)
    assert len(caught.value.problems) == 1
    return caught.value.render()


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_profiles_are_read_and_named_in_the_docs(file: Path) -> None:
    read = read_site(file.stem, file.read_text(), str(file), {})
    assert f"`{read.name}`" in PAGE


def test_the_documented_profile_uses_every_key() -> None:
    example = PAGE.partition("```yaml")[2].partition("```")[0]
    read = read_site("example", example, "docs/sites.md", {"USER": "ada"})
    assert read.scratch == "/scratch/ada"
    for key in SiteKeys.__struct_fields__:
        assert f"\n{key}:" in example, key
    for key in Partition.__struct_fields__:
        assert f"{key}: " in example, key
        assert f"`{key}`" in PAGE, key


def test_an_unknown_key_is_refused_with_the_nearest_one_and_its_place() -> None:
    said = mistake("partitons: {}\n")
    assert "--> mine.yaml:2:1" in said
    assert "did you mean `partitions`?" in said
    assert "docs/sites.md" in said
    said = mistake("partitions:\n  gpu: {max_tme: 1}\n")
    assert "--> mine.yaml:3:9" in said
    assert "did you mean `max_time`?" in said


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("partitions: {gpu: {max_time: soon}}\n", "2:30"),
        ("partitions: {'a b': {}}\n", "2:14"),
        ("partitions:\n  low:\n", "3:"),
        ("account: 'a\\nb'\n", "2:10"),
        ('account: "a#b"\n', "2:10"),
        ("options: ['--mail-type=END', '-N 3']\n", "2:30"),
        ("options: ['--nodes=3']\n", "2:11"),
        ("default_partition: gqu\npartitions: {gpu: {}}\n", "2:20"),
        ("metadata_delay: -1\n", "2:17"),
        ("gpus: gpu\n", "2:7"),
        ("launcher: '; x'\n", "2:11"),
    ],
)
def test_wrong_values_are_pointed_at(text: str, where: str) -> None:
    assert f"--> mine.yaml:{where}" in mistake(text)


def test_a_title_is_all_that_is_needed() -> None:
    read = site("")
    assert read.metadata_delay == 60
    assert read.partition("any") == ("any", Partition())
    assert read.partition(None) == (None, Partition())


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A user's own folder, and a slurm.conf of a cluster called Example-7."""
    (tmp_path / "sites").mkdir()
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "slurm.conf").write_text("# ClusterName=no\nclustername = Example-7 #x\n")
    return {
        "CLUSTERSEG_CONFIG": str(tmp_path),
        "SLURM_CONF": str(tmp_path / "conf" / "slurm.conf"),
    }


def test_found_by_the_name_of_the_cluster(tmp_path: Path, environ: dict[str, str]) -> None:
    assert find_site(None, environ).name == "generic"
    (tmp_path / "sites" / "ours.yaml").write_text("title: Ours\nclusters: ['example-*']\n")
    assert find_site(None, environ).name == "ours"
    assert find_site("topaz", environ).title == "Topaz of Pawsey"


def test_a_users_own_profile_is_found_first(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "sites" / "generic.yaml").write_text("title: My own\n")
    assert find_site(None, environ).title == "My own"


def test_a_name_that_is_none_lists_those_that_are(environ: dict[str, str]) -> None:
    with pytest.raises(ClustersegError) as caught:
        find_site("topas", environ)
    assert "topaz" in (caught.value.help or "")


def test_the_cluster_has_its_name_from_slurm_conf(tmp_path: Path) -> None:
    file = tmp_path / "slurm.conf"
    file.write_text("Include other.conf\nSlurmctldHost=a\n")
    assert cluster_name(file) is None
    (tmp_path / "other.conf").write_text("ClusterName=Big\n")
    assert cluster_name(file) == "big"
    assert cluster_name(None) is None
    assert configuration_file({"SLURM_CONF": str(file)}) == file
    assert configuration_file({"SLURM_CONF": str(tmp_path / "none")}) is None
