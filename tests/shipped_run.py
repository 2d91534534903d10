"""A finished run on the tiny model, made by the real steps; only training is a short loop of our own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orchestrator.evaluation.rows import write_records
from orchestrator.executors.warm import WarmLauncher
from orchestrator.lib import layout, process
from orchestrator.lib.files import HashCache, cache_folder, read_json, read_json_lines, write_json, write_text
from orchestrator.lib.step import Step
from orchestrator.pipeline import workflow
from orchestrator.pipeline.plan import Plan, make_plan
from orchestrator.pipeline.stage_process import require_success, set_up
from orchestrator.runs import outputs, proof, results
from orchestrator.runs.store import Run
from orchestrator.spec.load import load_project
from tests.conftest import make_project, write_tree

DONE = ("prepare", "template", "convert", "modelfile", "adapter", "ask-f16", "ask-adapter", "judge")
READ = ("read-tuned", "diverge-f16", "diverge-adapter")
STEPS = 60
OVERRIDES = ("export.gguf=[f16]", "export.adapter=true", "evaluate.baseline=false")
THINKING = ("model.template=qwen3", "model.thinking=true", "evaluate.max_new_tokens=19", "export.adapter=false")
THOUGHT = "<think>\n{}\n</think>\n\n{}"
DATASETS = Path(__file__).parents[1] / "datasets"
TOOL_ROWS = {"train": range(12), "eval": (0, 7, 9, 24)}
# The tiny model cannot end an answer (its EOS is its padding, whose embedding is zero): 33 tokens end the first call.
TOOLS_SPEC = """\
name: tiny
model: {{base: "{base}", template: qwen}}
data: {{train: train.json, eval: eval.json, system: 你是助手。, accept: [duplicate_near, leakage_near]}}
train: {{cutoff_len: 1024}}
evaluate: {{task: tools, max_new_tokens: 33, baseline: false, better_than: []}}
export: {{gguf: [f16], gate: {{min_agreement: 0.9, max_accuracy_drop: 1.0}}}}
"""
warm = WarmLauncher()
"""One process imports what the stages of these runs need, and each is forked from it."""
RECORDED = ("Classify the news headline: Oil prices jump as the cartel cuts output", "Business")
"""A question that a real Ollama was asked (tests/recorded/ollama.json), and what it and its thought were answered."""


def make_run(folder: Path, tiny_model: Path) -> Run:
    """The run, with a merged model, an f16 GGUF, an adapter GGUF over the base's, their answers and the verdict."""
    return run_of(make_project(folder, tiny_model), tiny_model, OVERRIDES)


def make_thinking_run(folder: Path, tiny_model: Path) -> Run:
    """The same without an adapter, of a model that was trained to think before it answers."""
    project = make_project(folder, tiny_model)
    question, answer = RECORDED
    rows = [("The title is about money or companies.", question, answer), ("关于体育。", "杯赛？", "Sports")]
    write_json(project / "data/eval.json", [thoughtful(*row) for row in rows])
    train = [row["conversations"] for row in read_json(project / "data/train.json")]
    write_json(project / "data/train.json", [thoughtful("想", asked["value"], said["value"]) for asked, said in train])
    return run_of(project, tiny_model, (*OVERRIDES, *THINKING))


def make_tools_run(folder: Path, tiny_model: Path) -> Run:
    """The same over a handful of the shipped rows with tools: calls, results of tools, and answers without a call."""
    tree = {f"{name}.json": json.dumps(tool_rows(name, places)) for name, places in TOOL_ROWS.items()}
    return run_of(write_tree(folder, {"spec.yaml": TOOLS_SPEC.format(base=tiny_model), **tree}), tiny_model, ())


def tool_rows(name: str, places: Iterable[int]) -> list[dict[str, Any]]:
    """Some rows of datasets/tools, in the order of the file."""
    rows = json.loads((DATASETS / f"tools/{name}.json").read_text(encoding="utf-8"))
    return [rows[place] for place in places]


def thoughtful(thought: str, question: str, answer: str) -> dict[str, Any]:
    """A row whose answer begins with a thought."""
    value = THOUGHT.format(thought, answer)
    return {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": value}]}


def run_of(project: Path, tiny_model: Path, overrides: tuple[str, ...]) -> Run:
    """A finished run of a project's spec."""
    loaded = load_project(project / "spec.yaml", overrides)
    plan = make_plan(loaded)
    run = workflow.create_run(loaded, plan)
    write_text(run.folder / layout.SPEC, loaded.text)
    for planned in plan.steps:
        step = planned.step
        if step.stage == "train":
            train_and_merge(tiny_model, run.folder)
            write_text(run.folder / layout.config("train"), step.files[layout.config("train")])
            record(run, step, planned.fingerprint)
        elif step.stage in DONE + READ:
            carry_out(run, step, planned.fingerprint)
    finish(run, plan)
    return run


def train_and_merge(base: Path, folder: Path) -> None:
    """train/ with a LoRA adapter that knows the held-out rows by heart, export/as-merged/ with the model that it makes.

    By heart, since the answers of a random model are near ties, which no two ways of computing decide alike.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", use_rslora=True)
    adapted = get_peft_model(model, config)
    tokenizer = AutoTokenizer.from_pretrained(str(base))
    learn(adapted, [example(json.loads(line), tokenizer) for line in (folder / layout.PROMPTS).open(encoding="utf-8")])
    adapted.save_pretrained(str(folder / layout.TRAINED))
    adapted.merge_and_unload().save_pretrained(str(folder / layout.AS_MERGED))
    tokenizer.save_pretrained(str(folder / layout.AS_MERGED))


def example(row: dict[str, Any], tokenizer: Any) -> tuple[list[int], list[int]]:
    """The tokens of a prompt and of its answer."""
    return row["ids"], [*tokenizer.encode(row["label"], add_special_tokens=False), tokenizer.eos_token_id]


def learn(model: Any, examples: list[tuple[list[int], list[int]]]) -> None:
    """Fit the answers. Only their tokens are scored: 49,000 scores for every token of a prompt would take long."""
    import torch

    wholes = [[*prompt, *answer] for prompt, answer in examples]
    longest = max(map(len, wholes))
    ids = torch.tensor([whole + [0] * (longest - len(whole)) for whole in wholes])
    places = [(n, len(p) + k - 1, t) for n, (p, answer) in enumerate(examples) for k, t in enumerate(answer)]
    rows, positions, wanted = (torch.tensor(column) for column in zip(*places, strict=True))
    head, body = model.get_base_model().lm_head, model.get_base_model().model
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    for _ in range(STEPS):
        optimizer.zero_grad()
        scores = head(body(input_ids=ids).last_hidden_state[rows, positions])
        # Its embeddings are so small that no score exceeds 1.3: sharpened, or nothing would be learnt.
        torch.nn.functional.cross_entropy(20 * scores, wanted).backward()
        optimizer.step()


def carry_out(run: Run, step: Step, fingerprint: str) -> None:
    if step.stage == "read-tuned":
        answer_alike(run.folder)
    argv = set_up(step, run, resumable=False)
    log = run.folder / layout.log(step.stage)
    code = process.wait(warm(step, process.Command(argv, run.folder, log, step.env)))
    require_success(step, run, code)
    record(run, step, fingerprint)


def answer_alike(folder: Path) -> None:
    """The tuned model answers as its f16 GGUF did: as LLaMA-Factory and as `score` would leave it."""
    rows = read_json_lines(folder / layout.predictions("gguf-f16"))
    generated = folder / layout.generated("tuned") / "generated_predictions.jsonl"
    generated.parent.mkdir(parents=True, exist_ok=True)
    write_records(generated, [{"predict": row["prediction"], "label": row["label"]} for row in rows])
    shutil.copy(folder / layout.predictions("gguf-f16"), folder / layout.predictions("tuned"))


def record(run: Run, step: Step, fingerprint: str) -> None:
    """As the tool does, but for the files that our own training does not leave."""
    run.begin(step, fingerprint, step.argv)
    left = {*step.expects, *step.leaves}
    left |= {f"{step.folder}/{path.name}" for path in (run.folder / step.folder).iterdir()} if step.folder else set()
    there = [path for path in left if (run.folder / path).is_file()]
    run.end(step.stage, "completed", 1.0, 0, outputs.finished(run.folder, there, hashes()))


def record_again(run: Run, stage: str) -> None:
    """After a test has changed what a stage left, as if it had left that."""
    entry = run.stage(stage)
    entry["outputs"] = outputs.finished(run.folder, [output["path"] for output in entry["outputs"]], hashes())
    run.save()


def hashes() -> HashCache:
    return HashCache(cache_folder() / "hashes.json")


def finish(run: Run, plan: Plan) -> None:
    run.record["files"] = proof.kept(run, hashes())
    run.set(status="completed", metrics=results.metrics(run.folder), lineage=workflow.lineage(plan, run))
