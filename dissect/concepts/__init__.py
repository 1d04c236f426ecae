"""Where pixel labels come from: painted concepts, segmenters, label maps on disk, colours.

source = open_concepts("colours", generator)
found = labelled(generator, spec, source)
"""

from dissect.concepts.catalogue import KINDS, Offer, known, open_concepts
from dissect.concepts.overlay import Agreement, Labelled, agreement, labelled, overlay, shares
from dissect.concepts.palette import colour_of, colours_of
from dissect.concepts.source import ConceptSource, require_pixels_only

__all__ = [
    "KINDS",
    "Agreement",
    "ConceptSource",
    "Labelled",
    "Offer",
    "agreement",
    "colour_of",
    "colours_of",
    "known",
    "labelled",
    "open_concepts",
    "overlay",
    "require_pixels_only",
    "shares",
]
