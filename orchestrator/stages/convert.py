"""convert: one pass of llama.cpp's converter, which all quantised files are made from."""

from __future__ import annotations

import sys

from orchestrator.lib import layout
from orchestrator.lib.step import Step
from orchestrator.stages.base import Context, Stage

CONVERTED = ("f32", "f16", "bf16", "q8_0")
"""Types that llama.cpp's converter writes itself; all others are quantised from one of these."""

METADATA = "export/metadata.json"


class Convert(Stage):
    """`convert_hf_to_gguf.py`."""

    phase = "export"

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step."""
        kind = source_type(context.spec.export.kinds)
        target = layout.gguf(context.spec.name, kind)
        growing = layout.partial(target)
        argv = (sys.executable, str(context.converter / "convert_hf_to_gguf.py"), layout.MERGED, "--outfile", growing)
        return [
            Step(
                stage="convert",
                phase=cls.phase,
                argv=(*argv, "--outtype", kind, "--model-name", context.spec.name, "--metadata", METADATA),
                expects=(target,),
                needs=("template",),
                reads=(f"{layout.MERGED}/*", METADATA),
                inputs={"llama.cpp": context.versions["llama.cpp"]},
                partials={growing: target},
            )
        ]


def source_type(kinds: tuple[str, ...]) -> str:
    """The type to convert to: the only one asked for where the converter can write it, else the most exact of them."""
    if len(kinds) == 1 and kinds[0] in CONVERTED:
        return kinds[0]
    return next((kind for kind in ("f32", "bf16") if kind in kinds and "f16" not in kinds), "f16")
