"""The files under deploy/ are read by the code they configure."""

from pathlib import Path

from serving.config import ServeConfig, load_config

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def test_the_serve_file_is_valid_and_states_the_defaults() -> None:
    config = load_config(DEPLOY / "serve.yaml")
    assert config.is_development
    assert config == ServeConfig().with_defaults()
