import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from tests.tutelage.builders import dataset_of, small_network, synthetic_panel
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.losses import hard_label_loss
from tutelage.errors import TutelageError
from tutelage.model.kinds import Budget
from tutelage.model.networks import Forecaster
from tutelage.model.training import Progress, choose_device, save_checkpoint, train_network

BUDGET = Budget(epochs=6, patience=6, batch_size=8, learning_rate=0.02, dropout=0.3)


class KilledError(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(synthetic_panel([90]), train_hours=50)


def losses(dataset: WindowDataset, origins: Tensor) -> Callable[[Forecaster], Tensor]:
    return lambda network: hard_label_loss(network(*dataset.student_inputs(origins)), dataset.labels(origins))


def train(
    dataset: WindowDataset, budget: Budget = BUDGET, *, seed: int = 0, **given: object
) -> tuple[Forecaster, Progress]:
    """Two members with dropout, from the seed's weights on and with the seed's batches."""
    network = small_network(dataset, dropout=budget.dropout, seed=seed)
    given.setdefault("validation_loss", losses(dataset, dataset.validation))
    progress = train_network(
        network,
        given.pop("loss", lambda network, batch: losses(dataset, batch)(network)),
        dataset.train,
        budget=budget,
        generator=torch.Generator().manual_seed(seed),
        **given,
    )
    return network, progress


@pytest.mark.parametrize("killed_after", [2, 3, 5])
@pytest.mark.fault
def test_train_network__a_killed_run_ends_as_if_it_had_not_been(
    dataset: WindowDataset, tmp_path: Path, killed_after: int
) -> None:
    def kill(progress: Progress) -> None:
        if progress.epoch == killed_after:
            raise KilledError

    path, seen = tmp_path / "state.safetensors", []
    whole, expected = train(dataset)
    with pytest.raises(KilledError):
        train(dataset, checkpoint=path, checkpoint_every=2, on_epoch=kill)
    resumed, progress = train(dataset, seed=7, checkpoint=path, on_epoch=lambda progress: seen.append(progress.epoch))
    assert seen == list(range(killed_after // 2 * 2, 7))
    assert vars(progress) == vars(expected)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_train_network__a_finished_run_is_not_trained_again(dataset: WindowDataset, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    whole, expected = train(dataset, checkpoint=path)
    again, progress = train(dataset, seed=7, checkpoint=path, loss=lambda network, batch: pytest.fail("it trained"))
    assert vars(progress) == vars(expected)
    for name, value in whole.named_parameters():
        assert torch.equal(again.get_parameter(name), value), name


def test_train_network__each_member_gets_its_own_best_weights_back(dataset: WindowDataset) -> None:
    validation = iter([[3.0, 3.0], [1.0, 4.0], [2.0, 2.0], [2.0, 1.0], [5.0, 5.0], [5.0, 0.5]])
    network = small_network(dataset)
    at_epoch: list[dict[str, Tensor]] = []
    progress = train_network(
        network,
        lambda network, batch: losses(dataset, batch)(network),
        dataset.train,
        lambda network: torch.tensor(next(validation)),
        BUDGET,
        generator=torch.Generator(),
        on_epoch=lambda progress: at_epoch.append({k: v.clone() for k, v in network.state_dict().items()}),
    )
    assert (progress.best_epoch, progress.best_loss) == ([2, 6], [1.0, 0.5])
    for name, weight in network.named_parameters():
        assert torch.equal(weight[0], at_epoch[1][name][0])
        assert torch.equal(weight[1], at_epoch[5][name][1])
        assert not torch.equal(weight[0], at_epoch[5][name][0])


def test_train_network__each_member_ends_after_its_number_of_epochs(dataset: WindowDataset) -> None:
    network, at_epoch = small_network(dataset), []
    progress = train_network(
        network,
        lambda network, batch: losses(dataset, batch)(network),
        dataset.train,
        losses(dataset, dataset.validation),
        Budget(epochs=2, patience=1, batch_size=32, dropout=0.0),
        generator=torch.Generator(),
        on_epoch=lambda progress: at_epoch.append({k: v.clone() for k, v in network.state_dict().items()}),
        take=(5, 3),
    )
    assert (progress.epoch, progress.best_epoch) == (5, [5, 3])
    for name, weight in network.named_parameters():
        assert torch.equal(weight[0], at_epoch[4][name][0])
        assert torch.equal(weight[1], at_epoch[2][name][1])


def test_train_network__the_best_loss_is_that_of_the_weights_it_leaves(dataset: WindowDataset) -> None:
    network, progress = train(dataset, Budget(epochs=30, patience=30, batch_size=8, learning_rate=0.03, dropout=0.0))
    assert not network.training
    assert max(progress.best_epoch) < 30  # it overfits: the last weights are not the best
    assert losses(dataset, dataset.validation)(network).tolist() == progress.best_loss
    validation = [epoch["validation"] for epoch in progress.history]
    assert [min(member) for member in zip(*validation, strict=True)] == progress.best_loss


def test_train_network__learns(dataset: WindowDataset) -> None:
    _, progress = train(dataset, Budget(epochs=30, patience=30, batch_size=8, learning_rate=0.03, dropout=0.0))
    first, last = progress.history[0]["train"], progress.history[-1]["train"]
    assert all(end < 0.5 * start for start, end in zip(first, last, strict=True))


def test_train_network__the_training_loss_is_the_mean_over_the_windows(dataset: WindowDataset) -> None:
    assert len(dataset.train) % 8  # so the last batch is smaller
    still = Budget(epochs=1, patience=1, batch_size=8, learning_rate=1e-12, dropout=0.0)
    network, progress = train(dataset, still)
    assert progress.history[0]["train"] == pytest.approx(losses(dataset, dataset.train)(network).tolist(), rel=1e-5)


def test_train_network__stops_when_no_member_gets_better_any_more(dataset: WindowDataset) -> None:
    validation = iter([[1.0, 3.0], [2.0, 2.0], [2.0, 1.0]] + [[2.0, 2.0]] * 9)
    budget = BUDGET.model_copy(update={"epochs": 12, "patience": 4})
    _, progress = train(dataset, budget, validation_loss=lambda network: torch.tensor(next(validation)))
    assert progress.best_epoch == [1, 3]
    assert progress.epoch == len(progress.history) == 3 + 4
    assert progress.done


def test_train_network__a_member_whose_patience_has_run_out_is_over(dataset: WindowDataset) -> None:
    validation = iter([[1.0, 6.0], [2.0, 5.0], [2.0, 4.0], [0.5, 3.0], [0.4, 3.0], [0.3, 3.0]])
    budget = BUDGET.model_copy(update={"patience": 2})
    _, progress = train(dataset, budget, validation_loss=lambda network: torch.tensor(next(validation)))
    assert (progress.best_epoch, progress.best_loss, progress.epoch) == ([1, 4], [1.0, 3.0], 6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_train_network__a_loss_that_is_not_finite_ends_it(dataset: WindowDataset, tmp_path: Path, value: float) -> None:
    path = tmp_path / "state.safetensors"
    with pytest.raises(TutelageError, match="a loss of epoch 1 is not finite"):
        train(dataset, checkpoint=path, checkpoint_every=1, validation_loss=lambda network: torch.tensor([1.0, value]))
    with pytest.raises(TutelageError, match="a loss of epoch 1 is not finite"):
        train(dataset, checkpoint=path, loss=lambda network, batch: value * losses(dataset, batch)(network))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault
def test_save_checkpoint__a_failed_save_leaves_the_last_one(dataset: WindowDataset, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    network = small_network(dataset)
    optimiser = torch.optim.AdamW(network.parameters())
    save_checkpoint(path, network, {}, optimiser, {}, Progress(epoch=1))
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))  # the disk is full, as it were
    try:
        with pytest.raises((OSError, SafetensorError)):
            save_checkpoint(path, network, {}, optimiser, {}, Progress(epoch=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.fault
@pytest.mark.parametrize("damage", ["cut", "empty", "zeros", "of something else"])
def test_train_network__a_damaged_checkpoint_is_left_out(
    damage: str, dataset: WindowDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.safetensors"
    undisturbed, expected = train(dataset, checkpoint=path, checkpoint_every=1)
    whole = path.read_bytes()
    other = save({"weights": torch.zeros(2)})
    damaged = {"cut": whole[:-9], "empty": b"", "zeros": bytes(len(whole)), "of something else": other}[damage]
    path.write_bytes(damaged)
    again, progress = train(dataset, checkpoint=path, checkpoint_every=1)
    assert vars(progress) == vars(expected)
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert "state.safetensors can't be read: the training begins anew" in caplog.text


@pytest.mark.parametrize("name", ["tpu", "", "cuda" if not torch.cuda.is_available() else "mps"])
def test_choose_device__refuses_what_is_not_there(name: str) -> None:
    with pytest.raises(TutelageError, match=f"device '{name}' is not available here"):
        choose_device(name)


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_choose_device__gives_one_that_works(name: str) -> None:
    device = choose_device(name)
    assert torch.ones(2, device=device).sum().item() == 2
    assert name == "auto" or device.type == name
