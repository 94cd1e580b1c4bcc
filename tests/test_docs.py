"""README and documents say what is true: commands run, links lead somewhere, tables are complete."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.settings import Settings
from tests.e2e.conftest import OPEN, Process

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
SERVED_AT = "http://127.0.0.1:8000"


def blocks(document: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def curl_commands() -> list[str]:
    """Return every curl command of the documents' shell blocks."""
    text = "\n".join(block for document in DOCUMENTS for block in blocks(document, "sh"))
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("curl ")]


@pytest.fixture(scope="module")
def shipped_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a service of the models that this repository ships."""
    process = Process(tmp_path_factory.mktemp("shipped") / "log", models_dir=ROOT / "models", **OPEN)
    try:
        process.wait_until_ready()
        yield process.url
    finally:
        process.kill()


@pytest.mark.e2e
@pytest.mark.parametrize("command", curl_commands())
def test_curl_command_of_the_documents_gives_what_it_says(command: str, shipped_server: str, tmp_path: Path) -> None:
    """Every curl command in README and docs succeeds against the shipped model, and a .png it writes is one."""
    arguments = shlex.split(command.replace(SERVED_AT, shipped_server))
    done = subprocess.run(
        [*arguments, "--silent", "--show-error", "--fail"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    if "-o" in arguments:
        assert (tmp_path / arguments[arguments.index("-o") + 1]).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    else:
        assert done.stdout.startswith(b"{")


@pytest.mark.e2e
def test_img_tag_of_the_readme_is_a_picture(shipped_server: str) -> None:
    """The <img src> in the README gives an immutable PNG of the size that it asks for."""
    (source,) = re.findall(r'src="(http://[^"]+)"', "\n".join(blocks(ROOT / "README.md", "html")))
    answer = httpx.get(source.replace(SERVED_AT, shipped_server))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_link_leads_to_a_file(document: Path) -> None:
    """No document links to a file that is not there."""
    text = document.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text) + re.findall(r'<img src="(?!https?:)([^"]+)"', text)
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert missing == []


def test_training_commands_of_the_readme_are_accepted() -> None:
    """Each `python -m training` line parses: the command exists and so do its options."""
    from training.cli import build_parser

    lines = [line for block in blocks(ROOT / "README.md", "console") for line in block.splitlines()]
    commands = [shlex.split(line)[3:] for line in lines if line.startswith("python -m training ")]
    assert {command[0] for command in commands} == {"prepare", "train", "evaluate", "export"}
    for command in commands:
        build_parser().parse_args(command)


def test_settings_table_is_complete() -> None:
    """docs/api.md names every setting, and no other."""
    section = (ROOT / "docs/api.md").read_text(encoding="utf-8").split("## Settings", 1)[1]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = {name for cell in cells for name in re.findall(r"`([A-Z_]+)`", cell)} - {"VITRINE_"}
    assert named == {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_block_runs(document: Path) -> None:
    """Python in the documents runs as it stands."""
    for block in blocks(document, "python"):
        exec(compile(block, str(document), "exec"), {"__name__": "__main__"})
