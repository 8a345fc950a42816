"""Many samples: the same whatever the batch."""

import pytest
import torch

from energydiff.drawing import Drawing, draw_features, draw_samples
from energydiff.energies import GaussianMixture
from energydiff.errors import UserError
from energydiff.random import sample_seed
from energydiff.sampling import Euler, SequentialMonteCarlo, karras_sigmas

ENERGY = GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), 0.1)
EULER = Euler(karras_sigmas(4, 0.02, 10.0), final_denoise=True)
CPU = Drawing(seed=3, accelerator="cpu")


def test_what_is_drawn_and_recorded_does_not_depend_on_the_batch() -> None:
    whole, parts = (
        draw_samples(ENERGY, EULER, range(7), Drawing(3, (), size, 1, "cpu")) for size in (7, 3)
    )
    torch.testing.assert_close(whole.samples, parts.samples)
    assert whole.trace is not None and parts.trace is not None
    torch.testing.assert_close(whole.trace.free_energy, parts.trace.free_energy)


def test_any_numbers_are_those_of_the_whole_set() -> None:
    whole = draw_samples(ENERGY, EULER, range(9), CPU, trace=False)
    assert whole.trace is None
    part = draw_features(ENERGY, EULER, range(4, 9), CPU, lambda x: 2 * x)
    torch.testing.assert_close(part, 2 * whole.samples[4:])


def test_one_batch_is_the_sampler_under_the_seeds_of_its_numbers() -> None:
    seeds = [sample_seed(3, number) for number in (5, 2)]
    drawn = CPU.draw(ENERGY, EULER, [5, 2])
    assert torch.equal(drawn.samples, EULER(ENERGY, seeds=seeds).samples)


def test_a_label_the_model_has_not_and_no_number_at_all_are_refused() -> None:
    with pytest.raises(UserError, match="label is 1, but this model has 0 classes"):
        draw_samples(ENERGY, EULER, range(2), Drawing(labels=(1,)))
    with pytest.raises(UserError, match="num_samples is 0"):
        draw_samples(ENERGY, EULER, range(0), CPU)


def test_populations_are_drawn_whole_whatever_the_batch() -> None:
    """Of four, in batches of less than one and of one and a half; and their lines with them."""
    sampler = SequentialMonteCarlo(karras_sigmas(4, 0.02, 10.0), True, particles=4, threshold=1.0)
    wholes = [
        draw_samples(ENERGY / 0.5, sampler, range(12), Drawing(3, (), size, 1, "cpu"))
        for size in (12, 6, 2)
    ]
    for other in wholes[1:]:
        torch.testing.assert_close(other.samples, wholes[0].samples)
        assert other.trace is not None and wholes[0].trace is not None
        assert torch.equal(other.trace.ancestor, wholes[0].trace.ancestor)
    part = draw_samples(ENERGY / 0.5, sampler, range(4, 12), CPU)
    torch.testing.assert_close(part.samples, wholes[0].samples[4:])
    for numbers in (range(10), range(2, 6)):
        with pytest.raises(UserError, match="no whole populations of 4"):
            draw_samples(ENERGY, sampler, numbers, CPU)


def test_populations_take_labels_in_turn() -> None:
    asked: list[list[int]] = []

    class Watched(Euler):
        population = 2

        def __call__(self, model, *, label, **others):  # type: ignore[no-untyped-def, override]
            asked.append(label.tolist())

    Drawing(labels=(0, 1)).draw(ENERGY, Watched(karras_sigmas(2)), range(4, 10))
    assert asked == [[0, 0, 1, 1, 0, 0]]
