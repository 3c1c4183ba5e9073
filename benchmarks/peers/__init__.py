"""Served tokens a second beside vLLM and PEFT, each in an environment of its own."""
