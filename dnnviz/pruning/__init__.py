"""Pruning: which units a network can do without, what that saves, and what it really costs in accuracy.

`registry`, `criteria` and `keys` are read by pages and import no torch; `costs`, `program`, `export` and `task` run in the job.
"""
