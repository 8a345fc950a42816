"""Scaling on paper follows its formulae from what is counted, and two processes train as one."""

from pathlib import Path

import pytest

from benchmarks.scaling import Machine, main, on_paper, plan
from energydiff.errors import UserError
from energydiff.potentials import EnergyTransformer, UNet

UNET, TRANSFORMER = (
    f"configs/digits/energy_{n}.yaml:1x8x8" for n in ("inner_product", "transformer")
)
MACHINE = Machine(peak=1e12, inside=4e9, between=1e9, node=8, latency=1e-6)


def weights(network: UNet | EnergyTransformer) -> int:
    return sum(p.numel() for p in network.parameters())


def test_one_unit_sends_what_a_sum_of_gradients_does() -> None:
    counted = plan(UNET)
    network = UNet((1, 8, 8), 16, (1, 2), 1, attention_resolutions=(4,))
    assert (counted.weights, counted.images, counted.parts) == (weights(network), 64, [])
    ddp, fsdp2 = (on_paper(counted, 4, strategy, MACHINE) for strategy in ("ddp", "fsdp2"))
    assert ddp.megabytes == fsdp2.megabytes == pytest.approx(2 * 3 / 4 * 4e-6 * weights(network))
    assert ddp.sending == pytest.approx(1e6 * ddp.megabytes / 4e9)
    assert ddp.computing == pytest.approx(16 * counted.operations / 1e12)
    assert ddp.arriving == pytest.approx(4 * 2 * 1e-6)
    far = on_paper(counted, 16, "ddp", MACHINE)
    assert far.sending > 4 * ddp.sending
    assert far.balance * counted.operations / 1e12 == pytest.approx(far.sending + far.arriving)


def test_parts_are_sent_three_times_a_call() -> None:
    """Blocks of a trunk are called forth and back, terms once."""
    counted = plan(TRANSFORMER)
    assert {calls for _, calls in counted.parts} == {1, 2}
    of_parts = sum(size for size, _ in counted.parts)
    assert 0 < of_parts < counted.weights
    sent = on_paper(counted, 2, "fsdp2", MACHINE).megabytes * 1e6
    again = sum(3 * calls * size for size, calls in counted.parts)
    assert sent == pytest.approx(0.5 * 4 * (2 * (counted.weights - of_parts) + again))


def test_files_stack_and_a_shape_that_is_nowhere_is_a_sentence(tmp_path: Path) -> None:
    upper = tmp_path / "upper.yaml"
    upper.write_text("data: {batch_size: 7}\n")
    file, _, shape = UNET.partition(":")
    stacked = plan(f"{file}+{upper}:{shape}")
    assert (stacked.images, stacked.weights) == (7, plan(UNET).weights)
    with pytest.raises(UserError, match="does not say the shape of its samples: give it as"):
        plan(file)


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one() -> None:
    rows = main(["--images", "640", "--rounds", "1"])
    assert [row["processes"] for row in rows] == ["1", "2 ddp", "2 fsdp2"]
    assert rows[0]["efficiency"] == 1
    for row in rows:
        assert row["steps"] == 10 and row["loss_off_by"] < 1e-5 and row["efficiency"] > 0
