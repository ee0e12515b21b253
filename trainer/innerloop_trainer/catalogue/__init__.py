"""All that can be chosen by name: methods, and the parts that they are made of and trained with.

`kinds` says which registries there are, what is learned in each, and how a command takes a name of it. All else follows
from the registries and from docstrings, so what another distribution registers is listed like Innerloop's own.
"""

from innerloop_trainer.catalogue.description import describe
from innerloop_trainer.catalogue.kinds import FAMILIES, KINDS, Kind
from innerloop_trainer.catalogue.listing import Section, sections
from innerloop_trainer.catalogue.method import MethodDescription, describe_method
from innerloop_trainer.catalogue.part import PartDescription, describe_part

__all__ = [
    "FAMILIES",
    "KINDS",
    "Kind",
    "MethodDescription",
    "PartDescription",
    "Section",
    "describe",
    "describe_method",
    "describe_part",
    "sections",
]
