"""The project's own files: what is installed, what is published, how the container is closed off."""

import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
# In pieces, so that this file passes its own test.
REGISTRIES = re.compile(
    r"(?:files\.pythonhosted|pypi|download\.pytorch|registry\.npmjs|ghcr|quay|gcr|nvcr|pkg\.dev|index\.docker|docker)"
    r"\." + r"(?:org|io|com)\b",
    re.IGNORECASE,
)
MACHINE_PATHS = re.compile("/" + r"(?:work/(?:main|shared)|opt/(?:wheels|pypi)|root/\.(?:cache|pyenv)/(?!pip\b))")


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def _pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = (line.partition("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): Version(version) for name, _, version in pins}


def _tracked_texts() -> dict[str, str]:
    """Return what git tracks, or would track after `git add`, as far as it is text."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"not a git checkout: {error}")
    texts = {}
    for name in filter(None, names):
        try:
            texts[name] = (ROOT / name).read_text("utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue
    return texts


def _service(file: str = "docker-compose.yml") -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((ROOT / file).read_text("utf-8"))["services"]
    return services["vitrine"]


def test_direct_dependency_has_a_pin_within_its_bound() -> None:
    """Whatever pyproject.toml asks for, in any extra, constraints.txt answers with one fitting version."""
    project = _project()
    listed = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    wanted = [requirement for requirement in map(Requirement, listed) if requirement.name != project["name"]]
    pins = _pins()

    assert [str(r) for r in wanted if pins.get(canonicalize_name(r.name)) not in r.specifier] == []


def test_indirect_dependency_has_a_pin() -> None:
    """Nothing that the service or its tests pull in may change between two installations."""
    pins = _pins()
    pending = [(_project()["name"], extra) for extra in ("", "eval", "test")]
    seen, unpinned = set(pending), set()
    while pending:
        name, extra = pending.pop()
        environment = {**default_environment(), "extra": extra}
        for requirement in map(Requirement, metadata.requires(name) or []):
            if requirement.marker and not requirement.marker.evaluate(environment):
                continue
            # torch pins the CUDA libraries of its GPU builds itself.
            if name == "torch" and re.match("nvidia|cuda|triton", requirement.name):
                continue
            if canonicalize_name(requirement.name) not in {*pins, "vitrine"}:
                unpinned.add(f"{requirement.name} (of {name})")
                continue
            news = {(canonicalize_name(requirement.name), e) for e in ("", *requirement.extras)} - seen
            seen |= news
            pending += news

    assert unpinned == set()


def test_pins_are_public_versions() -> None:
    """A build's local suffix (`+cpu`) in a pin would tie the project to one index."""
    assert {name: str(version) for name, version in _pins().items() if version.local} == {}


def test_no_file_names_a_registry_or_a_developers_machine() -> None:
    """Where packages come from is the installer's choice; paths of one machine help nobody."""
    found = {
        f"{name}: {match[0]}"
        for name, text in _tracked_texts().items()
        for pattern in (REGISTRIES, MACHINE_PATHS)
        for match in pattern.finditer(text)
    }

    assert found == set()


def test_image_runs_unprivileged_and_is_built_without_a_registry_frontend() -> None:
    """The last user is not root, no syntax line fetches a frontend, and every base is an official image."""
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    users = [line.split()[1].split(":")[0] for line in lines if line.startswith("USER ")]
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]

    assert users
    assert int(users[-1]) >= 1000
    assert not lines[0].replace(" ", "").startswith("#syntax=")
    assert [base for base in bases if "/" in base] == []


def test_compose_service_is_closed_off() -> None:
    """Each lock of the development stack is there: a lost one would not be noticed by use."""
    service = _service()

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["mem_limit"]
    assert service["pids_limit"] > 0
    assert all(volume["read_only"] for volume in service["volumes"])
    assert all("noexec" in mount and "size=" in mount for mount in service["tmpfs"])
    assert not {"privileged", "cap_add", "network_mode", "pid", "user"} & set(service)


def test_compose_service_without_keys_is_published_on_this_machine_only() -> None:
    """Authentication is off in the development stack, so its port must not be reachable from elsewhere."""
    service = _service()

    assert service["environment"]["VITRINE_AUTH"] == "off"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_compose_waits_for_the_whole_drain() -> None:
    """Docker kills after the grace period: 5 s of answering on and 25 s of finishing must fit into it."""
    assert int(_service()["stop_grace_period"].removesuffix("s")) > 5 + 25


def test_gpu_override_loosens_nothing() -> None:
    """The override adds a device and changes no lock."""
    allowed = {"build", "environment", "mem_limit", "deploy"}

    assert set(_service("docker-compose.gpu.yml")) <= allowed


@pytest.mark.parametrize("target", ["install", "format", "lint", "types", "contracts", "test", "serve", "all", "clean"])
def test_make_knows_target(target: str) -> None:
    """Each documented target can be planned without an error, and `make help` lists it."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    plan = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)

    assert plan.returncode == 0, plan.stderr
    assert re.search(rf"^{target}:.*## \S", makefile, re.MULTILINE)


def test_make_serve_is_open_only_by_default() -> None:
    """`make serve` needs no keys and stays on this machine, and the environment has the last word."""
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "VITRINE_AUTH": "on"}
    plan = subprocess.run(
        ["make", "-n", "serve"], cwd=ROOT, capture_output=True, text=True, check=True, env=environment
    )

    assert "http://127.0.0.1:" in plan.stdout
    assert "AUTH=on" in plan.stdout
    assert "GET_POLICY=open" in plan.stdout
