"""What a camera does to light: exposure, white balance, tone curve, blur, noise, compression."""

import cv2
import numpy as np


def develop(rng, radiance, dark):
    """Linear radiance (H, W, 3) to a camera picture, uint8 sRGB. `dark` scenes are underexposed and noisy."""
    gain = np.exp(rng.normal(0, 0.22) - (rng.uniform(0.7, 2.3) if dark else 0.0))
    picture = radiance * gain * np.exp(rng.normal(0, 0.07, 3))
    picture = (tone(picture) ** (1 / 2.2 * np.exp(rng.normal(0, 0.1)))).astype(np.float32)
    picture = blur(rng, picture)
    picture += noise(rng, picture.shape, rng.gamma(1.1, 0.007) + (rng.uniform(0.005, 0.05) if dark else 0))
    if rng.random() < 0.2:
        picture = vignette(rng, picture)
    picture = (np.clip(picture, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.7:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 97))]
        picture = cv2.imdecode(cv2.imencode(".jpg", picture, quality)[1], cv2.IMREAD_COLOR)
    return picture


def tone(radiance):
    """Linear radiance to linear picture in 0..1, highlights rolled off."""
    return np.clip(1.18 * radiance / (1 + 0.25 * radiance), 0, 1)


def blur(rng, picture):
    kind = rng.random()
    if kind < 0.35:
        return cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.2))
    if kind < 0.47:
        length = int(rng.integers(3, 8))
        return cv2.filter2D(picture, -1, movement(length, int(rng.integers(length)) - int(rng.integers(length))))
    return picture


def movement(across, down):
    """Kernel of a straight movement by so many pixels, `across` of them 3 to 7 and counting both ends. Its middle is the kernel's:
    what moved is blurred about where it is labelled, and not moved away from there."""
    middle = across // 2
    kernel = np.zeros((2 * middle + 3, 2 * middle + 3))
    share = np.linspace(-0.5, 0.5, 16 * across + 1)
    x, y = middle + 1 + share * (across - 1), middle + 1 + share * down
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for dx, wide in ((0, 1 - (x - left)), (1, x - left)):
        for dy, high in ((0, 1 - (y - top)), (1, y - top)):
            np.add.at(kernel, (top + dy, left + dx), wide * high)
    return (kernel / kernel.sum()).astype(np.float32)


def noise(rng, shape, strength):
    fine = rng.standard_normal(shape, np.float32) * np.float32(strength)
    if rng.random() < 0.3:  # demosaicing leaves noise that is coarser than a pixel
        fine = cv2.GaussianBlur(fine, (0, 0), 0.7) * 1.8
    return fine


def vignette(rng, picture):
    h, w = picture.shape[:2]
    y, x = np.mgrid[:h, :w].astype(np.float32)
    r2 = ((x / w - 0.5) ** 2 + (y / h - 0.5) ** 2) * 2
    return picture * (1 - rng.uniform(0.1, 0.5) * r2)[..., None]
