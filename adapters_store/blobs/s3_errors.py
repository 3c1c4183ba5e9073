"""What S3 and botocore refuse, as the product's typed errors with a hint for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from adapters_store.errors import ForbiddenError, PatchbayError, UnavailableError, UsageError

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

CREDENTIALS_HINT = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role."
)
PERMISSIONS_HINT = (
    "The key needs s3:ListBucket, s3:ListBucketMultipartUploads, s3:GetObject, s3:PutObject, "
    "s3:DeleteObject, s3:AbortMultipartUpload and s3:ListMultipartUploadParts there."
)
BUCKET_HINT = "Make the bucket, or correct `blobs` in the store's configuration."
REGION_HINT = "Correct `s3.region` and `s3.endpoint_url` in the store's configuration."
REQUEST_HINT = "Check `blobs`, `s3.region` and `s3.endpoint_url`, and that the key is still valid."

_MISSING_BUCKET = frozenset({"NoSuchBucket", "InvalidBucketName"})
_OTHER_REGION = frozenset(
    {"PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraint"}
)
_TEMPORARY = frozenset(
    {"BadDigest", "ConditionalRequestConflict", "OperationAborted", "RequestTimeTooSkewed",
     "RequestTimeout", "SlowDown", "ThrottlingException", "XAmzContentChecksumMismatch"}
)  # fmt: skip


@contextmanager
def typed_errors(location: str) -> Iterator[None]:
    """Raise UsageError, ForbiddenError or UnavailableError for what botocore raises.

    ``location`` is the ``s3://`` URL that the message names.
    """
    from botocore import exceptions as boto

    try:
        yield
    except boto.ClientError as error:
        raise _from_answer(error, location) from error
    except (
        boto.NoCredentialsError,
        boto.PartialCredentialsError,
        boto.CredentialRetrievalError,
        boto.TokenRetrievalError,
        boto.NoAuthTokenError,
        boto.SSOError,
    ) as error:
        raise UsageError(
            f"there are no usable credentials for {location}: {error}", hint=CREDENTIALS_HINT
        ) from error
    except (
        boto.HTTPClientError,
        boto.ConnectionError,
        boto.IncompleteReadError,
        boto.MetadataRetrievalError,
    ) as error:
        raise UnavailableError(
            f"{location} cannot be reached: {error}",
            hint="Check the network and `s3.endpoint_url`, then repeat the command.",
        ) from error
    except boto.BotoCoreError as error:
        raise UsageError(
            f"{location} cannot be used as it is configured: {error}", hint=REQUEST_HINT
        ) from error


def code_of(error: ClientError) -> str:
    """The service's code, such as ``NoSuchKey``; for an answer without a body its HTTP status."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """The answer's HTTP status."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _from_answer(error: ClientError, location: str) -> PatchbayError:
    code, status = code_of(error), status_of(error)
    message = f"{location}: {error}"
    if code in _MISSING_BUCKET:
        return UsageError(f"there is no bucket at {location}: {error}", hint=BUCKET_HINT)
    if code in _OTHER_REGION:
        return UsageError(f"{location} is in another region: {error}", hint=REGION_HINT)
    if status in (401, 403) and code not in _TEMPORARY:
        return ForbiddenError(message, hint=PERMISSIONS_HINT)
    if status >= 500 or status == 429 or code in _TEMPORARY:
        return UnavailableError(message, hint="The object store is failing; repeat the command.")
    return UsageError(message, hint=REQUEST_HINT)
