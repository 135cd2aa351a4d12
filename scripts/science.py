#!/usr/bin/env python3
"""Makes the tables and pictures of docs/science.md from the results in docs/science.

    scripts/science.py            # after results have changed
    scripts/science.py --check    # says what is not as its results make it

A table stands in the page between two marks, the first of which names the module and the file, and further arguments:

    <!-- table: comba.plot_ablation docs/science/ablation-cpu.json -->
    <!-- end of table -->

The module writes it with --table, and with --out the picture beside the file, docs/science/ablation-cpu.svg, when the
page shows that. Arguments that are files are of the tree.
"""

import argparse
import importlib
import pathlib
import re
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "scripts")]
PAGE = ROOT / "docs/science.md"
TABLE = re.compile(r"(<!-- table: (\S+) (\S+)((?: \S+)*) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def table_of(module: str, results: str, arguments: list[str]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        table = pathlib.Path(folder) / "table.md"
        arguments = [str(ROOT / word) if (ROOT / word).exists() else word for word in arguments]
        if importlib.import_module(module).main([str(ROOT / results), *arguments, "--table", str(table)]) != 0:
            sys.exit(f"science.py: {module} could not make a table of {results}")
        return table.read_text(encoding="utf-8")


def page_of_the_results(page: str) -> str:
    def fill(found: re.Match) -> str:
        return f"{found[1]}\n{table_of(found[2], found[3], found[4].split())}\n{found[5]}"

    return TABLE.sub(fill, page)


def pictures(page: str) -> list[tuple[str, str, pathlib.Path]]:
    """Module, results and picture of each that the page shows."""
    found = [(match[2], match[3], pathlib.Path(match[3]).with_suffix(".svg")) for match in TABLE.finditer(page) if match[2].startswith("comba.")]
    return [(module, results, ROOT / picture) for module, results, picture in found if f"(science/{picture.name})" in page]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a table is not as its results make it")
    options = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    made = page_of_the_results(page)
    if options.check:
        sys.exit("science.py: docs/science.md is not as its results make it: run scripts/science.py" if made != page else 0)
    PAGE.write_text(made, encoding="utf-8")
    for module, results, picture in pictures(made):
        arguments = [str(ROOT / results), "--table", "/dev/null", "--out", str(picture)]
        if importlib.import_module(module).main(arguments) != 0:
            sys.exit(f"science.py: {module} could not draw {results}")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
