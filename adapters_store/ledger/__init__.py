"""What the registry remembers: events, tags, lineage, evaluations, leases, pins and retention."""
