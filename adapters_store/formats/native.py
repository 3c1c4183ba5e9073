"""This product's own artefact folders: a manifest and a data file, stored as they are."""

from __future__ import annotations

from pathlib import Path

from adapters_store.artefact import Artefact, write_artefact
from adapters_store.backbone import Backbone, BackboneRecord
from adapters_store.errors import ConflictError, InvalidArtefactError, UsageError
from adapters_store.formats.inspection import ImportOptions, Inspection, Plan
from adapters_store.formats.source import Source, read_file, read_tensor_table
from adapters_store.limits import DEFAULT_LIMITS, Limits
from adapters_store.manifest import DATA_FILE, MANIFEST_FILE, Manifest, parse_manifest
from adapters_store.validation import validate_header


class NativeFormat:
    """``manifest.json`` and ``data.safetensors``. A routing's bank is checked when it is stored."""

    name = "patchbay"

    def recognises(self, source: Source) -> bool:
        """True where there is a manifest."""
        return is_native(source)

    def plan(
        self, source: Source, backbone: BackboneRecord, options: ImportOptions, limits: Limits
    ) -> Plan:
        """Accept or reject, from manifest and header alone.

        Raises UsageError for options: an artefact says everything of itself.
        """
        _refuse_options(source, options)
        manifest = read_manifest(source, limits)
        if DATA_FILE not in source.sizes():
            raise InvalidArtefactError(f"{source.location} has a manifest, but no {DATA_FILE}")
        table = read_tensor_table(source, DATA_FILE, limits)
        size = source.sizes()[DATA_FILE]
        if size != manifest.data.size_bytes:
            raise InvalidArtefactError(
                f"{DATA_FILE} has {size} bytes; the manifest says {manifest.data.size_bytes}"
            )
        validate_header(manifest, table, backbone, limits)
        method = ", ".join(sorted({part.primitive for part in manifest.parts}))
        return Plan(
            Inspection(
                source.location,
                self.name,
                method,
                "accept",
                backbone.name,
                parts=manifest.parts,
                num_tensors=len(table),
                data_bytes=size,
            )
        )


def read_manifest(source: Source, limits: Limits = DEFAULT_LIMITS) -> Manifest:
    """The manifest of a native source; raises NotFoundError or InvalidArtefactError."""
    data = read_file(source, MANIFEST_FILE, limits.max_manifest_bytes)
    return parse_manifest(data, limits=limits)


def read_native(
    source: Source, options: ImportOptions | None = None, limits: Limits = DEFAULT_LIMITS
) -> Artefact:
    """A native source as it is; publishing validates it.

    Raises UsageError for options, NotFoundError for a missing file, InvalidArtefactError for a
    manifest outside the format.
    """
    _refuse_options(source, options or ImportOptions())
    manifest = read_manifest(source, limits)
    return Artefact(manifest, read_file(source, DATA_FILE, limits.max_data_bytes))


def export_native(
    artefact: Artefact,
    backbone: Backbone | BackboneRecord,
    folder: str | Path,
    bank: Artefact | None = None,
) -> Path:
    """Write manifest and data as they are, to a folder that ``push`` takes.

    A routing's bank is an artefact of its own and stays where it is. Raises ConflictError for a
    folder with files.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConflictError(
            f"{target} is not an empty folder", hint="Give a new folder to export to."
        )
    return write_artefact(artefact, target).parent


def is_native(source: Source) -> bool:
    """True where a source holds a manifest."""
    return MANIFEST_FILE in source.sizes()


def _refuse_options(source: Source, options: ImportOptions) -> None:
    if options != ImportOptions(provenance=options.provenance):
        raise UsageError(
            f"{source.location} is an artefact of this product; import options do not apply",
            hint="Leave task, labels, template and limits out.",
        )
