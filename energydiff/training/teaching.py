"""A run that learns from a trained model: does it fit, and what of its weights can be used."""

from energydiff.denoisers import network_of
from energydiff.diffusion import Teacher
from energydiff.errors import UserError
from energydiff.saving import SavedModel, digest_of
from energydiff.training.module import DiffusionModule


def learn_from(module: DiffusionModule, teacher: SavedModel, name: str) -> None:
    """Gives a module its teacher, and its record of the run what teacher that was.

    Args:
        name: where the teacher lies.

    Raises:
        UserError: the two are not of the same samples, values, classes and noise, or the module
            learns from no mean.
    """
    module.objective.require_mean()
    told = Teacher(teacher.denoiser)
    learner, known = module.denoiser, teacher.denoiser
    if known.shape != learner.shape:
        raise UserError(
            f"the teacher {name} is of samples {_sides(known.shape)}, and the data are"
            f" {_sides(learner.shape)}: give data or a teacher of the same shape."
        )
    if teacher.normalization.plain() != module.normalization.plain():
        raise UserError(
            f"the teacher {name} read its values as {teacher.normalization.plain()}, and the data"
            f" are read as {module.normalization.plain()}: set data.source.value_range, for latents"
            " data.source.standardize, to what the teacher has."
        )
    if learner.num_classes and teacher.classes != module.classes:
        raise UserError(
            f"the teacher {name} knows the classes {list(teacher.classes)}, and the data have"
            f" {list(module.classes)}: leave data.source.labels out, or give a teacher of the same"
            " classes."
        )
    levels = learner.require_noise()
    if known.noise is not None and not (
        known.noise.sigma_min <= levels.sigma_min and levels.sigma_max <= known.noise.sigma_max
    ):
        raise UserError(
            f"the teacher {name} is made for noise {known.noise.sigma_min:g} to"
            f" {known.noise.sigma_max:g}, and model.sigma_min to model.sigma_max go from"
            f" {levels.sigma_min:g} to {levels.sigma_max:g}: stay within the teacher's."
        )
    module.teacher = told
    module.config["teacher"] = {"path": name, "sha256": digest_of(teacher)}


def start_where_fitting(module: DiffusionModule, teacher: SavedModel) -> str:
    """Copies the tensors of the teacher's network that have the name and the shape of one here.

    Returns:
        What was copied, in a sentence.
    """
    learner, known = network_of(module.denoiser), network_of(teacher.denoiser)
    assert learner is not None
    mine, theirs = learner.state_dict(), {} if known is None else known.state_dict()
    fitting = {n: t for n, t in theirs.items() if n in mine and mine[n].shape == t.shape}
    learner.load_state_dict(fitting, strict=False)
    return f"{len(fitting)} of {len(mine)} tensors start as the teacher's"


def _sides(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
