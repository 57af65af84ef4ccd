"""Colours, cloth and prints: square textures made from rules and surface swatches."""

import cv2
import numpy as np

from .assets import TEXTURE, linear


def hue_colour(hue, saturation, value):
    wheel = np.clip(np.abs(((hue + np.array([0, -1 / 3, 1 / 3])) % 1) * 6 - 3) - 1, 0, 1)
    return value * (1 - saturation + saturation * wheel)


def cloth_colour(rng):
    """sRGB in 0..1: many blacks, greys, whites and blues, some strong colours."""
    value = rng.beta(1.0, 1.2) * 0.93 + 0.03
    kind = rng.random()
    if kind < 0.36:
        return np.clip(value + rng.normal(0, 0.02, 3), 0.02, 0.97)
    if kind < 0.48:
        return np.clip(np.array([0.33, 0.47, 0.75]) * rng.uniform(0.2, 1.15) * rng.uniform(0.85, 1.1, 3), 0.02, 0.97)
    return np.clip(hue_colour(rng.random(), rng.beta(1.6, 1.4), value) + 0.02, 0, 0.97)


def swatch(assets, rng, cloth=0.7):
    pool = assets.cloth_swatches if rng.random() < cloth else assets.all_swatches
    return pool[rng.integers(len(pool))].astype(np.float32) / 255


def tiled(picture, repeats, side=TEXTURE):
    """The picture repeated `repeats` times along each side of a square."""
    cell = cv2.resize(picture, (max(8, side // repeats),) * 2, interpolation=cv2.INTER_AREA)
    count = -(-side // cell.shape[0])
    return np.tile(cell, (count, count, 1))[:side, :side]


def smooth_noise(rng, cells, side=TEXTURE, stretch=1):
    grid = rng.normal(size=(cells, max(2, cells // stretch))).astype(np.float32)
    return cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)


Y, X = np.mgrid[:TEXTURE, :TEXTURE].astype(np.float32)


def stripes(rng):
    angle = (0, np.pi / 2, rng.uniform(0, np.pi))[rng.integers(3)]
    period = TEXTURE / rng.integers(4, 28)
    along, across = X * np.cos(angle) + Y * np.sin(angle), Y * np.cos(angle) - X * np.sin(angle)
    return along / period, across / period


def mask_pattern(rng):
    """Share of the second colour, (H, W): stripes, checks, dots, camouflage, blocks."""
    kind, width = rng.integers(5), rng.uniform(0.2, 0.6)
    a, b = stripes(rng)
    if kind == 0:
        return (a % 1 < width) * 1.0
    if kind == 1:
        return 0.5 * (a % 1 < width) + 0.5 * (b % 1 < width)
    if kind == 2:
        return ((a % 1 - 0.5) ** 2 + (b % 1 - 0.5) ** 2 < 0.08) * 1.0
    if kind == 3:
        return (smooth_noise(rng, rng.integers(4, 18)) > 0) * 1.0
    return (X + rng.uniform(-1, 1) * Y > rng.uniform(0.2, 0.8) * TEXTURE) * 1.0


def pattern(assets, rng):
    """A cloth picture in sRGB, (TEXTURE, TEXTURE, 3)."""
    plain = np.ones((TEXTURE, TEXTURE, 3), np.float32) * cloth_colour(rng).astype(np.float32)
    kind = rng.random()
    if kind < 0.40:
        return plain
    if kind < 0.68:
        cloth = tiled(swatch(assets, rng), int(rng.integers(1, 8)))
        if rng.random() < 0.7:
            cloth = cloth.mean(2, keepdims=True) / max(0.05, float(cloth.mean())) * plain
        return np.clip(cloth, 0, 1)
    share = mask_pattern(rng)[..., None].astype(np.float32)
    mixed = plain * (1 - share) + cloth_colour(rng).astype(np.float32) * share
    if kind > 0.93:  # a print on the chest or leg
        size = int(rng.integers(18, 60))
        y, x = rng.integers(0, TEXTURE - size, 2)
        plain = plain.copy()
        plain[y:y + size, x:x + size] = cv2.resize(mixed, (size, size), interpolation=cv2.INTER_AREA)
        return plain
    return mixed


def folds(rng):
    """Brightness of cloth folds around 1, (H, W, 1)."""
    strength = rng.gamma(1.5, 0.07)
    noise = smooth_noise(rng, rng.integers(6, 22), stretch=int(rng.integers(1, 4)))
    return np.exp(strength * noise)[..., None]


def pleated(texture, rng):
    """The same cloth in upright pleats: bands of light and shade, no two alike."""
    period = TEXTURE / rng.integers(6, 30)
    bands = np.sin(2 * np.pi * X / period + 1.5 * smooth_noise(rng, 6)) + 0.5 * smooth_noise(rng, 12, stretch=4)
    shade = np.exp(rng.gamma(2.0, 0.12) * bands)[..., None]
    return np.concatenate([np.clip(texture[..., :3] * shade, 0, 1), texture[..., 3:]], -1).astype(np.float32)


def garment_texture(assets, rng, painted=None):
    """Linear RGBA (TEXTURE, TEXTURE, 4); `painted` is the texture that came with the mesh, kept as shading and in its size."""
    if painted is None:
        colour, alpha = pattern(assets, rng) * folds(rng), np.ones((TEXTURE, TEXTURE, 1), np.float32)
    else:
        colour, alpha = painted[..., :3], painted[..., 3:]
        if rng.random() > 0.2:
            grey = colour.mean(2, keepdims=True)
            solid = alpha > 0.5
            grey = grey / max(0.08, float(np.median(grey[solid])) if solid.any() else 1.0)
            cloth, shade = pattern(assets, rng), np.clip(grey, 0.25, 1.9) ** rng.uniform(0.3, 1.0)
            colour = cv2.resize(cloth * folds(rng), colour.shape[1::-1], interpolation=cv2.INTER_LINEAR) * shade
    return np.concatenate([linear(np.clip(colour, 0, 1)), alpha], -1).astype(np.float32)


def hair_colour(rng):
    kind = rng.random()
    if kind < 0.12:
        return rng.uniform(0.35, 0.9) * np.array([1, 0.97, 0.93])
    if kind < 0.17:
        return cloth_colour(rng)
    return np.clip(np.array([0.42, 0.28, 0.17]) * np.exp(rng.normal(-0.5, 0.8)) * rng.uniform(0.85, 1.15, 3), 0.02, 0.9)


def stubble(rng, colour, roughness, cells):
    """Short hair as linear RGBA (TEXTURE, TEXTURE, 4): a colour in folds with fine noise of `cells` across."""
    strands = np.clip(colour * folds(rng) * np.exp(roughness * smooth_noise(rng, cells))[..., None], 0.01, 0.95)
    return np.concatenate([linear(strands), np.ones((TEXTURE, TEXTURE, 1))], -1).astype(np.float32)
