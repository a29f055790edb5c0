"""Strategy: the best device that really exists is chosen, with its reason, and the terminal stays quiet."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from test_backend import run_python

from kaggle_digits import strategy
from kaggle_digits.devices import accelerators, import_tensorflow, jax
from kaggle_digits.errors import DeviceError
from kaggle_digits.strategy import resolve_device


@pytest.mark.parametrize(
    ("flags", "limit", "is_used"),
    [
        ("flags: fma avx2 avx512_bf16", "", True),
        ("flags: fma amx_bf16", "", True),
        ("flags: fma avx2", "", False),
        ("", "", False),  # a machine without cpuinfo
        # What oneDNN may not use, it does not.
        ("flags: fma avx512_bf16", "sse41", False),
        ("flags: fma avx512_bf16", "AVX2", False),
        ("flags: fma avx512_bf16", "AVX512_CORE_BF16", True),
    ],
)
def test_cpu_uses_bfloat16_only_where_it_is_native(tmp_path, monkeypatch, flags, limit, is_used):
    monkeypatch.setattr(strategy, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if flags:
        (tmp_path / "cpuinfo").write_text(flags)
    if limit:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    device = resolve_device("cpu", precision="mixed_bfloat16")
    assert (device.kind, device.strategy, device.replicas) == ("cpu", None, 1)
    assert device.precision == ("mixed_bfloat16" if is_used else "float32")
    assert device.reason == "asked for" + "; float32, since it does not compute bfloat16 natively" * (not is_used)
    assert resolve_device("cpu").precision == "float32"


def test_unknown_device_is_refused():
    with pytest.raises(DeviceError, match=r"^--device npu: no such device\. Expected one of auto, tpu, gpu, cpu\."):
        resolve_device("npu")


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


@pytest.mark.parametrize(
    ("variables", "ending"),
    [
        # Kaggle's TPU machine looks like this to TensorFlow: the variable is set, but it has no TPU support.
        ({"ISTPUVM": "1", "CUDA_VISIBLE_DEVICES": ""}, "NotFoundError); no GPU visible to TensorFlow\n"),
        # TensorFlow asks Google's metadata server for the name. The proxy refuses at once, so the test need not wait.
        ({"TPU_NAME": "nowhere", "http_proxy": "http://127.0.0.1:9", "no_proxy": ""}, "\n"),
    ],
    ids=["no support", "no such TPU"],
)
def test_auto_falls_back_where_the_tpu_is_not_found_and_says_why(variables, ending):
    code = "from kaggle_digits.strategy import resolve_device\nd = resolve_device()\nprint(d.kind, '|', d.reason)"
    done = run_python(code, **variables)
    said = f"cpu | {next(iter(variables))} is set, but TensorFlow {import_tensorflow().__version__} finds no TPU ("
    assert done.stdout.startswith(said), done.stderr
    assert done.stdout.endswith(ending)


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
    # The replicas are real: logical devices of one CPU, as in Keras' own tests.
    results = []
    for count in (1, 2):
        command = [sys.executable, "-c", TRAIN_ON_DEVICES, str(count), f"run{count}", f"result{count}.npz"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
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
        set_memory_growth=lambda gpu, on: None, get_device_details=lambda gpu: {"compute_capability": gpu.capability}
    )
    found = {"GPU": gpus}
    config = SimpleNamespace(list_physical_devices=lambda kind: found.get(kind, []), experimental=experimental)
    distribute = SimpleNamespace(
        MirroredStrategy=lambda devices: SimpleNamespace(devices=devices, num_replicas_in_sync=len(devices))
    )
    fake = SimpleNamespace(config=config, distribute=distribute, errors=tf.errors, __version__=tf.__version__)
    for module in (strategy, accelerators):
        monkeypatch.setattr(module, "import_tensorflow", lambda: fake)


def test_no_gpu_is_an_error_if_asked_for(monkeypatch):
    fake_gpus(monkeypatch)
    said = rf"^--device gpu: TensorFlow {import_tensorflow().__version__} finds no GPU\. .* or use --device cpu\.$"
    with pytest.raises(DeviceError, match=said):
        resolve_device("gpu")


def test_one_gpu_needs_no_strategy(monkeypatch):
    fake_gpus(monkeypatch, (8, 0))
    device = resolve_device("gpu", precision="mixed_bfloat16")
    assert device.strategy is None
    assert str(device) == "gpu, mixed_bfloat16 (1 GPU found)"


def test_kaggles_two_t4_are_mirrored_in_float32(monkeypatch):
    fake_gpus(monkeypatch, (7, 5), (7, 5))
    device = resolve_device("auto", precision="mixed_bfloat16")
    assert device.strategy.devices == ["GPU:0", "GPU:1"]
    reason = "2 GPUs found; float32, since it does not compute bfloat16 natively"
    assert str(device) == f"gpu, 2 replicas, float32 ({reason})"


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
    said = (
        r"^--device tpu: JAX 0\.0 finds no TPU \(Unknown backend tpu\)\. .* pip install jax\[tpu\] .* --device cpu\.$"
    )
    with pytest.raises(DeviceError, match=said):
        resolve_device("tpu")
