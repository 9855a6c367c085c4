"""Attacks: the small change of an image that makes a network name another class, what it does inside, and how to notice it.

`METHODS` can be read without importing torch; `attack` imports it when called. A method is one file in `methods`.
"""

from dnnviz.attack import methods
from dnnviz.attack.perform import Outcome, attack
from dnnviz.attack.registry import METHODS, Method

METHODS.load(methods, lambda method: (method.year, method.title))

__all__ = ["METHODS", "Method", "Outcome", "attack"]
