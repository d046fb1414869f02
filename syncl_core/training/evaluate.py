"""Scores of a tracker under training: the ordinary session over the scenes of a nuScenes root, official metrics.

Scenes are shared out to the processes; the leading one scores.
"""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from syncl_core.config import SynclConfig
from syncl_core.data.nuscenes_clips import NuScenesClips
from syncl_core.errors import RejectedSetError
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
        (scores,) = self.side_by_side({f"iteration-{iteration:07d}": tracker}).values()
        return scores

    def side_by_side(
        self, trackers: Mapping[str, Tracker], look: Callable[[], object] = lambda: None
    ) -> dict[str, dict[str, float]]:
        """The same of each of several trackers that differ in `config.track` alone, by the name of its folder.

        What they see in a frame is worked out once. `look` is called after every scene.
        """
        found = {name: ({}, {}) for name in trackers}
        outside = 0
        for scene in self._clips.scene_names[self._workers.rank :: self._workers.size]:
            samples = self._clips.data.samples(scene)
            outside += len(samples) - self._clips.num_key_frames(scene)
            for name, of_scene in self._run_scene(trackers, scene).items():
                for i in (0, 1):
                    found[name][i].update(match_to_samples([both[i] for both in of_scene], samples))
            look()
        if outside:
            where = "outside their scene's longest run of frames with all images"
            self._note(f"key frames {where}, which count as ones without boxes: {outside}")
        parts = gather(found)
        if not self._workers.leads:
            return {name: {} for name in trackers}
        scores = {}
        for name, tracker in trackers.items():
            tracks, detections = ({k: v for part in parts for k, v in part[name][i].items()} for i in (0, 1))
            scores[name] = self._score(tracker, tracks, detections, self._folder / name)
        return scores

    def _run_scene(self, trackers: Mapping[str, Tracker], scene: str) -> dict[str, list[tuple[ObjectSet, ObjectSet]]]:
        """Tracks and detections of every key frame."""
        found, last_seen = {name: [] for name in trackers}, _LastSeen()
        with contextlib.ExitStack() as stack:
            sessions = {name: _session(tracker, last_seen) for name, tracker in trackers.items()}
            for session in sessions.values():
                stack.callback(session.close)
            for i in range(self._clips.num_key_frames(scene)):
                frame_set = self._clips.frame_set(scene, i)
                try:
                    for name, session in sessions.items():
                        found[name].append(_split(session.process(frame_set).objects))
                except RejectedSetError as error:  # by the first of them: all see the same
                    self._note(f"{scene}: a key frame counts as one without boxes: {error}")
        return found

    def _note(self, text: str) -> None:
        tqdm.write(f"note: {self._clips.data.root}: {text}", file=sys.stderr)

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


class _LastSeen:
    """What the network saw in the last frame, for trackers that see the same one after the other."""

    def __init__(self):
        self._t_ns, self._memory = None, None

    def observe(self, tracker: Tracker, state: State, frame: Frame) -> Observation:
        t_ns = frame.t_ns.tolist()
        observation = tracker.observe(state, frame, memory=self._memory if t_ns == self._t_ns else None)
        self._t_ns, self._memory = t_ns, observation.memory
        return observation


class _StepWithDetections:
    """`Tracker.step` whose rows are the tracks, then the frame's detections."""

    def __init__(self, tracker: Tracker, last_seen: _LastSeen):
        self._tracker, self._last_seen = tracker, last_seen

    def __call__(self, state: State, frame: Frame) -> tuple[State, Tracks]:
        observation = self._last_seen.observe(self._tracker, state, frame)
        state = self._tracker.commit(observation, self._tracker.judge(observation))
        pair = self._tracker.read(state), detections(observation, self._tracker.config)
        return state, Tracks(
            **{f.name: torch.cat([getattr(x, f.name) for x in pair], 1) for f in dataclasses.fields(Tracks)}
        )


def _session(tracker: Tracker, last_seen: _LastSeen) -> TrackerSession:
    # Detections have all classes, tracks only the first few.
    config = dataclasses.replace(tracker.config, num_tracking_classes=len(tracker.config.classes))
    step, device = _StepWithDetections(tracker, last_seen), next(tracker.parameters()).device
    return TrackerSession(step, tracker.init_state, config, device)


def _split(objects: ObjectSet) -> tuple[ObjectSet, ObjectSet]:
    """Tracks and detections; a detection's number is negative."""
    is_detection = np.array(["--" in name for name in objects.ids], dtype=bool)
    return objects.select(~is_detection), objects.select(is_detection)
