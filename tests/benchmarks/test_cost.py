"""The cost benchmark runs, and its operation counts are what theory says: F to 2F, 3F to 6F."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks.cost import main
from energydiff.evaluation.cost import operations, peak_bytes


def test_quick_run_writes_rows_and_targets(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    threads = torch.get_num_threads()
    try:
        main(["--quick", "--device", "cpu", "--json", str(tmp_path / "cost.json")])
    finally:
        torch.set_num_threads(threads)
    assert "targets" in capsys.readouterr().out
    result = json.loads((tmp_path / "cost.json").read_text())
    assert {target["target"] for target in result["targets"]} == {2.0, 2.3, 1.10, 1.55}
    assert all({"name", "value", "target"} == set(target) for target in result["targets"])
    assert len(result["targets"]) == len(result["rows"]) == 3 * 4 + 2
    for row in result["rows"]:
        if row["quantity"] in ("training step", "denoiser call"):
            # The MLP's conditioning is half of it and does not depend on x: it is not doubled.
            least, most = (1.4 if row["case"].startswith("mlp") else 1.8), 2.1
            if row["case"].startswith("energy"):  # of another network than the baseline
                least, most = 0.8, 1.1
            assert least < row["operations_ratio"] < most, row
            assert row["memory_ratio"] > 1
        else:
            assert 1.2 < row["operations_ratio"] < 2.0, row


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
