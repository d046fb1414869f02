"""Names and descriptions in the tables: what there is, what it does, how much of it is seen."""

CATEGORIES = {
    "human.pedestrian.adult": "A grown-up on foot.",
    "human.pedestrian.child": "A child on foot.",
    "human.pedestrian.construction_worker": "Somebody on foot in working clothes.",
    "vehicle.car": "A car or van.",
    "vehicle.motorcycle": "A motorcycle, with its rider if there is one.",
    "vehicle.bicycle": "A bicycle, with its rider if there is one.",
    "vehicle.bus.rigid": "A bus.",
    "vehicle.truck": "A truck without its trailer.",
    "vehicle.trailer": "A trailer, towed or parked.",
}
ATTRIBUTES = {
    "vehicle.moving": "Drives.",
    "vehicle.stopped": "Stands in traffic.",
    "vehicle.parked": "Is parked.",
    "cycle.with_rider": "Is ridden.",
    "cycle.without_rider": "Stands without a rider.",
    "pedestrian.moving": "Walks.",
    "pedestrian.standing": "Stands.",
}
VISIBILITY = {"1": ("v0-40", 0.4), "2": ("v40-60", 0.6), "3": ("v60-80", 0.8), "4": ("v80-100", 1.0)}
