"""Generators, and how each family becomes one."""

from rewrite_core.generators.checkpoint import (
    SUFFIXES,
    draft_description,
    embedded_folder,
    embedded_names,
    open_generator,
    open_source,
)
from rewrite_core.generators.device import devices, find_device
from rewrite_core.generators.export import FORMS, Form, export, exported
from rewrite_core.generators.generator import (
    EPSILON,
    MICRO_BATCH,
    Box,
    Generator,
    Layer,
    LayerInput,
    Progress,
)
from rewrite_core.generators.latents import Latents, LatentSpec
from rewrite_core.generators.noise import NoiseSource, NoNoise, SeededNoise, StoredNoise
from rewrite_core.generators.proggan import ProgGANGenerator
from rewrite_core.generators.sequential import SequentialGenerator, from_sequential
from rewrite_core.generators.source import Source
from rewrite_core.generators.stylegan2 import StyleGAN2Generator
from rewrite_core.generators.stylegan2_ada import StyleGAN2AdaGenerator
from rewrite_core.generators.stylegan3 import StyleGAN3Generator

__all__ = [
    "EPSILON",
    "FORMS",
    "SUFFIXES",
    "MICRO_BATCH",
    "Box",
    "Form",
    "Generator",
    "LatentSpec",
    "Latents",
    "Layer",
    "LayerInput",
    "NoNoise",
    "NoiseSource",
    "ProgGANGenerator",
    "Progress",
    "SeededNoise",
    "SequentialGenerator",
    "Source",
    "StoredNoise",
    "StyleGAN2AdaGenerator",
    "StyleGAN2Generator",
    "StyleGAN3Generator",
    "devices",
    "draft_description",
    "embedded_folder",
    "embedded_names",
    "export",
    "exported",
    "find_device",
    "from_sequential",
    "open_generator",
    "open_source",
]
