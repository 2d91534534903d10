"""Copies templates/ and the dataset of `orchestrator init` into the wheel: they lie beside the package so that people
find them, and travel with it."""

from pathlib import Path
from shutil import copytree

from setuptools import setup
from setuptools.command.build_py import build_py

TRAVELS = ("templates", "datasets/news")


class BuildWithData(build_py):
    def run(self) -> None:
        super().run()
        for name in TRAVELS:
            target = Path(self.build_lib) / "orchestrator" / name
            copytree(Path(__file__).parent / name, target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithData})
