import _thread
import time
from collections.abc import Iterator
from contextvars import ContextVar
from threading import Barrier, Event

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits
from torch import Tensor

from tests.tutelage.builders import CPU, dataset_of, small_network, small_recipe, synthetic_panel
from tutelage.distil.blocks import BLOCKS, fit_students, fit_teachers
from tutelage.distil.losses import hard_label_loss
from tutelage.errors import GapsError
from tutelage.forecasts import Contender
from tutelage.model.kinds import Budget
from tutelage.model.networks import Forecaster
from tutelage.model.threads import GivenUpError, one_thread, side_by_side, stop_if_given_up
from tutelage.model.training import train_network


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_one_thread__puts_back_what_there_was() -> None:
    with pytest.raises(KeyError), one_thread():
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == 2


def test_side_by_side__works_on_two_at_once_each_on_one_thread() -> None:
    here: ContextVar[str] = ContextVar("here")
    here.set("with its context")
    begun = Event()

    def work(item: int) -> tuple[int, int, str]:
        if item == 0:
            assert begun.wait(20), "the next one waits for this one"
        begun.set()
        return item, torch.get_num_threads(), here.get()

    assert side_by_side(work, range(4), CPU) == [(item, 1, "with its context") for item in range(4)]
    assert torch.get_num_threads() == 2


def test_side_by_side__blas_has_one_thread_while_another_s_limit_ends() -> None:
    both, second_inside, first_ended = Barrier(2), Event(), Event()

    def work(item: int) -> set[int]:
        # Each sets a limit while the other has one, and one of them ends first: what it puts back is the process's.
        if item == 1:
            both.wait(20)
        with threadpool_limits(1, "blas"):
            if item == 0:
                both.wait(20)
                assert second_inside.wait(20)
            else:
                second_inside.set()
                assert first_ended.wait(20)
                return blas_threads()
        first_ended.set()
        return {1}

    with threadpool_limits(2, "blas"):
        before = blas_threads()
        assert side_by_side(work, range(2), CPU) == [{1}, {1}]
        assert blas_threads() == before


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.parametrize(
    ("threads", "device"), [(1, CPU), (2, torch.device("meta"))], ids=["one core", "another device"]
)
def test_side_by_side__works_on_one_after_the_other(threads: int, device: torch.device) -> None:
    torch.set_num_threads(threads)
    ended: list[int] = []

    def work(item: int) -> int:
        time.sleep(0.02 * (2 - item))
        ended.append(item)
        return item

    assert side_by_side(work, range(3), device) == ended == [0, 1, 2]


def work_until_given_up() -> None:
    while True:
        stop_if_given_up()
        time.sleep(0.001)


@pytest.mark.fault
def test_side_by_side__a_failure_ends_the_others(capfd: pytest.CaptureFixture[str]) -> None:
    begun: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        if item == 1:
            raise GapsError("too few windows")
        work_until_given_up()

    with pytest.raises(GapsError, match="too few windows"):
        side_by_side(work, range(9), CPU)
    assert len(begun) <= 3, "what hasn't begun doesn't begin"
    assert torch.get_num_threads() == 2
    stop_if_given_up()  # no matter to anybody else


@pytest.mark.fault
def test_side_by_side__ends_where_the_process_is_interrupted() -> None:
    def work(item: int) -> None:
        if item == 1:
            _thread.interrupt_main()
        work_until_given_up()

    with pytest.raises(KeyboardInterrupt):
        side_by_side(work, range(2), CPU)


@pytest.mark.fault
def test_side_by_side__a_training_that_nobody_waits_for_stops() -> None:
    dataset = dataset_of(synthetic_panel([90]), train_hours=50)
    endless = (10**6, 10**6)
    given_up: list[type[BaseException]] = []
    begun = Event()

    def train(seed: int) -> None:
        def loss(network: Forecaster, batch: Tensor) -> Tensor:
            if seed == 1 and begun.wait(20):
                raise GapsError("too few windows")
            begun.set()
            return hard_label_loss(network(*dataset.student_inputs(batch)), dataset.labels(batch))

        try:
            train_network(
                small_network(dataset),
                loss,
                dataset.train,
                lambda network: torch.zeros(2),
                Budget(batch_size=8),
                generator=torch.Generator(),
                take=endless,
            )
        except GivenUpError as error:
            given_up.append(type(error))
            raise

    with pytest.raises(GapsError):
        side_by_side(train, range(2), CPU)
    assert given_up == [GivenUpError]


@pytest.mark.parametrize("coupling", [0.0, 0.5])
def test_threads__change_no_bit_of_a_training(coupling: float) -> None:
    """Of so many windows: a training on one thread and one on two would differ in each block."""
    panel = synthetic_panel([478])
    dataset = dataset_of(panel, train_hours=301, validation_hours=77, lookback=6)
    recipe = small_recipe().override({"teacher.coupling": coupling, "teacher.training.dropout": 0.3})

    def weights(threads: int) -> list[dict[str, Tensor]]:
        torch.set_num_threads(threads)
        taught = fit_teachers(dataset, recipe, seed=4)
        students = fit_students(dataset, {Contender.STUDENT: taught.labels}, recipe, seed=4)
        teachers = [network for block in taught.blocks for network in block.teachers.values()]
        networks = [network for block in students.blocks for network in block.networks.values()]
        return [each.state_dict() for each in (*teachers, *networks) if isinstance(each, Forecaster)]

    single, double = weights(1), weights(2)
    assert len(single) == len(double) == 3 * BLOCKS
    for one, two in zip(single, double, strict=True):
        for name, value in one.items():
            assert torch.equal(value, two[name]), name
