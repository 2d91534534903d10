"""What the board's Start button does, without a browser: `board_trains MODEL OUTPUT`, in the board's folder.

The fields have the board's own defaults but for what "Load arguments" fills in; the arguments are made of them, written
and given to `llamafactory-cli train` by the board's own code.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from orchestrator.lib.process import child_environment


def main(name: str, output: str) -> None:
    import gradio
    from llamafactory.extras.constants import DEFAULT_TEMPLATE, SUPPORTED_MODELS, DownloadSource
    from llamafactory.webui.common import save_args, save_cmd
    from llamafactory.webui.components import create_top, create_train_tab
    from llamafactory.webui.control import get_model_info, list_checkpoints, list_datasets
    from llamafactory.webui.engine import Engine

    board = json.loads(Path("board.json").read_text())
    SUPPORTED_MODELS[name] = {DownloadSource.DEFAULT: board["base"]}
    DEFAULT_TEMPLATE[name] = board["template"]
    engine = Engine()
    with gradio.Blocks():
        engine.manager.add_elems("top", create_top())
        engine.manager.add_elems("train", create_train_tab(engine))
    fields = {field: getattr(field, "value", None) for _, field in engine.manager.get_elem_iter()}
    loaded = engine.runner.load_args("en", f"{name}.yaml")
    fields |= {field: value for field, value in loaded.items() if field in fields}
    path, template = get_model_info(name)
    chosen = {"top.model_name": name, "top.model_path": path, "top.template": template, "train.output_dir": output}
    fields |= {engine.manager.get_elem_by_id(key): value for key, value in chosen.items()}
    print(json.dumps({"sets": list_datasets("data").choices, "runs": list_checkpoints(name, "lora").choices}))
    arguments = engine.runner._parse_train_args(fields)
    os.makedirs(arguments["output_dir"], exist_ok=True)  # noqa: PTH103
    save_args(os.path.join(arguments["output_dir"], "llamaboard_config.yaml"), engine.runner._build_config_dict(fields))  # noqa: PTH118
    sys.stdout.flush()
    os.execvpe("llamafactory-cli", ["llamafactory-cli", "train", save_cmd(arguments)], child_environment({}))


if __name__ == "__main__":
    main(*sys.argv[1:])
