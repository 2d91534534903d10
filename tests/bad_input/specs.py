"""Specs that cannot run, each with what the message has to contain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

GOOD = """\
name: news
model: {base: "builtin:smollm2-135m-instruct", template: smollm2}
data:
  train: train.json
  eval: eval.json
train:
  learning_rate: 1.0e-4
"""


class Broken(NamedTuple):
    """A spec, and the place that the message names: a line, a key, or both."""

    name: str
    content: bytes
    names: str


TEXTS = ("name", "model.base", "model.template", "llama_cpp")
COUNTS = (
    "data.seed",
    "data.max_samples",
    "evaluate.max_new_tokens",
    "train.lora_rank",
    "train.cutoff_len",
    "train.seed",
)
NUMBERS = ("train.learning_rate", "train.num_train_epochs", "export.gate.min_agreement", "data.eval_fraction")
SECTIONS = ("model", "data", "train", "evaluate", "export", "export.gate", "export.ollama", "sweep")
TYPOS = [
    "nmae",
    "model.bsae",
    "data.trian",
    "data.evl",
    "train.learning_rat",
    "train.epochs",
    "evaluate.lables",
    "export.ggfu",
    "export.gate.min_agreemnt",
    "export.ollama.modelfile",
    "sweep.paramters",
    "中文",
    "train.学习率",
    "export.🙂",
    "data.__class__",
]
NAMES = {
    "parent": "..",
    "slash": "a/b",
    "absolute": "/etc/passwd",
    "space": "my model",
    "quote": "it's",
    "double quote": 'a\\"b',
    "emoji": "news🙂",
    "300 characters": "n" * 300,
    "line break": "a\\nb",
    "option": "--force",
    "hidden": ".news",
    "shell": "$(touch hacked)",
    "semicolon": "a;b",
    "upper case": "News",
    "backslash": "a\\\\b",
    "empty": "",
    "null character": "a\\0b",
    "jinja": "{{ 7 * 7 }}",
}
PATHS = {
    "out of the project": "../../../etc/passwd",
    "device": "/dev/zero",
    "folder": "folder",
    "no such file": "没有.json",
    "symlink to itself": "loop.json",
    "300 characters": f"{'长' * 300}.json",
    "null character": "a\\0.json",
    "home": "~/data.json",
    "emoji": "🙂.json",
    "quotes": "\\\"';--.json",
    "empty": "",
    "spaces": "   ",
    "no data file": "spec.yaml",
    "a pipe": "pipe",
}
BASES = {
    "out of the project": "../../../etc",
    "device": "/dev/zero",
    "a file": "train.json",
    "a loop": "loop.json",
    "hub name that leads out": "hf:../../etc/passwd",
    "hub name with a space": "hf:org/my model",
    "hub revision that leads out": "hf:org/model@../../etc",
    "hub name of options": "hf:--help/x",
    "hub name of one part": "hf:smollm2",
    "web page": "https://example.com/model",
    "unknown builtin": "builtin:gpt-5",
    "unknown source": "s3:bucket/model",
    "300 characters": f"hf:org/{'长' * 300}",
    "emoji": "🙂",
    "empty": "",
}
SECRETS = {
    "token in a value": 'system: "hf_PlantedPlantedPlanted01"',
    "password in a URL": 'system: "https://me:planted-19@pypi.example.com/x"',
    "token in a comment": "seed: 1  # ghp_PlantedPlantedPlanted09",
}
NOT_YAML = {
    "empty": b"",
    "only a comment": "# 什么都没有\n".encode(),
    "a list": b"- name: x\n",
    "a word": b"news\n",
    "a number": b"42\n",
    "tabs": b"name: news\ndata:\n\ttrain: a.json\n",
    "open bracket": b"name: [news\n",
    "open quote": b"name: 'news\ndata: 1\n",
    "two documents": GOOD.encode() + b"---\nname: other\n",
    "duplicate keys": GOOD.encode() + b"name: again\n",
    "duplicate section": GOOD.encode() + b"train: {seed: 1}\n",
    "null byte": b"name: ne\0ws\n",
    "binary": bytes(range(256)) * 8,
    "UTF-16": GOOD.encode("utf-16"),
    "GBK": "name: 新闻\n".encode("gb18030"),
    "cut UTF-8": "name: 新".encode()[:-1],
    "surrogate": b'name: "\\ud83d"\n',
    "self-reference": b"a: &a [*a]\n",
    "no such anchor": b"name: *nobody\n",
    "billion laughs": b"a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12)),
    "list of itself, in a section": GOOD.encode().replace(b"train:\n", b"train: &t\n  dataset: *t\n"),
    "a key that is an alias": b"a: &a name\n*a : news\n",
    "nested aliases": b"a: &a {k: v}\nb: &b {k: *a, l: *a}\nc: {k: *b, l: *b}\n",
    "invisible characters": "name: ne\u200bws\n".encode(),
    "right-to-left override": "name: swen\u202e\n".encode(),
    "fullwidth colon": "name：news\n".encode(),
    "smart quotes": "name: “news”\n".encode(),
    "non-breaking space": "name:\u00a0news\n".encode(),
    "line separator": "name: news\u2028data: {}\n".encode(),
    "escape beyond Unicode": b'name: "\\UFFFFFFFF"\n',
    "unknown escape": b'name: "C:\\models"\n',
    "directive": b"%YAML 9.9\n---\nname: news\n",
    "terminal colours": b'name: "\\e[31mnews"\n',
    "quadratic blow-up": b"a: &a " + b"x" * 5000 + b"\nb: [" + b",".join([b"*a"] * 50_000) + b"]\n",
    "100,000 brackets": b"a: " + b"[" * 100_000,
    "30,000 dashes": b"- " * 30_000 + b"x",
    "30,000 braces": b"{a: " * 30_000,
    "100,000 keys": b"".join(b"k%d: 1\n" % n for n in range(100_000)),
    "a line of 900,000 characters": b"name: " + b"x" * 900_000 + b"\n",
    "a number of 100,000 digits": b"name: " + b"9" * 100_000 + b"\n",
    "python object": b"name: !!python/object/apply:os.system ['touch hacked']\n",
    "python name": b"name: !!python/name:os.system\n",
    "binary tag": b"name: !!binary aGk=\n",
    "own tag": b"name: !include other.yaml\n",
    "complex key": b"? [a, b]\n: 1\n",
    "merge key": GOOD.encode() + b"evaluate:\n  <<: {max_new_tokens: 4}\n  <<: 7\n",
    "JSON cut in half": b'{"name": "news", "data": {"train": "tr',
    "HTML": b"<!doctype html><html><body>404</body></html>\n",
    "Windows line ends and a mistake": GOOD.replace("\n", "\r\n").encode() + b"trian: {}\r\n",
    "byte order mark and a mistake": b"\xef\xbb\xbf" + GOOD.encode() + b"trian: {}\n",
    "old Mac line ends and a mistake": GOOD.replace("\n", "\r").encode() + b"trian: {}\r",
}


def corpus() -> Iterator[Broken]:
    """All of them."""
    yield from (Broken(f"not YAML: {name}", content, "") for name, content in NOT_YAML.items())
    for key in (*TEXTS, *COUNTS, *NUMBERS):
        for value in ("{a: 1}", "[[1]]", "true", *(() if key in TEXTS else ("文本", ".nan", "-.inf", "1e999"))):
            yield _with(key, value)
    for key in SECTIONS:
        yield from (_with(key, value) for value in ("text", "7", "[1]", "true"))
    yield from (_with(key, "1") for key in TYPOS)
    for name, value in NAMES.items():
        yield Broken(f"name: {name}", GOOD.replace("name: news", f'name: "{value}"').encode(), "name")
    for name, value in BASES.items():
        content = GOOD.replace("builtin:smollm2-135m-instruct", value).encode()
        yield Broken(f"base: {name}", content, "model.base")
    for name, line in SECRETS.items():
        content = GOOD.replace("data:\n", f"data:\n  {line}\n").encode()
        yield Broken(f"secret: {name}", content, "spec.yaml:4: looks like a token or a password")
    for name, value in PATHS.items():
        content = GOOD.replace("train: train.json", f'train: "{value}"').encode()
        yield Broken(f"path: {name}", content, "spec.yaml" if value == "spec.yaml" else "data.train")


def _with(key: str, value: str) -> Broken:
    """The good spec with a key set, in a line of its own where its section is there already."""
    section, _, rest = key.partition(".")
    lines = [line for line in GOOD.splitlines() if not line.startswith(f"{section}:") or (rest and section != "model")]
    if section in ("data", "train") and not rest:
        lines = [line for line in GOOD.splitlines() if not line.startswith((f"{section}:", "  "))]
    if section in ("data", "train") and rest:
        lines = [line for line in lines if not line.startswith(f"  {rest}:")]
        lines.insert(lines.index(f"{section}:") + 1, f"  {rest}: {value}")
    elif rest:
        inner, _, last = rest.partition(".")
        lines.append(f"{section}: {{{inner}: {{{last}: {value}}}}}" if last else f"{section}: {{{inner}: {value}}}")
    else:
        lines.append(f"{section}: {value}")
    return Broken(f"{key} = {value}", "\n".join(lines).encode(), section)
