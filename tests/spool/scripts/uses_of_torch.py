"""Uses of MLflow: torch, lightning and transformers' Trainer, from requirements/training.txt. See uses.py.

The libraries are loaded in each use: a worker of `spawn` imports this module.
"""

import importlib
import os
import tempfile
import time
from types import SimpleNamespace
from typing import Any
from unittest import mock

import mlflow

QUIETLY = {"accelerator": "cpu", "devices": 1, "max_epochs": 2, "enable_progress_bar": False, "log_every_n_steps": 1}


def current() -> str:
    active = mlflow.active_run()
    assert active is not None
    return str(active.info.run_id)


def fit(*, logger: Any, keeps: bool = False) -> None:
    """Fit a line through points. keeps: a checkpoint."""
    torch: Any = importlib.import_module("torch")
    lightning: Any = importlib.import_module("lightning")

    class Line(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch: Any, _index: int) -> Any:
            loss = torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.001)

    lightning.seed_everything(7)
    inputs = torch.arange(16.0).reshape(8, 2)
    points = torch.utils.data.TensorDataset(inputs, inputs.sum(1, keepdim=True))
    with tempfile.TemporaryDirectory() as folder:
        # Its folder stands in a checkpoint. By itself it would have the id of the run in its name.
        kept = [lightning.pytorch.callbacks.ModelCheckpoint(folder)] if keeps else []
        trainer = lightning.Trainer(
            default_root_dir=folder, logger=logger, callbacks=kept, enable_checkpointing=keeps, **QUIETLY
        )
        trainer.fit(Line(), torch.utils.data.DataLoader(points, batch_size=4))


def use_lightning(name: str) -> None:
    mlflow.pytorch.autolog(log_models=False)
    try:
        fit(logger=False)
    finally:
        mlflow.pytorch.autolog(disable=True)


def use_logger_of_lightning(name: str) -> None:
    loggers = importlib.import_module("lightning.pytorch.loggers")
    logger = loggers.MLFlowLogger(experiment_name=name, run_name="run", tracking_uri=mlflow.get_tracking_uri())
    fit(logger=logger)


def use_logger_of_lightning_that_goes_on(name: str) -> None:
    """With its checkpoints, in a run that is there already."""
    loggers = importlib.import_module("lightning.pytorch.loggers")
    with mlflow.start_run(run_name="run") as run:
        pass
    uri = mlflow.get_tracking_uri()
    logger = loggers.MLFlowLogger(experiment_name=name, run_id=run.info.run_id, tracking_uri=uri, log_model=True)
    fit(logger=logger, keeps=True)


def in_run_model_of_torch(name: str) -> None:
    torch = importlib.import_module("torch")
    torch.manual_seed(7)
    layer = torch.nn.Linear(2, 1)
    mlflow.pytorch.log_model(layer, name="model", pip_requirements=["torch"], serialization_format="pickle")


class Noted:
    """Data whose every item is logged by the worker that loads it."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id

    def __len__(self) -> int:
        return 6

    def __getitem__(self, item: int) -> float:
        mlflow.log_metric(f"item-{item}", item, step=0, run_id=self._run_id)
        return float(item)


def load(start: str) -> None:
    data = importlib.import_module("torch.utils.data")
    loaded = data.DataLoader(Noted(current()), batch_size=2, num_workers=2, multiprocessing_context=start)
    mlflow.log_metric("sum", float(sum(float(batch.sum()) for batch in loaded)))


def in_run_workers_that_load_data(name: str) -> None:
    load("fork")


def in_run_spawned_workers_that_load_data(name: str) -> None:
    load("spawn")


def rank_of_ddp(rank: int, run_id: str, meeting: str) -> None:
    torch = importlib.import_module("torch")
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    torch.manual_seed(7)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(3):
        loss = model(torch.full((4, 2), 0.1 * (rank + step))).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mlflow.log_metric(f"loss/rank-{rank}", round(loss.item(), 4), step=step, run_id=run_id)
    torch.distributed.destroy_process_group()


def in_run_ranks_of_ddp(name: str) -> None:
    processes = importlib.import_module("torch.multiprocessing")
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, GLOO_SOCKET_IFNAME="lo"):
        processes.spawn(rank_of_ddp, args=(current(), f"file://{folder}/meeting"), nprocs=2)


class Sentences:
    def __len__(self) -> int:
        return 8

    def __getitem__(self, item: int) -> dict[str, Any]:
        tensor = importlib.import_module("torch").tensor
        return {"input_ids": tensor([1, item % 5, 2]), "labels": tensor(item % 2)}


def use_trainer_of_transformers(name: str) -> None:
    transformers = importlib.import_module("transformers")
    transformers.set_seed(7)
    size = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**size, max_position_embeddings=8))
    stopped = SimpleNamespace(**{**vars(time), "time": lambda: 0.0})  # The time of the training is logged.
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch("transformers.trainer_utils.time", stopped),
        mock.patch("transformers.trainer.time", stopped, create=True),
    ):
        settings = transformers.TrainingArguments(
            output_dir=folder,
            run_name="run",
            report_to=["mlflow"],
            num_train_epochs=2,
            per_device_train_batch_size=4,
            logging_steps=1,
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            dataloader_num_workers=1,
        )
        transformers.Trainer(model=model, args=settings, train_dataset=Sentences()).train()


def use_tracker_of_accelerate(name: str) -> None:
    accelerate = importlib.import_module("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, log_with="mlflow")
    accelerator.init_trackers(name, config={"depth": 6}, init_kwargs={"mlflow": {"run_name": "run"}})
    for step in range(2):
        accelerator.log({"loss": 1 / (step + 1)}, step=step)
    accelerator.end_training()


def use_autolog_of_everything(name: str) -> None:
    """MLflow loads what it finds: torch and lightning too."""
    linear = importlib.import_module("sklearn.linear_model")
    mlflow.autolog(log_models=False, silent=True)
    try:
        linear.LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0])
    finally:
        mlflow.autolog(disable=True)
