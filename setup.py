"""Copies templates/ into the wheel: the folder lies beside the package so that people find it, and travels with it."""

from pathlib import Path
from shutil import copytree

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithTemplates(build_py):
    def run(self) -> None:
        super().run()
        copytree(Path(__file__).parent / "templates", Path(self.build_lib) / "orchestrator" / "templates", dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithTemplates})
