"""`Sdf`, a signed distance in world units: what surfaces are extracted from, traced, asked and
combined by."""

from nstr3d.sdf.signed import (
    CHUNK,
    Points,
    Sdf,
    from_field,
    placed,
    world_bound,
    world_distance,
)

__all__ = ["CHUNK", "Points", "Sdf", "from_field", "placed", "world_bound", "world_distance"]
