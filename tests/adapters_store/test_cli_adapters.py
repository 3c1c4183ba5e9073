"""The command line as a user meets it: real commands, real store, exit codes and streams."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from store_kit import bank, low_rank, routing, save_t5

from adapters_store.artefact import read_artefact, write_artefact
from adapters_store.backbone import Backbone
from adapters_store.blobs.local import LocalBlobs
from adapters_store.store import Store
from patchbay.cli import COMMANDS, main


@pytest.fixture
def pushed(cli, t5: Backbone, tmp_path) -> str:
    """acme/echo with two versions; prod is 2. Returns the reference of version 1."""
    for seed in (1, 2):
        write_artefact(low_rank(t5, seed=seed), tmp_path / f"v{seed}")
        code, out, _ = cli("push", tmp_path / f"v{seed}", "acme/echo", "--backbone", t5.folder)
        assert code == 0
        if seed == 1:
            first = out.strip()
    return first


def test_push_prints_the_pinned_reference_and_talks_on_stderr(cli, t5, tmp_path):
    artefact = low_rank(t5)
    write_artefact(artefact, tmp_path / "art")
    code, out, err = cli("push", tmp_path / "art", "acme/echo", "--backbone", t5.folder)
    assert (code, out) == (0, f"acme/echo:1@{artefact.digest}\n")
    assert "Registered backbone tiny-t5" in err
    assert cli("push", tmp_path / "art", "acme/echo")[:2] == (0, out)
    code, out, _ = cli("push", tmp_path / "art", "acme/two", "--alias", "canary", "--json")
    assert json.loads(out)["aliases"] == ["canary"]
    assert (
        json.loads(cli("push", tmp_path / "art", "acme/b", "--no-alias", "--json")[1])["aliases"]
        == []
    )
    assert cli("push", tmp_path / "art", "acme/b", "--no-alias", "--alias", "x")[0] == 2


def test_pull_gives_back_the_pushed_bytes(cli, pushed, tmp_path):
    code, out, err = cli("pull", pushed, tmp_path / "out")
    assert (code, out.strip()) == (0, str(tmp_path / "out" / "manifest.json"))
    assert pushed in err
    assert read_artefact(tmp_path / "out") == read_artefact(tmp_path / "v1")
    assert cli("pull", pushed, tmp_path / "out")[0] == 0
    code, _, err = cli("pull", "acme/echo:2", tmp_path / "out")
    assert code == 4
    assert "holds another artefact" in err


def test_versions_lists_deleted_ones_too_a_page_at_a_time(cli, pushed):
    assert cli("rm", "acme/echo:1", "--yes", "--reason", "bad labels")[0] == 0
    code, out, err = cli("versions", "acme/echo")
    assert (code, err) == (0, "")
    head, second, first = out.splitlines()
    assert head.split()[0] == "VERSION"
    assert (second.split()[:2], second.split()[-1]) == (["2", "prod"], "live")
    assert first.endswith("by local: bad labels")
    rows = json.loads(cli("versions", "acme/echo", "--json")[1])
    assert [(row["version"], row["delete_reason"]) for row in rows] == [
        (2, None),
        (1, "bad labels"),
    ]
    code, out, err = cli("versions", "acme/echo", "--limit", "1")
    assert (len(out.splitlines()), err) == (2, "There may be more: --before 2\n")
    assert cli("versions", "acme/echo", "--before", "2")[1].splitlines()[1].startswith("1 ")
    assert cli("versions", "acme/none")[0] == 3


def test_ls_lists_as_table_and_as_json(cli, pushed, t5, tmp_path):
    with Store.open(tmp_path / "store") as store:
        shared = bank(t5)
        store.publish("zed/bank", shared)
        store.publish("zed/task", routing(t5, shared))
    code, out, _ = cli("ls")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["NAME", "VERSION", "KIND", "ALIASES", "BYTES", "CREATED", "DIGEST"]
    assert [line.split()[:4] for line in lines[1:]] == [
        ["acme/echo", "2", "adapter", "prod"],
        ["zed/bank", "1", "bank", "prod"],
        ["zed/task", "1", "routing", "prod"],
    ]
    rows = json.loads(cli("ls", "--json", "--tenant", "zed", "--kind", "routing")[1])
    assert [(row["tenant"], row["name"], row["bank"]) for row in rows] == [
        ("zed", "task", shared.digest)
    ]
    assert set(rows[0]) == {
        "tenant", "name", "version", "reference", "digest", "kind", "backbone", "bank",
        "data_bytes", "aliases", "created_at", "actor", "deleted_at", "delete_reason",
        "purged_at",
    }  # fmt: skip
    code, out, err = cli("ls", "--limit", "1")
    assert "--after acme/echo" in err
    assert cli("ls", "--limit", "0")[0] == 2


def test_show_tells_signature_versions_and_aliases(cli, pushed):
    code, out, _ = cli("show", "acme/echo")
    assert code == 0
    for words in ("acme/echo:2@sha256:", "text2text", "Echo.", "prod -> 2", "2, 1"):
        assert words in out
    document = json.loads(cli("show", "acme/echo:1", "--json")[1])
    assert document["reference"] == pushed
    assert document["manifest"]["format"] == "patchbay-artefact/1"
    assert document["all_aliases"] == {"prod": 2}


def test_alias_moves_with_a_comparison(cli, pushed):
    assert cli("alias", "acme/echo", "prod", 1, "--expected", 2)[0] == 0
    code, _, err = cli("alias", "acme/echo", "prod", 2, "--expected", 2)
    assert code == 4
    assert "points at version 1; expected version 2" in err
    assert cli("show", "acme/echo")[1].split()[1] == pushed
    assert cli("unalias", "acme/echo", "prod", "--expected", 2)[0] == 4
    assert cli("unalias", "acme/echo", "prod", "--expected", 1, "--reason", "off")[0] == 0
    assert cli("resolve", "acme/echo@prod")[0] == 3
    assert cli("unalias", "acme/echo", "prod")[0] == 3
    assert cli.json("history", "acme/echo")[-1]["reason"] == "off"


def test_rm_needs_a_yes_and_restore_undoes_it(cli, pushed):
    code, _, err = cli("rm", "acme/echo:1")
    assert code == 2
    assert "--yes" in err
    assert cli("rm", "acme/echo:1", "--yes", "--reason", "old") == (0, f"{pushed}\n", "")
    code, _, err = cli("show", "acme/echo:1")
    assert code == 3
    assert "was deleted" in err
    assert cli("restore", "acme/echo:1")[1] == f"{pushed}\n"
    assert cli("rm", "acme/echo", "--yes")[1].count("\n") == 2
    assert cli("ls")[1].count("\n") == 1


def test_verify_exits_with_5_and_names_the_damage(cli, pushed, tmp_path):
    assert cli("verify") == (0, "", "Everything is sound.\n")
    data_digest = read_artefact(tmp_path / "v1").manifest.data.digest
    path = LocalBlobs(tmp_path / "store" / "blobs").path(data_digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    code, out, err = cli("verify")
    assert code == 5
    assert pushed in out
    assert "truncated" in out
    assert "not hold what was published: 1 finding(s)" in err
    code, out, _ = cli("verify", "acme/echo:1", "--json")
    assert code == 5
    assert [row["problem"] for row in json.loads(out)] == ["truncated"]
    assert cli("verify", "acme/echo:2")[0] == 0


def test_failures_have_a_message_a_hint_and_their_exit_code(cli, t5, tmp_path):
    code, out, err = cli("ls")
    assert (code, out) == (3, "")
    assert err.startswith("error: no store at ")
    assert "\nhint: " in err
    write_artefact(low_rank(t5), tmp_path / "art")
    assert cli("push", tmp_path / "art", "acme/echo")[0] == 6
    assert cli("push", tmp_path / "none", "acme/echo")[0] == 3
    (tmp_path / "art" / "data.safetensors").write_bytes(b"\x80\x04pickle bytes here")
    code, _, err = cli("push", tmp_path / "art", "acme/echo", "--backbone", t5.folder)
    assert code == 5
    assert "pickle" in err
    assert cli("push", tmp_path / "art", "../echo")[0] == 2
    assert cli("show", "acme/none")[0] == 3
    assert cli("nope")[0] == 2
    assert cli("ls", "--kind", "nope")[0] == 2


def test_the_group_takes_the_store_too(cli, pushed, tmp_path, monkeypatch):
    monkeypatch.delenv("PATCHBAY_STORE")
    assert "acme/echo" in cli("--store", tmp_path / "store", "ls")[1]
    assert "acme/echo" in cli("ls", "--store", tmp_path / "store")[1]
    assert cli("--store", tmp_path / "store", "ls", "--store", tmp_path / "other")[0] == 3


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )


def test_help_imports_no_command_and_starts_quickly():
    report = _python(
        "import sys, time; start = time.process_time()\n"
        "from patchbay.cli import main\n"
        "code = main(['--help'])\n"
        "spent = time.process_time() - start\n"
        "heavy = {'torch', 'sqlalchemy', 'pydantic', 'ray', 'adapters_store.cli'}\n"
        "heavy &= set(sys.modules)\n"
        "print(code, spent < 0.3, sorted(heavy), file=sys.stderr)\n"
    )
    assert report.stderr == "0 True []\n"
    assert all(f"  {name} " in report.stdout for name in COMMANDS)


def test_registry_modules_import_no_torch():
    names = "artefact backbone catalog.postgres cli difference formats.importing formats.sources "
    names += "manifest names reader store validation verify"
    imports = "\n".join(f"import adapters_store.{name}" for name in names.split())
    report = _python(f"import sys\n{imports}\nprint({{'torch', 'numpy'}} & set(sys.modules))")
    assert report.stdout == "set()\n"


def test_an_interrupt_exits_with_130(tmp_path: Path):
    code = (
        "import sys\n"
        "import adapters_store.cli.listing as commands\n"
        "from patchbay.cli import main\n"
        "def interrupted(*args, **options):\n"
        "    raise KeyboardInterrupt\n"
        "commands.open_store = interrupted\n"
        "sys.exit(main(['adapters', 'ls']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert "Interrupted" in done.stderr


def test_a_missing_extra_is_unavailable_with_the_way_to_install_it(capsys, monkeypatch):
    monkeypatch.setitem(COMMANDS, "bench", "absent_extra.module:command")
    assert main(["bench"]) == 8
    err = capsys.readouterr().err
    assert "absent_extra" in err
    assert "pip install" in err


def test_save_then_push_needs_no_more_than_the_folder(cli, tmp_path):
    model = save_t5(tmp_path / "My Model (v2)", seed=3)
    write_artefact(low_rank(Backbone.from_folder(model)), tmp_path / "art")
    code, _, err = cli("push", tmp_path / "art", "acme/echo", "--backbone", model)
    assert code == 0
    assert "Registered backbone my-model-v2" in err
