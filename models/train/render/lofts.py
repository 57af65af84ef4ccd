"""Tubes along paths, bumps, and the noise of rough surfaces."""

import numpy as np

from .cloth import smooth_noise
from .things import circle, grid


def loft(path, radii, columns=12, rows=14):
    """A tube of changing thickness along a smooth path (K, 3); radii (K,) or (K, 2) for across and up."""
    path, radii = np.asarray(path, float), np.asarray(radii, float)
    radii = radii[:, None] * [1, 1] if radii.ndim == 1 else radii
    knots = np.linspace(0, 1, len(path))
    at = np.linspace(0, 1, rows)
    # A quadratic blur of the interpolated polyline: smooth bends without a spline's overshoot.
    blurred = lambda values: np.stack([np.convolve(np.pad(np.interp(at, knots, column), 1, "edge"), [.25, .5, .25], "valid")
                                       for column in values.T], 1)
    centre, thick = blurred(path), blurred(radii)
    thick *= np.clip(np.minimum(at, 1 - at) * rows, 0.02, 1)[:, None] ** 0.5
    ahead = np.gradient(centre, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-9
    aside = np.cross(ahead, [0.03, 1, 0.05])
    aside /= np.linalg.norm(aside, axis=1, keepdims=True) + 1e-9
    up = np.cross(aside, ahead)

    def outline(u, v):
        row = np.rint(v * (rows - 1)).astype(int)
        x, y = circle(u)
        return centre[row] + aside[row] * (x * thick[row, 0])[:, None] + up[row] * (y * thick[row, 1])[:, None]

    return grid(outline, columns, rows)


def bumpy(rng, mesh, strength, waves):
    """The mesh with a few sine waves pushed through it, relative to its own size."""
    vertices, triangles, uvs = mesh
    size = np.abs(vertices - vertices.mean(0)).max() + 1e-9
    wave = np.sin(vertices / size @ rng.normal(0, waves, (3, 3)) + rng.uniform(0, 6.3, 3))
    return vertices + wave * size * strength, triangles, uvs


def grain(rng):
    """Noise of several octaves around 0, (T, T, 1): the roughness of crust, fur, rust, crumbs."""
    fall, first = rng.uniform(0.5, 1.1), int(rng.integers(3, 12))
    octaves = [smooth_noise(rng, first * 2**k, stretch=1) * fall**k for k in range(4)]
    return (sum(octaves) / np.sqrt(sum(fall ** (2 * k) for k in range(4))))[..., None]
