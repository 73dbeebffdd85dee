from uuid import UUID

import pytest

import runtime.progress
from runtime.progress import EVERY_EPOCHS, mean_rows, reporter
from tests.runtime.builders import Log, Published
from tutelage.model.training import Progress


def progress_of(epochs: int, *, done: bool = False) -> Progress:
    """Four members whose losses are their number plus the epoch; the validation losses are ten times that."""
    history = [
        {"epoch": epoch, "train": [m + epoch for m in range(4)], "validation": [10.0 * (m + epoch) for m in range(4)]}
        for epoch in range(1, epochs + 1)
    ]
    return Progress(epoch=epochs, history=history, done=done)


def test_mean_rows__are_means_of_the_members() -> None:
    assert mean_rows(progress_of(2)) == [
        {"epoch": 1, "train": 2.5, "validation": 25.0},
        {"epoch": 2, "train": 3.5, "validation": 35.0},
    ]
    assert mean_rows(progress_of(1), slice(2, 4)) == [{"epoch": 1, "train": 3.5, "validation": 35.0}]


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The runs that were logged to, each with its number of rows."""
    calls: list[tuple[str, int]] = []
    monkeypatch.setattr(runtime.progress, "log_history", lambda run, rows: calls.append((run, len(rows))))
    return calls


def test_reporter__speaks_every_five_epochs_and_at_the_end(
    published: Published, logged: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log()
    monkeypatch.setattr(runtime.progress, "get_run_logger", lambda: log)
    report = reporter("teacher-2", "meter-2h", 20, {"a": mean_rows, "b": lambda progress: mean_rows(progress)[:1]})
    for epoch in range(1, 13):
        report(progress_of(epoch, done=epoch == 12))
    assert EVERY_EPOCHS == 5
    assert logged == [("a", 5), ("b", 1), ("a", 10), ("b", 1), ("a", 12), ("b", 1)]
    assert log.lines[0] == "meter-2h teacher-2: epoch 5 of at most 20, validation loss 65.0000"
    assert log.lines[-1] == "meter-2h teacher-2: epoch 12 of at most 20, validation loss 135.0000, done"
    assert len(log.lines) == 3
    [[(share,), created]] = published.of("create_progress_artifact")
    assert (share, created["key"]) == (25.0, "teacher-2-meter-2h")
    updated = [args for args, _ in published.of("update_progress_artifact")]
    assert [share for _, share in updated] == [50.0, 100.0]
    assert len({artifact for artifact, _ in updated}) == 1


def test_reporter__of_a_refit_watches_the_training_loss(published: Published, logged: list[tuple[str, int]]) -> None:
    reporter("refit of the student", "Meter 2h", 4, {}, watched="train")(progress_of(4, done=True))
    [(_, created)] = published.of("create_progress_artifact")
    assert created["key"] == "refit-of-the-student-meter-2h"
    assert created["description"] == "refit of the student: epoch 4 of at most 4, train loss 5.5000"
    assert logged == []


def test_reporter__trainings_that_hold_out_a_block_share_an_artifact(
    published: Published, logged: list[tuple[str, int]]
) -> None:
    artifacts: dict[str, UUID] = {}
    for number in (1, 2):
        reporter(f"teacher-block-{number}", "Meter 2h", 4, {}, artifacts=artifacts)(progress_of(4, done=True))
    [(_, created)] = published.of("create_progress_artifact")
    assert created["key"] == "teacher-meter-2h"
    [(_, updated)] = published.of("update_progress_artifact")
    assert updated["description"].startswith("teacher-block-2: epoch 4")
    assert len(artifacts) == 1


def test_reporter__a_stage_from_its_checkpoint_is_reported_once(published: Published) -> None:
    report = reporter("student", "meter-2h", 20, {})
    report(progress_of(20, done=True))
    assert len(published.calls) == 1
