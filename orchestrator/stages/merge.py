"""merge: LLaMA-Factory merges the adapter into the base model."""

from __future__ import annotations

from orchestrator.lib import layout
from orchestrator.lib.step import Step
from orchestrator.stages.base import TRAINING_PACKAGES, Context, Stage


class Merge(Stage):
    """`llamafactory-cli export`."""

    phase = "export"

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step."""
        config = layout.config("merge")
        text = context.render(
            "export.yaml.j2",
            loads=context.tuned(),
            **context.template_arguments,
            model=context.spec.model,
            layout=layout,
        )
        return [
            Step(
                stage="merge",
                phase=cls.phase,
                argv=("llamafactory-cli", "export", config),
                files={config: text},
                expects=(f"{layout.AS_MERGED}/config.json", f"{layout.AS_MERGED}/tokenizer_config.json"),
                needs=(context.trained_by,),
                reads=(f"{context.trained}/*",),
                inputs={"base": context.base_identity, **context.picked(*TRAINING_PACKAGES)},
                folder=layout.AS_MERGED,
            )
        ]
