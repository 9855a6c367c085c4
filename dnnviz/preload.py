"""Imported once by the process that jobs are forked from, so that a job starts in a fraction of a second.

Importing is all that happens here: a process that has computed with several threads must not be forked.
"""

import atexit
import importlib
import logging
import os

# Jobs inherit this: the browser's requests come first, and the first page does not wait for these imports.
os.nice(2)

MODULES = (
    "torch",
    "dnnviz.worker",
    "dnnviz.explain.task",
    "dnnviz.explain.shortcuts.task",
    "dnnviz.explain.trust.task",
    "dnnviz.project.task",
    "openTSNE",
    "umap",
)

for _name in MODULES:
    try:
        importlib.import_module(_name)
    except Exception as error:
        # The job that needs the module reports it to the person who asked; the others must still start.
        logging.getLogger("dnnviz").warning("%s could not be loaded ahead of time: %s", _name, error)

try:
    # Most runs are of torchvision's networks; it is imported with care (see there), hence not by its name.
    importlib.import_module("dnnviz.models").import_torchvision()
except Exception as error:
    logging.getLogger("dnnviz").warning("torchvision could not be loaded ahead of time: %s", error)

# When the app is gone this process has nothing to save; taking torch apart in order would keep it for another second.
atexit.register(os._exit, 0)
