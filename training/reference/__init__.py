"""The reference: the slow, plain forward of any artefact on the unmodified Hugging Face model.

Importers and fast paths are held to it. One file per primitive, found through REFERENCES.
"""

from __future__ import annotations

from training.reference.adapted import REFERENCES, Adapted, applied

__all__ = ["REFERENCES", "Adapted", "applied"]
