"""Configuration: file < environment < flags, with every problem named."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from adapters_store.errors import IncompatibleError, UnavailableError, UsageError
from patchbay.cli import main
from serving.cli import serve
from serving.cluster.local import claim_port
from serving.config import BUNDLED_NAME, is_loopback, load_config


def test_flags_beat_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("port: 1111\nnum_replicas: 2\nengine: {max_rows: 5}\nhost: 127.0.0.2\n")
    config = load_config(file, {"PATCHBAY_PORT": "2222", "PATCHBAY_STORE": "/s"}, {"port": 3333})
    assert (config.port, config.num_replicas, config.engine.max_rows) == (3333, 2, 5)
    assert (config.host, config.store) == ("127.0.0.2", Path("/s"))
    assert config.backbones[0].name == BUNDLED_NAME
    assert load_config(file, {"PATCHBAY_PORT": "2222"}).port == 2222


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("port: 99999\ncolour: red\nengine: {max_rows: 0}\n")
    with pytest.raises(UsageError) as failure:
        load_config(file, {})
    for word in ("port", "colour", "engine.max_rows"):
        assert word in failure.value.message


@pytest.mark.parametrize("content", ["[1, 2]", "a: [", "\xff"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "serve.yaml"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError):
        load_config(file, {})


def test_an_open_host_needs_keys() -> None:
    with pytest.raises(UsageError, match="no keys"):
        load_config(None, {}, {"host": "0.0.0.0"})
    keys = [{"hash": "sha256:" + "0" * 64}]
    assert not load_config(None, {}, {"host": "0.0.0.0", "keys": keys}).is_development


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("", False),
        ("localhost.evil.example", False),
    ],
)
def test_loopback_is_recognised(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected


def test_the_command_shows_its_effective_configuration(tmp_path: Path) -> None:
    named = ["--backbone", f"mine={tmp_path}", "--dtype", "bfloat16", "--device", "cuda:1"]
    run = CliRunner().invoke(serve, ["--check", "--port", "9", *named])
    assert run.exit_code == 0, run.output
    assert '"name": "mine"' in run.output
    assert '"dtype": "bfloat16"' in run.output
    assert '"device": "cuda:1"' in run.output
    assert CliRunner().invoke(serve, ["--check", "--host", "0.0.0.0"]).exit_code == 2


def test_a_setting_of_backbones_is_refused_where_none_is_named() -> None:
    for option, value in (("--dtype", "bfloat16"), ("--device", "cpu")):
        run = CliRunner().invoke(serve, ["--check", option, value])
        assert run.exit_code == 2
        assert f"{option} given without --backbone" in run.output


def test_a_device_of_another_form_is_refused(tmp_path: Path) -> None:
    named = {"name": "mine", "folder": str(tmp_path), "device": "gpu"}
    with pytest.raises(UsageError, match=r"backbones\.0\.device"):
        load_config(None, {}, {"backbones": [named]})


def test_the_command_refuses_a_folder_without_a_backbone_at_once(tmp_path: Path) -> None:
    run = CliRunner().invoke(serve, ["--store", str(tmp_path), "--backbone", f"x={tmp_path}"])
    assert run.exit_code == 3
    assert "config.json is missing" in run.output
    (tmp_path / "config.json").write_text('{"model_type": "unheard-of"}')
    run = CliRunner().invoke(serve, ["--store", str(tmp_path), "--backbone", f"x={tmp_path}"])
    assert run.exit_code == 6
    assert "unheard-of" in run.output


@pytest.mark.parametrize("model_type", ["vit", "audio-spectrogram-transformer"])
def test_the_command_refuses_a_backbone_the_engine_does_not_run_at_once(
    tmp_path: Path, model_type: str
) -> None:
    golden = Path(__file__).parents[1] / "golden" / "families" / f"{model_type}.json"
    (tmp_path / "config.json").write_bytes(golden.read_bytes())
    store = tmp_path / "store"
    run = CliRunner().invoke(serve, ["--store", str(store), "--backbone", f"x={tmp_path}"])
    assert run.exit_code == IncompatibleError.exit_code
    assert "does not run" in run.output
    assert not store.exists()


def test_a_port_in_use_is_refused_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"cannot listen on 127.0.0.1:{port}"):
            claim_port("127.0.0.1", port)
    assert claim_port("127.0.0.1", 0) > 0


def test_a_store_that_does_not_open_is_told_before_anything_starts(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert main(["serve", "--store", str(tmp_path / "file"), "--port", "0"]) == 2
    err = capsys.readouterr().err
    assert f"error: cannot make a store at {tmp_path / 'file'}: File exists" in err
    assert "hint: Check the path" in err
