"""Quantities: amounts of resources as Kubernetes writes them, read as numbers and shown in plain words."""

from __future__ import annotations

import re

from cnai.labels import GPU


def amount(resource: str, value: str | float) -> str:
    """Return an amount of a resource in plain words: `2 GPUs`, `64 GiB of memory`, `1.5 CPUs`."""
    number = quantity(value)
    name = resource.removeprefix("requests.").removeprefix("limits.")
    if name == "memory":
        return f"{number / 2**30:.3g} GiB of memory"
    if name in {"storage", "ephemeral-storage"}:
        return f"{number / 2**30:.3g} GiB of storage"
    word = {GPU: "GPU", "cpu": "CPU", "pods": "pod", "persistentvolumeclaims": "claim"}.get(name)
    if word is None:
        word = name.removeprefix("count/").partition(".")[0].removesuffix("s")
        word = {"daskcluster": "Dask cluster"}.get(word, word)
    return f"{number:.3g} {word}{'' if number == 1 else 's'}"


def product(label: str) -> str:
    """Return a GPU's common name, from its product label: `H100` for `NVIDIA-H100-80GB-HBM3`, `GeForce RTX 4090`."""
    words = [word for word in label.split("-") if word not in {"NVIDIA", "Tesla"}]
    model = next((number for number, word in enumerate(words) if any(map(str.isdigit, word))), len(words) - 1)
    return " ".join(words[: model + 1])


_UNITS: dict[str, float] = {
    unit: 1024.0 ** (power + 1) for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))
}
_UNITS |= {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}


def quantity(text: str | float) -> float:
    """Return a Kubernetes quantity (`500m`, `64Gi`, `2`) as a number."""
    found = re.fullmatch(r"([+-]?[\d.]+(?:[eE][+-]?\d+)?)([A-Za-z]*)", str(text).strip())
    if not found or found[2] not in _UNITS:
        raise ValueError(f"not a quantity: {text!r}")
    return float(found[1]) * _UNITS[found[2]]
