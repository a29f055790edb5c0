"""Train: the run folder says everything, a seed always gives the same bits, and only an interrupted epoch is lost."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from kaggle_digits.data import TrainingRows, find_source, load_train, split_rows
from kaggle_digits.errors import RunError, TrainingError
from kaggle_digits.kaggle.records import is_used
from kaggle_digits.learners import Context, load_run
from kaggle_digits.learners.resume import claim
from kaggle_digits.learners.upright import normalise_pixels
from kaggle_digits.recipe import Augmentation, Milestones, Network, OneCycle, Plateau
from kaggle_digits.recipes import RECIPES
from kaggle_digits.run import RowCounts, Run, read_run
from kaggle_digits.strategy import resolve_device
from kaggle_digits.train import train_run

# It has everything with a state: dropout, normalisation, momenta, a schedule, augmentation. The last batch has 4 rows.
TINY = replace(
    RECIPES["fast"],
    name="tiny",
    layers=(
        ("Conv2D", {"filters": 4, "kernel_size": 5, "strides": 4}),
        ("BatchNormalization", {"momentum": 0.9, "epsilon": 1e-3}),
        ("Dropout", {"rate": 0.3}),
        ("Flatten", {}),
        ("Dense", {"units": 10}),
    ),
    learning_rate=OneCycle(peak=0.02, warmup=0.3, start=0.1, end=0.01),
    epochs=4,
    batch_size=32,
    least_steps=0,
    augmentation=Augmentation(rotation=10, scale=0.1, shear=0.1, shift=1),
    precision="float32",
)
# This is the default recipe, shortened: bfloat16 where the CPU has it, pooling, Muon.
SMALL_FAST = replace(RECIPES["fast"], epochs=4, batch_size=32, least_steps=0)
KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_train import SMALL_FAST, TINY, train
from kaggle_digits.strategy import resolve_device
recipe = {"tiny": TINY, "fast": SMALL_FAST}[sys.argv[4]]
class Killer:
    def step(self, done, total):
        if done == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
    def epoch(self, metrics, epochs):
        pass
train(sys.argv[2], resolve_device("cpu", precision=recipe.precision), recipe=recipe, progress=Killer())
"""


def rows() -> TrainingRows:
    return load_train(find_source("sample")).take(np.arange(100))


def held_out() -> TrainingRows:
    return load_train(find_source("sample")).take(np.arange(100, 150))


def weights(folder: Path) -> list[np.ndarray]:
    with np.load(folder / "model.npz", allow_pickle=False) as saved:
        return list(dict(saved).values())


def assert_equal_weights(first: Path, second: Path) -> None:
    for one, other in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(one, other)


class Recorder:
    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.epochs: list[int] = []

    def step(self, done: int, total: int) -> None:
        self.steps.append((done, total))

    def epoch(self, metrics: dict, epochs: int) -> None:
        assert epochs == 4
        self.epochs.append(metrics["epoch"])


def would_resume(folder: str, cpu, *, recipe: Network = TINY) -> bool:
    """Return whether a job that repeats a training resumes the one in the folder instead of starting a new one."""
    wanted = Run(
        folder=Path(folder),
        recipe=recipe,
        seed=7,
        source="test",
        rows=RowCounts.of(rows(), held_out()),
        device=cpu,
        versions={},
        commit=None,
    )
    with claim(wanted, is_spent=is_used) as claimed:
        return claimed.run.folder == Path(folder) and claimed.state != "fresh"


def train(folder: str, cpu, *, recipe: Network = TINY, **options):
    settings = {"held_out": held_out(), "rows": rows(), **options}
    told = {name: settings.pop(name) for name in ("seed", "progress") if name in settings}
    context = Context(**{"seed": 7, "device": cpu, "source": "test"} | told)
    return train_run(recipe, folder=Path(folder), context=context, **settings)


def interrupt(folder: str, cpu, *, after: int, **options) -> None:
    """Train, and press Ctrl-C when epoch `after` is saved."""

    class Impatient(Recorder):
        def epoch(self, metrics: dict, epochs: int) -> None:
            if metrics["epoch"] == after:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(folder, cpu, progress=Impatient(), **options)


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory, cpu):
    return train(tmp_path_factory.mktemp("finished") / "run", cpu)


@pytest.fixture
def finished(finished_once):
    """A finished run in a folder of the test's own."""
    shutil.copytree(finished_once.folder, "finished")
    return replace(finished_once, folder=Path("finished"))


def test_a_file_of_another_training_in_the_folder_is_noticed(finished, cpu):
    other = train("other", cpu, seed=8)
    for name in ("model.npz", "validation.npz"):
        kept = (finished.folder / name).read_bytes()
        (finished.folder / name).write_bytes((other.folder / name).read_bytes())
        with pytest.raises(RunError, match=rf"^finished/{name}: is not the file .* \(the checksums differ\)"):
            _ = load_run(finished.folder, cpu).probabilities
        (finished.folder / name).write_bytes(kept)
    assert load_run(finished.folder, cpu).probabilities.shape == (50, 10)


def test_run_folder_says_what_was_done(finished, cpu):
    assert sorted(p.name for p in finished.folder.iterdir()) == ["model.npz", "run.json", "validation.npz"]
    record = json.loads((finished.folder / "run.json").read_text())
    assert set(record) == {
        *("finished", "recipe", "seed", "source", "rows", "split", "device", "versions", "commit", "submission"),
        *("parameters", "epochs", "temperature", "threshold", "checksums", "checksum"),
    }
    assert record["finished"] is True
    assert (record["seed"], record["source"]) == (7, "test")
    assert (record["rows"]["training"], record["rows"]["held_out"]) == (100, 50)
    device = {"kind": "cpu", "replicas": 1, "precision": "float32", "reason": "asked for", "backend": "tensorflow"}
    assert record["device"] == device
    assert record["versions"]["keras"] == keras.__version__
    assert [epoch["epoch"] for epoch in record["epochs"]] == [1, 2, 3, 4]
    measured = {"epoch", "loss", "accuracy", "validation_accuracy", "seconds", "validation_seconds"}
    assert set(record["epochs"][0]) == measured
    # The network is plain arrays, without its optimizer.
    with np.load(finished.folder / "model.npz", allow_pickle=False) as saved:
        assert sum(array.size for array in dict(saved).values()) == finished.parameters
        assert {array.dtype for array in dict(saved).values()} == {np.dtype(np.float32)}
        assert next(iter(saved)) == "0.Conv2D.0.kernel"


def test_loaded_run_predicts_like_the_trained_one_also_the_held_out_rows(finished, cpu):
    loaded = load_run(finished.folder, cpu)
    assert loaded.recipe == TINY
    np.testing.assert_array_equal(loaded.predict(rows().pixels), finished.predict(rows().pixels))
    with np.load(finished.folder / "validation.npz") as saved:
        np.testing.assert_array_equal(saved["digits"], held_out().digits)
        np.testing.assert_array_equal(saved["probabilities"], finished.predict(held_out().pixels))
        correct = (saved["probabilities"].argmax(axis=1) == saved["digits"]).sum() / 50
    assert finished.epochs[-1]["validation_accuracy"] == correct


def test_same_seed_gives_the_same_bits_and_another_seed_does_not(finished, cpu):
    assert_equal_weights(finished.folder, train("again", cpu).folder)
    other = weights(train("other", cpu, seed=8).folder)
    assert any(not np.array_equal(one, two) for one, two in zip(weights(finished.folder), other, strict=True))


def test_network_that_deslants_learns_from_upright_digits(cpu):
    train("itself", cpu, recipe=replace(TINY, deslant=True, spread=4.0))
    upright = [replace(r, pixels=normalise_pixels(r.pixels, deslant=True, spread=4.0)) for r in (rows(), held_out())]
    train("before", cpu, rows=upright[0], held_out=upright[1])
    assert_equal_weights(Path("itself"), Path("before"))
    first, second = (np.load(f"{folder}/validation.npz")["probabilities"] for folder in ("itself", "before"))
    np.testing.assert_array_equal(first, second)


def test_held_out_rows_do_not_touch_the_training(finished, cpu):
    assert_equal_weights(finished.folder, train("alone", cpu, held_out=None).folder)
    assert not Path("alone/validation.npz").exists()


def test_every_row_of_every_epoch_is_trained_on(cpu):
    recorder = Recorder()
    train("run", cpu, progress=recorder)
    # 100 rows make batches of 32 + 32 + 32 + 4, so four epochs have 16 steps.
    assert recorder.steps == [(step, 16) for step in range(1, 17)]
    assert recorder.epochs == [1, 2, 3, 4]


def kill_at(step: int, recipe: str) -> None:
    """Train into the folder killed, in a process that is killed at a step."""
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), "killed", str(step), recipe]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(("step", "left"), [(2, [2, 3, 4]), (10, [3, 4])])
def test_kill_9_in_the_middle_of_an_epoch_loses_that_epoch_only(finished, cpu, step, left):
    kill_at(step, "tiny")
    assert not Path("killed/model.npz").exists()
    assert would_resume("killed", cpu)
    with pytest.raises(RunError, match=r"^killed: its training is not finished"):
        load_run(Path("killed"), cpu)

    recorder = Recorder()
    resumed = train("killed", cpu, resume=True, progress=recorder)
    assert recorder.epochs == ([1, *left] if step == 2 else left)
    assert_equal_weights(finished.folder, resumed.folder)
    assert sorted(p.name for p in resumed.folder.iterdir()) == ["model.npz", "run.json", "validation.npz"]
    times = {"seconds", "validation_seconds"}
    for one, other in zip(finished.epochs, resumed.epochs, strict=True):
        assert {k: v for k, v in one.items() if k not in times} == {k: v for k, v in other.items() if k not in times}


def test_the_default_recipe_gives_the_same_bits_again_and_after_kill_9():
    device = resolve_device("cpu", precision=SMALL_FAST.precision)
    first = train("first", device, recipe=SMALL_FAST)
    assert_equal_weights(first.folder, train("second", device, recipe=SMALL_FAST).folder)
    kill_at(10, "fast")
    assert_equal_weights(first.folder, train("killed", device, recipe=SMALL_FAST, resume=True).folder)


@pytest.mark.parametrize(("after", "left"), [(3, [4]), (4, [])])
def test_interrupt_is_passed_on_and_resumable_also_after_the_last_epoch(finished, cpu, after, left):
    interrupt("stopped", cpu, after=after)
    assert would_resume("stopped", cpu, recipe=replace(TINY, summary="other words", published="99%"))
    recorder = Recorder()
    train("stopped", cpu, resume=True, progress=recorder)
    assert recorder.epochs == left
    assert_equal_weights(finished.folder, Path("stopped"))
    with np.load("stopped/validation.npz") as one, np.load(finished.folder / "validation.npz") as other:
        np.testing.assert_array_equal(one["probabilities"], other["probabilities"])


def test_finished_run_is_returned_and_not_trained_again(finished, cpu):
    before = (finished.folder / "model.npz").stat().st_mtime_ns
    recorder = Recorder()
    train("finished", cpu, resume=True, progress=recorder)
    assert recorder.epochs == []
    assert (finished.folder / "model.npz").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"seed": 8}, "holds a run with seed 7, and seed 8 was asked for."),
        ({"recipe": replace(TINY, name="other")}, "holds a run of tiny, and other was asked for."),
        ({"recipe": replace(TINY, epochs=5)}, "holds a run of tiny with other settings than the recipe has now."),
        ({"held_out": None}, "holds a run on other rows"),
    ],
)
def test_run_of_another_training_is_not_resumed(finished, cpu, options, fault):
    with pytest.raises(RunError, match=f"^finished: {fault}.* or repeat"):
        train("finished", cpu, resume=True, **options)


def damages(whole: bytes) -> tuple[bytes, ...]:
    return whole[:-100], b"", b"not an archive", whole[:100] + bytes(5000) + whole[5100:]


def test_damaged_checkpoint_is_refused(cpu):
    interrupt("stopped", cpu, after=1)
    checkpoint = Path("stopped/checkpoint.npz")
    for damaged in damages(checkpoint.read_bytes()):
        checkpoint.write_bytes(damaged)
        with pytest.raises(RunError, match=r"checkpoint.npz: cannot be resumed from .* train again\.$"):
            train("stopped", cpu, resume=True)


def test_of_a_damaged_checkpoint_the_one_before_is_taken_and_that_is_said(finished, cpu, caplog):
    interrupt("stopped", cpu, after=3)
    kept = {file.name: file.read_bytes() for file in Path("stopped").iterdir()}
    assert sorted(kept) == ["checkpoint-before.npz", "checkpoint.npz", "run.json"]
    for damaged in damages(kept["checkpoint.npz"]):
        for name, contents in kept.items():
            Path("stopped", name).write_bytes(contents)
        Path("stopped/checkpoint.npz").write_bytes(damaged)
        caplog.clear()
        recorder = Recorder()
        train("stopped", cpu, resume=True, progress=recorder)
        assert recorder.epochs == [3, 4]
        assert_equal_weights(finished.folder, Path("stopped"))
        assert "Going on from stopped/checkpoint-before.npz, an epoch earlier." in caplog.text
        assert sorted(p.name for p in Path("stopped").iterdir()) == ["model.npz", "run.json", "validation.npz"]
        shutil.rmtree("stopped")
        Path("stopped").mkdir()


def test_a_kill_between_two_checkpoints_loses_one_epoch_only(finished, cpu):
    interrupt("stopped", cpu, after=3)
    Path("stopped/checkpoint.npz").replace("stopped/checkpoint-before.npz")  # the new one was not written yet
    recorder = Recorder()
    train("stopped", cpu, resume=True, progress=recorder)
    assert recorder.epochs == [4]
    assert_equal_weights(finished.folder, Path("stopped"))


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_diverging_training_is_an_error(cpu):
    wild = replace(
        RECIPES["mlp-784-300"],
        layers=(("Flatten", {}), ("Dense", {"units": 300}), ("Dense", {"units": 10})),
        learning_rate=1e9,
        epochs=3,
    )
    with pytest.raises(TrainingError, match=r"^mlp-784-300: the loss became (nan|inf) in epoch \d\. Expected"):
        train("run", cpu, recipe=wild)


def test_milestones_cut_the_learning_rate_before_their_epochs(cpu):
    stepped = replace(TINY, learning_rate=Milestones(start=0.02, factor=0.5, epochs=(0, 1, 3)), epochs=1)
    constant = replace(stepped, learning_rate=0.01)
    # A milestone at 0 cuts the rate before the first step.
    assert_equal_weights(train("stepped", cpu, recipe=stepped).folder, train("constant", cpu, recipe=constant).folder)


def enough_rows() -> TrainingRows:
    """Return 210 rows, enough to set aside a twentieth as tuning rows."""
    return load_train(find_source("sample")).take(np.arange(150, 360))


PLATEAU = replace(TINY, learning_rate=Plateau(start=0.02, factor=0.5, patience=1, threshold=0.5), epochs=4)


def test_plateau_is_measured_on_rows_that_are_neither_trained_on_nor_reported(cpu):
    run = train("run", cpu, recipe=PLATEAU, rows=enough_rows())
    training, tuning = split_rows(enough_rows(), fraction=0.05, seed=7)
    last = run.epochs[-1]
    read = run.predict(tuning.pixels).argmax(axis=1)
    assert last["tuning_accuracy"] == (read == tuning.digits).mean()
    # One epoch, before the first cut, equals training at a constant rate on the rows that are left.
    first = train("first", cpu, recipe=replace(PLATEAU, epochs=1), rows=enough_rows())
    other = train("alone", cpu, recipe=replace(PLATEAU, learning_rate=0.02, epochs=1), rows=training)
    assert_equal_weights(first.folder, other.folder)
    # Held-out rows decide nothing, so training without them gives the same weights.
    assert_equal_weights(run.folder, train("blind", cpu, recipe=PLATEAU, rows=enough_rows(), held_out=None).folder)


def test_plateau_resumes_with_the_same_bits(cpu):
    whole = train("whole", cpu, recipe=PLATEAU, rows=enough_rows())

    interrupt("stopped", cpu, after=2, recipe=PLATEAU, rows=enough_rows())
    assert_equal_weights(whole.folder, train("stopped", cpu, recipe=PLATEAU, rows=enough_rows(), resume=True).folder)


def test_early_end_is_decided_on_tuning_rows(cpu):
    ended = train("run", cpu, recipe=replace(TINY, stop_at=0.0), rows=enough_rows())
    assert [metrics["epoch"] for metrics in ended.epochs] == [1]
    assert ended.epochs[0]["tuning_accuracy"] >= 0
    never = train("never", cpu, recipe=replace(TINY, stop_at=1.1), rows=enough_rows())
    assert len(never.epochs) == TINY.epochs
    # A run that ended early does not train further when it is resumed.
    assert train("run", cpu, recipe=replace(TINY, stop_at=0.0), rows=enough_rows(), resume=True).epochs == ended.epochs


RESIDUAL = replace(
    TINY,
    layers=(
        ("Conv2D", {"filters": 4, "kernel_size": 5, "strides": 4}),
        ("Residual", RECIPES["resnet-192"].layers[3][1] | {"filters": 4}),
        ("Flatten", {}),
        ("Dense", {"units": 10}),
    ),
    precision="mixed_bfloat16",
)
LOADED = """
import sys
from pathlib import Path
import numpy as np
from kaggle_digits.strategy import resolve_device
device = resolve_device("cpu", precision="mixed_bfloat16")
from kaggle_digits.learners import load_run
run = load_run(Path(sys.argv[1]), device)
pixels = np.random.default_rng(0).integers(0, 256, (5, 784)).astype(np.uint8)
np.save("elsewhere.npy", run.predict(pixels))
"""


def test_residual_blocks_resume_and_load_in_another_process():
    device = resolve_device("cpu", precision=RESIDUAL.precision)
    whole = train("whole", device, recipe=RESIDUAL)
    interrupt("stopped", device, after=2, recipe=RESIDUAL)
    assert_equal_weights(whole.folder, train("stopped", device, recipe=RESIDUAL, resume=True).folder)
    subprocess.run([sys.executable, "-c", LOADED, "whole"], check=True, timeout=300)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 784)).astype(np.uint8)
    np.testing.assert_array_equal(np.load("elsewhere.npy"), whole.predict(pixels))
    assert whole.parameters == sum(array.size for array in weights(whole.folder))


def test_checkpoint_of_an_unknown_run_is_not_taken_up(finished, cpu):
    interrupt("stopped", cpu, after=2)
    Path("stopped/run.json").unlink()
    recorder = Recorder()
    assert_equal_weights(finished.folder, train("stopped", cpu, progress=recorder).folder)
    assert recorder.epochs == [1, 2, 3, 4]


ON_JAX = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import numpy as np
from kaggle_digits.strategy import resolve_device
device = resolve_device("cpu", backend="jax")
from test_train import load_run, rows, train
np.save("there.npy", load_run(Path("finished"), device).predict(rows().pixels))
train("begun", device, resume=True)
"""


def test_run_and_checkpoint_move_to_the_other_backend(finished, cpu):
    interrupt("begun", cpu, after=2)
    done = subprocess.run([sys.executable, "-c", ON_JAX, str(Path(__file__).parent)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    here = load_run(finished.folder, cpu).predict(rows().pixels)
    np.testing.assert_allclose(np.load("there.npy"), here, atol=1e-5)
    run = read_run(Path("begun"))
    assert run.finished
    assert [epoch["loss"] for epoch in run.epochs[:2]] == [e["loss"] for e in finished.epochs[:2]]
    assert (run.device.backend, run.devices_before[0].backend) == ("jax", "tensorflow")
