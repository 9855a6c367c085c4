"""The errors that carry a sentence for the user."""


class DNNVizError(Exception):
    """Something the user can mend; the message says what is wrong, where, and what to do.

    The command line prints it and ends with exit code 2, a page shows it in an alert.
    """


class RunError(DNNVizError):
    """A folder is not a run, or a run is damaged, locked or does not hold what was asked for."""
