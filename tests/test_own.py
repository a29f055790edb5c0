"""Recipes of your own, in TOML and Python: they train like built-in recipes, and their mistakes are named."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from quick import KILLED_AT_EPOCH

import kaggle_digits as kd
from kaggle_digits.cli import main
from kaggle_digits.cli.output import TrainingProgress
from kaggle_digits.cli.training import to_toml
from kaggle_digits.errors import InputError
from kaggle_digits.learners import Context
from kaggle_digits.recipe import Augmentation, Ensemble, Milestones, Network
from kaggle_digits.recipes import RECIPES, find_recipe
from kaggle_digits.recipes.python import from_keras
from kaggle_digits.run import read_run

GUIDE = (Path(__file__).parent.parent / "docs/how-to/recipe.md").read_text(encoding="utf-8")
TOML = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)[0]
PYTHON = re.findall(r"```py\n(.*?)```", GUIDE, re.DOTALL)[0]
LAYERS = """\
layers = [
  { kind = "Conv2D", filters = 8, kernel_size = 5 },
  "Flatten",
  { kind = "Dense", units = 10 },
]
"""


METHOD = "kind = 'Classical'\nestimator = "


def dense(options: str) -> str:
    """Return layers whose last one has these options."""
    return f"layers = ['Flatten', {{ kind = 'Dense', units = 10, {options} }}]"


def write(name: str, text: str) -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def kinds(recipe: Network) -> list[str]:
    return [kind for kind, _ in recipe.layers]


@pytest.fixture
def rows(train_values) -> kd.TrainingRows:
    return kd.TrainingRows(train_values[:, 1:], train_values[:, 0].astype(np.int64))


@pytest.mark.parametrize("name", RECIPES)
def test_every_built_in_recipe_comes_back_from_its_toml(name):
    mine = find_recipe(write("mine.toml", to_toml(RECIPES[name])))
    assert mine.settings() == replace(RECIPES[name], name="mine").settings()


def test_toml_says_what_to_train():
    mine = find_recipe(write("my net.toml", TOML))
    assert isinstance(mine, Network)
    assert (mine.name, mine.source, mine.epochs, mine.batch_size) == ("my-net", "my net.toml", 2, 128)
    assert mine.layers[1:] == (("Flatten", {}), ("Dense", {"units": 10}))
    assert mine.augmentation == Augmentation(rotation=8, shift=1)


def test_schedules_and_members_are_tables():
    text = f"[learning_rate]\nkind = 'Milestones'\nstart = 0.1\nfactor = 0.5\nepochs = [1, 3]\n[[members]]\n{LAYERS}"
    both = find_recipe(write("both.toml", f"kind = 'Ensemble'\nmembers = ['fast', {{ {one_line(LAYERS)} }}]"))
    assert isinstance(both, Ensemble)
    assert [member.name for member in both.members] == ["fast", "both-2"]
    mine = find_recipe(write("mine.toml", LAYERS + text.partition("[[")[0]))
    assert mine.learning_rate == Milestones(start=0.1, factor=0.5, epochs=(1, 3))


def one_line(text: str) -> str:
    return f"precision = 'mixed_bfloat16', {' '.join(text.split()).replace(', ]', ' ]')}"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("epoch = 3\n" + LAYERS, ": epoch: no such key here. Did you mean epochs?"),
        (LAYERS + "epochs = 0\n", ": epochs: 0. Expected a number greater than or equal to 1."),
        (LAYERS + "\n# a comment\nepochs = 'ten'\n", ": epochs: 'ten'. Expected a valid integer."),
        (LAYERS + "loss = 'kld'", ": loss: 'kld'. Expected 'crossentropy' or 'mse'."),
        (LAYERS + "augmentation = { rotate = 8 }", ": augmentation.rotate: no such key here. Did you mean rotation?"),
        (LAYERS + "[learning_rate]\nkind = 'OneCycle'\npeak = 0.1\n", ": learning_rate.warmup: is missing."),
        (LAYERS + "learning_rate = { kind = 'Cosine' }\n", ": learning_rate: kind 'Cosine'. Expected one of"),
        ("layers = [\n  3,\n]\n", ": layers[0]: 3. Expected a name, or a table such as { kind "),
        ("epochs = \n", ": not readable as TOML: Invalid value (at line 1, column 10)."),
        ("epochs = 3\n", ": layers: is missing."),
        ("kind = 'Foo'\n", ": kind: 'Foo'. Expected Network, Classical, Ensemble."),
        ("kind = 'Ensemble'\nmembers = ['svm']\n", ": members: there is no network among them. Expected at least"),
        ("kind = 'Ensemble'\nmembers = ['strong', 'fast']\n", ": members: strong is an ensemble. Ex"),
        ("kind = 'Ensemble'\nmembers = ['fast', 'flsh']\n", ": members: 'flsh'. Expected the name of a"),
        ("kind = 'Ensemble'\nmembers = ['fast', 'evil.py']\n", ": members: 'evil.py'. Expected the name of a"),
        ("kind = ['Network']\n" + LAYERS, ": kind: ['Network']. Expected Network, Classical, Ensemble."),
        (LAYERS + "augmentation = { kind = ['x'] }", ": augmentation: kind ['x']. Expected one of"),
        (LAYERS + "augmentation = { rotation = -8 }", ": augmentation.rotation: -8. Expected a number greater "),
        ("x = " + "[" * 3000 + "]" * 3000, ": not readable as TOML: "),
        ("epochs = " + "9" * 5000, ": not readable as TOML: "),
        ("layers = []", ": layers: is empty. Expected at least a Flatten and a Dense of ten units."),
        (
            dense("kernel_initializer = { module = 'os' }"),
            ": layers[1]: Dense: kernel_initializer is {'module': 'os'}.",
        ),
        (dense("activation = 'sigmoid'"), ": layers: the last one has a sigmoid. Expected ten logits, or a softmax."),
        ("name = 'a/b'\n" + LAYERS, ": name: 'a/b'. Expected letters, digits, and dashes: files are named "),
    ],
)
def test_mistake_is_named_with_its_key(text, fault):
    with pytest.raises(InputError, match="^" + re.escape(f"bad.toml{fault}")):
        find_recipe(write("bad.toml", text))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("layers = [\n 'Flatten',\n 'Dens']", "layers[1]: Dens: Keras has no layer Dens. Did you mean Dense?"),
        ("layers = ['Flatten', {kind='Dense', unit=10}]", "layers[1]: Dense: unit: no such argument. Did you mean"),
        ("layers = ['Flatten']", "layers[0]: the output has the shape (784,). Expected (10,), one value per digit."),
        (dense("activation = 'relux'"), "layers[1]: Dense: activation: Keras has no 'relux'. Did you mean relu?"),
        (LAYERS + "optimizer = 'Adamm'", "optimizer: Adamm: Keras has no optimizer Adamm. Did you mean Adam?"),
        ("layers = [{ kind = 'TFSMLayer', filepath = 'x' }]", "layers[0]: TFSMLayer: is no layer that only computes"),
        (METHOD + "'ImageDistortionModel'", "estimator: ImageDistortionModel with candidates = None. Expected a whole"),
        (METHOD + "{ kind = 'KNeighborsClassifier', n_neighbors = 2.9 }", "estimator: KNeighborsClassifier with n_nei"),
        (METHOD + "'SVX'", "estimator: SVX: no such method here. Expected one of DummyClassifier"),
        (METHOD + "{ kind = 'SVC', kernel = 'poly' }", "estimator: SVC with kernel = 'poly'. Expected some of kernel"),
    ],
)
def test_what_keras_does_not_take_is_named_before_anything_is_written(text, fault, capsys):
    assert main(["train", "--recipe", write("bad.toml", text), "--run", "run", "--data", "sample"]) == 2
    assert f"kaggle-digits: bad.toml: {fault}" in capsys.readouterr().err
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("import numpy\n\nnetwork = nump\n", ", line 3: NameError: name 'nump' is not defined"),
        ("def network(:\n", ", line 1: SyntaxError: invalid syntax"),
        ("raise SystemExit\n", ", line 1: SystemExit: . Correct it."),
        ("def network():\n    return 1 / 0\n", ", line 2: ZeroDivisionError: division by zero. Correct it."),
        ("x = 1\n", ": defines no recipe. Expected a kaggle_digits.Network, or a function without parameters "),
        ("def one(): ...\ndef two(): ...\n", ": several networks (one, two). Expected one, or one that is"),
        ("def network():\n    return 3\n", ": network: a int. Expected a keras.Sequential, or a functional"),
        ("def network():\n    model = 3\n", ": network returns nothing. Expected a network. End it with return"),
        (
            PYTHON.replace('activation="relu"', "name='conv2d_own', activation=layers.LeakyReLU(0.1)"),
            ": network: the layer conv2d_own has the option activation = LeakyReLU. Expected a name, as in",
        ),
        (PYTHON.replace("(28, 28, 1)", "(32, 32, 3)"), ": network: takes images of the shape (32, 32, 3). Expected"),
        (PYTHON.replace("Dense(10", "Dense(12"), ": network: returns values of the shape (12,). Expected (10,)"),
        (
            "from dataclasses import replace\nimport kaggle_digits as kd\n"
            "recipe = replace(kd.find_recipe('fast'), name='../h')\n",
            ": name: '../h'. Expected letters, digits, and dashes",
        ),
    ],
)
def test_mistake_in_python_is_named_with_its_line(text, fault):
    with pytest.raises(InputError, match="^" + re.escape(f"mine.py{fault}")):
        find_recipe(write("mine.py", text))


def test_unknown_file_and_taken_names_are_refused(capsys):
    with pytest.raises(InputError, match=r"nothing\.toml: cannot be read \(.*No such file.* Check the path"):
        find_recipe("nothing.toml")
    with pytest.raises(InputError, match=r'fast\.toml: the name "fast" belongs to a built-in recipe'):
        find_recipe(write("fast.toml", TOML))
    Path("other").mkdir()
    assert main(["compare", "--recipes", f"{write('a.toml', TOML)},{write('other/a.toml', TOML)}", "--out", "c"]) == 2
    assert "several are called a. Expected a name for each" in capsys.readouterr().err


def test_keras_network_keeps_its_optimizer_and_loses_its_softmax():
    hidden = keras.layers.Dense(20, "relu", kernel_regularizer="l2")
    model = keras.Sequential([keras.layers.Flatten(), hidden, keras.layers.Dense(10, "softmax")])
    model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9), loss="sparse_categorical_crossentropy")
    mine = from_keras(model, name="mine", epochs=3)
    assert (mine.epochs, mine.learning_rate, mine.loss) == (3, 0.05, "crossentropy")
    assert (mine.optimizer[0], mine.optimizer[1]["momentum"]) == ("SGD", 0.9)
    assert kinds(mine) == ["Flatten", "Dense", "Dense"]
    assert mine.layers[-1][1]["activation"] == "linear"
    flat = keras.Sequential([keras.Input((784,)), keras.layers.Dense(10), keras.layers.Softmax()])
    assert kinds(from_keras(flat)) == ["Reshape", "Dense"]
    in_toml = "layers = ['Flatten', { kind = 'Dense', units = 10, activation = 'softmax' }]"
    assert find_recipe(write("mine.toml", in_toml)).layers[-1] == ("Dense", {"units": 10, "activation": "linear"})


@pytest.mark.parametrize(
    ("optimizer", "loss", "fault"),
    [
        (keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10)), "mse", "is compiled with a schedule"),
        (keras.optimizers.Adam(use_ema=True), "mse", "is compiled with use_ema, which is not supported"),
        (keras.optimizers.Adam(), "hinge", "is compiled with the loss hinge. Expected one of"),
    ],
    ids=["schedule", "ema", "loss"],
)
def test_what_a_recipe_cannot_keep_is_refused(optimizer, loss, fault):
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    model.compile(optimizer=optimizer, loss=loss)
    with pytest.raises(InputError, match=fault):
        from_keras(model)


@pytest.mark.parametrize(("file", "text"), [("mine.toml", TOML), ("mine.py", PYTHON)])
def test_own_recipe_is_submitted_and_its_run_stands_alone(file, text):
    assert main(["submit", "--recipe", write(file, text), "--epochs", "1", "--data", "sample", "--out", "a.csv"]) == 0
    Path(file).unlink()
    assert main(["predict", "--run", "runs/sample-a", "--data", "sample", "--out", "b.csv"]) == 0
    assert Path("sample-b.csv").read_bytes() == Path("sample-a.csv").read_bytes()
    assert read_run(Path("runs/sample-a")).recipe.name == "mine"


def test_own_recipe_is_killed_and_resumed():
    command = ["submit", "--recipe", write("mine.toml", TOML), "--data", "sample", "--out"]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AT_EPOCH, "1", *command, "a.csv"], env=os.environ, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert main([*command, "a.csv"]) == 0
    assert main([*command, "b.csv"]) == 0
    assert Path("sample-a.csv").read_bytes() == Path("sample-b.csv").read_bytes()
    assert len(read_run(Path("runs/sample-a")).epochs) == 2


OWN_LAYER = """
import keras

class Square(keras.layers.Layer):
    def call(self, inputs):
        return inputs * inputs

def network():
    return keras.Sequential([
        keras.Input((28, 28, 1)), keras.layers.Conv2D(4, 5, strides=4), Square(), keras.layers.Flatten(),
        keras.layers.Dense(10),
    ])
"""


def test_network_with_a_layer_of_ones_own_needs_its_file(capfd):
    file = write("squared.py", OWN_LAYER)

    def run(*arguments: str) -> int:
        return subprocess.run([sys.executable, "-m", "kaggle_digits", *arguments], check=False).returncode

    assert run("train", "--recipe", file, "--run", "run", "--data", "sample", "--epochs", "1") == 0
    assert run("predict", "--run", "run", "--data", "sample", "--out", "a.csv") == 2
    said = "run: its layer Square is code of squared.py, which was not run. Expected that file. Give it to"
    assert said in capfd.readouterr().err
    assert run("predict", "--run", "run", "--recipe", file, "--data", "sample", "--out", "a.csv") == 0


def test_file_with_a_recipe_of_this_package_needs_no_keras():
    text = "from dataclasses import replace\nfrom kaggle_digits import find_recipe\n_fast = find_recipe('fast')\n"
    mine = find_recipe(write("mine.py", text + "recipe = replace(_fast, name='slow', epochs=20)\n"))
    assert mine == replace(find_recipe("fast"), name="slow", epochs=20, source="mine.py")


def test_table_of_recipes_prints_one_as_toml(capsys):
    assert main(["recipes", "flash", "--toml"]) == 0
    assert capsys.readouterr().out == to_toml(RECIPES["flash"])
    assert main(["recipes", "--toml"]) == 2
    assert "no recipe is named. Add its name" in capsys.readouterr().err


def test_epochs_out_of_range_are_refused():
    with pytest.raises(InputError, match=r"^--epochs: 2000000\. Expected 1 to 1,000,000\.$"):
        find_recipe("fast", epochs=2_000_000)


@pytest.mark.parametrize(
    "layers",
    [
        [keras.layers.Reshape((28, 28)), keras.layers.LSTM(8), keras.layers.Dense(10)],
        [keras.layers.ZeroPadding2D(2), keras.layers.MaxPool2D(), keras.layers.Flatten(), keras.layers.Dense(10)],
        [keras.layers.RandomFlip(), keras.layers.LayerNormalization(), keras.layers.Flatten(), keras.layers.Dense(10)],
    ],
    ids=["recurrent", "aliases and pairs", "random and normalising"],
)
def test_what_is_trained_can_be_loaded(layers, rows):
    recipe = from_keras(keras.Sequential([keras.Input((28, 28, 1)), *layers]), name="mine", epochs=1)
    run = kd.train_run(recipe, rows, "run")
    assert np.allclose(kd.load_run("run").predict(rows.pixels), run.predict(rows.pixels), atol=1e-5)


def test_class_from_another_file_is_refused():
    own = OWN_LAYER.replace("Square", "Residual")
    before, _, network = own.partition("\ndef network")
    write("blocks.py", before)
    with pytest.raises(InputError, match="is a Residual, which the file does not define"):
        find_recipe(write("mine.py", f"import keras\nfrom blocks import Residual\n\ndef network{network}"))


SCALINGS = {
    "none": ("", 255.0, 0.0),
    "Rescaling": ("layers.Rescaling(1 / 255),", 255.0, 0.0),
    "Rescaling to ±1": ("layers.Rescaling(1 / 127.5, offset=-1),", 127.5, 127.5),
    "Rescaling of 0 to 1": ("layers.Rescaling(2.0, offset=-1),", 127.5, 127.5),
    "two": ("layers.Rescaling(1 / 255), layers.Rescaling(2.0, offset=-1),", 127.5, 127.5),
    "Normalization": ("layers.Normalization(mean=33.0, variance=6400.0),", 80.0, 33.0),
    "Normalization of 0 to 1": ("layers.Normalization(mean=0.1, variance=0.0625),", 63.75, 25.5),
    "division": ("layers.Lambda(lambda pixels: pixels / 255.0),", 255.0, 0.0),
    "own layer": ("Divided(),", 255.0, 0.0),
    "after its shape": ("layers.Reshape((28, 28, 1)), layers.Lambda(lambda x: (x - 127.5) / 127.5),", 127.5, 127.5),
}


class Divided(keras.layers.Layer):
    def call(self, pixels):
        return pixels / 255


def made(layers: str) -> keras.Sequential:
    """Return a network of these layers, as they would stand in a file."""
    names = {"layers": keras.layers, "Divided": Divided}
    return keras.Sequential([keras.Input((28, 28, 1)), *eval(f"[{layers}]", names)])


@pytest.mark.parametrize("kind", SCALINGS)
def test_network_that_scales_pixels_itself_is_not_scaled_twice(kind, caplog):
    caplog.set_level("INFO")
    layer, scale, offset = SCALINGS[kind]
    mine = from_keras(made(f"{layer} layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(10)"), name="mine")
    assert (mine.pixel_scale, mine.pixel_offset) == pytest.approx((scale, offset), rel=1e-5)
    assert [kind for kind in kinds(mine) if kind != "Reshape"] == ["Conv2D", "Flatten", "Dense"]
    assert caplog.text.count("the network scales pixels itself, to values from ") == (kind != "none")


def test_scaling_in_toml_counts_as_well_unless_the_recipe_says_how_pixels_are_scaled(caplog):
    scaling = "{ kind = 'Rescaling', scale = 0.00784313725490196, offset = -1 }"
    layers = f"layers = [{scaling}, 'Flatten', {{ kind = 'Dense', units = 10 }}]"
    mine = find_recipe(write("mine.toml", layers))
    assert (mine.pixel_scale, mine.pixel_offset) == (127.5, 127.5)
    stated = find_recipe(write("mine.toml", f"pixel_scale = 1.0\n{layers}"))
    assert (stated.pixel_scale, stated.layers[0][0]) == (1.0, "Rescaling")


def test_scaling_of_each_pixel_on_its_own_stays_a_layer(rows):
    scaling = keras.layers.Normalization()
    scaling.adapt(rows.pixels.astype(np.float32))
    mine = from_keras(keras.Sequential([keras.Input((784,)), scaling, keras.layers.Dense(10)]), epochs=1)
    assert (mine.pixel_scale, kinds(mine)) == (1.0, ["Reshape", "Rescaling", "Dense"])
    assert kd.train_run(mine, rows, "run").finished


def functional(body: str) -> str:
    return (
        "import keras\nfrom keras import layers\n\ndef network():\n    pixels = x = keras.Input((28, 28, 1))\n"
        + "".join(f"    {line}\n" for line in body.splitlines())
        + "    return keras.Model(pixels, x)\n"
    )


def made_by(text: str) -> keras.Model:
    """Return what the function of a file makes."""
    names: dict = {}
    exec(text, names)
    return names["network"]()


CHAIN = """x = x / 255.0
x = keras.Sequential([layers.Conv2D(4, 3), layers.BatchNormalization()])(x)
x = keras.activations.relu(x)
x = layers.Flatten()(x)
x = layers.Dense(10, activation="softmax")(x)"""


def test_functional_model_that_is_a_chain_is_taken_like_a_sequential(caplog):
    caplog.set_level("INFO")
    mine = find_recipe(write("mine.py", functional(CHAIN)))
    assert "mine.py: the network scales pixels itself, to values from 0 to 1: it gets them as they are" in caplog.text
    assert kinds(mine) == ["Conv2D", "BatchNormalization", "Activation", "Flatten", "Dense"]
    assert mine.pixel_scale == 255


@pytest.mark.parametrize(
    ("last", "fault"),
    [
        ("x = layers.Add()([x, layers.Dense(10)(x)])", "branches: add takes 2 inputs. Expected a chain of"),
        ("layer = layers.Dense(10)\nx = layer(layer(x))", "uses the layer dense_1 twice. Expected a chain"),
        ("x = x * 2.0", "has the operation multiply between layers. Expected layers. Write it as a layer."),
        ("x = [x, x]", "has 1 inputs and 2 outputs. Expected one of each."),
    ],
)
def test_functional_model_that_is_no_chain_is_refused_with_what_to_do(last, fault):
    keras.backend.clear_session()  # names of layers count on
    with pytest.raises(InputError, match=f"^{fault}"):
        from_keras(made_by(functional(f"{CHAIN}\n{last}")))


@pytest.mark.parametrize(
    ("first", "scale"),
    [
        ("layers.RandomRotation(0.1), layers.Rescaling(1 / 127.5, offset=-1)", 1.0),
        ("layers.ZeroPadding2D(2), layers.Rescaling(1 / 255)", 1.0),
        ("layers.Resizing(32, 32), layers.Rescaling(2.0, offset=-1)", 255.0),
        ("layers.Conv2D(2, 3), layers.Rescaling(1 / 255)", 255.0),
    ],
)
def test_scaling_behind_layers_that_move_pixels_stays_where_it_is(first, scale):
    mine = from_keras(made(f"{first}, layers.Flatten(), layers.Dense(10)"))
    assert (mine.pixel_scale, mine.pixel_offset, mine.layers[1][0]) == (scale, 0.0, "Rescaling")


@pytest.mark.parametrize(
    "options",
    ["scale = '1/255'", "scale = 0.1, offset = [0.0]", "scale = []", "scale = [[1.0]]", f"scale = {'9' * 400}"],
)
def test_scaling_that_makes_no_sense_is_refused(options, capsys):
    layers = f"layers = [{{ kind = 'Rescaling', {options} }}, 'Flatten', {{ kind = 'Dense', units = 10 }}]"
    main(["train", "--recipe", write("mine.toml", layers), "--data", "sample", "--run", "run", "--epochs", "1"])
    assert "Traceback" not in capsys.readouterr().err
    assert main(["submit", "--recipe", write("e.toml", f"kind = 'Ensemble'\nmembers = ['fast']\n{layers}")]) == 2


def test_operation_with_settings_is_not_taken_for_a_plain_activation():
    for operation in ("keras.activations.relu(x, max_value=6)", "keras.ops.elu(x, alpha=0.5)", "keras.ops.gelu(x)"):
        with pytest.raises(InputError, match="has the operation"):
            from_keras(made_by(functional(CHAIN.replace("keras.activations.relu(x)", operation))))


def test_python_recipe_is_compiled_as_if_it_ran_alone():
    text = "class A:\n    x: int\nassert A.__annotations__ == {'x': int}\n" + PYTHON
    assert find_recipe(write("mine.py", text)).name == "mine"


@pytest.mark.parametrize(
    ("name", "text", "encoding"),
    [
        *(("mine.toml", TOML, encoding) for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")),
        *(("mine.py", PYTHON, encoding) for encoding in ("utf-8-sig", "utf-16")),
    ],
)
def test_recipe_that_powershell_wrote_is_read(name, text, encoding):
    expected = find_recipe(write(name, text))
    Path(name).write_bytes(text.replace("\n", "\r\n").encode(encoding))
    assert find_recipe(name) == expected


@pytest.mark.parametrize("rate", ["1", "{ kind = 'Milestones', start = 1, factor = 1, epochs = [0] }"])
def test_whole_numbers_are_numbers(rate, rows):
    mine = find_recipe(write("mine.toml", f"{LAYERS}learning_rate = {rate}\nepochs = 1\n"))
    assert kd.train_run(mine, rows, "run").finished


OPTION_KIND = """
import keras

class Scaled(keras.layers.Layer):
    def __init__(self, kind="wide", factors=None, **options):
        super().__init__(**options)
        self.kind, self.factors = kind, factors
    def get_config(self):
        return super().get_config() | {"kind": self.kind, "factors": self.factors}
    def call(self, inputs):
        return inputs * {"wide": 2.0, "Network": 3.0}[self.kind]

def network():
    return keras.Sequential([
        keras.Input((28, 28, 1)), keras.layers.Conv2D(4, 3), Scaled(), Scaled("Network"), keras.layers.Flatten(),
        keras.layers.Dense(10),
    ])
"""


def test_option_that_is_called_kind_is_read_back(rows):
    mine = find_recipe(write("scaled.py", OPTION_KIND))
    kd.train_run(replace(mine, epochs=1), rows, "run")
    assert read_run(Path("run")).recipe.layers == mine.layers
    assert [options.get("kind") for _, options in mine.layers[1:3]] == ["wide", "Network"]


def test_advice_for_an_unfinished_run_can_be_followed(monkeypatch, capsys, rows):
    def interrupt(self, metrics, epochs):
        raise KeyboardInterrupt

    Path("my recipes").mkdir()
    write("my recipes/mine.py", PYTHON)
    start = ["train", "--recipe", "my recipes/mine.py", "--data", "sample", "--run", "a run", "--epochs", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "epoch", interrupt)
        assert main(start) == 130
    assert main(["predict", "--run", "a run", "--data", "sample", "--out", "a.csv"]) == 2
    advice = capsys.readouterr().err.partition("Continue it: kaggle-digits ")[2]
    assert main([*shlex.split(advice), "--data", "sample"]) == 0
    in_python = from_keras(keras.Sequential([keras.Input((784,)), keras.layers.Dense(10)]), name="net", epochs=2)
    stop = type("Stop", (), {"step": lambda *_: None, "epoch": interrupt})()
    with pytest.raises(KeyboardInterrupt):
        kd.train_run(in_python, rows, "b", context=Context(progress=stop))
    with pytest.raises(InputError, match=r'with train_run\(recipe, rows, "b", resume=True\)'):
        kd.load_run("b")
