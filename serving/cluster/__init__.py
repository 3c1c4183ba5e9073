"""The Ray Serve application and its local runner."""
