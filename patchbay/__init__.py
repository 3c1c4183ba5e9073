"""The command line, the demo and the bundled backbone."""
