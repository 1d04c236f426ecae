"""Where pixel labels come from: painted concepts, segmenters, label maps on disk, colours."""

from dissect.concepts.source import ConceptSource, require_pixels_only

__all__ = ["ConceptSource", "require_pixels_only"]
