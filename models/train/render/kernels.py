"""The inner loops: skinning, normals, texture reads, rasterising, shadow depth, shading. All compiled by numba."""

import numpy as np
from numba import njit


@njit(cache=True)
def skin(vertices, pointers, bones, weights, matrices):
    """Linear blend skinning: (N, 3) rest positions by (B, 3, 4) bone matrices."""
    out = np.empty_like(vertices)
    for v in range(len(vertices)):
        x, y, z = vertices[v, 0], vertices[v, 1], vertices[v, 2]
        a = b = c = total = 0.0
        for k in range(pointers[v], pointers[v + 1]):
            m, w = matrices[bones[k]], weights[k]
            total += w
            a += w * (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3])
            b += w * (m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3])
            c += w * (m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3])
        if total < 1e-6:
            a, b, c, total = x, y, z, 1.0
        out[v, 0], out[v, 1], out[v, 2] = a / total, b / total, c / total
    return out


@njit(cache=True)
def normals(vertices, triangles):
    """Area-weighted vertex normals, (N, 3)."""
    n = np.zeros_like(vertices)
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        # Scalars: small arrays would be allocated for every triangle.
        e0, e1, e2 = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        f0, f1, f2 = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        x = e1 * f2 - e2 * f1
        y = e2 * f0 - e0 * f2
        z = e0 * f1 - e1 * f0
        for i in (a, b, c):
            n[i, 0] += x
            n[i, 1] += y
            n[i, 2] += z
    for i in range(len(n)):
        length = np.sqrt(n[i, 0] ** 2 + n[i, 1] ** 2 + n[i, 2] ** 2) + 1e-12
        n[i] /= length
    return n


LEVELS = 4  # of a texture: its own size and three halvings


@njit(cache=True)
def halved(textures):
    """(G, H, W, C) at half the size, each texel the mean of four; one row or column stays one."""
    count, height, width, channels = textures.shape
    out = np.empty((count, max(1, height // 2), max(1, width // 2), channels), np.float32)
    for g in range(count):
        for y in range(out.shape[1]):
            y0, y1 = 2 * y, min(2 * y + 1, height - 1)
            for x in range(out.shape[2]):
                x0, x1 = 2 * x, min(2 * x + 1, width - 1)
                for m in range(channels):
                    out[g, y, x, m] = 0.25 * (textures[g, y0, x0, m] + textures[g, y0, x1, m]
                                              + textures[g, y1, x0, m] + textures[g, y1, x1, m])
    return out


def pyramid(textures, cut):
    """The textures (G, H, W, 4) at `LEVELS` sizes. Where there are holes to cut, colours are multiplied by alpha, so that what was
    painted under a hole does not shine into its edge."""
    textures = np.ascontiguousarray(textures, np.float32)
    if cut:
        alpha = textures[..., 3]
        textures = textures * alpha[..., None]
        textures[..., 3] = alpha
    levels = [textures]
    while len(levels) < LEVELS:
        levels.append(halved(levels[-1]))
    return tuple(levels)


@njit(cache=True)
def read(textures, g, u, t):
    """Four channels of texture g at (u, t), in units of its sides from its upper left; between texels, and repeated."""
    height, width = textures.shape[1], textures.shape[2]
    x, y = (u - np.floor(u)) * width - 0.5, (t - np.floor(t)) * height - 0.5
    left, top = int(np.floor(x)), int(np.floor(y))
    right_share, low_share = x - left, y - top
    right, low = (left + 1) % width, (top + 1) % height
    left, top = left % width, top % height
    a, b = (1 - right_share) * (1 - low_share), right_share * (1 - low_share)
    c, d = (1 - right_share) * low_share, right_share * low_share
    p, q, r, s = textures[g, top, left], textures[g, top, right], textures[g, low, left], textures[g, low, right]
    return (a * p[0] + b * q[0] + c * r[0] + d * s[0], a * p[1] + b * q[1] + c * r[1] + d * s[1],
            a * p[2] + b * q[2] + c * r[2] + d * s[2], a * p[3] + b * q[3] + c * r[3] + d * s[3])


@njit(cache=True)
def rasterise(v, uv, tri, uvtri, normal, parts, layer, levels, cut, cut_field, focal, cx, cy, person,
              depth, albedo, out_normal, label, who):
    """Z-buffered triangles with perspective-correct texture, normal and part label.

    v: camera-space positions (x right, y up, looking along -z), metres. levels: textures of `pyramid`; each
    triangle reads the one whose texels are nearest to its pixels in size. cut: where alpha is below one half
    there are holes. cut_field: per-vertex signed value; pixels where it interpolates below zero are
    holes (hems and sleeves, cut per pixel). person: instance id, 200 for things.
    """
    height, width = depth.shape
    texels = levels[0].shape[1] * levels[0].shape[2]
    for k in range(len(tri)):
        a, b, c = tri[k, 0], tri[k, 1], tri[k, 2]
        if cut_field[a] < 0 and cut_field[b] < 0 and cut_field[c] < 0:
            continue
        za, zb, zc = -v[a, 2], -v[b, 2], -v[c, 2]
        if za < 0.12 or zb < 0.12 or zc < 0.12:
            continue
        x0, y0 = cx + focal * v[a, 0] / za, cy - focal * v[a, 1] / za
        x1, y1 = cx + focal * v[b, 0] / zb, cy - focal * v[b, 1] / zb
        x2, y2 = cx + focal * v[c, 0] / zc, cy - focal * v[c, 1] / zc
        left = max(0, int(np.ceil(min(x0, x1, x2) - 0.5)))
        right = min(width - 1, int(np.floor(max(x0, x1, x2) - 0.5)))
        top = max(0, int(np.ceil(min(y0, y1, y2) - 0.5)))
        bottom = min(height - 1, int(np.floor(max(y0, y1, y2) - 0.5)))
        if left > right or top > bottom:
            continue
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9:
            continue
        g = layer[a]
        i0, i1, i2 = uvtri[k, 0], uvtri[k, 1], uvtri[k, 2]
        spread = (uv[i1, 0] - uv[i0, 0]) * (uv[i2, 1] - uv[i0, 1]) - (uv[i2, 0] - uv[i0, 0]) * (uv[i1, 1] - uv[i0, 1])
        ratio, level = abs(spread) * texels / abs(area), 0  # texels in a pixel's area
        while ratio > 2 and level < LEVELS - 1:
            ratio, level = ratio / 4, level + 1
        # Pixels go down where the camera's y goes up, so what faces the camera turns the other way round on the screen.
        side = -1.0 if area > 0 else 1.0
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                px, py = x + 0.5, y + 0.5
                w0 = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) / area
                w1 = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) / area
                w2 = 1.0 - w0 - w1
                if w0 < 0 or w1 < 0 or w2 < 0:
                    continue
                w0, w1, w2 = w0 / za, w1 / zb, w2 / zc
                z = 1.0 / (w0 + w1 + w2)
                if z >= depth[y, x]:
                    continue
                w0, w1, w2 = w0 * z, w1 * z, w2 * z
                if w0 * cut_field[a] + w1 * cut_field[b] + w2 * cut_field[c] < 0:
                    continue
                u = w0 * uv[i0, 0] + w1 * uv[i1, 0] + w2 * uv[i2, 0]
                t = 1.0 - (w0 * uv[i0, 1] + w1 * uv[i1, 1] + w2 * uv[i2, 1])
                # Holes are cut at the full size: strands of hair would thin out with every halving.
                if cut and read(levels[0], g, u, t)[3] < 0.5:
                    continue
                red, green, blue, alpha = read(levels[level], g, u, t)
                opaque = 1.0 / max(alpha, 0.01) if cut else 1.0
                depth[y, x] = z
                who[y, x] = person
                best, found = 0.0, 0
                for m in range(1, 16):
                    q = w0 * parts[a, m] + w1 * parts[b, m] + w2 * parts[c, m]
                    if q > best:
                        best, found = q, m
                label[y, x] = found
                albedo[y, x, 0], albedo[y, x, 1], albedo[y, x, 2] = red * opaque, green * opaque, blue * opaque
                for m in range(3):
                    out_normal[y, x, m] = side * (w0 * normal[a, m] + w1 * normal[b, m] + w2 * normal[c, m])


@njit(cache=True)
def shadow_depth(v, tri, basis, scale, depth):
    """Largest height towards the light, over a square map; positions relative to the map's centre."""
    n = depth.shape[0]
    p = np.empty_like(v)
    for i in range(len(v)):
        for m in range(3):
            p[i, m] = basis[m, 0] * v[i, 0] + basis[m, 1] * v[i, 1] + basis[m, 2] * v[i, 2]
        p[i, 0] = p[i, 0] * scale + n / 2
        p[i, 1] = p[i, 1] * scale + n / 2
    for k in range(len(tri)):
        a, b, c = tri[k, 0], tri[k, 1], tri[k, 2]
        x0, y0, x1, y1, x2, y2 = p[a, 0], p[a, 1], p[b, 0], p[b, 1], p[c, 0], p[c, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9:
            continue
        for y in range(max(0, int(min(y0, y1, y2))), min(n - 1, int(max(y0, y1, y2))) + 1):
            for x in range(max(0, int(min(x0, x1, x2))), min(n - 1, int(max(x0, x1, x2))) + 1):
                px, py = x + 0.5, y + 0.5
                w0 = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) / area
                w1 = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) / area
                w2 = 1.0 - w0 - w1
                if w0 < -0.02 or w1 < -0.02 or w2 < -0.02:
                    continue
                z = w0 * p[a, 2] + w1 * p[b, 2] + w2 * p[c, 2]
                if z > depth[y, x]:
                    depth[y, x] = z


@njit(cache=True)
def harmonics(sh, x, y, z, m):
    """Irradiance (divided by pi) from nine spherical-harmonic coefficients (Ramamoorthi, Hanrahan 2001)."""
    return (0.282095 * sh[0, m] + 0.488603 * (sh[1, m] * y + sh[2, m] * z + sh[3, m] * x)
            + 1.092548 * (sh[4, m] * x * y + sh[5, m] * y * z + sh[7, m] * x * z)
            + 0.315392 * sh[6, m] * (3 * z * z - 1) + 0.546274 * sh[8, m] * (x * x - y * y))


@njit(cache=True)
def shade(depth, albedo, normal, occlusion, who, to_world, focal, cx, cy, sh, sun, sun_direction, use_sun,
          basis, scale, centre, shadow, ground, feet, exposure, image):
    """Lights the rasterised pixels, and darkens the floor under feet, be it a panorama's or a room's.

    image: linear radiance, (H, W, 3), holding the background; overwritten where something stands.
    ground: camera-relative height of the floor in metres (negative), positive for none.
    """
    height, width = depth.shape
    n = shadow.shape[0]
    for y in range(height):
        for x in range(width):
            dx, dy = (x + 0.5 - cx) / focal, -(y + 0.5 - cy) / focal
            rx = to_world[0, 0] * dx + to_world[0, 1] * dy - to_world[0, 2]
            ry = to_world[1, 0] * dx + to_world[1, 1] * dy - to_world[1, 2]
            rz = to_world[2, 0] * dx + to_world[2, 1] * dy - to_world[2, 2]
            z = depth[y, x]
            empty = z > 1e8
            if empty:
                if ry > -0.02 or ground > 0:
                    continue
                z = ground / ry
                if z > 12:
                    continue
            lit = 1.0
            if use_sun:
                wx, wy, wz = rx * z - centre[0], ry * z - centre[1], rz * z - centre[2]
                ix = int((basis[0, 0] * wx + basis[0, 1] * wy + basis[0, 2] * wz) * scale + n / 2)
                iy = int((basis[1, 0] * wx + basis[1, 1] * wy + basis[1, 2] * wz) * scale + n / 2)
                pz = basis[2, 0] * wx + basis[2, 1] * wy + basis[2, 2] * wz
                if 1 <= ix < n - 1 and 1 <= iy < n - 1:
                    blocked = 0
                    for j in range(-1, 2):
                        for i in range(-1, 2):
                            if shadow[iy + j, ix + i] > pz + 0.04:
                                blocked += 1
                    lit = 1.0 - blocked / 9.0
            direct = 0.0
            for m in range(3):
                direct += sun[m] / 3
            if empty:
                keep = 1.0
                for k in range(len(feet)):
                    d2 = (rx * z - feet[k, 0]) ** 2 + (rz * z - feet[k, 2]) ** 2
                    keep *= 1 - 0.5 * np.exp(-d2 / 0.06)
                share = direct * max(sun_direction[1], 0.0)
                share = share / (share + max(sh[0, 0] * 0.28, 1e-4))
                keep *= 1 - min(0.75, share) * (1 - lit)
                for m in range(3):
                    image[y, x, m] *= keep
                continue
            nx = to_world[0, 0] * normal[y, x, 0] + to_world[0, 1] * normal[y, x, 1] + to_world[0, 2] * normal[y, x, 2]
            ny = to_world[1, 0] * normal[y, x, 0] + to_world[1, 1] * normal[y, x, 1] + to_world[1, 2] * normal[y, x, 2]
            nz = to_world[2, 0] * normal[y, x, 0] + to_world[2, 1] * normal[y, x, 1] + to_world[2, 2] * normal[y, x, 2]
            length = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
            nx, ny, nz = nx / length, ny / length, nz / length
            facing = max(0.0, nx * sun_direction[0] + ny * sun_direction[1] + nz * sun_direction[2]) * lit
            contact = 1.0
            if who[y, x] == 0 and ground < 0 and abs(ry * z - ground) < 0.05:
                for k in range(len(feet)):
                    d2 = (rx * z - feet[k, 0]) ** 2 + (rz * z - feet[k, 2]) ** 2
                    contact *= 1 - 0.5 * np.exp(-d2 / 0.06)
            for m in range(3):
                ambient = max(harmonics(sh, nx, ny, nz, m), 0.02)
                image[y, x, m] = exposure * contact * albedo[y, x, m] * (ambient * occlusion[y, x] + facing * sun[m])
