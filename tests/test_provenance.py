"""Captions say where numbers came from, and change with it."""

from __future__ import annotations

import pytest

from dissect.provenance import measured, samples_in_words
from rewrite_core import RuleStack
from rewrite_core.generators import LatentSpec
from tests.generators import small_generator, some_rule


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (LatentSpec.of(range(1000)), "1,000 samples (seeds 0-999)"),
        (LatentSpec.of([4, 5, 9], truncation=0.7), "3 samples (seeds 4-5, 9, truncation 0.7)"),
        (LatentSpec.of(range(2), "rows", label=3), "2 samples (rows 0-1, class 3)"),
    ],
)
def test_samples_are_named_with_all_that_they_depend_on(spec: LatentSpec, words: str):
    assert samples_in_words(spec) == words


def test_a_caption_names_the_generator_under_its_rules_and_who_judged():
    generator, spec = small_generator(), LatentSpec.of(range(8))
    edited = generator.with_rules(RuleStack().push(some_rule(generator)))
    plain, ruled = (measured("Effects.", one, spec, "colours") for one in (generator, edited))
    assert plain.startswith(
        f"Effects. Generator small ({generator.fingerprint[:12]}); 8 samples (seeds 0-7); concepts: colours."
    )
    assert edited.fingerprint[:12] in ruled
    assert "palimpsest" in ruled
