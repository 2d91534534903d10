"""The `export:` section of spec.yaml: which files are made of the trained model, and what each must reach."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ByteSize, Field, StringConstraints, TypeAdapter

from orchestrator.lib.section import Section

Share = Annotated[float, Field(ge=0, le=1)]
Quantisation = Literal[
    "f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_0", "q5_1", "q4_k_m", "q4_k_s", "q4_0", "q4_1",
    "q3_k_l", "q3_k_m", "q3_k_s", "q2_k", "q2_k_s",
    "iq4_nl", "iq4_xs", "iq3_m", "iq3_s", "iq3_xs", "iq3_xxs", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s",
]  # fmt: skip
NEEDS_IMPORTANCE = ("q2_k_s", "iq3_xxs", "iq3_xs", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s")
"""Types that llama.cpp makes by an importance matrix only (`tensor_requires_imatrix` in src/llama-quant.cpp)."""
MIXED = "mixed"
"""What the GGUF of a wanted size is called, where others are named by their type."""
Size = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)? ?[KMG]i?B$")]


class Gate(Section):
    """What a GGUF must reach to be shipped."""

    min_agreement: Share = Field(0.9, description="Least share of rows answered exactly as the tuned model does.")
    max_accuracy_drop: Share = Field(0.03, description="Largest drop of accuracy (or ROUGE-L) against the tuned model.")
    max_divergence: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="Largest mean divergence (KL) from what a GGUF was made from, in nats a token; none by default.",
    )
    max_uncompared: Share = Field(
        0.0, description="Largest share of rows whose prompts need not have been compared with training's."
    )
    max_perplexity_rise: Annotated[float, Field(ge=0)] = Field(
        0.1, description="Largest rise of perplexity against the tuned model's, as a share (stage pt)."
    )


class Ollama(Section):
    """What stands in the Modelfile."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:-]*$", max_length=128)] | None = Field(
        None, description="The model's name in Ollama; by default the spec's."
    )
    system: str | None = Field(None, description="System text to serve with; by default the one of training.")
    parameters: dict[str, float | int | str | bool] = Field(
        default_factory=lambda: dict[str, float | int | str | bool](temperature=0, repeat_penalty=1),
        description="Ollama parameters; by default as was measured: older versions of Ollama penalise with 1.1.",
    )
    create: bool = Field(False, description="Run `ollama create` at the end of the chain.")


class Export(Section):
    """What is made of the trained model."""

    gguf: tuple[Quantisation, ...] = Field(("f16",), min_length=1, description="GGUF files to make and to prove.")
    size: Size | None = Field(
        None,
        description="Also make a GGUF, `mixed`, of at most so many bytes, such as `90MB`: each kind of weight matrix"
        " gets the type that loses least.",
    )
    importance: Literal["auto", "off"] = Field(
        "auto",
        description="`auto` quantises types below q8_0 by what matters on the training rows (an importance matrix).",
    )
    gate: Gate = Field(default_factory=Gate, description="What every GGUF must reach.")
    ollama: Ollama = Field(default_factory=Ollama, description="What stands in the Modelfile.")
    adapter: bool = Field(False, description="Also make a LoRA adapter GGUF and prove it over the base model's GGUF.")

    @property
    def size_bytes(self) -> int | None:
        """`size` as a number."""
        return int(TypeAdapter(ByteSize).validate_python(self.size)) if self.size else None

    @property
    def kinds(self) -> tuple[str, ...]:
        """Every GGUF to make of the merged model: those that are named, and the one of a wanted size."""
        return (*self.gguf, *((MIXED,) if self.size else ()))
