"""Uses of MLflow: lightning, transformers' Trainer, and workers that load data. See uses.py."""

import importlib
import tempfile
from types import SimpleNamespace
from typing import Any
from unittest import mock

import mlflow

torch: Any = importlib.import_module("torch")
lightning: Any = importlib.import_module("lightning")
transformers: Any = importlib.import_module("transformers")

QUIETLY = {"accelerator": "cpu", "devices": 1, "max_epochs": 2, "enable_progress_bar": False, "log_every_n_steps": 1}


class Line(lightning.LightningModule):  # type: ignore[misc]
    """A line through points."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: Any, _index: int) -> Any:
        loss = torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def points() -> Any:
    inputs = torch.arange(16.0).reshape(8, 2)
    return torch.utils.data.TensorDataset(inputs, inputs.sum(1, keepdim=True))


def fit(**settings: Any) -> None:
    lightning.seed_everything(7)
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(default_root_dir=folder, **QUIETLY, **settings)
        trainer.fit(Line(), torch.utils.data.DataLoader(points(), batch_size=4))


def use_lightning(name: str) -> None:
    mlflow.pytorch.autolog(log_models=False)
    try:
        fit(logger=False, enable_checkpointing=False)
    finally:
        mlflow.pytorch.autolog(disable=True)


def use_logger_of_lightning(name: str) -> None:
    logger = lightning.pytorch.loggers.MLFlowLogger(
        experiment_name=name, run_name="run", tracking_uri=mlflow.get_tracking_uri()
    )
    fit(logger=logger, enable_checkpointing=False)


class Noted(torch.utils.data.Dataset):  # type: ignore[misc]
    """Data whose every item is logged by the worker that loads it."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id

    def __len__(self) -> int:
        return 6

    def __getitem__(self, item: int) -> Any:
        mlflow.MlflowClient().log_metric(self._run_id, f"item-{item}", item, step=0)
        return torch.tensor(float(item))


def in_run_workers_that_load_data(name: str) -> None:
    active = mlflow.active_run()
    assert active is not None
    data = Noted(active.info.run_id)
    loaded = torch.utils.data.DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context="fork")
    mlflow.log_metric("sum", float(sum(float(batch.sum()) for batch in loaded)))


class Sentences(torch.utils.data.Dataset):  # type: ignore[misc]
    def __len__(self) -> int:
        return 8

    def __getitem__(self, item: int) -> dict[str, Any]:
        return {"input_ids": torch.tensor([1, item % 5, 2]), "labels": torch.tensor(item % 2)}


def use_trainer_of_transformers(name: str) -> None:
    transformers.set_seed(7)
    size = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**size, max_position_embeddings=8))
    stopped = SimpleNamespace(time=lambda: 0.0)  # The time of the training is logged, and differs each time.
    with tempfile.TemporaryDirectory() as folder, mock.patch("transformers.trainer_utils.time", stopped):
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
