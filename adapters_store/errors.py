"""Every failure the product reports to a user, in one table of types.

Each class carries a stable ``code`` (machines), an HTTP status, a process exit code and a hint
that says how to go on. The message says what happened, where, what was expected and what was
found. Lower layers raise these at the edge; nothing above invents its own mapping.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_CONFLICT = 4
EXIT_INVALID = 5
EXIT_INCOMPATIBLE = 6
EXIT_FORBIDDEN = 7
EXIT_UNAVAILABLE = 8


class PatchbayError(Exception):
    """Base of all typed errors: ``message`` says what, where, expected and found."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = "This is a defect: please report it with the request id."

    def __init__(self, message: str, *, hint: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint if hint is not None else self.default_hint
        self.param = param


class UsageError(PatchbayError):
    """A request, flag or configuration value that cannot be understood."""

    code = "invalid_request"
    status = 400
    exit_code = EXIT_USAGE
    default_hint = "Check the value against the documentation or `--help`."


class InvalidNameError(UsageError):
    """A tenant, adapter or alias name, or a whole reference, outside the grammar."""

    code = "invalid_name"
    status = 422
    default_hint = "References read tenant/name, tenant/name@alias, tenant/name:7 or @sha256:<hex>."


class NotFoundError(PatchbayError):
    """A reference that names nothing stored."""

    code = "not_found"
    status = 404
    exit_code = EXIT_NOT_FOUND
    default_hint = "List what exists with `patchbay adapters ls` or GET /v1/models."


class DeletedError(PatchbayError):
    """A reference to something that existed and was deleted."""

    code = "deleted"
    status = 410
    exit_code = EXIT_NOT_FOUND
    default_hint = "Restore it, publish anew, or choose one of `patchbay adapters versions NAME`."


class ConflictError(PatchbayError):
    """A change that lost against another one, or that the present state forbids."""

    code = "conflict"
    status = 409
    exit_code = EXIT_CONFLICT
    default_hint = "Read the present state, then repeat the change on top of it."


class InvalidArtefactError(PatchbayError):
    """An artefact that breaks the format: keys, shapes, dtypes, values, digests or sizes."""

    code = "invalid_artefact"
    status = 422
    exit_code = EXIT_INVALID
    default_hint = "Publish again from the training run; nothing of this artefact was stored."


class UnsafeArtefactError(InvalidArtefactError):
    """An artefact in a format that could run code when read, such as a pickle."""

    code = "unsafe_artefact"
    default_hint = "Give plain files; `patchbay adapters convert` makes safetensors of a pickle."


class ArtefactTooLargeError(InvalidArtefactError):
    """An artefact, header or field over its size limit."""

    code = "artefact_too_large"
    status = 413
    default_hint = "Raise the store's limit if this size is intended."


class RejectedArtefactError(InvalidArtefactError):
    """A foreign adapter that an import would have to approximate, or cannot read."""

    code = "rejected_artefact"
    default_hint = "Run `patchbay adapters inspect` on it; nothing of it was stored."


class IncompatibleError(PatchbayError):
    """A sound artefact that belongs to another backbone, family or bank."""

    code = "incompatible"
    status = 422
    exit_code = EXIT_INCOMPATIBLE
    default_hint = "Train or publish the adapter for the backbone that is served here."


class NotServedError(IncompatibleError):
    """A sound artefact with an effect that this server's engine does not run."""

    code = "not_served"
    default_hint = "Publish it to a store by the command, or serve it where its primitives run."


class CorruptStoreError(PatchbayError):
    """Stored bytes that no longer match their digest."""

    code = "corrupt_store"
    status = 503
    exit_code = EXIT_INVALID
    default_hint = "Run `patchbay adapters verify` and push the damaged version again."


class ForbiddenError(PatchbayError):
    """A key without the scope for this call."""

    code = "forbidden"
    status = 403
    exit_code = EXIT_FORBIDDEN
    default_hint = "Use a key with the needed scope."


class UnsignedError(ForbiddenError):
    """An artefact without a valid signature where the tenant's artefacts must have one."""

    code = "unsigned"
    default_hint = "Sign it with a trusted key: `patchbay adapters sign REFERENCE --key FILE`."


class UnauthorizedError(PatchbayError):
    """A missing or unknown key."""

    code = "unauthorized"
    status = 401
    exit_code = EXIT_FORBIDDEN
    default_hint = "Send `Authorization: Bearer <key>`."


class OverloadedError(PatchbayError):
    """A full queue; the client should retry after ``retry_after_s``."""

    code = "overloaded"
    status = 429
    exit_code = EXIT_UNAVAILABLE
    default_hint = "Retry after the time in Retry-After, or add replicas."
    retry_after_s: ClassVar[int] = 1


class UnavailableError(PatchbayError):
    """A part of the system that is not up, or went away while answering."""

    code = "unavailable"
    status = 503
    exit_code = EXIT_UNAVAILABLE
    default_hint = "Retry in a moment; /ready tells when the backbone is up."


class TrainingError(PatchbayError):
    """A run that cannot go on: bad data, a label outside the set, a loss that is not finite."""

    code = "training_failed"
    status = 422
    exit_code = EXIT_INVALID
    default_hint = "The message names the step or the row; fix it and resume the run."


class NotFiniteError(PatchbayError):
    """A row whose numbers overflowed while it was served, most likely because of its adapter."""

    code = "not_finite"
    status = 422
    exit_code = EXIT_INVALID
    default_hint = "Check the adapter's scale and weights; other requests are not affected."
