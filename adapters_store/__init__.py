"""The registry: artefacts, their validation, their names and where their bytes live."""
