"""Install the program as it lies here into one folder, `lora_research`; the rest is in pyproject.toml."""

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

PACKAGE = "lora_research"
FOLDERS = find_packages(include=["configs*", "dataset*", "model*", "tools*"])


class BuildProgram(build_py):
    """Leave this script out of the package that takes the files of this folder."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Return (package, module, file) of a package."""
        found = super().find_package_modules(package, package_dir)
        return [entry for entry in found if entry[1] != "setup"]


setup(
    packages=[PACKAGE, *(f"{PACKAGE}.{folder}" for folder in FOLDERS)],
    package_dir={PACKAGE: "."},
    package_data={f"{PACKAGE}.configs": ["**/*.toml"]},
    cmdclass={"build_py": BuildProgram},
)
