"""``energydiff fit``, ``validate`` and ``test``: LightningCLI with what one value fixes linked."""

import json
import math
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info

from energydiff.cli.parser import Imported, values
from energydiff.cli.save_run import SaveRun
from energydiff.cli.training_parser import (
    TrainerHelp,
    TrainingParser,
    arrange,
    modules_named_in,
)
from energydiff.cli.training_settings import (
    batches_of,
    fix_paths,
    require_ranges,
    require_strategy,
    steps_of,
)
from energydiff.console import quiet_lightning
from energydiff.errors import UserError
from energydiff.files import sweep
from energydiff.registry import import_modules
from energydiff.saving import LAST_CHECKPOINT, open_model
from energydiff.training.checkpoint import (
    Checkpoint,
    best_checkpoints,
    every_checkpoint,
    last_checkpoint,
    with_whole_checkpoints,
)
from energydiff.training.data import DiffusionData
from energydiff.training.defaults import TRAINER
from energydiff.training.ema import EMA
from energydiff.training.finish import CalibrateAndExport, is_exported
from energydiff.training.guard import NonFiniteGuard
from energydiff.training.loggers import keep_in_run, run_loggers
from energydiff.training.module import DiffusionModule
from energydiff.training.monitor import LyapunovMonitor
from energydiff.training.progress import progress_bar
from energydiff.training.resume import (
    estimates_of,
    estimates_with,
    record_estimates,
    record_samples,
)
from energydiff.training.stop import StopOnSignal, Stopped
from energydiff.training.stream_module import StreamModule
from energydiff.training.teaching import learn_from
from energydiff.training.throughput import Throughput

RUN = "runs/default"
COMMANDS = {
    "fit": "Trains a model; the same command resumes a run that was cut off.",
    "validate": "Measures the held-out loss of a trained run.",
    "test": "Measures the held-out loss of a trained run, under Lightning's test loop.",
    "distil": "Trains a model on what a trained denoiser says of noisy data, then on the data; the"
    " same command resumes a run that was cut off.",
}


class EnergyDiffCLI(LightningCLI):
    """``energydiff fit|validate|test`` over :class:`DiffusionModule` and :class:`DiffusionData`.

    ``fit`` resumes from the run folder's last checkpoint if there is one, and writes its export if
    only that is missing; ``validate`` and ``test`` measure it. Made of a command line, it holds
    ``model``, ``datamodule`` and ``trainer``; :meth:`go` runs the command.

    Args:
        command: fit, validate or test.
        args: what follows it.
    """

    module: type[StreamModule] = DiffusionModule
    prog = "energydiff"
    given = ""  # by position
    examples: tuple[str, ...] = (
        "--config configs/digits/energy_unet.yaml --model.learning_rate 3e-4",
        "--config configs/folder/energy_unet.yaml --data.source.root path/to/images",
    )

    def __init__(self, command: str, args: Sequence[str]) -> None:
        self.command = command
        quiet_lightning()
        super().__init__(
            self.module,
            DiffusionData,
            save_config_callback=SaveRun,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_defaults={**TRAINER, "devices": 1, "default_root_dir": RUN},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_class=TrainingParser,
            args=list(args),
            run=False,  # one parser, not one for each of Lightning's commands
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        prog = f"{self.prog} {self.command}"
        examples = "\n".join(f"  {prog} {example}" for example in self.examples)
        usage = f"{prog}{self.given} --config FILE [--config FILE …] [--NAME VALUE …]"
        return super().init_parser(
            **kwargs,
            prog=prog,
            usage=f"{usage}\n\n{examples}",
            description=COMMANDS[self.command]
            + " A later file wins over an earlier one, and an option over both.",
            epilog="Lightning's Trainer has --trainer.default_root_dir (the run folder), .devices,"
            " .accelerator, .strategy, .precision, .accumulate_grad_batches, .logger, .callbacks"
            " and more: --trainer.help lists them.",
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_default_arguments_to_parser(parser)
        parser.add_argument(
            "--ckpt_path", type=str | None, help="The run folder's last checkpoint by default."
        )
        parser.add_argument("--import", action=Imported, default=[])
        parser.add_argument("--trainer.help", action=TrainerHelp, help="Show its options and exit.")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Modules first: those that are named, and those that lie beside a configuration."""
        files = [Path(file) for file in values(args, "-c", "--config")]
        sys.path += [str(file.parent.resolve()) for file in files]
        modules = [m for file in files for m in modules_named_in(file)]
        import_modules(modules)
        arrange(parser)
        self.config = parser.parse_args(args)
        require_ranges(self.config)
        require_strategy(self.config)
        fix_paths(self.config)
        self.run = Path(self.config.trainer.default_root_dir or RUN)
        keep_in_run(self.config, self.run)
        self.config["import"] = list(dict.fromkeys([*modules, *values(args, "--import")]))

    def go(self) -> None:
        """Runs the command."""
        {"validate": self.validate, "test": self.test}.get(self.command, self.fit)()

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        self.add_stream_arguments(parser)
        parser.add_lightning_class_args(LyapunovMonitor, "monitor")
        parser.add_lightning_class_args(CalibrateAndExport, "finish")
        parser.add_argument(
            "--init",
            type=str | None,
            help="A run, checkpoint or export whose weights training starts from.",
        )
        parser.add_argument(
            "--teacher",
            type=str | None,
            help="A run, checkpoint or export whose denoiser is learned from before the data are"
            " (model.teacher_share); energydiff distil starts from its weights too.",
        )
        for source, target in (
            ("shape", "backbone.init_args.shape"),
            ("num_classes", "backbone.init_args.num_classes"),
            ("sigma_data", "sigma_data"),
            ("normalization", "normalization"),
            ("classes", "classes"),
        ):
            parser.link_arguments(f"data.{source}", f"model.{target}", apply_on="instantiate")

    def add_stream_arguments(self, parser: LightningArgumentParser) -> None:
        """What training on the counted stream takes, whatever is learned."""
        parser.add_lightning_class_args(EMA, "ema")
        parser.add_argument(
            "--val_every_images",
            type=int,
            default=200_000,
            help="Images between held-out losses; 0: never.",
        )
        parser.add_argument(
            "--checkpoint_every_images",
            type=int,
            default=100_000,
            help="Images between saves; 0: only at the end.",
        )
        parser.add_argument(
            "--keep_every_images",
            type=int,
            default=0,
            help="Images between checkpoints that stay, each under its count; 0: only the last.",
        )
        parser.add_argument(
            "--keep_best",
            type=int,
            default=0,
            help="Checkpoints that stay because of their held-out losses, the lowest so far.",
        )
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        parser.link_arguments("data.batch_size", "model.batch_size")
        parser.link_arguments(
            ("model.total_images", "data.batch_size"), "trainer.max_steps", compute_fn=steps_of
        )
        parser.link_arguments(
            ("val_every_images", "data.batch_size", "trainer.accumulate_grad_batches"),
            "trainer.val_check_interval",
            compute_fn=batches_of,
        )

    def instantiate_classes(self) -> None:
        """With the checkpoint to go on from, or to measure, open: its estimates hold."""
        last = self.run / LAST_CHECKPOINT
        self.ckpt_path = self.config.ckpt_path
        measured = self.command in ("validate", "test")
        if self.ckpt_path is None and (measured or last.is_file()):
            self.ckpt_path = str(last)
        self.checkpoint = Checkpoint.open(self.ckpt_path) if self.ckpt_path else None
        initial = None if self.checkpoint else self.config.get("init")
        self.initial = open_model(initial) if initial else None
        estimates = self.checkpoint.config if self.checkpoint else {}
        named = None if measured else self.config.get("teacher")
        self.teacher = open_model(named) if named else None
        if first := None if self.checkpoint else self.initial or self.teacher:
            estimates = estimates_with(first)
        try:
            with estimates_of(estimates, self.config):
                super().instantiate_classes()
        except ValueError as error:
            # What a class says of its arguments comes wrapped where its place may also be empty.
            if isinstance(error.__cause__, UserError):
                raise error.__cause__ from None
            if isinstance(error.__cause__, OSError):
                raise UserError(
                    f"a class that the configuration names cannot be built ({error.__cause__}):"
                    " check the path that it is given."
                ) from error
            raise

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config = self.config_init
        self.model.config = json.loads(
            self.parser.dump(self.config, format="json", skip_none=False)
        )
        if self.teacher is not None:
            learn_from(self.model, self.teacher, self.config.teacher)
        data = self.datamodule
        record_estimates(self.model.config, data.sigma_data, data.normalization)
        record_samples(self.model.config, data.train_source)
        run = Path(config.trainer.default_root_dir)
        logger = run_loggers(config.trainer.logger, run)
        guard = NonFiniteGuard()
        callbacks = [*(config.trainer.callbacks or []), Throughput(), guard]
        if config.trainer.enable_progress_bar is not False:
            callbacks.append(progress_bar())
        if config.trainer.enable_checkpointing is not False:
            for every_images, kind in (
                (config.checkpoint_every_images, last_checkpoint),
                (config.keep_every_images, every_checkpoint),
            ):
                if every_images:
                    every_steps = max(1, every_images // self.model.batch_size)
                    callbacks.append(kind(run / LAST_CHECKPOINT.parent, every_steps))
            if config.keep_best:
                callbacks.append(best_checkpoints(run / LAST_CHECKPOINT.parent, config.keep_best))
        callbacks.append(StopOnSignal(guard))
        plugins = with_whole_checkpoints(config.trainer.plugins or [])
        kwargs |= {"logger": logger, "callbacks": callbacks, "plugins": plugins}
        kwargs["enable_checkpointing"] = True  # what writes them is among the callbacks, or not
        try:
            return super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, RuntimeError, ValueError) as error:
            raise UserError(f"trainer: {' '.join(str(error).split())}") from error

    def fit(self) -> None:
        """``trainer.fit``, from the last checkpoint of the run folder if it has one."""
        if self.checkpoint:
            self.checkpoint.go_on(self.model)
            if self.checkpoint.steps >= self.trainer.max_steps:
                self._complete(self.checkpoint)
                return
        else:
            self.start()
        rank_zero_info(self._introduction())
        if self.trainer.is_global_zero:
            sweep(self.run / LAST_CHECKPOINT.parent)
        try:
            self.trainer.fit(
                self.model, datamodule=self.datamodule, ckpt_path=self.ckpt_path, weights_only=True
            )
        except Stopped as end:
            self._leave(end)
        except UserError:
            self._kill_launched()
            raise
        except SystemExit as end:
            if not isinstance(end.__context__, KeyboardInterrupt):
                raise
            raise KeyboardInterrupt(self._how_to_go_on("interrupted")) from None  # as Lightning was
        self._measure_at_the_end()

    def start(self) -> None:
        """The weights of image 0, where they are not drawn."""
        if self.initial is not None:
            assert isinstance(self.model, DiffusionModule)
            self.model.start_from(self.initial.denoiser, self.config.init)

    def _leave(self, end: Stopped) -> NoReturn:
        """Says how to go on, and exits as the signal asked."""
        if self.trainer.is_global_zero:
            said = "interrupted" if end.signal == signal.SIGINT else str(end)
            print(self._how_to_go_on(said), file=sys.stderr)
        environment = getattr(self.trainer.strategy, "cluster_environment", None)
        launched = isinstance(environment, LightningEnvironment) and self.trainer.local_rank > 0
        # Lightning kills the process that launched others when one of them has another code.
        sys.exit(0 if launched else end.code)

    def _kill_launched(self) -> None:
        """The processes that this one launched would wait for it: it may have failed alone."""
        if launcher := self.trainer.strategy.launcher:
            launcher.kill(signal.SIGKILL)

    def _introduction(self) -> str:
        """What is going to happen, in a few lines."""
        trainer, model = self.trainer, self.model
        learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
        steps = math.ceil(model.total_images / model.batch_size)
        device, count = trainer.strategy.root_device.type, trainer.world_size
        lines = [
            f"{model.title()}: {learned:,} parameters on {count} {device} in {trainer.precision}",
            f"{model.total_images:,} images, {model.batch_size} a step, {steps:,} in all",
            f"run folder {trainer.default_root_dir}",
        ]
        if self.checkpoint:
            images = model.images_after(self.checkpoint.steps)
            lines[1] += f", going on at image {images:,}"
        return "\n".join(lines)

    def _how_to_go_on(self, why: str) -> str:
        last = Path(self.trainer.default_root_dir) / LAST_CHECKPOINT
        if not last.is_file():
            return f"{why} before {last} was written: the same command starts anew."
        images = self.model.images_after(Checkpoint.open(last).steps)
        return f"{why}: run the same command again to go on from {last}, image {images:,}."

    def _measure_at_the_end(self) -> None:
        """The held-out loss of the trained model, unless the last step brought one."""
        trainer = self.trainer
        interval = trainer.val_check_interval / trainer.accumulate_grad_batches
        finished = trainer.global_step >= trainer.max_steps and not trainer.fast_dev_run  # type: ignore[attr-defined]
        asked = self.config.val_every_images and len(self.datamodule.held_out_source)
        if finished and asked and trainer.global_step % interval:
            trainer.validate(self.model, datamodule=self.datamodule)

    def _complete(self, checkpoint: Checkpoint) -> None:
        """Says that a run has all of its images, and writes the export if only that is missing."""
        trainer, run = self.trainer, Path(self.trainer.default_root_dir)
        last = checkpoint.file == run / LAST_CHECKPOINT and not trainer.fast_dev_run  # type: ignore[attr-defined]
        if last and trainer.is_global_zero and not is_exported(run, checkpoint.config):
            finish = next(c for c in trainer.callbacks if isinstance(c, CalibrateAndExport))  # type: ignore[attr-defined]
            finish.complete(run, self.model, trainer.strategy.root_device)
        print(
            f"{checkpoint.file} has all of its {self.model.total_images} images; raise"
            " model.total_images to train on."
        )

    def validate(self) -> None:
        """``trainer.validate`` of a checkpoint, the run folder's last by default."""
        self._measure(self.trainer.validate)

    def test(self) -> None:
        """``trainer.test`` of a checkpoint, the run folder's last by default."""
        self._measure(self.trainer.test)

    def _measure(self, loop: Callable[..., Any]) -> None:
        assert self.checkpoint is not None
        self.checkpoint.require_measurable(self.model)
        loop(self.model, ckpt_path=self.ckpt_path, weights_only=True, datamodule=self.datamodule)


def main(arguments: Sequence[str]) -> int:
    """0."""
    EnergyDiffCLI(arguments[0], arguments[1:]).go()
    return 0
