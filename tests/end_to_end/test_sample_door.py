"""``energydiff sample``: the folder it leaves, its exit codes, and what it says when it cannot."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import energydiff
from energydiff.data import Digits, Normalization
from energydiff.denoisers import EnergyDenoiser, build_denoiser
from energydiff.energies import Denoiser, EmpiricalData, GaussianMixture, NoiseRange
from energydiff.errors import UserError
from energydiff.potentials import MLP
from energydiff.registry import import_modules
from energydiff.report import load_trace
from energydiff.sampling import Trace, certify, karras_sigmas
from energydiff.saving import SavedModel

LAZY = """
from energydiff.sampling import Sampler

class Lazy(Sampler):
    def __init__(self, sigmas, final_denoise=False, *, part: float = 1.0):
        super().__init__(sigmas, final_denoise)
        self.part = part

    def step(self, run, here, sigma):
        return here.x - self.part * (1 - sigma / here.sigma) * here.residual
"""
COUNT, STEPS = 5, 4
ALONE = ("samples.npz", "sampling.json")  # of vectors, without a record
POINTS = STEPS + 2  # the start, the steps and the final denoising


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def sampled(export, door, out: Path) -> Path:
    """The folder that a few samples of an energy leave."""
    done = door(
        *("sample", export(), "--num_samples", COUNT, "--steps", STEPS, "--out", out),
        *("--accelerator", "cpu"),
    )
    assert done.code == 0, done.err
    return out


def read_json(file: Path) -> dict:
    return json.loads(file.read_text())


def arrays(file: Path) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as archive:
        return dict(archive)


def test_everything_is_there(sampled: Path) -> None:
    assert {str(file.relative_to(sampled)) for file in sampled.rglob("*")} == {
        *("samples.npz", "grid.png", "images", *(f"images/{i:06d}.png" for i in range(COUNT))),
        *("trace.npz", "trace.json", "free_energy.png", "certificate.json", "sampling.json"),
    }


def test_samples_raw_values_and_images_are_one_thing(sampled: Path) -> None:
    """Model coordinates −1..1 are raw 0..16 and pixels 0..255."""
    found = arrays(sampled / "samples.npz")
    assert found["samples"].shape == found["raw"].shape == (COUNT, 1, 4, 4)
    assert found["samples"].dtype == np.float32
    assert found["images"].shape == (COUNT, 4, 4, 1) and found["images"].dtype == np.uint8
    np.testing.assert_allclose(found["raw"], (found["samples"] + 1) * 8, atol=1e-5)
    shown = np.clip(found["samples"][:, 0] * 127.5 + 128, 0, 255).astype(np.uint8)
    assert np.array_equal(found["images"][..., 0], shown)
    for i, pixels in enumerate(shown):
        assert np.array_equal(np.asarray(Image.open(sampled / f"images/{i:06d}.png")), pixels)


def test_the_trace_says_what_its_arrays_mean(sampled: Path) -> None:
    found, described = arrays(sampled / "trace.npz"), read_json(sampled / "trace.json")
    assert found.keys() == described["arrays"].keys()
    for name, array in found.items():
        assert described["arrays"][name]["shape"] == list(array.shape)
        assert len(described["arrays"][name]["meaning"]) > 20
    assert found["sigma"].shape == (POINTS,)
    assert found["free_energy"].shape == (POINTS, COUNT)
    assert found["descent"].shape == (POINTS - 1, COUNT)


def test_the_certificate_is_that_of_the_trace(sampled: Path) -> None:
    found = {name: torch.from_numpy(a) for name, a in arrays(sampled / "trace.npz").items()}
    trace = Trace(claim=read_json(sampled / "trace.json")["claim"], **found)
    assert trace.digest == read_json(sampled / "trace.json")["digest"]
    written = read_json(sampled / "certificate.json")
    for name, value in certify(trace).as_dict().items():
        assert written[name] == value
    assert written["settings"]["steps"] == STEPS
    assert written["nfe"] == 2 * STEPS + 1  # Heun, and the final denoising


def test_a_saved_trace_is_read_back_and_certified(sampled: Path) -> None:
    certificate = certify(load_trace(sampled))
    assert certificate.steps == (POINTS - 1) * COUNT
    assert certificate.claim == read_json(sampled / "certificate.json")["claim"]


def test_a_saved_trace_that_was_edited_is_refused(sampled: Path) -> None:
    found = arrays(sampled / "trace.npz")
    found["descent"][0, 0] -= 1e-3
    np.savez_compressed(sampled / "trace.npz", **found)
    with pytest.raises(UserError, match="changed after it was recorded"):
        certify(load_trace(sampled))


def test_no_trace_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no trace"):
        load_trace(tmp_path)


@pytest.mark.parametrize(
    ("sampler", "claim"),
    [
        ("guarded_heun", "observed"),
        ("guarded_euler", "observed"),
        ("guarded_dpm_solver_2m", "observed"),
        ("dpm_solver_2m", "observed"),
        *((name, "stochastic") for name in ("ancestral", "churn", "langevin", "mala", "hmc")),
    ],
)
def test_every_sampler_has_a_name(sampler: str, claim: str, export, door, out: Path) -> None:
    """In batches, so that traces of guards and chains join."""
    options = ["--num_samples", 3, "--batch_size", 2, "--steps", 2, "--out", out]
    done = door("sample", export(), "--sampler", sampler, *options, "--accelerator", "cpu")
    assert done.code == 0, done.err
    certificate = read_json(out / "certificate.json")
    assert certificate["claim"] == claim
    assert certificate["descent_claim"] == ("enforced" if "guarded" in sampler else claim)
    if claim == "stochastic":
        assert certificate["holds"] is None and "makes no claim" in done.out


def test_options_of_a_sampler_are_passed_on_and_recorded(export, door, out: Path) -> None:
    """--step_size is short for one of them."""
    options = ["--sampler", "hmc", "--sampler_options.leaps", 3, "--sampler_options.updates", 2]
    options += ["--step_size", 0.3, "--num_samples", 2, "--steps", 2, "--out", out]
    done = door("sample", export(), *options, "--accelerator", "cpu")
    assert done.code == 0, done.err
    written = read_json(out / "certificate.json")
    assert written["settings"]["sampler_options"] == {"leaps": 3, "updates": 2, "step_size": 0.3}
    assert written["settings"]["steps"] == 3 * 2  # two moves at each level
    assert written["nfe"] == 3 * 6 + 3  # leaps, and every level's first point


def test_a_sampler_of_ones_own_goes_by_its_import_path(
    export, door, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lazy_sampler.py").write_text(LAZY)
    monkeypatch.syspath_prepend(tmp_path)
    import_modules(["lazy_sampler"])
    for number, name in enumerate(("lazy_sampler.Lazy", "guarded_lazy_sampler.Lazy")):
        options = ["--sampler", name, "--sampler_options.part", 0.5, "--steps", 2]
        options += ["--num_samples", 2, "--out", out / str(number), "--accelerator", "cpu"]
        done = door("sample", export(), *options)
        assert done.code == 0, done.err
        written = read_json(out / str(number) / "certificate.json")
        assert written["settings"]["sampler"] == name and written["nfe"] == 2 + 1
        assert written["descent_claim"] == ("enforced" if number else "observed")


def test_chains_are_told_of(export, door, out: Path) -> None:
    options = ["--sampler", "mala", "--sampler_options.updates", 4, "-n", 3, "--steps", 2]
    done = door("sample", export(), *options, "--out", out)
    assert done.code == 0 and "3 chains of 5 draws" in done.out
    assert read_json(out / "certificate.json")["diagnosis"]["rhat"] >= 0.9


def test_populations_are_told_of_and_take_labels_in_turn(export, door, out: Path) -> None:
    options = ["--sampler", "smc", "--sampler_options.particles", 4, "-n", 8, "--steps", 3]
    done = door("sample", export(classes=2), *options, "--label", "all", "--out", out)
    assert done.code == 0, done.err
    assert "2 populations of 4: the effective sample size was at least" in done.out
    told = read_json(out / "certificate.json")["diagnosis"]
    assert told["populations"] == 2 and 1 <= told["ess"] <= 4
    assert arrays(out / "trace.npz")["ancestor"].shape == (3 + 2, 8)
    certify(load_trace(out))
    (out / "again").mkdir()
    part = door("sample", export(), *options[:4], "-n", 6, "--out", out / "again")
    assert "6 samples from number 0 on are no whole populations of 4" in part.sentence


def test_descent_required_of_a_stochastic_sampler_is_a_sentence(export, door, out: Path) -> None:
    options = ["--sampler", "ancestral", "--require_descent", "--out", out]
    assert "cannot be met by ancestral" in door("sample", export(), *options).sentence
    assert not out.exists()


def test_the_same_samples_in_batches_of_64_and_of_7(export, door, tmp_path: Path) -> None:
    drawn = []
    for size in (64, 7):
        out = tmp_path / f"out{size}"
        options = ["--num_samples", 20, "--steps", STEPS, "--batch_size", size, "--out", out]
        assert door("sample", export(), *options, "--accelerator", "cpu").code == 0
        drawn.append(arrays(out / "samples.npz")["samples"])
        assert arrays(out / "trace.npz")["free_energy"].shape == (POINTS, 20)
    np.testing.assert_allclose(drawn[0], drawn[1], rtol=1e-5, atol=1e-5)


def test_fewer_samples_are_the_first_of_more_and_another_seed_is_another_set(
    export, door, tmp_path: Path
) -> None:
    drawn = {}
    for name, count, seed in (("few", 3, 0), ("more", 6, 0), ("other", 3, 1)):
        options = ["--num_samples", count, "--seed", seed, "--steps", 2, "--out", tmp_path / name]
        assert door("sample", export(), *options, "--accelerator", "cpu").code == 0
        drawn[name] = arrays(tmp_path / name / "samples.npz")["samples"]
    np.testing.assert_allclose(drawn["few"], drawn["more"][:3], rtol=1e-5, atol=1e-5)
    assert not np.isclose(drawn["few"], drawn["other"]).any(axis=(1, 2, 3)).all()


def test_without_a_trace_there_are_only_samples(export, door, out: Path) -> None:
    options = ["--num_samples", 2, "--steps", 2, "--trace", "false", "--out", out]
    assert door("sample", export(), *options, "--accelerator", "cpu").code == 0
    assert {f.name for f in out.iterdir()} == {*ALONE, "images", "grid.png"}


def test_a_baseline_samples_without_a_record(export, door, baseline: Denoiser, out: Path) -> None:
    options = ["--num_samples", 2, "--steps", 2, "--out", out]
    done = door("sample", export(baseline), *options, "--accelerator", "cpu")
    assert done.code == 0 and "There is no certificate" in done.out
    assert {f.name for f in out.iterdir()} == {*ALONE, "images", "grid.png"}


def test_vectors_have_no_images(export, door, out: Path) -> None:
    options = ["--num_samples", 2, "--steps", 2, "--out", out]
    model = export(GaussianMixture(torch.zeros(1, 2), 0.5))
    assert door("sample", model, *options, "--accelerator", "cpu").code == 0
    assert set(arrays(out / "samples.npz")) == {"samples", "raw"}
    assert not (out / "images").exists() and not (out / "grid.png").exists()


def test_a_label_is_passed_on(export, door, tmp_path: Path) -> None:
    drawn = []
    for label in (0, 1):
        out = tmp_path / str(label)
        options = ["--num_samples", 2, "--steps", 2, "--label", label, "--out", out]
        assert door("sample", export(classes=2), *options, "--accelerator", "cpu").code == 0
        drawn.append(arrays(out / "samples.npz")["samples"])
    assert not np.allclose(drawn[0], drawn[1])


def test_all_classes_take_turns_in_columns(export, door, tmp_path: Path) -> None:
    """Sample i is that of its own class under its own number."""
    drawn = {}
    for label in ("all", 0, 1):
        out = tmp_path / str(label)
        options = ["--num_samples", 7, "--steps", 2, "--label", label, "--out", out]
        done = door("sample", export(classes=2), *options, "--accelerator", "cpu")
        assert done.code == 0, done.err
        drawn[label] = arrays(out / "samples.npz")["samples"]
    for i, sample in enumerate(drawn["all"]):
        np.testing.assert_allclose(sample, drawn[i % 2][i], rtol=1e-5, atol=1e-5)
    settings = read_json(tmp_path / "all" / "certificate.json")["settings"]
    assert (settings["label"], settings["class_index"]) == ("all", [0, 1])
    width, height = Image.open(tmp_path / "all" / "grid.png").size
    assert height > 1.9 * width  # two columns and, of seven samples, four rows


def test_a_class_goes_by_its_name(door, tmp_path: Path) -> None:
    """An index stands for a class only where there are no names."""
    model = build_denoiser(MLP((1, 4, 4), width=16, depth=1, num_classes=3), 0.6, "inner_product")
    model.noise = NoiseRange(0.02, 10.0)
    named, nameless = tmp_path / "named", tmp_path / "nameless"
    energydiff.save_model(SavedModel(model, Normalization(0, 16), ("1", "10", "2")), named)
    energydiff.save_model(SavedModel(model, Normalization(0, 16)), nameless)
    drawn = {}
    for kind, path in (("name", named), ("index", nameless)):
        out = tmp_path / kind
        options = ["--num_samples", 2, "--steps", 2, "--label", 2, "--out", out]
        done = door("sample", path, *options, "--accelerator", "cpu")
        assert done.code == 0, done.err
        drawn[kind] = arrays(out / "samples.npz")["samples"]
        settings = read_json(out / "certificate.json")["settings"]
        assert (settings["label"], settings["class_index"]) == ("2", 2)
        assert "class" in done.out
    np.testing.assert_array_equal(drawn["name"], drawn["index"])  # "2" is at 2 as it was stored
    out = tmp_path / "one"
    options = ["--num_samples", 2, "--steps", 2, "--label", 1, "--out", out]
    assert door("sample", named, *options, "--accelerator", "cpu").code == 0
    assert read_json(out / "certificate.json")["settings"]["class_index"] == 0
    wrong = ["--label", "cat", "--out", tmp_path / "none"]
    assert "choose 1, 10, 2" in door("sample", named, *wrong).sentence
    assert "index from 0 to 2" in door("sample", nameless, *wrong).sentence
    assert "choose 1, 10, 2" in door("sample", named, "--label", 0).sentence
    beyond = door("sample", nameless, "--label", 3, "--out", tmp_path / "none")
    assert "label is 3, but this model has 3 classes" in beyond.sentence


def test_samples_far_outside_the_data_are_told_of(export, door, out: Path) -> None:
    mixture = GaussianMixture(torch.full((1, 1, 4, 4), 30.0), 0.5)
    done = door("sample", export(mixture), "--num_samples", 3, "--steps", 2, "--out", out)
    (line,) = [line for line in done.err.splitlines() if line.startswith("warning: 3 of the 3")]
    assert "leave the data's range" in line and line.endswith("take more steps.")
    reach = float(np.abs(arrays(out / "samples.npz")["samples"]).max())
    recorded = read_json(out / "certificate.json")["outside_range"]
    assert recorded == {"samples": 3, "factor": reach} and reach > 20


def test_guidance_is_applied_recorded_and_certified(export, door, tmp_path: Path) -> None:
    """w = 0 is the conditional model; a larger w samples another energy, watched like any other."""
    drawn = {}
    for name, options in {"plain": [], "0": ["--guidance", 0], "3": ["--guidance", 3]}.items():
        out = tmp_path / name
        options += ["--num_samples", 2, "--steps", 2, "--label", 1, "--out", out]
        assert door("sample", export(classes=2), *options, "--accelerator", "cpu").code == 0
        drawn[name] = arrays(out / "samples.npz")["samples"]
    np.testing.assert_allclose(drawn["0"], drawn["plain"], rtol=1e-5, atol=1e-5)
    assert not np.allclose(drawn["3"], drawn["plain"], atol=1e-3)
    written = read_json(tmp_path / "3" / "certificate.json")
    assert written["settings"]["guidance"] == 3 and written["claim"] == "observed"


def test_guidance_of_a_model_without_classes_or_energy_is_a_sentence(
    export, door, baseline: Denoiser, out: Path
) -> None:
    options = ["--out", out, "--accelerator", "cpu", "--label", 0, "--guidance", 1]
    assert "guidance needs an energy with classes" in door("sample", export(), *options).sentence
    assert "no energy" in door("sample", export(baseline), *options).sentence
    assert not out.exists()


def test_the_training_set_as_a_model_is_proved_to_descend(export, door, out: Path) -> None:
    """A closed form: Euler steps of an exact energy fall under the theorem."""
    source = Digits().open().train
    digits = source.normalization.encode(torch.stack([source[i][0] for i in range(50)]))
    options = ["--sampler", "euler", "--num_samples", 8, "--steps", STEPS, "--out", out]
    model = export(EmpiricalData(digits))
    done = door("sample", model, *options, "--require_descent", "--accelerator", "cpu")
    certificate = read_json(out / "certificate.json")
    assert done.code == 0
    assert certificate["holds"] and certificate["claim"] == "proved"
    assert certificate["bound_misses"] == 0


def test_a_required_descent_that_fails_is_exit_code_3(
    export, door, bad_gauge: EnergyDenoiser, out: Path
) -> None:
    """With everything written, so that one can look."""
    options = ["--sampler", "euler", "--num_samples", 2, "--steps", STEPS, "--out", out]
    model = export(bad_gauge)
    assert door("sample", model, *options, "--accelerator", "cpu").code == 0
    done = door("sample", model, *options, "--require_descent", "--accelerator", "cpu")
    certificate = read_json(out / "certificate.json")
    assert done.code == 3 and "The certificate fails: V rose at" in done.out
    assert not certificate["holds"] and certificate["landscape_rises"] > 0


def test_descent_required_of_a_baseline_is_a_sentence(
    export, door, baseline: Denoiser, out: Path
) -> None:
    options = ["--num_samples", 2, "--steps", 2, "--require_descent", "--out", out]
    done = door("sample", export(baseline), *options, "--accelerator", "cpu")
    assert "no energy" in done.sentence


def drawn_at(door, model: Path, out: Path, *options: object) -> np.ndarray:
    """The noise levels of a sampling."""
    done = door("sample", model, "--num_samples", 1, "--out", out, *options)
    assert done.code == 0, done.err
    levels = arrays(out / "trace.npz")["sigma"]
    settings = read_json(out / "certificate.json")["settings"]
    np.testing.assert_array_equal(settings["sigmas"], levels[:-1])  # then the final denoising
    assert settings["steps"] == len(levels) - 2
    return levels[:-1]


@pytest.mark.parametrize("sigmas", ["9,2.5,1e-1", "[9, 2.5, 0.1]"])
def test_a_noise_grid_of_ones_own(sigmas: str, export, door, out: Path) -> None:
    assert drawn_at(door, export(), out, "--sigmas", sigmas).tolist() == [9, 2.5, 0.1]


def test_rho_shapes_the_karras_grid(export, door, tmp_path: Path) -> None:
    model = export()
    for rho in (2.0, 7.0):
        levels = drawn_at(door, model, tmp_path / str(rho), "--steps", 4, "--rho", rho)
        np.testing.assert_array_equal(levels, karras_sigmas(4, 0.02, 10.0, rho))
    default = drawn_at(door, model, tmp_path / "default", "--steps", 4)
    np.testing.assert_array_equal(default, levels)


MISTAKES = {
    "label": (["--label", 2], "--label 2 is no class of this model: choose 0, 1"),
    "negative label": (["--label=-1"], "--label -1 is no class"),
    "no label": (["--guidance", 1], "--guidance needs a --label"),
    "no steps": (["--steps", 0], "steps must be at least 1"),
    "sigma": (["--sigma_min", 5, "--sigma_max", 1], "sigma_min = 5.0 and sigma_max = 1.0"),
    "sigmas and steps": (["--sigmas", "2,1", "--steps", 18], "leave out --steps"),
    "sigmas and more": (
        ["--sigmas", "2,1", "--grid", "karras", "--rho", 7, "--sigma_max", 2],
        "leave out --grid and --rho and --sigma_max",
    ),
    "rising sigmas": (["--sigmas", "1,2"], "a noise grid must fall strictly"),
    "one sigma": (["--sigmas", "1"], "at least two levels"),
    "no sigmas": (["--sigmas", "a,b"], "numbers separated by commas"),
    "rho": (["--rho", 0], "rho must be positive"),
    "rho elsewhere": (["--rho", 3, "--grid", "linear"], "leave it out with --grid linear"),
    "sampler": (["--sampler", "rk4"], "choose ancestral, armijo, churn"),
    "sampler unknown": (["--sampler", "mine.Mine"], "add --import mine"),
    "option": (["--sampler_options.leaps", 3], "'leaps'; its options are none"),
    "option's type": (
        ["--sampler", "hmc", "--sampler_options.leaps", "many"],
        "leaps of hmc must be int, got 'many'",
    ),
    "descent": (["--sampler", "armijo"], "armijo descends a noise-blind energy"),
    "guard of noise": (["--sampler", "guarded_mala"], "mala cannot be guarded"),
    "sigma 0": (["--sigma_min", 0], "sigma_min = 0.0"),
    "nothing": (["--num_samples", 0], "num_samples is 0"),
    "no batch": (["--batch_size", 0], "batch_size is 0"),
    "seed": (["--seed", -1], "seed is -1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_a_sentence(mistake: str, export, door, out: Path) -> None:
    options, message = MISTAKES[mistake]
    model = export(classes=2)
    done = door("sample", model, "--out", out, "--accelerator", "cpu", *options)
    assert message in done.sentence, done.err
    assert not out.exists()


def test_a_label_for_a_model_without_any_is_a_sentence(export, door, out: Path) -> None:
    done = door("sample", export(), "--out", out, "--accelerator", "cpu", "--label", 0)
    assert "this model has 0 classes" in done.sentence


def test_the_images_of_a_larger_set_are_not_mixed_in(sampled: Path, export, door) -> None:
    options = ["--num_samples", COUNT - 2, "--steps", STEPS, "--out", sampled]
    options += ["--accelerator", "cpu"]
    done = door("sample", export(), *options)
    assert "holds more samples of these settings than the 3 to be drawn" in done.sentence
    assert len(list((sampled / "images").iterdir())) == COUNT
    assert door("sample", export(), *options, "--overwrite").code == 0
    assert len(list((sampled / "images").iterdir())) == 3


def test_foreign_files_are_not_overwritten(export, door, out: Path) -> None:
    """Nor refused where an earlier sampling wrote them."""
    options = ["--num_samples", 2, "--steps", 2, "--out", out, "--accelerator", "cpu"]
    (out / "images").mkdir(parents=True)
    (out / "images" / "000001.png").write_bytes(b"mine")
    assert "holds images/000001.png" in door("sample", export(), *options).sentence
    assert (out / "images" / "000001.png").read_bytes() == b"mine"
    (out / "images" / "000001.png").unlink()
    (out / "samples.npz").write_bytes(b"mine too")
    assert "holds samples.npz" in door("sample", export(), *options).sentence
    (out / "samples.npz").unlink()
    assert door("sample", export(), *options).code == 0
    assert door("sample", export(), *options).code == 0


def test_a_file_is_no_folder_to_write_to(export, door, out: Path) -> None:
    out.touch()
    assert "is a file" in door("sample", export(), "--out", out).sentence


@pytest.mark.parametrize(
    "options", [["--sampler", "rk4"], ["--steps", "many"], ["--colour", "red"]]
)
def test_an_option_that_is_none_is_named(options: list[str], export, door) -> None:
    done = door("sample", export(), *options)
    assert done.code == 2
    assert options[0].strip("-") in done.err
    assert "Traceback" not in done.err


def test_no_model_is_a_sentence_in_a_process_of_its_own(process, tmp_path: Path) -> None:
    done = process("sample", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert "nowhere does not exist" in done.sentence
