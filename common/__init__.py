"""The shelf: what is dull, and the same in every lesson."""
