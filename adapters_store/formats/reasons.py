"""Codes of reasons and notes: stable words that programs may branch on."""

from __future__ import annotations

REASONS: dict[str, str] = {
    "unknown_format": "no known configuration file, or one without the keys that tell its format",
    "unreadable": "a configuration or header that is not what its format says",
    "unsafe": "a pickle, link, special file or path that leaves the source",
    "too_large": "over a limit in bytes, files or tensors",
    "incompatible": "made for another backbone, or for sites that this one does not have",
    "unsupported_method": "a method that is not reduced to primitives here",
    "unsupported_option": "an option whose value changes the result and is not supported",
    "unknown_option": "an option that is not known and not at an empty default",
    "missing_tensor": "a tensor that the method needs is absent",
    "extra_tensor": "a tensor that nothing in the configuration explains",
    "shape_mismatch": "a tensor whose shape does not fit its site",
    "rank_mismatch": "a tensor's rank that the configuration does not explain",
    "dtype": "a dtype other than float32, float16 or bfloat16",
    "not_finite": "NaN or infinity in a tensor",
    "unmatched_target": "a target that no tensor and no site answers to",
    "outside_targets": "a tensor of a module that no target names; it is imported",
    "base_weights": "weights of the backbone itself, which all its adapters share",
    "recorded": "an option or a name that changes nothing here and is kept as a note",
    "unused_tensor": "a tensor, or a part of one, that its own library never reads",
    "no_effect": "an adapter that changes nothing",
}
