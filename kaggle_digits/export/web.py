"""Write trained networks as one web page on which one draws digits. It needs no server, and sends nothing anywhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from kaggle_digits.errors import InputError
from kaggle_digits.learners.images import SURE
from kaggle_digits.learners.upright import NARROWEST, STEEPEST, WIDEST
from kaggle_digits.recipe import Network
from kaggle_digits.run import Run
from kaggle_digits.strategy import Device

if TYPE_CHECKING:
    import keras


ACTIVATIONS = ("linear", "relu", "leaky_relu", "elu", "silu", "sigmoid", "softplus", "tanh", "softmax")
"""The activations that ``network.js`` knows."""


def build_page(
    script: str, *, where: str, what: str, beside: str = "", more: str = "", security: str = "", engine: str = ""
) -> str:
    """Return the page on which one draws digits, which contains its style and scripts.

    Args:
        script: answers questions about drawings, and reads pictures.
        where: says where drawings go.
        what: says which pictures it reads.
        beside: HTML below the answer.
        more: HTML below all.
        security: the policy that the page sets itself; without it, the server sets one.
        engine: the script of a worker.
    """
    page = _text("page.html")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{security}">\n' if security else ""
    worker = f'<script type="text/plain" id="engine">\n"use strict";\n{engine}</script>\n' if engine else ""
    parts = {
        "<!--security-->": policy,
        "/*style*/": _text("page.css"),
        "<!--where-->": where,
        "<!--what-->": what,
        "<!--beside-->": beside,
        "<!--more-->\n": more + worker,
        "/*script*/": _text("draw.js") + script,
    }
    for place, part in parts.items():
        page = page.replace(place, part)
    return page


def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def write_page(
    file: Path, runs: Sequence[Sequence[Run]], device: Device, *, temperature: float, threshold: float
) -> None:
    """Write the page of some networks.

    Args:
        file: what to write.
        runs: the networks of each run. The page shows the mean of all runs.
        device: where to load them.
        temperature: divides the logarithms of the mean.
        threshold: a digit with a probability below this is unsure.

    Raises:
        InputError: a network has a layer that ``network.js`` does not know.
    """
    weights = _Weights()
    described = {
        "runs": [[_describe(run, device, weights) for run in of_run] for of_run in runs],
        "temperature": temperature,
        "threshold": threshold,
    }
    model = json.dumps(described, separators=(",", ":"))
    engine = (
        *map(_text, ("drawing.js", "rows.js", "network.js")),
        f'const MODEL = unpack({model}, "{weights.packed()}"), QUICK = withoutAverages(MODEL);\n',
        _text("engine.js"),
    )
    # The page contains all that it needs. It may start its own worker, and reaches no address.
    security = (
        "default-src 'none'; script-src 'unsafe-inline' blob:; worker-src blob:; style-src 'unsafe-inline'; "
        "img-src data: blob:; media-src blob: mediastream:; base-uri 'none'; form-action 'none'"
    )
    page = build_page(
        _text("answer.js"),
        where="Nothing leaves this device, and nothing is kept.",
        what="Drop or paste a picture of one digit here.",
        security=security,
        engine="".join(engine),
    )
    file.write_text(page, encoding="utf-8")


def as_on_page(kernel: np.ndarray) -> np.ndarray:
    """Return a kernel as the page has it, float32: each weight is one of 65,535 multiples of a scale."""
    whole, scale = _quantise(kernel)
    return (whole * np.float64(scale)).astype(np.float32)


def _quantise(kernel: np.ndarray) -> tuple[np.ndarray, float]:
    scale = float(np.abs(kernel).max()) / 32_767 or 1.0
    return np.rint(kernel / np.float64(scale)).astype("<i2"), scale


class _Weights:
    """Collects the weights of the page: kernels lie there in one piece, and vectors stand among the layers."""

    def __init__(self) -> None:
        self.kernels: list[np.ndarray] = []
        self.count = 0

    def add(self, values: np.ndarray) -> dict[str, float] | list[float]:
        """Return where a kernel lies among all kernels, and its scale. A vector is returned itself."""
        if values.ndim == 1:
            return [float(f"{value:.7g}") for value in values]
        whole, scale = _quantise(values)
        place = {"from": self.count, "count": values.size, "scale": scale}
        self.kernels.append(whole.ravel())
        self.count += values.size
        return place

    def packed(self) -> str:
        """Return all kernels as base64."""
        return base64.b64encode(np.concatenate(self.kernels).tobytes()).decode()


def _describe(run: Run, device: Device, weights: _Weights) -> dict[str, Any]:
    from kaggle_digits.models import load_network

    recipe = cast(Network, run.recipe)
    layers: list[dict[str, Any]] = []
    for layer in load_network(run, device).layers:
        layers += _describe_layer(layer, weights)
    upright = {"deslant": recipe.deslant, "spread": recipe.spread}
    limits = {"steepest": STEEPEST, "narrowest": NARROWEST, "widest": WIDEST}
    return {
        "layers": layers,
        "offset": recipe.pixel_offset,
        "scale": recipe.pixel_scale,
        "squared": recipe.loss == "mse",
        "upright": upright | limits if recipe.normalises else None,
        "slants": recipe.slant_averaging,
        "shifts": recipe.shift_averaging,
        "sure": SURE,
    }


def _describe_layer(layer: keras.layers.Layer, weights: _Weights) -> list[dict[str, Any]]:
    """Return what a layer does, as steps of ``network.js``.

    Raises:
        InputError: that is not among them.
    """
    kind, config = type(layer).__name__, layer.get_config()

    def refuse(what: str) -> InputError:
        return InputError(
            f"--format web: the page cannot compute {what}. Expected {', '.join(_KNOWN)}, channels last and without "
            "dilation or groups. Try another format."
        )

    def activation() -> list[dict[str, Any]]:
        name = config.get("activation", "linear")
        if not isinstance(name, str) or name not in ACTIVATIONS:
            raise refuse(f"the activation {name!r} of {kind}")
        if name == "softmax" and (kind == "Conv2D" or len(layer.input.shape) != 2):
            raise refuse(f"a softmax over images in {kind}")
        return [] if name == "linear" else [{"kind": "activation", "name": name}]

    def affine(scale: np.ndarray, shift: np.ndarray) -> dict[str, Any]:
        return {"kind": "affine", "scale": weights.add(scale), "shift": weights.add(shift)}

    def window(size: str) -> dict[str, Any]:
        others = {config["data_format"], *config.get("dilation_rate", ()), config.get("groups", 1)}
        if others - {"channels_last", 1}:
            raise refuse(f"{kind} with its data_format, dilation_rate or groups")
        return {"size": config[size], "strides": config["strides"], "padding": config["padding"]}

    values = [np.asarray(value, np.float32) for value in layer.get_weights()]
    match kind:
        case "Conv2D" | "Dense" if len(layer.kernel.shape) == 4 or len(layer.input.shape) == 2:
            place = {"kind": "dense"} if kind == "Dense" else {"kind": "conv"} | window("kernel_size")
            bias = [affine(np.ones_like(values[1]), values[1])] if config["use_bias"] else []
            return [place | {"kernel": weights.add(values[0])}, *bias, *activation()]
        case "BatchNormalization" if layer.axis in (-1, len(layer.input.shape) - 1):
            gamma = values.pop(0) if config["scale"] else 1.0
            beta = values.pop(0) if config["center"] else 0.0
            mean, variance = values
            scale = gamma / np.sqrt(variance + config["epsilon"])
            return [affine(scale, beta - mean * scale)]
        case "MaxPooling2D" | "AveragePooling2D":
            return [{"kind": "pool", "mean": kind == "AveragePooling2D"} | window("pool_size")]
        case "Flatten" if config["data_format"] == "channels_last":
            return [{"kind": "flatten"}]
        case "Activation":
            return activation()
        case "ReLU" | "LeakyReLU" if config.get("max_value") is None and not config.get("threshold"):
            return [{"kind": "activation", "name": "leaky_relu", "slope": config["negative_slope"]}]
        case "Softmax" if config["axis"] in (-1, 1) and len(layer.input.shape) == 2:
            return [{"kind": "activation", "name": "softmax"}]
        case "Dropout" | "SpatialDropout2D" | "GaussianNoise":
            return []  # it does nothing once a network is trained
        case "Residual":
            parts = {name: _describe_layer(getattr(layer, name), weights) for name in ("first", "second", "side")}
            return [{"kind": "residual"} | parts]
    raise refuse(f"the layer {kind} as it is here")


_KNOWN = (
    *("Conv2D", "Dense", "BatchNormalization", "MaxPooling2D", "AveragePooling2D", "Flatten", "Activation", "ReLU"),
    *("LeakyReLU", "Softmax", "Residual", "Dropout", "SpatialDropout2D", "GaussianNoise"),
)
"""The layers that ``network.js`` knows."""
