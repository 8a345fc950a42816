"""The cost benchmark runs, and its operation counts are what theory says: F to 2F, 3F to 6F."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks.cost.__main__ import main
from benchmarks.cost.cases import CASES, QUICK_CASES
from benchmarks.cost.peers import MISSING
from benchmarks.cost.rows import Row
from benchmarks.cost.table import targets
from energydiff.evaluation.cost import Ratio, Timing, operations, peak_bytes

TORCHEBM = find_spec("torchebm") is not None


def test_quick_run_writes_rows_and_targets(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    threads = torch.get_num_threads()
    try:
        main(["--quick", "--device", "cpu", "--json", str(tmp_path / "cost.json")])
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert "targets" in printed and (MISSING in printed) is not TORCHEBM
    result = json.loads((tmp_path / "cost.json").read_text())
    expected = {1.0, 1.10, 2.0, 2.1, 2.3, 1.55, 200} | ({0.45} if TORCHEBM else set())
    assert {target["target"] for target in result["targets"]} == expected
    assert all({"name", "value", "target"} == set(target) for target in result["targets"])
    rows = result["rows"]
    peers = {"plain autograd", "torchebm"} if TORCHEBM else {"plain autograd"}
    assert len(rows) == 6 * 2 + 2 * 2 * len(peers) + 2
    for case in ("mlp 8x8", "published block 16 tokens"):
        assert {row["reference"] for row in rows if row["case"] == case} >= peers
    for row in rows:
        if row["reference"] in peers:  # the same products, differentiated in another way
            assert 0.9 < row["operations_ratio"] < 1.2, row
            assert row["mebibytes"] > 0
        elif row["quantity"] in ("training step", "denoiser call"):
            # The MLP's conditioning is half of it and does not depend on x: it is not doubled.
            least, most = (1.4 if row["case"].startswith("mlp") else 1.8), 2.1
            if row["case"].startswith(("energy", "published")):  # of another network
                least, most = 0.8, 1.2
            assert least < row["operations_ratio"] < most, row
        else:
            assert 1.2 < row["operations_ratio"] < 2.0, row


def test_targets_are_those_of_the_case() -> None:
    def row(quantity: str, reference: str, time: float, mebibytes: float | None = None) -> Row:
        contestant = "trace and certificate" if reference == "neither" else "energy"
        case = "published block 16 tokens" if mebibytes else "mlp 8x8"
        return Row(
            case, quantity, contestant, reference, 1.0, time, time, time, None, None, mebibytes
        )

    rows = [
        row("training step", "baseline", 1.5),
        row("training step", "torchebm", 0.9),
        row("denoiser call", "baseline", 1.7),
        row("Euler, 3 steps", "neither", 1.4),
        row("training step", "baseline", 1.2, 190.0),
        row("training step", "torchebm", 0.4, 190.0),
    ]
    assert [(t["value"], t["target"]) for t in targets(QUICK_CASES, rows)] == [
        (1.5, 2.1),
        (1.7, 2.0),
        (1.4, 1.55),
        (190.0, 200),
        (0.4, 0.45),
    ]


def test_every_case_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_ratio_is_taken_round_by_round() -> None:
    slow, fast = Timing((4.0, 20.0, 6.0)), Timing((2.0, 5.0, 2.0))
    assert slow.seconds == 6.0
    assert slow.over(fast) == Ratio(3.0, 2.0, 4.0)
    assert Timing((3.0,)).over(Timing((2.0,))) == Ratio(1.5, 1.5, 1.5)


def test_operations_of_a_product_and_its_gradient() -> None:
    a, b = torch.randn(3, 4, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    forward = 2 * 3 * 4 * 5
    assert operations(lambda: a @ b) == forward
    assert operations(lambda: (a @ b).sum().backward()) == 3 * forward


def test_operations_of_fused_attention() -> None:
    """Two products forward, five in the backward, which makes one of them again."""
    q, k, v = (torch.randn(2, 3, n, 8, requires_grad=True) for n in (5, 7, 7))
    product = 2 * (2 * 3) * 5 * 7 * 8
    forward = F.scaled_dot_product_attention
    assert operations(lambda: forward(q, k, v)) == 2 * product
    assert operations(lambda: forward(q, k, v).sum().backward()) == 7 * product


def test_peak_counts_what_is_alive_at_once() -> None:
    x = torch.zeros(1000)

    def work() -> None:
        for _ in range(5):
            y = x + 1
            y.add_(1)
        y.view(10, 100)

    assert peak_bytes(work, "cpu") == 2 * x.nbytes  # the new y is made before the old one goes
