"""Scores of a tracker under training: the ordinary session over the scenes of a nuScenes root, official metrics.

Scenes are shared out to the processes; the leading one scores.
"""

import contextlib
import dataclasses
import json
from pathlib import Path

import numpy as np
import torch

from syncl_core.config import SynclConfig
from syncl_core.data.nuscenes_clips import NuScenesClips
from syncl_core.evaluation.detection import evaluate_detection
from syncl_core.evaluation.tracking import evaluate_tracking, format_metrics
from syncl_core.io.files import write_text
from syncl_core.io.key_frames import match_to_samples
from syncl_core.io.submission import tracking_submission, write_submission
from syncl_core.models.box_code import code_center, code_size, code_velocity, code_yaw
from syncl_core.runtime.session import TrackerSession
from syncl_core.tensors import Frame, Tracks
from syncl_core.tracking.base import Observation, State, Tracker
from syncl_core.training.distributed import Workers, gather
from syncl_core.types import ObjectSet

MAX_DETECTIONS = 300
"""Boxes per key frame for the detection metrics, the best of all queries and classes (PETR's decoding)."""


class Evaluation:
    """Called with a tracker and the number of iterations so far; every process must call it."""

    def __init__(self, clips: NuScenesClips, folder: Path, workers: Workers):
        self._clips, self._folder, self._workers = clips, folder, workers

    def __call__(self, tracker: Tracker, iteration: int) -> dict[str, float]:
        """Official metrics, and as "score" AMOTA, or NDS of a detector. Empty except in the leading process.

        Those of tracks are over the classes that the tracker has.
        """
        tracks, detections = {}, {}
        for scene in self._clips.scene_names[self._workers.rank :: self._workers.size]:
            of_scene = self._run_scene(tracker, scene)
            samples = self._clips.data.samples(scene)
            tracks |= match_to_samples([both[0] for both in of_scene], samples)
            detections |= match_to_samples([both[1] for both in of_scene], samples)
        parts = gather((tracks, detections))
        if not self._workers.leads:
            return {}
        tracks, detections = ({k: v for part in parts for k, v in part[i].items()} for i in (0, 1))
        return self._score(tracker, tracks, detections, self._folder / f"iteration-{iteration:07d}")

    def _run_scene(self, tracker: Tracker, scene: str) -> list[tuple[ObjectSet, ObjectSet]]:
        """Tracks and detections of every key frame."""
        step = _StepWithDetections(tracker)
        # Detections have all classes, tracks only the first few.
        config = dataclasses.replace(tracker.config, num_tracking_classes=len(tracker.config.classes))
        device = next(tracker.parameters()).device
        session = TrackerSession(step, tracker.init_state, config, device)
        with contextlib.closing(session):
            frames = range(self._clips.num_key_frames(scene))
            return [_split(session.process(self._clips.frame_set(scene, i)).objects) for i in frames]

    def _score(self, tracker: Tracker, tracks: dict, detections: dict, folder: Path) -> dict[str, float]:
        data, scenes = self._clips.data, self._clips.scene_names
        detection = evaluate_detection(data.root, data.version, scenes, detections)
        scores = {"nds": detection.nds, "map": detection.mean_ap, "map_present": detection.present_ap}
        scores |= detection.errors | {f"ap/{name}": value for name, value in detection.class_ap.items()}
        if tracker.config.model.framework == "none":
            scores = {"score": detection.nds} | scores
        else:
            write_submission(folder / "tracks.json", tracking_submission(tracks))
            classes = tracker.config.tracking_classes
            metrics = evaluate_tracking(data.root, data.version, scenes, folder / "tracks.json", folder, classes)
            write_text(folder / "metrics.txt", format_metrics(metrics) + "\n")
            names = ("amota", "amotp", "recall", "mota", "ids", "fp", "fn")
            scores = {"score": metrics.amota} | {name: getattr(metrics, name) for name in names} | scores
            scores |= {f"amota/{name}": of_class.amota for name, of_class in metrics.per_class.items() if of_class.gt}
        write_text(folder / "scores.json", json.dumps(scores, indent=2) + "\n")
        return scores


def detections(observation: Observation, config: SynclConfig, count: int = MAX_DETECTIONS) -> Tracks:
    """The best boxes of one frame as rows of Tracks, counted downwards from -1: every class of every row may be one."""
    said = observation.refined if config.model.framework == "pf_track" else observation.head
    logits, box = (x if x.ndim == 3 else x[-1] for x in (said.logits, said.box))  # without the layer axis
    score = logits.sigmoid().masked_fill(~observation.valid[..., None], 0.0)
    best = score.flatten(1).topk(min(count, score[0].numel()))
    row, label = best.indices // logits.shape[-1], best.indices % logits.shape[-1]
    box = box.gather(1, row[..., None].expand(-1, -1, box.shape[-1]))
    center = code_center(box)
    low, high = center.new_tensor(config.model.position_range).view(2, 3)
    return Tracks(
        valid=((center >= low) & (center <= high)).all(dim=-1) & (best.values > 0),
        track_id=-1 - torch.arange(row.shape[1], device=row.device).expand_as(row),
        label=label,
        score=best.values,
        center=center,
        size=code_size(box),
        yaw=code_yaw(box),
        velocity=code_velocity(box),
    )


class _StepWithDetections:
    """`Tracker.step` whose rows are the tracks, then the frame's detections."""

    def __init__(self, tracker: Tracker):
        self._tracker = tracker

    def __call__(self, state: State, frame: Frame) -> tuple[State, Tracks]:
        observation = self._tracker.observe(state, frame)
        state = self._tracker.commit(observation, self._tracker.judge(observation))
        pair = self._tracker.read(state), detections(observation, self._tracker.config)
        return state, Tracks(
            **{f.name: torch.cat([getattr(x, f.name) for x in pair], 1) for f in dataclasses.fields(Tracks)}
        )


def _split(objects: ObjectSet) -> tuple[ObjectSet, ObjectSet]:
    """Tracks and detections; a detection's number is negative."""
    is_detection = np.array(["--" in name for name in objects.ids], dtype=bool)
    return objects.select(~is_detection), objects.select(is_detection)
