"""Recipes for several machines (ray_configs/clusters/) agree with each other, with the pinned
versions, with the scale they are for, and with the commands they start."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from test_docs_commands import help_of

from pretrain.config import SCALES, Recipe, Scale, parse_overrides, read
from pretrain.errors import BadInput

ROOT = Path(__file__).parent.parent
CLUSTERS = SCALES / "clusters"
PINNED = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
)
GPUS_OF = {"g5.12xlarge": 4}


def loaded(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((CLUSTERS / name).read_text()))


def pods(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The containers of a cluster's head and machines."""
    groups = {
        "head": spec["headGroupSpec"],
        **{g["groupName"]: g for g in spec["workerGroupSpecs"]},
    }
    return {name: group["template"]["spec"]["containers"][0] for name, group in groups.items()}


def commands() -> list[str]:
    """What the files start or tell their reader to type."""
    texts = [path.read_text().replace("\\\n", " ") for path in CLUSTERS.iterdir()]
    texts.append(loaded("kuberay_job.yaml")["spec"]["entrypoint"])
    found = [one for text in texts for one in re.findall(r"python pretrain/run\.py[^\n\"&]*", text)]
    assert len(found) >= 4
    return found


def test_ray_is_the_pinned_one() -> None:
    image = re.search(
        r"^FROM rayproject/ray:([\d.]+)-py3(\d+)-\$\{KIND\} AS cluster$", dockerfile(), re.M
    )
    assert image is not None
    assert image[1] == PINNED["ray"] == ray.__version__
    project = settings()["project"]
    assert project["requires-python"] == f">=3.{image[2]}"
    for spec in (cluster_spec(), job_spec()):
        assert spec["rayVersion"] == PINNED["ray"]
    image_name = f"registry.example/ethoray:{project['version']}"
    assert f"-t {image_name}" in dockerfile()
    assert {pod["image"] for pod in pods(cluster_spec()).values()} == {image_name}


def settings() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


def test_a_laptop_gets_the_command_and_a_cluster_a_shell() -> None:
    project, text = settings()["project"], dockerfile()
    stages = re.findall(r"^FROM \S+ AS (\w+)$", text, re.M)
    assert stages == ["cluster", "laptop"], "what is built without --target comes last"
    of_cluster, _, of_laptop = text.partition("FROM cluster AS laptop")
    assert "ENTRYPOINT" not in of_cluster, "KubeRay and `ray up` start programs of their own"
    (entry,) = re.findall(r'^ENTRYPOINT \["(\S+)"\]$', of_laptop, re.M)
    assert project["scripts"][entry] == "ethoray.__main__:main"
    assert set(re.findall(r"--target (\w+)", text)) <= set(stages)
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", text, re.M))
    assert (arguments["KIND"], arguments["TORCH"][-4:]) == ("cpu", "/cpu")
    assert set(re.findall(r"--build-arg (\w+)=", text)) <= set(arguments)
    (extras,) = re.findall(r"-e '\.\[(\S+)\]'", text)
    assert set(extras.split(",")) == set(project["optional-dependencies"]) - {"dev"}
    assert text.count("-c constraints.txt") == text.count("pip install"), "all of it is pinned"
    (line,) = re.findall(r"docker run .* ethoray (predict .*)", text)
    known = help_of("finetune/predict.py")
    assert not [word for word in line.split() if word.startswith("--") and word not in known]


def test_an_image_gets_what_is_installed_and_nothing_else() -> None:
    project = settings()
    let_in = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    packages = {
        name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]
    }
    about = {project["project"]["readme"], *project["project"]["license-files"]}
    assert let_in == packages | about | {"pyproject.toml", "constraints.txt"}
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()


def cluster_spec() -> dict[str, Any]:
    return dict(loaded("kuberay_cluster.yaml")["spec"])


def job_spec() -> dict[str, Any]:
    return dict(loaded("kuberay_job.yaml")["spec"]["rayClusterSpec"])


def test_gpus_are_those_of_the_scale() -> None:
    wanted = read(Scale, "multi_node", SCALES, {}).workers
    machines = cluster_spec()["workerGroupSpecs"][0]
    limits = pods(cluster_spec())["gpus"]["resources"]["limits"]
    assert machines["replicas"] * int(limits["nvidia.com/gpu"]) == wanted
    aws = loaded("aws.yaml")
    node = aws["available_node_types"]["gpus"]
    assert node["min_workers"] * GPUS_OF[node["node_config"]["InstanceType"]] == wanted
    slurm = (CLUSTERS / "slurm.sh").read_text()
    nodes, gpus, repeated = (
        int(re.search(pattern, slurm)[1])  # type: ignore[index]
        for pattern in (r"--nodes=(\d+)", r"--gpus-per-node=(\d+)", r"\bgpus=(\d+)")
    )
    assert (nodes * gpus, gpus) == (wanted, repeated)


def test_heads_have_no_cpus_and_the_ports_of_the_page() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    assert "--num-cpus=0 --port=6379" in page
    for spec in (cluster_spec(), job_spec()):
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        ports = {port["containerPort"] for port in pods(spec)["head"]["ports"]}
        assert ports == {6379, 8265}
    start = " ".join(loaded("aws.yaml")["head_start_ray_commands"])
    assert "--num-cpus=0 --port=6379" in start
    assert "--dashboard-port=8265" in start


def test_kuberay_files_have_the_fields_of_their_kind() -> None:
    cluster, job = loaded("kuberay_cluster.yaml"), loaded("kuberay_job.yaml")
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job_spec() == cluster_spec(), "the job's cluster is the cluster"
    for group in (cluster_spec()["headGroupSpec"], *cluster_spec()["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        resources = pod["containers"][0]["resources"]
        assert resources["limits"] == resources["requests"], "Ray counts what a pod may use"


def test_ray_up_takes_the_file() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    aws = loaded("aws.yaml")
    jsonschema.validate(aws, schema)
    assert aws["head_node_type"] in aws["available_node_types"]
    assert aws["max_workers"] >= aws["available_node_types"]["gpus"]["max_workers"]


@pytest.mark.parametrize("command", commands())
def test_what_the_files_start_exists(command: str) -> None:
    words = shlex.split(
        command.partition("…")[0].replace('"$@"', "").replace("$((", "").rstrip(")")
    )
    options = {word for word in words if word.startswith("--")}
    known = help_of(words[1])
    assert not [option for option in options if option not in known]
    scale = read(Scale, words[words.index("--scale") + 1], SCALES, {})
    assert scale.gpu
    given = [b for a, b in pairwise(words) if a == "--set" and "=" in b]
    parse_overrides([one for one in given if "SLURM" not in one], Recipe, Scale)


def test_the_slurm_script_is_a_script() -> None:
    subprocess.run(["bash", "-n", str(CLUSTERS / "slurm.sh")], check=True)


def test_cluster_files_are_no_scales_and_scales_no_cluster_files() -> None:
    scales = sorted(path.name for path in SCALES.glob("*.yaml"))
    for name in scales:
        first = (SCALES / name).read_text().splitlines()[0]
        assert first.startswith(f"# A scale of Ethoray (--scale {name.removesuffix('.yaml')}), not")
    with pytest.raises(BadInput, match=r"there are: laptop, multi_node, single_node$"):
        read(Scale, "aws", SCALES, {})
    for path in CLUSTERS.glob("*.yaml"):
        assert "not a scale of Ethoray" in path.read_text()
        with pytest.raises(BadInput, match="unknown key"):
            read(Scale, str(path), SCALES, {})
