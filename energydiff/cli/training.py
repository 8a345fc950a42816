"""``energydiff fit``, ``validate`` and ``test``: LightningCLI with what one value fixes linked."""

import argparse
import json
import math
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from energydiff.cli.parser import Imported, Parser, values
from energydiff.console import quiet_lightning
from energydiff.errors import UserError
from energydiff.files import write_json
from energydiff.registry import import_modules
from energydiff.saving import CHECKPOINT_KEY, LAST_CHECKPOINT, read_checkpoint
from energydiff.training.checkpoint import WholeCheckpointIO
from energydiff.training.data import DiffusionData, kept_sigma_data
from energydiff.training.ema import EMA
from energydiff.training.finish import CalibrateAndExport, is_exported
from energydiff.training.guard import NonFiniteGuard
from energydiff.training.module import DiffusionModule
from energydiff.training.monitor import LyapunovMonitor
from energydiff.training.progress import Throughput, progress_bar
from energydiff.training.stream_module import StreamModule


class SaveRun(SaveConfigCallback):
    """Writes the resolved configuration and the environment into the run folder, on fit."""

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        run = Path(trainer.default_root_dir)
        run.mkdir(parents=True, exist_ok=True)
        (run / "config.yaml").write_text(self.parser.dump(self.config, skip_none=False))
        environment = {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            "packages": {d.name: d.version for d in distributions()},
        }
        write_json(run / "environment.json", environment)


COMMANDS = {
    "fit": "Trains a model; the same command resumes a run that was cut off.",
    "validate": "Measures the held-out loss of a trained run.",
    "test": "Measures the held-out loss of a trained run, under Lightning's test loop.",
}


# Parts of the help, in order.
HELP = {
    "data": "data",
    "model": "model, noise levels, learning rate, images",
    "ema": "averaged weights",
    "monitor": "what is watched",
    "finish": "what the end of fit does",
}


class TrainingParser(Parser, LightningArgumentParser):
    """Lightning's parser, with the manners of the other commands."""


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
            trainer_defaults={
                # Energies are differentiated in validation too. The gate copes with
                # inference_mode, at the price of copies.
                "inference_mode": False,
                "use_distributed_sampler": False,  # the stream shards itself
                "max_epochs": -1,
                "check_val_every_n_epoch": None,
                "num_sanity_val_steps": 0,
                "gradient_clip_val": 1.0,
                "log_every_n_steps": 20,
                "enable_model_summary": False,
                "default_root_dir": "runs/default",
            },
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_class=TrainingParser,
            args=list(args),
            run=False,  # one parser, not one for each of Lightning's commands
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        prog = f"{self.prog} {self.command}"
        examples = "\n".join(f"  {prog} {example}" for example in self.examples)
        return super().init_parser(
            **kwargs,
            prog=prog,
            usage=f"{prog} --config FILE [--config FILE …] [--NAME VALUE …]\n\n{examples}",
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
        parser.add_argument(
            "--trainer.help", action=_TrainerHelp, help="Show its options and exit."
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Modules first: those that are named, and those that lie beside a configuration."""
        files = [Path(file) for file in values(args, "-c", "--config")]
        sys.path += [str(file.parent.resolve()) for file in files]
        modules = [m for file in files for m in _imports(file)]
        import_modules(modules)
        _arrange(parser)
        self.config = parser.parse_args(args)
        _fix_root(self.config)
        self._keep_sigma_data()
        self.config["import"] = list(dict.fromkeys([*modules, *values(args, "--import")]))

    def _keep_sigma_data(self) -> None:
        """A run that goes on keeps its σ_d, though a file of its data broke since."""
        run = Path(self.config.trainer.default_root_dir or "")
        file = Path(self.config.ckpt_path or run / LAST_CHECKPOINT)
        if self.config.data.sigma_data is None and file.is_file():
            given = json.loads(self.parser.dump(self.config, format="json", skip_none=False))
            self.config.data.sigma_data = kept_sigma_data(file, given["data"]["source"])

    def go(self) -> None:
        """Runs the command."""
        {"fit": self.fit, "validate": self.validate, "test": self.test}[self.command]()

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        self.add_stream_arguments(parser)
        parser.add_lightning_class_args(LyapunovMonitor, "monitor")
        parser.add_lightning_class_args(CalibrateAndExport, "finish")
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
            "--val_every_images", type=int, default=200_000, help="Images between held-out losses."
        )
        parser.add_argument(
            "--checkpoint_every_images", type=int, default=100_000, help="Images between saves."
        )
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        parser.link_arguments("data.batch_size", "model.batch_size")
        parser.link_arguments(
            ("model.total_images", "data.batch_size"), "trainer.max_steps", compute_fn=_steps
        )
        parser.link_arguments(
            ("val_every_images", "data.batch_size", "trainer.accumulate_grad_batches"),
            "trainer.val_check_interval",
            compute_fn=_batches,
        )

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:
            # What a class says of its arguments comes wrapped where its place may also be empty.
            if isinstance(error.__cause__, UserError):
                raise error.__cause__ from None
            raise

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config = self.config_init
        if str(config.trainer.precision) in ("16", "16-mixed", "16-true"):
            # Loss scaling overflows on purpose now and then, and an overflow stops a run here.
            raise UserError(
                f"trainer.precision {config.trainer.precision} is not supported: float16 needs a"
                " loss scale that may overflow; use bf16-mixed."
            )
        self.model.config = json.loads(
            self.parser.dump(self.config, format="json", skip_none=False)
        )
        run = Path(config.trainer.default_root_dir)
        logger = config.trainer.logger
        if logger is None or logger is True:
            # A new CSV version each start: resuming keeps the history of the first part.
            logger = [TensorBoardLogger(run, name="logs", version=""), CSVLogger(run, "metrics")]
        steps = max(1, config.checkpoint_every_images // self.model.batch_size)
        callbacks = [*(config.trainer.callbacks or []), Throughput(), NonFiniteGuard()]
        if config.trainer.enable_progress_bar is not False:
            callbacks.append(progress_bar())
        if logger:
            callbacks.append(LearningRateMonitor())
        if config.trainer.enable_checkpointing is not False:
            callbacks.append(
                ModelCheckpoint(
                    run / LAST_CHECKPOINT.parent,
                    filename=LAST_CHECKPOINT.stem,
                    every_n_train_steps=steps,
                    enable_version_counter=False,
                )
            )
        plugins = config.trainer.plugins or []
        plugins = [*plugins] if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(WholeCheckpointIO())
        kwargs |= {"logger": logger, "callbacks": callbacks, "plugins": plugins}
        try:
            return super().instantiate_trainer(**kwargs)
        except MisconfigurationException as error:
            raise UserError(f"trainer: {error}") from error

    def fit(self) -> None:
        """``trainer.fit``, from the last checkpoint of the run folder if it has one."""
        ckpt_path = self.config.ckpt_path
        run = Path(self.trainer.default_root_dir)
        last = run / LAST_CHECKPOINT
        if ckpt_path is None and last.is_file():
            ckpt_path = str(last)
        if ckpt_path is not None:
            saved = self._open(ckpt_path)
            self._require_same_stream(ckpt_path, saved)
            if int(saved["global_step"]) >= self.trainer.max_steps:
                if ckpt_path == str(last) and self._must_export(run, saved):
                    callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
                    finish = next(c for c in callbacks if isinstance(c, CalibrateAndExport))
                    finish.complete(run, self.model, self.trainer.strategy.root_device)
                print(
                    f"{ckpt_path} has all of its {self.model.total_images} images; raise"
                    " model.total_images to train on."
                )
                return
        self.trainer.fit(
            self.model, datamodule=self.datamodule, ckpt_path=ckpt_path, weights_only=True
        )

    def _must_export(self, run: Path, saved: dict[str, Any]) -> bool:
        """Whether this process is to write what a run killed at its very end did not."""
        trying_out = self.trainer.fast_dev_run  # type: ignore[attr-defined]
        return self.trainer.is_global_zero and not trying_out and not is_exported(run, saved)

    def validate(self) -> None:
        """``trainer.validate`` of a checkpoint, the run folder's last by default."""
        self.trainer.validate(
            self.model, ckpt_path=self._trained(), weights_only=True, datamodule=self.datamodule
        )

    def test(self) -> None:
        """``trainer.test`` of a checkpoint, the run folder's last by default."""
        self.trainer.test(
            self.model, ckpt_path=self._trained(), weights_only=True, datamodule=self.datamodule
        )

    def _trained(self) -> str:
        """The checkpoint to measure; ``UserError`` if there is none, or of another model."""
        last = Path(self.trainer.default_root_dir) / LAST_CHECKPOINT
        file: str = self.config.ckpt_path or str(last)
        self._open(file)
        return file

    def _open(self, file: str) -> dict[str, Any]:
        """A checkpoint of the configured model."""
        path = Path(file)
        if (path / "model.yaml").is_file():
            raise UserError(
                f"{file} is an export, which holds no state of training: give --ckpt_path a"
                f" checkpoint, such as a run's {LAST_CHECKPOINT}."
            )
        if path.is_dir():
            raise UserError(
                f"{file} is a folder: give --ckpt_path a checkpoint, such as a run's"
                f" {LAST_CHECKPOINT}."
            )
        if not path.exists():
            raise UserError(f"{file} does not exist: train first, or give --ckpt_path.")
        saved = read_checkpoint(path, mmap=True)
        model = self.model.describe()["model"]
        if saved[CHECKPOINT_KEY].get("model") != model:
            raise UserError(
                f"{file} is of another model than the one configured: choose another"
                " trainer.default_root_dir, or move that run away."
            )
        return saved

    def _require_same_stream(self, file: str, saved: dict[str, Any]) -> None:
        """Images are counted in steps of one batch size and drawn under one seed."""
        then, now = saved[CHECKPOINT_KEY]["config"], self.model.config
        for name, old, new in (
            ("data.batch_size", then["data"]["batch_size"], now["data"]["batch_size"]),
            ("data.source", *(c["data"]["source"]["class_path"] for c in (then, now))),
            ("seed_everything", then["seed_everything"], now["seed_everything"]),
            ("the classes", saved[CHECKPOINT_KEY].get("classes", []), list(self.model.classes)),
        ):
            if old != new:
                raise UserError(
                    f"{file} was trained with {name} {old}, not {new}: its image count and order"
                    " would be wrong, so keep the value or choose another"
                    " trainer.default_root_dir."
                )


def _fix_root(config: Any) -> None:
    """A path to the data, made absolute: what is recorded holds from any working folder."""
    name = "data.source.init_args.root"
    if root := config.get(name):
        config[name] = type(root)(Path(root).expanduser().resolve())


def _steps(total_images: int, batch_size: int) -> int:
    return math.ceil(total_images / max(1, batch_size))  # the data module refuses less than 1


def _batches(every_images: int, batch_size: int, accumulate: int) -> int:
    return max(1, every_images // max(1, batch_size)) * accumulate


class _TrainerHelp(argparse.Action):
    """``--trainer.help``: the hundreds of lines that the other help leaves out."""

    def __init__(self, option_strings: Sequence[str], **kwargs: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, 0, help=kwargs["help"])

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        assert isinstance(parser, TrainingParser) and parser.groups is not None
        parser._action_groups = [parser.groups["trainer"]]
        parser.print_help()
        parser.exit()


def _arrange(parser: LightningArgumentParser) -> None:
    """What people change comes first in the help, and Lightning's part not at all."""
    groups = []
    for name, title in HELP.items():
        if parser.groups and name in parser.groups:
            parser.groups[name].title = title
            groups.append(parser.groups[name])
    (options,) = (group for group in parser._action_groups if group.title == "options")
    parser._action_groups = [*groups, options]


def _imports(file: Path) -> list[str]:
    """The modules that a configuration names."""
    try:
        content = yaml.safe_load(file.read_text())
    except OSError:  # the parser says so
        return []
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{file} is no configuration: {' '.join(str(error).split())}.") from error
    modules = content.get("import", []) if isinstance(content, dict) else []
    if not (isinstance(modules, list) and all(isinstance(name, str) for name in modules)):
        raise UserError(f"import in {file} must be a list of modules, as in [mynet].")
    return modules


def main(arguments: Sequence[str]) -> int:
    """0."""
    EnergyDiffCLI(arguments[0], arguments[1:]).go()
    return 0
