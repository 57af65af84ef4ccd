"""What a camera does to light: distortion, exposure, white balance, blur, tone curve, noise, compression."""

import cv2
import numpy as np

from .files import encoded


DISTORTED = 0.4  # share of the pictures whose lens bends straight lines
BARREL, PINCUSHION = -0.12, 0.03  # the most of both, as a share of the radius at the picture's corners


def distorted(rng, radiance, parts, person):
    """All three as a lens shows them that bends straight lines, in a share of the pictures; labels stay where the picture is."""
    if rng.random() >= DISTORTED:
        return radiance, parts, person
    field = lens(rng.uniform(BARREL, PINCUSHION), *parts.shape)
    return (cv2.remap(radiance, *field, cv2.INTER_LINEAR), *(cv2.remap(labels, *field, cv2.INTER_NEAREST) for labels in (parts, person)))


def lens(strength, height, width):
    """Where each pixel comes from, (x, y) maps float32: from radius r (1 - strength r^2), r being 1 at the corners. Negative
    strengths are barrels; they are enlarged until nothing comes from beyond the frame."""
    x, y = np.meshgrid(np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2)
    reach = (1 - strength * (x**2 + y**2) / ((width**2 + height**2) / 4)) / max(1.0, 1 - strength)
    return (x * reach + (width - 1) / 2).astype(np.float32), (y * reach + (height - 1) / 2).astype(np.float32)


def moved(rng, radiance, mask):
    """What the mask (H, W), in 0..1, covers is blurred by a movement, before a sharp background."""
    across = int(rng.integers(3, 9))
    kernel = movement(across, int(rng.integers(across)) - int(rng.integers(across)))
    kernel = kernel.T if rng.random() < 0.5 else kernel
    share = cv2.filter2D(mask, -1, kernel)[..., None]
    return cv2.filter2D(radiance * mask[..., None], -1, kernel) + (1 - share) * uncovered(radiance, mask)


def uncovered(radiance, mask):
    """The picture without what the mask covers: there, and in the pixels round it, is what is nearest outside."""
    covered = cv2.dilate((mask > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
    if covered.all():
        return radiance
    _, nearest = cv2.distanceTransformWithLabels(covered, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    outside = covered == 0
    colours = np.zeros((nearest.max() + 1, 3))
    colours[nearest[outside]] = radiance[outside]
    return colours[nearest]


def develop(rng, radiance, dark):
    """Linear radiance (H, W, 3) to a camera picture, uint8 sRGB. `dark` scenes are underexposed and noisy."""
    gain = np.exp(rng.normal(0, 0.22) - (rng.uniform(0.7, 2.3) if dark else 0.0))
    picture = (radiance * gain * np.exp(rng.normal(0, 0.07, 3))).astype(np.float32)
    curve = 1 / 2.2 * np.exp(rng.normal(0, 0.1))
    picture = tone(blur(rng, picture)) ** np.float32(curve)  # light is blurred, not what is made of it
    picture += noise(rng, picture.shape, rng.gamma(1.1, 0.007) + (rng.uniform(0.005, 0.05) if dark else 0))
    if rng.random() < 0.2:
        picture = vignette(rng, picture)
    picture = eight_bits(picture)
    if rng.random() < 0.7:
        picture = compressed(picture, int(rng.integers(40, 97)))
    return picture


def compressed(picture, quality):
    """The picture (H, W, 3) RGB as it comes back from a JPEG."""
    return cv2.imdecode(np.frombuffer(encoded(".jpg", picture, quality), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def eight_bits(picture):
    """0..1 to the nearest of 0..255, uint8."""
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def tone(radiance):
    """Linear radiance to linear picture in 0..1, highlights rolled off."""
    return np.clip(1.18 * radiance / (1 + 0.25 * radiance), 0, 1)


def blur(rng, picture):
    kind = rng.random()
    if kind < 0.35:
        return cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.2))
    if kind < 0.39:
        length = int(rng.integers(3, 8))
        return cv2.filter2D(picture, -1, movement(length, int(rng.integers(length)) - int(rng.integers(length))))
    return picture


def movement(across, down):
    """Kernel of a straight movement by so many pixels, `across` of them 3 to 8 and counting both ends. Its middle is the kernel's:
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
