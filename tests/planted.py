"""Twenty secrets for an environment, and where they must not be found afterwards."""

from __future__ import annotations

from pathlib import Path

SECRETS = {
    "HF_TOKEN": "hf_PlantedPlantedPlanted01",
    "HUGGING_FACE_HUB_TOKEN": "hf_PlantedPlantedPlanted02",
    "MODELSCOPE_API_TOKEN": "planted-03-modelscope",
    "OPENAI_API_KEY": "sk-planted0000000000000004",
    "ANTHROPIC_API_KEY": "planted-05-anthropic",
    "AWS_SECRET_ACCESS_KEY": "planted/06+aws/secret",
    "AWS_ACCESS_KEY_ID": "AKIAPLANTED000000007",
    "AZURE_CLIENT_SECRET": "planted-08-azure",
    "GITHUB_TOKEN": "ghp_PlantedPlantedPlanted09",
    "GITLAB_TOKEN": "glpat-PlantedPlanted10",
    "WANDB_API_KEY": "planted11wandb",
    "MLFLOW_TRACKING_PASSWORD": "planted-12-密码",
    "DATABASE_PASSWD": "planted-13-database",
    "GOOGLE_CREDENTIALS": "planted-14-google",
    "SSH_PRIVATE_KEY": "planted-15-ssh",
    "OLLAMA_AUTH_KEY": "planted-16-ollama",
    "MY_PAT": "planted-17-personal",
    "HF_ENDPOINT": "https://user:planted-18-mirror@hub.example.com",
    "PIP_INDEX_URL": "https://me:planted-19-index@pypi.example.com/simple",
    "HTTPS_PROXY": "http://proxy:planted-20-proxy@proxy.example.com:3128",
}
PLANTED = [value.rpartition("@")[0].rpartition(":")[2] if "://" in value else value for value in SECRETS.values()]


def shown(text: str | bytes) -> list[str]:
    """The planted secrets that a text gives away."""
    content = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return [secret for secret in PLANTED if secret.encode() in content]


def leaks(folder: Path) -> list[str]:
    """Each planted secret that stands in a file below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [f"{path}: {secret}" for path in files for secret in shown(path.read_bytes())]
