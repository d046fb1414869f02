"""The dense head's targets cell by cell, object by object, in float64."""

import math

import numpy as np


def slow_dense(matrix, camera_valid, boxes, valid, size, image_size):
    """Owners [N, h, w], views [N, G, 8], middles and cells beside [N, h, w] of one scene, all by hand."""
    (rows, cols), (height, width) = size, image_size
    cell = (width / cols, height / rows)
    owner = np.full((len(matrix), rows, cols), -1)
    view = np.full((len(matrix), len(boxes), 8), np.nan)
    for n, projection in enumerate(matrix):
        depths = {}
        for g, box in enumerate(boxes):
            if not valid[g] or not camera_valid[n]:
                continue
            x, y, log_w, log_l, z, log_h, sine, cosine = box[:8]
            w, length, h = math.exp(log_w), math.exp(log_l), math.exp(log_h)
            yaw = -math.atan2(sine, cosine) - math.pi / 2
            along, across = np.array([math.cos(yaw), math.sin(yaw), 0]), np.array([-math.sin(yaw), math.cos(yaw), 0])
            center = np.array([x, y, z])
            corners = [
                center + a * length * along + b * w * across + np.array([0, 0, c * h])
                for a in (-0.5, 0.5)
                for b in (-0.5, 0.5)
                for c in (-0.5, 0.5)
            ]
            seen = [projection @ np.append(p, 1.0) for p in (center, *corners)]
            if min(p[2] for p in seen) <= 0.5:
                continue
            pixels = np.array([p[:2] / p[2] for p in seen])
            view[n, g] = _view(projection, pixels[0], seen[0][2], (length, w, h), yaw)
            depths[g] = seen[0][2]
            low, high = pixels[1:].min(axis=0), pixels[1:].max(axis=0)
            middle, half = (low + high) / 2, np.maximum(0.7 * (high - low) / 2, np.array(cell) / 2)
            for i in range(rows):
                for j in range(cols):
                    place = np.array([(j + 0.5) * cell[0], (i + 0.5) * cell[1]])
                    nearer = owner[n, i, j] < 0 or depths[g] < depths[owner[n, i, j]]
                    if (np.abs(place - middle) <= half).all() and nearer:
                        owner[n, i, j] = g
    return owner, view, *_middles(owner, view, cell)


def _middles(owner, view, cell):
    """Each object's own cell that is nearest to its centre, and its own cells around that one."""
    middle, beside = np.zeros(owner.shape, dtype=bool), np.zeros(owner.shape, dtype=bool)
    for n, g in {(n, owner[n, i, j]) for n, i, j in np.ndindex(*owner.shape) if owner[n, i, j] >= 0}:
        own = [(i, j) for i, j in np.ndindex(*owner.shape[1:]) if owner[n, i, j] == g]
        away = [math.hypot((j + 0.5) * cell[0] - view[n, g][0], (i + 0.5) * cell[1] - view[n, g][1]) for i, j in own]
        best = own[int(np.argmin(away))]
        middle[(n, *best)] = True
        for i, j in own:
            beside[n, i, j] |= (i, j) != best and max(abs(i - best[0]), abs(j - best[1])) == 1
    return middle, beside


def _view(projection, pixel, depth, size, yaw):
    """Focal length and axes from the projection by Gram-Schmidt."""
    forward = projection[2, :3] / np.linalg.norm(projection[2, :3])
    right = projection[0, :3] - (projection[0, :3] @ forward) * forward
    focal = np.linalg.norm(right) / np.linalg.norm(projection[2, :3])
    right = right / np.linalg.norm(right)
    heading = np.array([math.cos(yaw), math.sin(yaw), 0.0])
    return [*pixel, math.log(depth / focal * 1000.0), *np.log(size), right @ heading, forward @ heading]
