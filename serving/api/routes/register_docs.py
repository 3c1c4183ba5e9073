"""The request bodies of registration as OpenAPI describes them."""

from __future__ import annotations

from typing import Any

from serving.api.schemas import InspectBody, RoutingBody, SourceBody, UploadFields

_FILE = {"type": "string", "format": "binary"}
_NATIVE = {"manifest": _FILE, "data": _FILE}
_FOREIGN = {"config": _FILE, "data": _FILE, "head_config": _FILE, "head": _FILE}


def _form(required: list[str]) -> dict[str, Any]:
    """Texts and files of a form that needs ``required`` and the files of one format."""
    texts = UploadFields.model_json_schema()["properties"]
    return {
        "schema": {
            "type": "object",
            "properties": {**texts, **_NATIVE, **_FOREIGN},
            "required": [*required, "data"],
            "oneOf": [{"required": ["manifest"]}, {"required": ["config"]}],
        }
    }


REGISTER_CONTENT: dict[str, Any] = {
    "multipart/form-data": _form(["name"]),
    "application/json": {
        "schema": {"oneOf": [SourceBody.model_json_schema(), RoutingBody.model_json_schema()]}
    },
}
INSPECT_CONTENT: dict[str, Any] = {
    "multipart/form-data": _form([]),
    "application/json": {"schema": InspectBody.model_json_schema()},
}
