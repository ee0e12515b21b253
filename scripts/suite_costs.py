"""Print what each group of tests costs, from a report that pytest wrote with --junit-xml.

A group is a folder of tests, or a file with --by file. Seconds are those of the tests, the set-up of shared fixtures
included. With two processes, `make test` takes about half as long.
"""

import argparse
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path


def group_of(module: str, by: str) -> str:
    """The group of a test by its dotted module, such as "tests.e2e.test_life"; a subfolder belongs to its parent."""
    folders = [part for part in module.split(".") if not part.startswith("Test")]
    if by == "file":
        return "/".join(folders)
    return "/".join(folders[:-1][:2])


def main() -> None:
    """Print a table, the most expensive group first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="JUnit XML file")
    parser.add_argument("--by", choices=("folder", "file"), default="folder", help="what a group is")
    parser.add_argument("--slowest", type=int, default=10, metavar="N", help="single tests to name, too")
    arguments = parser.parse_args()
    if not arguments.report.is_file():
        parser.error(f"there is no {arguments.report}; `make test` writes it")
    cases = list(ElementTree.parse(arguments.report).iter("testcase"))
    groups: dict[str, list[float]] = defaultdict(list)
    for case in cases:
        groups[group_of(case.get("classname", ""), arguments.by)].append(float(case.get("time", 0)))
    print(f"{'seconds':>8} {'tests':>6}  group")
    for name, seconds in sorted(groups.items(), key=lambda group: -sum(group[1])):
        print(f"{sum(seconds):8.1f} {len(seconds):6}  {name}")
    print(f"{sum(map(sum, groups.values())):8.1f} {len(cases):6}  all\n")
    for case in sorted(cases, key=lambda case: -float(case.get("time", 0)))[: arguments.slowest]:
        print(f"{float(case.get('time', 0)):8.1f}  {case.get('classname')}::{case.get('name')}")


if __name__ == "__main__":
    main()
