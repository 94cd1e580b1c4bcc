"""The configuration: what the environment may say, and how a wrong word stops the start."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from service import logs
from service.__main__ import main
from service.settings import Settings, unknown_variables

OPEN = {"VITRINE_AUTH": "off", "VITRINE_GET_POLICY": "open"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Return the environment without any setting but the two that this version needs; nothing may start in it."""

    def start(level: str) -> None:
        raise AssertionError("the service was started")

    monkeypatch.setattr(logs, "configure", start)
    for name in list(os.environ):
        if name.upper().startswith("VITRINE_"):
            monkeypatch.delenv(name)
    for name, value in OPEN.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_defaults_listen_on_this_machine_only(environment: pytest.MonkeyPatch) -> None:
    """Nothing is served to a network unless somebody said so."""
    settings = Settings()

    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.reuse_port is False
    assert settings.models_dir == Path("models")
    assert settings.device == "auto"
    assert (settings.max_queue_images, settings.max_n, settings.max_megapixels) == (512, 64, 64)
    assert (settings.request_timeout_s, settings.drain_delay_s, settings.drain_timeout_s) == (30, 5, 25)
    assert settings.cors_origins == ""


def test_environment_is_read_and_converted(environment: pytest.MonkeyPatch) -> None:
    """Each setting is a variable with the prefix, in any case."""
    environment.setenv("VITRINE_PORT", "9000")
    environment.setenv("VITRINE_MODELS_DIR", "/srv/models")
    environment.setenv("vitrine_max_n", "8")
    environment.setenv("VITRINE_REQUEST_TIMEOUT_S", "2.5")
    settings = Settings()

    assert (settings.port, settings.models_dir) == (9000, Path("/srv/models"))
    assert (settings.max_n, settings.request_timeout_s) == (8, 2.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "65536"),
        ("REUSE_PORT", "perhaps"),
        ("DEVICE", "gpu"),
        ("AUTH", "no"),
        ("GET_POLICY", "closed"),
        ("MAX_BATCH_IMAGES", "0"),
        ("MAX_BATCH_IMAGES", "1.5"),
        ("ENGINE_THREADS", "0"),
        ("MAX_MEGAPIXELS", "0"),
        ("MAX_MEGAPIXELS", "nan"),
        ("REQUEST_TIMEOUT_S", "inf"),
        ("DRAIN_DELAY_S", "-1"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_wrong_value_stops_the_start(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    """The process ends with status 2 and one line that names the variable."""
    environment.setenv(f"VITRINE_{name}", value)

    assert main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: VITRINE_{name}: Input should be ")


def test_unknown_variable_stops_the_start(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt setting is not passed over in silence; the line lists the ones that there are."""
    environment.setenv("VITRINE_PROT", "9000")
    environment.setenv("vitrine_hots", "0.0.0.0")

    assert main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: unknown settings VITRINE_PROT, vitrine_hots; known are VITRINE_AUTH, ")
    assert "VITRINE_PORT" in line


def test_only_variables_with_the_prefix_are_looked_at() -> None:
    """Other programs' variables are none of our business."""
    environment = {"PATH": "/bin", "VITRINE_PORT": "1", "Vitrine_Host": "x", "VITRINES": "many", "VITRINE_X": "1"}

    assert unknown_variables(environment) == ["VITRINE_X"]


def test_every_setting_is_a_known_variable() -> None:
    """No setting would be refused as unknown."""
    assert unknown_variables({f"VITRINE_{name.upper()}": "" for name in Settings.model_fields}) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"VITRINE_AUTH": "on"},
            "error: VITRINE_AUTH=on needs API keys, which this version does not have; say VITRINE_AUTH=off",
        ),
        ({"VITRINE_AUTH": None}, "error: VITRINE_AUTH=on needs API keys, which this version does not have; say"),
        (
            {"VITRINE_GET_POLICY": "preset"},
            "error: VITRINE_GET_POLICY=preset is not in this version; say VITRINE_GET_POLICY=open",
        ),
        ({"VITRINE_GET_POLICY": "signed"}, "error: VITRINE_GET_POLICY=signed is not in this version; say"),
        ({"VITRINE_GET_POLICY": None}, "error: VITRINE_GET_POLICY=preset is not in this version; say"),
    ],
)
def test_access_that_is_not_built_yet_is_refused(
    environment: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str | None],
    message: str,
) -> None:
    """Running more open than was said, by default too, is no option; the line says what to say instead."""
    for name, value in changes.items():
        if value is None:
            environment.delenv(name)
        else:
            environment.setenv(name, value)

    assert main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)


def test_settings_cannot_be_changed_later(environment: pytest.MonkeyPatch) -> None:
    """What was logged at the start holds until the end."""
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


def test_unknown_argument_is_refused(environment: pytest.MonkeyPatch) -> None:
    """A misspelt setting in code is an error too."""
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Settings(prot=1)  # type: ignore[call-arg]
