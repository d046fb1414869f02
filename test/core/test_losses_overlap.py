"""Overlaps seen from above, and the filters ATSS and SimOTA against their slow twins."""

import dataclasses
import math

import pytest
import torch
from loss_cases import filter_case
from slow_losses import focal_cost

from syncl_core.losses.syncl.overlap import footprint, footprint_iou, inside_footprint
from syncl_core.models.box_code import encode_boxes


def test_footprint_is_that_of_the_nearest_axis():
    center, size = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([4.0, 2.0, 1.5])
    for yaw, expected in ((0.1, [-1, 1, 3, 3]), (1.5, [0, 0, 2, 4]), (-1.5, [0, 0, 2, 4]), (3.0, [-1, 1, 3, 3])):
        code = encode_boxes(center, size, torch.tensor(yaw), torch.zeros(2))
        torch.testing.assert_close(footprint(code), torch.tensor(expected).float())


def test_footprint_iou_equals_counted_cells():
    a = torch.tensor([[0.0, 0, 4, 2], [0, 0, 1, 1], [-2, -2, 2, 2]])
    b = torch.tensor([[2.0, 1, 6, 3], [5, 5, 6, 6], [-1, -1, 1, 1]])
    found = footprint_iou(a, b)
    for i in range(3):
        for j in range(3):
            cells = [(x, y) for x in range(-3, 7) for y in range(-3, 7)]

            def within(r, cell):
                return r[0] <= cell[0] < r[2] and r[1] <= cell[1] < r[3]

            both = sum(within(a[i], c) and within(b[j], c) for c in cells)
            either = sum(within(a[i], c) or within(b[j], c) for c in cells)
            assert found[i, j].item() == pytest.approx(both / either)


def test_inside_turns_with_the_box():
    code = encode_boxes(torch.zeros(3), torch.tensor([4.0, 1.0, 1.0]), torch.tensor(math.pi / 4), torch.zeros(2))[None]
    points = torch.tensor([[1.3, 1.3], [1.3, -1.3], [1.5, 1.5], [-1.3, -1.3]])
    assert inside_footprint(points, code)[:, 0].tolist() == [True, False, False, True]


def _slow_overlap(a: torch.Tensor, b: torch.Tensor) -> float:
    def sides(code):
        width, length = math.exp(code[2]), math.exp(code[3])
        yaw = -math.atan2(code[6], code[7]) - math.pi / 2
        x, y = (length, width) if abs(math.cos(yaw)) > abs(math.sin(yaw)) else (width, length)
        return (code[0] - x / 2, code[0] + x / 2), (code[1] - y / 2, code[1] + y / 2), x * y

    a, b = sides(a.tolist()), sides(b.tolist())
    shared = 1.0
    for i in (0, 1):
        shared *= max(0.0, min(a[i][1], b[i][1]) - max(a[i][0], b[i][0]))
    return shared / (a[2] + b[2] - shared)


def _slow_atss(rows, g, box, target, count) -> set[int]:
    def distance(m):
        return math.hypot(*(box[m][:2] - target[g][:2]).tolist())

    near = sorted(rows, key=distance)[:count]
    iou = {m: _slow_overlap(box[m], target[g]) for m in near}
    mean = sum(iou.values()) / len(near)
    limit = mean + math.sqrt(sum((v - mean) ** 2 for v in iou.values()) / max(1, len(near) - 1))
    yaw = -math.atan2(target[g][6], target[g][7]) - math.pi / 2
    kept = set()
    for m in near:
        x, y = (box[m][:2] - target[g][:2]).tolist()
        along, across = x * math.cos(yaw) + y * math.sin(yaw), y * math.cos(yaw) - x * math.sin(yaw)
        inside = abs(along) <= math.exp(target[g][3]) / 2 and abs(across) <= math.exp(target[g][2]) / 2
        if inside and iou[m] >= limit:
            kept.add(m)
    return kept


def _slow_sim_ota(rows, g, logits, box, target, label, count) -> set[int]:
    iou = {m: _slow_overlap(box[m], target[g]) for m in rows}
    number = max(1, math.floor(sum(sorted(iou.values(), reverse=True)[:10])))
    price = {m: 2.0 * focal_cost(logits[m].tolist(), label) - 3 * math.log(iou[m] + 1e-8) for m in rows}
    return set(sorted(rows, key=price.get)[: min(number, count)])


@pytest.mark.parametrize("method", ["atss", "sim_ota"])
def test_overlap_filters_equal_the_slow_ones(method):
    total = 0
    for seed in range(6):
        module, inputs = filter_case({"method": method}, seed, queries=14, vanished=(0, 2))
        _, allowed, logits, box, targets = inputs
        box = torch.cat([box[..., :2] * 0.5, box[..., 2:4] * 0.2 + 1.0, box[..., 4:]], dim=-1)
        wide = torch.cat([targets.box[..., :2] * 0.5, targets.box[..., 2:4] * 0.2 + 1.0, targets.box[..., 4:]], dim=-1)
        targets = dataclasses.replace(targets, box=wide)
        kept = module(inputs[0], allowed, logits, box, targets).kept
        for layer in range(2):
            for b in range(2):
                boxes, goals, scores = box[layer, b].double(), wide[b].double(), logits[layer, b].double()
                for g in range(targets.valid.shape[1]):
                    rows = torch.nonzero(allowed[b, :, g]).flatten().tolist()
                    if not rows:
                        expected = set()
                    elif method == "atss":
                        expected = _slow_atss(rows, g, boxes, goals, 5)
                    else:
                        expected = _slow_sim_ota(rows, g, scores, boxes, goals, int(targets.label[b, g]), 5)
                    assert set(torch.nonzero(kept[layer, b, :, g]).flatten().tolist()) == expected
                    total += len(expected)
    assert total > 40
