"""Texture coordinates of the clothes' shells.

The base mesh gives its helper shells a corner of the unit square, where a whole shirt is a few texels. Here cloth is laid
round trunk, legs and arms as round cylinders, so that it has one scale everywhere.
"""

import numpy as np

TRUNK, LEG, ARM = 0, 1, 2
# Radius by which angles become lengths, decimetres.
RADII = {TRUNK: 1.6, LEG: 0.8, ARM: 0.5}
# A texture covers this many decimetres of cloth at one repeat.
CLOTH_SIDE = 14.0


def frame(start, end):
    """Axis from start to end, and two directions across it, as rows."""
    axis = (end - start) / np.linalg.norm(end - start)
    across = np.cross(axis, [0.0, 0.0, 1.0])
    across /= np.linalg.norm(across)
    return np.stack([axis, across, np.cross(axis, across)])


class Charts:
    """Cylinders round the limbs of one shape; `vertices` and joints in decimetres, `arm` and `leg` the vertices' weights."""

    def __init__(self, vertices, joint, arm, leg):
        self.vertices, self.arm, self.leg = vertices, arm, leg
        middle = joint("upperleg01.L") * [0, 1, 1]
        self.axes = {TRUNK: [(middle, frame(middle, middle - [0, 1, 0]))] * 2}
        for kind, start, end in ((LEG, "upperleg01", "foot"), (ARM, "upperarm01", "wrist")):
            self.axes[kind] = [(joint(start + side), frame(joint(start + side), joint(end + side))) for side in (".R", ".L")]

    def lay(self, triangles, repeats, around=None):
        """(uvs, uv_triangles) of cloth over these triangles, three coordinates a triangle; `around` lays all of it round
        one kind of limb, as a skirt's."""
        corners = self.vertices[triangles]
        most = lambda weight: weight[triangles].mean(1) > 0.5
        kinds = np.where(most(self.arm), ARM, np.where(most(self.leg), LEG, TRUNK)) if around is None else np.full(len(triangles), around)
        left = (corners[:, :, 0].mean(1) > 0).astype(int)
        uvs = np.zeros((len(triangles), 3, 2))
        for kind, radius in RADII.items():
            for side in (0, 1):
                rows = (kinds == kind) & (left == side)
                origin, axes = self.axes[kind][side]
                along, across, out = np.moveaxis((corners[rows] - origin) @ axes.T, -1, 0)
                angle = np.arctan2(out, across)
                # The corners of a triangle lie on one side of the seam.
                angle = angle[:, :1] + (angle - angle[:, :1] + np.pi) % (2 * np.pi) - np.pi
                uvs[rows] = np.stack([angle * radius, along], -1)
        return uvs.reshape(-1, 2) * (repeats / CLOTH_SIDE), np.arange(3 * len(triangles)).reshape(-1, 3)
