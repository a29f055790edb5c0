"""The systems that tutorials, courses and papers published, each with its source and its published figure.

Every optimizer setting is written out, even if it is Keras' default today. Networks start from Keras' own initial
weights, whatever their authors used, unless a note says otherwise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kaggle_digits.recipe import (
    FLATTEN,
    RELU,
    Augmentation,
    Classical,
    Layer,
    Milestones,
    Network,
    Plateau,
    Recipe,
    batch_norm,
    conv,
    dense,
    dropout,
    pool,
)

_TUTORIAL = "“minst手写数字识别——神经网络实战笔记” (MNIST handwritten digits: notes from practice with neural networks)"
_NOTES = (
    "“量化投资学习笔记101——MNIST手写数字识别”, 2021 (Notes on quantitative investing 101: MNIST handwritten digits)"
)
_SOFTMAX = "“利用神经网络完成对手写数字进行识别”, 2020 (Recognizing handwritten digits with a neural network)"
_PYTORCH = (
    "刘正浩, 唐晨烨, “基于 PyTorch 和 MNIST 数据集的手写数字识别项目” (Liu Zhenghao, Tang Chenye, A project on "
    "recognizing handwritten digits with PyTorch and MNIST)"
)
_DEEP = "“基于深度学习的手写数字识别” (Handwritten digits by deep learning)"

_SGD: Layer = ("SGD", {"momentum": 0.0, "nesterov": False})
_MOMENTUM: Layer = ("SGD", {"momentum": 0.5, "nesterov": False})
_ADAM: Layer = ("Adam", {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8})

# Mean and standard deviation of MNIST's pixels, as they are usually given: on a scale from 0 to 1.
_STANDARDISED: dict[str, Any] = {"pixel_offset": 0.1307 * 255, "pixel_scale": 0.3081 * 255}

# PyTorch's initial weights: uniform, with a variance of 1 / (3 · inputs).
_TORCH: dict[str, Any] = {
    "kernel_initializer": {
        "class_name": "VarianceScaling",
        "config": {"scale": 1 / 3, "mode": "fan_in", "distribution": "uniform"},
    }
}


def _residual(filters: int, **options: object) -> Layer:
    return "Residual", {"filters": filters, **options}


_MLP = Network(
    name="mlp-784-300",
    summary="the tutorial's perceptron; sigmoid layers on unscaled pixels, squared error",
    source=_TUTORIAL,
    published="91.085%",
    published_accuracy=0.91085,
    layers=(FLATTEN, dense(784, "sigmoid"), dense(300, "sigmoid"), dense(10)),
    loss="mse",
    optimizer=_SGD,
    learning_rate=0.01,
    epochs=10,
    batch_size=32,
    retrain=True,
)

_CNN = Network(
    name="cnn-32-64",
    summary="the tutorial's convolutions; dropout, squared error, unscaled pixels",
    source=_TUTORIAL,
    published="97.7% (training)",
    note="The network is Ghouzam's.",
    layers=(
        conv(32, 5, padding="same", activation="relu"),
        conv(32, 5, padding="same", activation="relu"),
        pool(),
        dropout(0.25),
        conv(64, 3, padding="same", activation="relu"),
        conv(64, 3, padding="same", activation="relu"),
        pool(),
        dropout(0.25),
        FLATTEN,
        dense(256, "relu"),
        dropout(0.5),
        dense(10),
    ),
    loss="mse",
    optimizer=("RMSprop", {"rho": 0.9, "momentum": 0.0, "epsilon": 1e-8, "centered": False}),
    learning_rate=1e-3,
    epochs=9,
    batch_size=42,
)

_MLP_VARIANTS = (
    replace(
        _MLP,
        name="mlp-784-300-sigmoid",
        summary="a sigmoid output; mlp-784-300 with a sigmoid on the output as well",
        published="81.285%",
        published_accuracy=0.81285,
        layers=(*_MLP.layers[:-1], dense(10, "sigmoid")),
    ),
    replace(
        _MLP,
        name="mlp-784-300-relu-output",
        summary="a ReLU output; mlp-784-300 with a ReLU on the output",
        published="85.014%",
        published_accuracy=0.85014,
        note="An output that starts below zero for every image never learns, and its digit is never read. The accuracy "
        "depends on how many outputs start that way, which differs from seed to seed.",
        layers=(*_MLP.layers[:-1], dense(10, "relu")),
    ),
    replace(
        _MLP,
        name="mlp-784-300-relu",
        summary="ReLUs everywhere; mlp-784-300 with ReLUs in all layers: it collapses, since its input is unscaled",
        published="all read as 0",
        published_accuracy=None,
        layers=(FLATTEN, dense(784, "relu"), dense(300, "relu"), dense(10, "relu")),
    ),
    replace(
        _MLP,
        name="mlp-784-100",
        summary="a narrower second layer; mlp-784-300 with 100 units in the second hidden layer",
        published="91.0%",
        published_accuracy=0.91,
        layers=(FLATTEN, dense(784, "sigmoid"), dense(100, "sigmoid"), dense(10)),
    ),
    replace(
        _MLP,
        name="mlp-150-150",
        summary="two layers of 150 units; mlp-784-300 with 150 units in both hidden layers",
        published="86.257%",
        published_accuracy=0.86257,
        layers=(FLATTEN, dense(150, "sigmoid"), dense(150, "sigmoid"), dense(10)),
    ),
    replace(
        _MLP,
        name="mlp-784-300-lr-0.001",
        summary="a tenth of the step; mlp-784-300 with a tenth of the learning rate",
        published="none",
        published_accuracy=None,
        learning_rate=0.001,
    ),
)

_CLASSICAL = (
    Classical(
        name="random",
        summary="random guesses; in proportion to how often each digit occurs",
        source=_NOTES,
        published="10.3%",
        published_accuracy=0.103,
        estimator=("DummyClassifier", {"strategy": "stratified"}),
        retrain=True,
    ),
    Classical(
        name="naive-bayes",
        summary="Gaussian naive Bayes; on the pixels as they are",
        source=_NOTES,
        published="55.6%",
        published_accuracy=0.556,
        published_seconds=1.9,
        pixel_scale=255.0,
        estimator=("GaussianNB", {"var_smoothing": 1e-9}),
        retrain=True,
    ),
    Classical(
        name="logistic-regression",
        summary="logistic regression; one digit against the rest, C = 100",
        source=_NOTES,
        published="91.69–91.94%",
        published_accuracy=0.9169,
        published_seconds=156.0,
        note="Fitted with L-BFGS, at most 100 iterations; the author's solver is not known.",
        pixel_scale=255.0,
        estimator=("LogisticRegression", {"C": 100.0, "solver": "lbfgs", "tol": 1e-4, "max_iter": 100}),
        retrain=True,
    ),
    Classical(
        name="knn",
        summary="five nearest neighbours; by Euclidean distance",
        source=_NOTES,
        published="96.88%",
        published_accuracy=0.9688,
        published_seconds=1803.0,
        note="The author's number of neighbours is not known; 5 is scikit-learn's default.",
        pixel_scale=255.0,
        estimator=("KNeighborsClassifier", {"n_neighbors": 5}),
        retrain=True,
    ),
    Classical(
        name="random-forest",
        summary="a random forest; of 200 trees",
        source=_NOTES,
        published="97.0%",
        published_accuracy=0.97,
        published_seconds=127.0,
        note="The author's number of trees is not known. With scikit-learn's default of 100, 96.5% of 6,000 held-out "
        "rows were read correctly. There are fewer rows to learn from here, so the forest has twice as many trees.",
        pixel_scale=255.0,
        estimator=("RandomForestClassifier", {"n_estimators": 200, "criterion": "gini", "max_features": "sqrt"}),
        retrain=True,
    ),
    Classical(
        name="svm",
        summary="support vector machines; one for each pair of digits, RBF kernel, C = 1",
        source=_NOTES,
        published="97.92%",
        published_accuracy=0.9792,
        published_seconds=1483.0,
        note="If scikit-learn-intelex is installed, it fits the same machines on all cores.",
        pixel_scale=255.0,
        estimator=("SVC", {"kernel": "rbf", "C": 1.0, "tol": 1e-3}),
        retrain=True,
    ),
)

_FC = Network(
    name="fc-200-100-20",
    summary="three dense layers; 200, 100 and 20 units with ReLUs, standardised pixels",
    source=_NOTES,
    published="none",
    layers=(FLATTEN, dense(200, "relu"), dense(100, "relu"), dense(20, "relu"), dense(10)),
    **_STANDARDISED,
    loss="crossentropy",
    optimizer=_ADAM,
    learning_rate=1e-3,
    epochs=20,
    batch_size=64,
    retrain=True,
)

_FC_LINEAR = replace(
    _FC,
    name="fc-200-100-20-linear",
    summary="the same, but linear; fc-200-100-20 as it was published: its ReLUs are computed and thrown away, so "
    "it is linear",
    published="92.58%",
    published_accuracy=0.9258,
    layers=(FLATTEN, dense(200), dense(100), dense(20), dense(10)),
)

_CNN_BN = Network(
    name="cnn-25-50-bn",
    summary="batch normalisation; two convolutions with it, two wide dense layers",
    source=_NOTES,
    published="98.86%",
    published_accuracy=0.9886,
    note="How the author scaled the pixels is not known. Here they go from 0 to 1.",
    layers=(
        conv(25, 3),
        batch_norm(),
        RELU,
        pool(),
        conv(50, 3),
        batch_norm(),
        RELU,
        pool(),
        FLATTEN,
        dense(1024, "relu"),
        dense(128, "relu"),
        dense(10),
    ),
    pixel_scale=255.0,
    loss="crossentropy",
    optimizer=_ADAM,
    learning_rate=1e-3,
    epochs=20,
    batch_size=64,
)

_BHARADWAJ = Network(
    name="bharadwaj-cnn",
    summary="two convolutions; with a dense layer; stops at 98% validation accuracy",
    source="Bharadwaj et al. 2020, doi 10.30534/ijatcse/2020/66922020",
    published="98%",
    published_accuracy=0.98,
    note="The batch size of 32, pixels from 0 to 1 and the limit of 20 epochs are our choices. The rows that decide "
    "when to stop are not those that the accuracy is reported for.",
    layers=(
        conv(32, 3, activation="relu"),
        pool(),
        conv(64, 3, activation="relu"),
        pool(),
        FLATTEN,
        dense(128, "relu"),
        dense(10),
    ),
    pixel_scale=255.0,
    loss="crossentropy",
    optimizer=_ADAM,
    learning_rate=1e-3,
    epochs=20,
    stop_at=0.98,
    batch_size=32,
)


def _with_dropout(rate: float, *, before: bool, after: bool) -> tuple[Layer, ...]:
    convolutions, head = _BHARADWAJ.layers[:4], _BHARADWAJ.layers[4:]
    layer = (dropout(rate),)
    return (*layer * before, *convolutions, *layer * after, *head)


def _by_reader(suffix: str, what: str, **changes: Any) -> Network:
    return replace(
        _BHARADWAJ,
        name=f"bharadwaj-cnn-{suffix}",
        summary=f"{what}; bharadwaj-cnn otherwise",
        source=f"{_NOTES}, variants of Bharadwaj et al. 2020",
        published="none",
        published_accuracy=None,
        **changes,
    )


_BHARADWAJ_VARIANTS = (
    _by_reader("lr-0.01", "learning rate 0.01", learning_rate=1e-2),
    _by_reader("lr-0.0001", "learning rate 0.0001", learning_rate=1e-4),
    _by_reader("dropout-in", "dropout before the network", layers=_with_dropout(0.2, before=True, after=False)),
    _by_reader("dropout-conv", "dropout after convolutions", layers=_with_dropout(0.2, before=False, after=True)),
    _by_reader("dropout-0.2", "dropout 0.2 in both places", layers=_with_dropout(0.2, before=True, after=True)),
    _by_reader("dropout-0.5", "dropout 0.5 in both places", layers=_with_dropout(0.5, before=True, after=True)),
    _by_reader(
        "decay-0.01",
        "weight decay 0.01",
        optimizer=("AdamW", {**_ADAM[1], "weight_decay": 0.01}),
        note=f"{_BHARADWAJ.note} The decay is decoupled, as in AdamW.",
    ),
)

_CNN_16_32 = Network(
    name="cnn-16-32",
    summary="two convolutions; a single look at the rows",
    source=_PYTORCH,
    published="about 98%",
    published_accuracy=0.98,
    layers=(
        conv(16, 5, padding="same", activation="relu"),
        pool(),
        conv(32, 5, padding="same", activation="relu"),
        pool(),
        FLATTEN,
        dense(10),
    ),
    pixel_scale=255.0,
    loss="crossentropy",
    optimizer=_ADAM,
    learning_rate=1e-3,
    epochs=1,
    batch_size=50,
    retrain=True,
)

_CNN_16_32_64 = replace(
    _CNN_16_32,
    name="cnn-16-32-64",
    summary="three convolutions; cnn-16-32 with a third one",
    published="none",
    published_accuracy=None,
    layers=(*_CNN_16_32.layers[:4], conv(64, 5, padding="same", activation="relu"), *_CNN_16_32.layers[4:]),
)

_RESNET = Network(
    name="resnet-192",
    summary="residual blocks; four convolutions, each with a residual block; standardised pixels, plateau schedule",
    source=_DEEP,
    published="99.64%",
    published_accuracy=0.9964,
    note="The published figure was reached after 100 epochs on a GPU (99.51% after 5), with the plateau measured on "
    "the test set. Here the plateau is measured on rows of its own. Training uses bfloat16 if the hardware has it, and "
    "as many epochs as two cores can run in about an hour. Weights start with PyTorch's variance. With Keras' own, "
    "which is larger in most layers, the accuracy stayed at 11% for an epoch, and the training was stopped.",
    layers=(
        conv(32, 5, padding="same", **_TORCH),
        batch_norm(),
        RELU,
        _residual(32, **_TORCH),
        conv(64, 5, padding="same", activation="relu", **_TORCH),
        batch_norm(),
        _residual(64, **_TORCH),
        pool(),
        conv(128, 5, padding="same", **_TORCH),
        batch_norm(),
        RELU,
        _residual(128, **_TORCH),
        conv(192, 5, padding="same", **_TORCH),
        batch_norm(),
        RELU,
        _residual(192, **_TORCH),
        pool(),
        FLATTEN,
        dense(256, "relu", **_TORCH),
        dense(10, **_TORCH),
    ),
    **_STANDARDISED,
    loss="crossentropy",
    optimizer=_MOMENTUM,
    learning_rate=Plateau(start=0.06, factor=0.5, patience=2, threshold=5e-5),
    epochs=14,
    batch_size=256,
    augmentation=Augmentation(rotation=10.0, shift=2.8),
    precision="mixed_bfloat16",
)

_LENET = replace(
    _RESNET,
    name="lenet-5",
    summary="LeNet-5; a baseline for resnet-192, trained in the same way",
    published="none",
    published_accuracy=None,
    note="LeCun et al. 1998 with tanh and average pooling, but every map of the second convolution sees all six of the "
    "first, pooling has no weights, and softmax replaces the radial basis functions. Trained like resnet-192.",
    layers=(
        conv(6, 5, padding="same", activation="tanh"),
        pool("AveragePooling2D"),
        conv(16, 5, activation="tanh"),
        pool("AveragePooling2D"),
        FLATTEN,
        dense(120, "tanh"),
        dense(84, "tanh"),
        dense(10),
    ),
    precision="float32",
)

_MLP_BN = Network(
    name="mlp-300-100-bn",
    summary="two dense layers; 300 and 100 units with batch normalisation, learning rate cut at milestones",
    source=_SOFTMAX,
    published="95.5–95.6%",
    published_accuracy=0.955,
    note="The number of steps is as published, 18,760: 28 epochs of 42,000 rows instead of 20 of 60,000, and "
    "milestones 0, 7, 14, 21 instead of 0, 5, 10, 15. Normalisation comes after the ReLU; before it, the accuracy was "
    "0.7 points lower. Weights start with PyTorch's variance. With Keras' own, which is larger, the small steps do not "
    "lead as far, and the accuracy was 2 points lower.",
    layers=(
        FLATTEN,
        dense(300, "relu", **_TORCH),
        batch_norm(),
        dense(100, "relu", **_TORCH),
        batch_norm(),
        dense(10, **_TORCH),
    ),
    pixel_offset=127.5,
    pixel_scale=127.5,
    loss="crossentropy",
    optimizer=_MOMENTUM,
    learning_rate=Milestones(start=0.01, factor=0.1, epochs=(0, 7, 14, 21)),
    epochs=28,
    batch_size=64,
    retrain=True,
)

PUBLISHED: tuple[Recipe, ...] = (
    _MLP,
    *_MLP_VARIANTS,
    _CNN,
    *_CLASSICAL,
    _FC,
    _FC_LINEAR,
    _CNN_BN,
    _MLP_BN,
    _BHARADWAJ,
    *_BHARADWAJ_VARIANTS,
    _CNN_16_32,
    _CNN_16_32_64,
    _LENET,
    _RESNET,
)
