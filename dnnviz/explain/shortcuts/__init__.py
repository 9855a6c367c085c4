"""Shortcuts: does a class lean on something beside its object? Mean maps, evidence at border and corners, clusters of the maps.

`keys` (what is asked and what is stored) and `measures` are read by the web process; `clusters` and `task` belong to the job.
"""
