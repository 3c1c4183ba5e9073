"""The request bodies of registration as OpenAPI describes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from serving.api.schemas import ImportFields, InspectBody, RoutingBody, SourceBody, UploadFields

_FILE = {"type": "string", "format": "binary"}
_NATIVE = {"manifest": _FILE, "data": _FILE}
_FOREIGN = {"config": _FILE, "data": _FILE, "head_config": _FILE, "head": _FILE}


def _form(texts: type[BaseModel]) -> dict[str, Any]:
    """A form of these texts and the files of one format."""
    schema = texts.model_json_schema()
    return {
        "schema": {
            "type": "object",
            "properties": {**schema["properties"], **_NATIVE, **_FOREIGN},
            "required": [*schema.get("required", ()), "data"],
            "oneOf": [{"required": ["manifest"]}, {"required": ["config"]}],
        }
    }


REGISTER_CONTENT: dict[str, Any] = {
    "multipart/form-data": _form(UploadFields),
    "application/json": {
        "schema": {"oneOf": [SourceBody.model_json_schema(), RoutingBody.model_json_schema()]}
    },
}
INSPECT_CONTENT: dict[str, Any] = {
    "multipart/form-data": _form(ImportFields),
    "application/json": {"schema": InspectBody.model_json_schema()},
}
