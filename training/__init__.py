"""Training: methods, objectives, the loop, evaluation, and compilation to primitives."""
