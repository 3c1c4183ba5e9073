"""Signatures: what they cover, how they are kept, and what is not believed."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
from cli_kit import Cli
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import update
from store_kit import contents, low_rank

from adapters_store.artefact import write_artefact
from adapters_store.backbone import Backbone
from adapters_store.catalog.schema import SIGNATURES
from adapters_store.errors import (
    ConflictError,
    InvalidArtefactError,
    NotFoundError,
    UnsignedError,
    UsageError,
)
from adapters_store.signing import PublicKey, Signature, SigningKey, Trust, message
from adapters_store.store import Store

DIGEST, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey.create(tmp_path / "key.pem")


def test_a_key_file_is_private_and_reads_back(tmp_path: Path, key: SigningKey) -> None:
    path = tmp_path / "key.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith("-----BEGIN PRIVATE KEY-----")
    assert SigningKey.read(path).public == key.public
    with pytest.raises(ConflictError, match="exists"):
        SigningKey.create(path)
    path.chmod(0o640)
    with pytest.raises(UsageError, match="mode 0640"):
        SigningKey.read(path)


def test_a_file_that_holds_no_such_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    with pytest.raises(NotFoundError, match="no key at"):
        SigningKey.read(path)
    path.write_bytes(b"not a key")
    path.chmod(0o600)
    with pytest.raises(UsageError, match="no private key"):
        SigningKey.read(path)
    path.write_bytes(
        generate_private_key(SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    with pytest.raises(UsageError, match="another kind; expected Ed25519"):
        SigningKey.read(path)


def test_a_signature_covers_the_domain_and_the_digest(key: SigningKey) -> None:
    signature = key.sign(DIGEST)
    assert signature.is_valid(DIGEST)
    assert not signature.is_valid(OTHER)
    verifier = Ed25519PublicKey.from_public_bytes(key.public.raw)
    verifier.verify(signature.raw, b"patchbay-artefact-signature/1\0" + DIGEST.encode())
    plain = Signature(key.public, key._private.sign(DIGEST.encode()))
    assert not plain.is_valid(DIGEST)
    for text in ("", "sha256:12", DIGEST + "\n"):
        with pytest.raises(UsageError, match="not an artefact digest"):
            message(text)


def test_every_changed_bit_of_a_signature_or_key_is_noticed(key: SigningKey) -> None:
    good = key.sign(DIGEST)
    for position in range(64):
        raw = bytearray(good.raw)
        raw[position] ^= 1
        assert not Signature(good.key, bytes(raw)).is_valid(DIGEST)
    for position in range(32):
        raw = bytearray(good.key.raw)
        raw[position] ^= 1
        assert not Signature(PublicKey(bytes(raw)), good.raw).is_valid(DIGEST)


def test_keys_and_signatures_read_back_from_their_text(key: SigningKey) -> None:
    signature = key.sign(DIGEST)
    assert Signature.parse(str(signature)) == signature
    assert PublicKey.parse(str(key.public)) == key.public
    assert key.public.id.startswith("sha256:")


@pytest.mark.parametrize(
    "text", ["", "ed25519:", "rsa:" + "A" * 44, "ed25519:AAAA", "ed25519:" + "A" * 44 + "x",
             "ed25519:" + base64.b64encode(bytes(33)).decode(), "ed25519:" + "A" * 42 + "B="],
)  # fmt: skip
def test_other_texts_are_no_keys(text: str) -> None:
    with pytest.raises(UsageError, match="expected ed25519:"):
        PublicKey.parse(text)
    with pytest.raises(InvalidArtefactError, match="expected ed25519:"):
        Signature.parse(f"{text}:AAAA")


def test_trust_asks_for_one_of_the_tenants_keys(tmp_path: Path, key: SigningKey) -> None:
    other = SigningKey.create(tmp_path / "other.pem")
    trust = Trust({"acme": [str(key.public)]})
    trust.check("free", DIGEST, [])
    trust.check("acme", DIGEST, [other.sign(DIGEST), key.sign(DIGEST)])
    assert trust.requires_signature("acme")
    assert not trust.requires_signature("free")
    for signatures, words in (
        ([], "none of them signed it"),
        ([other.sign(DIGEST)], "none of them signed it"),
        ([key.sign(OTHER)], "does not fit it"),
    ):
        with pytest.raises(UnsignedError, match=words):
            trust.check("acme", DIGEST, signatures)
    with pytest.raises(UsageError, match="public key"):
        Trust({"acme": ["nonsense"]})
    with pytest.raises(UnsignedError):
        Trust({"acme": []}).check("acme", DIGEST, [key.sign(DIGEST)])


def test_a_signature_is_kept_once_and_told_in_the_audit_log(
    store: Store, t5: Backbone, key: SigningKey
) -> None:
    version = store.publish("acme/x", low_rank(t5))
    signature = key.sign(version.digest)
    before = store.generation()
    record = store.signatures.add("acme/x", signature, actor="ann")
    assert store.generation() > before
    assert record.signature == signature
    assert record.actor == "ann"
    assert store.signatures.add("acme/x:1", signature, actor="bob") == record
    assert store.signatures.list(version.digest) == [record]
    events = [one for one in store.audit.events(tenant="acme") if one.type == "signature.added"]
    assert [(one.subject.digest, one.payload["key_id"]) for one in events] == [
        (version.digest, key.public.id)
    ]
    assert store.audit.verify().is_sound
    with pytest.raises(InvalidArtefactError, match="does not fit artefact"):
        store.signatures.add("acme/x", key.sign(OTHER))
    with pytest.raises(NotFoundError):
        store.signatures.add("acme/none", signature)


def test_a_signature_is_published_with_its_artefact_or_nothing_is(
    store: Store, store_folder: Path, t5: Backbone, key: SigningKey
) -> None:
    artefact = low_rank(t5)
    before = contents(store_folder), store.generation()
    with pytest.raises(InvalidArtefactError, match="does not fit artefact"):
        store.publish_many([("acme/x", artefact)], signatures=[key.sign(OTHER)])
    assert (contents(store_folder), store.generation()) == before
    store.publish_many([("acme/x", artefact)], signatures=[key.sign(artefact.digest)])
    assert [one.signature.key for one in store.signatures.list(artefact.digest)] == [key.public]


def test_verify_finds_a_signature_that_was_changed_in_the_catalog(
    cli: Cli, store: Store, t5: Backbone, key: SigningKey
) -> None:
    version = store.publish("acme/x", low_rank(t5))
    store.publish("acme/y", low_rank(t5, seed=2))
    store.signatures.add("acme/x", key.sign(version.digest))
    assert store.verify() == store.verify("acme/x") == []
    with store._database.write() as connection:
        connection.execute(update(SIGNATURES).values(signature=str(key.sign(OTHER))))
    for reference in (None, "acme/x"):
        (finding,) = store.verify(reference)
        assert (finding.problem, finding.blob) == ("forged", "signature")
    assert store.verify("acme/y") == []
    code, out, _ = cli("verify", "--all")
    assert code == 5
    assert "forged" in out
    assert cli("verify", "acme/x", "--all")[0] == 2


def test_the_commands_make_keys_sign_and_show(
    cli: Cli, store: Store, t5: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "release.pem"
    code, public, err = cli("keys", "new", path)
    assert code == 0
    assert "keep it secret" in err
    assert cli("keys", "show", path)[1] == public
    shown = cli.json("keys", "show", path)
    assert shown["public_key"] + "\n" == public
    assert cli("keys", "new", path)[0] == 4
    version = store.publish("acme/x", low_rank(t5))
    code, out, err = cli("sign", "acme/x", "--key", path)
    assert code == 0
    assert version.reference in err
    assert Signature.parse(out).is_valid(version.digest)
    record = cli.json("sign", "acme/x", "--key", path)
    assert set(record) == {"digest", "key_id", "public_key", "signature", "actor", "at"}
    assert record["signature"] == out.strip()
    assert cli.json("show", "acme/x")["signatures"] == [record]
    assert public.strip() in cli("show", "acme/x")[1]
    write_artefact(low_rank(t5), tmp_path / "art")
    assert cli("sign", tmp_path / "art", "--key", path)[1] == out
    (tmp_path / "acme" / "x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert cli("sign", "acme/x", "--key", path)[1] == out
    assert cli("sign", "./art", "--key", path)[1] == out
    assert cli("sign", "./none", "--key", path)[0] == 3
    assert cli("sign", "acme/none", "--key", path)[0] == 3
    assert cli("sign", "acme/x", "--key", tmp_path / "none.pem")[0] == 3
