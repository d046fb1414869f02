"""A small procedural city with traffic, six cameras and a lidar. Entirely synthetic; docs/world.md says what it holds.

    generate.make_scene(seed) -> Scene         what is there and how it moves: a pure function of the seed
    splits                                     scenes by name: world-train-000042, world-val-03, world-0007
    scene.boxes_at(scene, t) -> Boxes          a scene at given times, as arrays of oriented boxes
    render.render(boxes, light, views, ...)    pictures and instance masks, by ray casting in torch
    photo.take(scene, ...)                     the same through the scene's cameras, with exposure and noise
    source.WorldSource(split, ...)             key frames with ground truth for training, drawn while they are read
    writer.write_world(folder, ...)            tables and JPEGs that nuscenes-devkit loads

Frames: scenes are laid out in the `city` frame (streets along x and y, z up, one crossing at the origin); a rigid
transform per scene, `Scene.global_from_city`, takes it to the global frame of the tables. Right-hand traffic.
"""
