"""Light from a panorama's linear probe: a sun made of its brightest texels, spherical harmonics for the rest."""

import numpy as np

HEIGHT, WIDTH, SUN_TEXELS = 32, 64, 10

_theta = (np.arange(HEIGHT) + 0.5) / HEIGHT * np.pi
_phi = (np.arange(WIDTH) + 0.5) / WIDTH * 2 * np.pi
_ones = np.ones((HEIGHT, WIDTH))
DIRECTIONS = np.stack([np.sin(_theta)[:, None] * np.sin(_phi), np.cos(_theta)[:, None] * _ones,
                       -np.sin(_theta)[:, None] * np.cos(_phi)], -1)
SOLID_ANGLE = np.sin(_theta)[:, None] * (np.pi / HEIGHT) * (2 * np.pi / WIDTH) * _ones
# Convolution with the cosine lobe, by band (Ramamoorthi and Hanrahan 2001).
BANDS = np.array([np.pi] + [2 * np.pi / 3] * 3 + [np.pi / 4] * 5)


def basis(n):
    x, y, z = n[..., 0], n[..., 1], n[..., 2]
    return np.stack([np.full_like(x, 0.282095), 0.488603 * y, 0.488603 * z, 0.488603 * x, 1.092548 * x * y,
                     1.092548 * y * z, 0.315392 * (3 * z * z - 1), 1.092548 * x * z, 0.546274 * (x * x - y * y)], -1)


class Light:
    """sh (9, 3) ambient irradiance over pi; sun (3,) and its direction; ambient, their mean."""

    def __init__(self, probe):
        luminance = probe.mean(-1)
        brightest = np.zeros(luminance.size, bool)
        brightest[np.argsort(luminance.ravel())[-SUN_TEXELS:]] = True
        brightest = brightest.reshape(luminance.shape)
        dim = luminance[~brightest]
        cap = np.median(dim) + 2 * dim.std()
        soft = np.minimum(1, cap / luminance.clip(1e-6))
        rest = np.where(brightest[..., None], probe * soft[..., None], probe)
        self.sun = ((probe - rest) * SOLID_ANGLE[..., None])[brightest].sum(0) / np.pi
        direction = (DIRECTIONS * (luminance * SOLID_ANGLE * brightest)[..., None]).sum((0, 1))
        self.direction = direction / (np.linalg.norm(direction) + 1e-9)
        self.sh = np.einsum("hwk,hwc,hw->kc", basis(DIRECTIONS), rest, SOLID_ANGLE) * BANDS[:, None] / np.pi
        self.ambient = float(self.sh[0].mean() * 0.282095)
        # A night sky whose lamps are all of its light must not leave the rest of the person black.
        self.sun = self.sun * min(1.0, 3 * self.ambient / max(1e-6, float(self.sun.mean())))

    def shadow_basis(self):
        """Rows: two axes across the light and the direction towards it."""
        across = np.cross(self.direction, [0.01, 1, 0.02])
        across /= np.linalg.norm(across)
        return np.stack([across, np.cross(self.direction, across), self.direction])


def lights(assets):
    """Light of every panorama of the split, computed once."""
    if not hasattr(assets, "lights"):
        assets.lights = [Light(probe) for _, _, probe in assets.environments]
    return assets.lights
