"""Readers and writers of meshes, points, lines, pictures and sounds.

The public functions are the names of ``__all__``: one ``load_`` and one ``save_`` for each kind of
file. Points are only read. Every ``load_`` raises ``FileNotFoundError``, ``IsADirectoryError`` or
``ValueError`` with one sentence that names the file. Every ``save_`` writes a complete file or no
file. Decoders such as trimesh, Pillow, soundfile and laspy are imported at the first call that
needs them.

`read_mesh` is `load_mesh` with the notes about the file as a list.

`nstr3d.io.interop` converts to the types of Open3D, trimesh and kaolin. `nstr3d.io.atomic` holds
`atomic_path` and `check_readable`, which other writers and readers share.
"""

from nstr3d.io.atomic import save_json
from nstr3d.io.audio import Sound, load_sound, save_sound
from nstr3d.io.cloud import load_cloud, read_cloud
from nstr3d.io.columns import Reading
from nstr3d.io.errors import ContentError, NoFacesError
from nstr3d.io.image import Picture, load_image, load_picture, save_image, save_picture
from nstr3d.io.lines import load_lines, save_lines
from nstr3d.io.mesh import load_mesh, read_mesh, save_mesh

__all__ = [
    "ContentError",
    "NoFacesError",
    "Picture",
    "Reading",
    "Sound",
    "load_cloud",
    "load_image",
    "load_lines",
    "load_mesh",
    "load_picture",
    "load_sound",
    "read_cloud",
    "read_mesh",
    "save_image",
    "save_json",
    "save_lines",
    "save_mesh",
    "save_picture",
    "save_sound",
]
