"""Strategy: the best device that really exists is chosen, with its reason, and the terminal stays quiet."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
from test_backend import run_python

from kaggle_digits import strategy
from kaggle_digits.devices import accelerators, import_tensorflow, jax
from kaggle_digits.errors import DeviceError
from kaggle_digits.strategy import resolve_device


@pytest.mark.parametrize(
    ("flags", "precision", "reason"),
    [
        ("flags: fma avx2 avx512_bf16", "mixed_bfloat16", "asked for"),
        ("flags: fma amx_bf16", "mixed_bfloat16", "asked for"),
        ("flags: fma avx2", "float32", "asked for; float32, since it does not compute bfloat16 natively"),
    ],
)
def test_cpu_uses_bfloat16_only_where_it_is_native(tmp_path, monkeypatch, flags, precision, reason):
    monkeypatch.setattr(strategy, "CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(flags)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    device = resolve_device("cpu", precision="mixed_bfloat16")
    assert (device.kind, device.strategy, device.replicas) == ("cpu", None, 1)
    assert (device.precision, device.reason) == (precision, reason)


@pytest.mark.parametrize(
    ("limit", "precision"), [("sse41", "float32"), ("AVX2", "float32"), ("AVX512_CORE_BF16", "mixed_bfloat16")]
)
def test_bfloat16_is_not_used_where_onednn_may_not_use_its_instructions(tmp_path, monkeypatch, limit, precision):
    monkeypatch.setattr(strategy, "CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("flags: fma avx512_bf16")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert resolve_device("cpu", precision="mixed_bfloat16").precision == precision


def test_machine_without_cpuinfo_uses_float32(tmp_path, monkeypatch):
    monkeypatch.setattr(strategy, "CPUINFO", tmp_path / "none")
    assert resolve_device("cpu", precision="mixed_bfloat16").precision == "float32"


def test_float32_recipe_stays_float32():
    assert resolve_device("cpu").precision == "float32"


def test_unknown_device_is_refused():
    with pytest.raises(DeviceError) as caught:
        resolve_device("npu")
    assert str(caught.value) == ("--device npu: no such device. Expected one of auto, tpu, gpu, cpu. Correct the name.")


def test_missing_tpu_is_an_error_if_asked_for():
    # This uses the real TensorFlow, whose TPU initialisation raises NotFoundError here.
    done = run_python(
        "from kaggle_digits.strategy import resolve_device\n"
        "from kaggle_digits.errors import DeviceError\n"
        "try: resolve_device('tpu')\n"
        "except DeviceError as error: print(error)\n"
    )
    version = import_tensorflow().__version__
    assert done.stdout.startswith(f"--device tpu: TensorFlow {version} finds no TPU here (NotFoundError: "), done.stderr
    assert done.stdout.endswith("Use --device auto, or a GPU.\n")


def test_auto_on_a_tpu_machine_without_tpu_support_falls_back_and_says_why():
    # Kaggle's TPU machine looks like this to TensorFlow: the variable is set, but this TensorFlow has no TPU support.
    done = run_python(
        "from kaggle_digits.strategy import resolve_device\nd = resolve_device()\nprint(d.kind, '|', d.reason)",
        ISTPUVM="1",
        CUDA_VISIBLE_DEVICES="",
    )
    version = import_tensorflow().__version__
    assert done.stdout == (
        f"cpu | ISTPUVM is set, but TensorFlow {version} finds no TPU (NotFoundError); no GPU visible to TensorFlow\n"
    ), done.stderr


def test_tpu_name_that_leads_nowhere_falls_back():
    # TensorFlow asks Google's metadata server for the name. The proxy refuses at once, so the test need not wait.
    done = run_python(
        "from kaggle_digits.strategy import resolve_device\nd = resolve_device()\nprint(d.kind, '|', d.reason)",
        TPU_NAME="nowhere",
        http_proxy="http://127.0.0.1:9",
        no_proxy="",
    )
    version = import_tensorflow().__version__
    assert done.stdout.startswith(f"cpu | TPU_NAME is set, but TensorFlow {version} finds no TPU ("), done.stderr


def test_nothing_reaches_the_terminal_from_import_to_first_operation():
    done = run_python(
        "from kaggle_digits.strategy import resolve_device\nresolve_device()\nimport keras\nkeras.ops.add(1, 1)\n",
        CUDA_VISIBLE_DEVICES="",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


TRAIN_ON_DEVICES = """
import sys
import numpy as np
from dataclasses import replace
from pathlib import Path
from kaggle_digits.devices import import_tensorflow
from kaggle_digits.devices.accelerators import mirror
from kaggle_digits.strategy import Device
tf = import_tensorflow()
count = int(sys.argv[1])
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * max(count, 1))
from kaggle_digits.data import find_source, load_train
from kaggle_digits.recipes import RECIPES
from kaggle_digits.learners import Context, load_run
from kaggle_digits.train import train_run
strategy = mirror([f"CPU:{i}" for i in range(count)])
device = Device("cpu", strategy, max(count, 1), "float32", "test")
assert (strategy is None) == (count == 1)
# With batch normalisation, a last batch that is not full, and Keras' optimizer as well as ours.
plain = replace(RECIPES["mlp-300-100-bn"], epochs=2)
rows = load_train(find_source("sample")).take(np.arange(600))
results = {}
for name, recipe in ("keras", plain), ("muon", replace(plain, optimizer=RECIPES["fast"].optimizer, learning_rate=1e-3)):
    folder = Path(sys.argv[2], name)
    run = train_run(recipe, rows, folder, held_out=rows, context=Context(seed=0, device=device, source="sample"))
    results[name + " predicted"] = load_run(folder, device).predict(rows.pixels[:130])
    results[name + " losses"] = [e["loss"] for e in run.epochs]
np.savez(sys.argv[3], **results)
"""


def test_two_replicas_train_to_the_same_result_as_one(workplace):
    import numpy as np

    # The replicas are real: logical devices of one CPU, as in Keras' own tests.
    results = []
    for count in (1, 2):
        done = subprocess.run(
            [sys.executable, "-c", TRAIN_ON_DEVICES, str(count), f"run{count}", f"result{count}.npz"],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        results.append(np.load(f"result{count}.npz"))
    one, two = results
    for name, atol in (("keras", 1e-4), ("muon", 5e-4)):  # Muon enlarges what is small, also differences
        assert two[f"{name} predicted"].shape == (130, 10)
        np.testing.assert_allclose(one[f"{name} losses"], two[f"{name} losses"], rtol=1e-4)
        np.testing.assert_allclose(one[f"{name} predicted"], two[f"{name} predicted"], atol=atol)


def fake_gpus(monkeypatch, *capabilities: tuple[int, int]) -> None:
    """Make TensorFlow report GPUs with these capabilities. No real GPU is at hand, so only the choice is tested."""
    tf = import_tensorflow()
    gpus = [SimpleNamespace(capability=capability) for capability in capabilities]
    experimental = SimpleNamespace(
        set_memory_growth=lambda gpu, on: None,
        get_device_details=lambda gpu: {"compute_capability": gpu.capability},
    )
    config = SimpleNamespace(
        list_physical_devices=lambda kind: gpus if kind == "GPU" else [], experimental=experimental
    )
    distribute = SimpleNamespace(
        MirroredStrategy=lambda devices: SimpleNamespace(devices=devices, num_replicas_in_sync=len(devices))
    )
    fake = SimpleNamespace(config=config, distribute=distribute, errors=tf.errors, __version__=tf.__version__)
    for module in (strategy, accelerators):
        monkeypatch.setattr(module, "import_tensorflow", lambda: fake)


def test_no_gpu_is_an_error_if_asked_for(monkeypatch):
    fake_gpus(monkeypatch)
    with pytest.raises(DeviceError) as caught:
        resolve_device("gpu")
    assert str(caught.value) == (
        f"--device gpu: TensorFlow {import_tensorflow().__version__} finds no GPU. Expected one with its driver "
        "and CUDA libraries. Check `nvidia-smi`, install tensorflow[and-cuda], or use --device cpu."
    )


def test_one_gpu_needs_no_strategy(monkeypatch):
    fake_gpus(monkeypatch, (8, 0))
    device = resolve_device("gpu", precision="mixed_bfloat16")
    assert (device.kind, device.strategy, device.replicas, device.precision, device.reason) == (
        *("gpu", None, 1, "mixed_bfloat16", "1 GPU found"),
    )


def test_kaggles_two_t4_are_mirrored_in_float32(monkeypatch):
    fake_gpus(monkeypatch, (7, 5), (7, 5))
    device = resolve_device("auto", precision="mixed_bfloat16")
    assert device.strategy.devices == ["GPU:0", "GPU:1"]
    assert (device.kind, device.replicas, device.precision, device.reason) == (
        *("gpu", 2, "float32", "2 GPUs found; float32, since it does not compute bfloat16 natively"),
    )


def fake_jax(monkeypatch, kind: str, *capabilities: str) -> None:
    """Make JAX report devices. No real GPU or TPU is at hand, so only the choice is tested."""
    found = [SimpleNamespace(platform=kind, id=i, compute_capability=c) for i, c in enumerate(capabilities)]

    def devices(wanted: str = kind) -> list[SimpleNamespace]:
        if wanted != kind:
            raise RuntimeError(f"Unknown backend {wanted}. Available backends are [{kind!r}]")
        return found

    fake = SimpleNamespace(devices=devices, __version__="0.0", config=SimpleNamespace(update=lambda name, value: None))
    monkeypatch.setattr(jax, "import_backend", lambda name: fake)
    monkeypatch.setattr(strategy, "choose_backend", lambda name: ("jax", "the only one with a TPU"))

    class DataParallel:
        def __init__(self, devices: list[str], auto_shard_dataset: bool) -> None:
            self.devices = devices
            assert not auto_shard_dataset

    monkeypatch.setattr("keras.distribution.DataParallel", DataParallel)


def test_jax_shares_batches_over_all_cores_of_a_tpu(monkeypatch):
    fake_jax(monkeypatch, "tpu", *[""] * 8)
    device = resolve_device("auto", precision="mixed_bfloat16")
    assert device.strategy.devices == [f"tpu:{i}" for i in range(8)]
    assert str(device) == "jax on tpu, 8 replicas, mixed_bfloat16 (JAX: the only one with a TPU; 8 TPUs found)"


def test_jax_on_a_gpu_without_bfloat16_uses_float32(monkeypatch):
    fake_jax(monkeypatch, "gpu", "7.5")
    device = resolve_device("gpu", precision="mixed_bfloat16")
    assert (device.strategy, device.replicas, device.precision) == (None, 1, "float32")


def test_device_that_jax_lacks_is_an_error_if_asked_for(monkeypatch):
    fake_jax(monkeypatch, "cpu", "")
    with pytest.raises(DeviceError) as caught:
        resolve_device("tpu")
    assert str(caught.value) == (
        "--device tpu: JAX 0.0 finds no TPU (Unknown backend tpu). Expected one, and a JAX that supports it. Run pip "
        "install jax[tpu] or jax[cuda12], or use --device cpu."
    )
