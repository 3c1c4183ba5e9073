"""The report of a run: one page of HTML with pictures, readable without a network."""
