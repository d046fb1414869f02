"""A small procedural city with traffic, six cameras and a lidar, written in the nuScenes schema. Entirely synthetic.

    scene.make_scene(seed) -> Scene            what is there and how it moves: a pure function of the seed
    scene.boxes_at(scene, t) -> Boxes          the same at given times, as arrays of oriented boxes
    render.render(boxes, light, views, ...)    pictures, instance masks and depth, by ray casting in torch
    writer.write_world(folder, ...)            tables and JPEGs that nuscenes-devkit loads

Frames: scenes are laid out in the `city` frame (streets along x and y, z up, one crossing at the origin); a rigid
transform per scene, `Scene.global_from_city`, takes it to the global frame of the tables. Right-hand traffic.
"""
