"""A run's health: what a colleague should look at first. One function a check; `diagnose` runs all of them and ranks what they find."""

from __future__ import annotations

from dataclasses import replace

from dnnviz.analysis.diagnosis import calibration, classes, preprocessing, scale, tampered, training, units  # noqa: F401, each registers its checks
from dnnviz.analysis.diagnosis.finding import CHECKS, SEVERITIES, UNKNOWN, Finding, Subject
from dnnviz.errors import DNNVizError

__all__ = ["CHECKS", "SEVERITIES", "Finding", "Subject", "diagnose"]


def diagnose(subject: Subject) -> list[Finding]:
    """What every check finds, what needs attention first; a check that cannot tell is UNKNOWN with its reason."""
    found = [_one(subject, name) for name in CHECKS]
    return sorted(found, key=lambda finding: (list(SEVERITIES).index(finding.severity), -finding.weight))


def _one(subject: Subject, name: str) -> Finding:
    try:
        return replace(CHECKS[name].run(subject), check=name)
    except DNNVizError as error:
        return Finding(UNKNOWN, str(error), check=name)
