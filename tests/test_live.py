"""What a page tries live: the pictures are those that an intervention draws from the start, and sets of units."""

from __future__ import annotations

import numpy as np
import pytest

from dissect.choosing import best_units
from dissect.interventions import ablate, insert, sample
from dissect.live import stop
from dissect.signed import signed
from dissect.units import dissect
from rewrite_core import LatentSpec, Mask
from rewrite_core.errors import LayerError, RequestError
from rewrite_core.pictures import to_uint8
from tests.generators import DOWN, PLAIN, UP, small_generator
from tests.planted import DRAWS, SHAPES, Shapes, planted_generator

SPEC = LatentSpec.of(range(7))


def test_drawing_on_gives_the_pictures_that_drawing_from_the_start_gives():
    generator = small_generator()
    stopped = stop(generator, SPEC, PLAIN)
    region = Mask.rectangle(generator.picture_size, 2, 2, 9, 11)
    made = [insert(PLAIN, [1, 4], [3.0, -1.0], region=region), ablate(DOWN, [2])]
    assert np.array_equal(stopped.pictures, to_uint8(generator.sample(SPEC)))
    assert np.array_equal(stopped.drawn([]), stopped.pictures)
    assert np.array_equal(stopped.drawn(made), to_uint8(sample(generator, SPEC, made)))
    assert (stopped.drawn(made) != stopped.pictures).any()
    assert stopped.nbytes > stopped.pictures.nbytes


def test_what_lies_before_the_layer_cannot_be_drawn_on():
    with pytest.raises(LayerError):
        stop(small_generator(), SPEC, PLAIN).drawn([ablate(UP, [0])])


@pytest.mark.parametrize("colour", ["red", "green", "blue"])
def test_the_units_most_like_a_concept_are_those_that_draw_it(colour):
    generator = planted_generator()
    found = dissect(generator, LatentSpec.of(range(48)), [SHAPES], Shapes(unseen=True)).layers[SHAPES]
    drawing = DRAWS[SHAPES][colour]
    assert set(best_units(found, colour, len(drawing))) == set(drawing)
    assert best_units(found, "purple", 3) == ()
    with pytest.raises(RequestError, match="'yellow'"):
        best_units(found, "yellow", 1)


def test_more_is_red_less_is_blue_and_none_is_grey():
    picture = signed(np.array([[-0.2, 0.0, 0.2, 0.1]]))
    blue, grey, red, half = picture[0].astype(int)
    assert blue[2] > blue[0] + 100
    assert red[0] > red[2] + 100
    assert len(set(grey)) == 1
    assert grey.sum() > half.sum() > red.sum()
    assert (signed(np.zeros((2, 3, 3))) == grey).all()
    assert np.array_equal(signed(np.array([[0.9]]), limit=0.2)[0, 0], red)
