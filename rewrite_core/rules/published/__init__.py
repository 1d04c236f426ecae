"""The published algorithm, for tests, baselines and benchmarks only: nothing the app does goes through here.

What the code of Bau et al., *Rewriting a Deep Generative Model* (ECCV 2020, arXiv 2007.15646) computes, its errors
included, so that ours can be held against it: its noise by place in the batch, its cropped goals, its loop that
shows the loss of a weight it does not keep. It reproduces arrays which that code produced; `tests/test_published.py`
says to what tolerance.

    generator = open_generator("stylegan2.pt")
    edit = published_edit(generator, EditRequest.load("edit.json"), PublishedSettings(iterations=501))
    edit.solution.losses, edit.solution.loss       # shown, and true
    edit.generator.sample(LatentSpec.of(range(8), "rows"))

    settings.py  the schedule and the variants
    layer.py     noise, and where a layer is cut out
    context.py   second moment, context, directions, search
    goal.py      copy and paste, erase, the tight crop
    solve.py     Adam and project; gradient projection, full rank, linear insert, zero
    edit.py      all of it
"""

from rewrite_core.rules.published.context import (
    published_context,
    published_directions,
    published_matches,
    published_second_moment,
    published_units,
)
from rewrite_core.rules.published.edit import PublishedEdit, only_context, published_edit
from rewrite_core.rules.published.goal import (
    cropped,
    published_copy,
    published_erase,
    published_erased_units,
    published_paste,
)
from rewrite_core.rules.published.layer import (
    PublishedNoise,
    as_published,
    drawn,
    memory_keys,
    published_noise,
)
from rewrite_core.rules.published.settings import PublishedSettings, Split, Variant
from rewrite_core.rules.published.solve import (
    PublishedSolution,
    projection,
    published_loss,
    published_solve,
    published_zero,
)

__all__ = [
    "PublishedEdit",
    "PublishedNoise",
    "PublishedSettings",
    "PublishedSolution",
    "Split",
    "Variant",
    "as_published",
    "cropped",
    "drawn",
    "memory_keys",
    "only_context",
    "projection",
    "published_context",
    "published_copy",
    "published_directions",
    "published_edit",
    "published_erase",
    "published_erased_units",
    "published_loss",
    "published_matches",
    "published_noise",
    "published_paste",
    "published_second_moment",
    "published_solve",
    "published_units",
    "published_zero",
]
