"""The generated parts of docs/models.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.harness import ROOT
from benchmarks.zoo.families import FAMILIES
from orchestrator.lib.files import write_text

PAGE = ROOT / "docs/models.md"
Json = Mapping[str, Any]
HEAD = (
    "model",
    "template",
    "tokenizer class",
    "what `check` says",
    "prompts equal",
    "f16 agrees",
    "adapter",
    "result",
)


def renew(results: Json) -> None:
    """Write both tables anew, each between its marks."""
    text = PAGE.read_text(encoding="utf-8")
    parts = {"families": families(results["families"]), "sources": sources(), "gemma": gemma(results.get("gemma", {}))}
    for name, part in parts.items():
        before, begin, rest = text.partition(f"<!-- begin {name} -->\n")
        _, end, after = rest.partition(f"<!-- end {name} -->")
        text = before + begin + "\n" + part + "\n\n" + end + after
    write_text(PAGE, text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def families(rows: Json) -> str:
    """A line for each family that was tried, in the zoo's order."""
    return table(HEAD, [line(name, rows[name]) for name in FAMILIES if name in rows])


def line(name: str, row: Json) -> list[str]:
    """One family: what was found, and whose fault it is where it does not go through."""
    f16, adapter = row.get("gguf-f16"), row.get("gguf-adapter")
    cells = [
        FAMILIES[name].repository,
        f"`{row.get('template') or '—'}`",
        f"`{row['tokenizer']}`",
        shortened(row["cure"]),
    ]
    return [*cells, equal_prompts(f16), percent(f16), percent(adapter), result(name, row)]


def shortened(cure: str) -> str:
    """What `check` said of the model, without where from and where to."""
    return "; ".join(one.partition(": ")[2].split(", ")[0] for one in cure.split("; ") if ": " in one) or "—"


def equal_prompts(parity: Json | None) -> str:
    """Of how many prompts the tokens are those of training."""
    return f"{parity['equal_prompts']} of {parity['compared']}" if parity else "—"


def percent(parity: Json | None) -> str:
    """The share of answers that are the tuned model's."""
    return f"{parity['agreement']:.0f} %" if parity and parity.get("agreement") is not None else "—"


def result(name: str, row: Json) -> str:
    """How it ended, why, and whose fault that is."""
    family, passed = FAMILIES[name], row["outcome"] == "passes"
    said = "passes" if passed else f"**{row['outcome']}**: {row['because']}"
    return ". ".join(filter(None, (said, "" if passed else family.fault, family.no_adapter)))


def sources() -> str:
    """Where each vocabulary comes from."""
    rows = [[family.repository, family.source, family.terms] for family in FAMILIES.values()]
    return table(("model", "vocabulary from", "its terms"), rows)


def gemma(found: Json) -> str:
    """The real model: a line for each artifact, and what it took."""
    if not found:
        return "(not tried yet)"
    rows = [[name, *figures(values)] for name, values in found["artifacts"].items()]
    head = ("artifact", "accuracy (95 %)", "macro F1", "ROUGE-1", "agrees", "prompts equal", "size")
    return table(head, rows) + "\n\n" + cost(found)


def figures(values: Json) -> list[str]:
    """The cells of one artifact."""
    accuracy = values["accuracy"]
    interval = f"{accuracy['value']:.1f} ({accuracy['low']:.1f}–{accuracy['high']:.1f})"
    others = [f"{values[key]['value']:.1f}" for key in ("macro_f1", "rouge1")]
    agrees = "—" if values["agreement"] is None else f"{values['agreement']:.0f} %"
    size = "—" if values["bytes"] is None else f"{values['bytes'] / 1e6:.1f} MB"
    return [interval, *others, agrees, equal_prompts(values["prompts"]), size]


def cost(found: Json) -> str:
    """Time and memory, in one sentence."""
    minutes = found["seconds"] / 60
    longest = sorted(found["stages"].items(), key=lambda item: -item[1])[:4]
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in longest)
    return (
        f"{found['rows']} rows, {found['epochs']} epochs, on {found['cores']} core(s) of {found['processor']}: "
        f"{minutes:.0f} min in all ({stages}); at most {found['peak_gib']} GiB of memory over all processes."
    )
