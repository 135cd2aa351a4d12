"""docs/science.md says what its results files say, and each of them says where it comes from."""

import importlib.util
import json
import re

from rules import tree


def science_script():
    spec = importlib.util.spec_from_file_location("science", tree.ROOT / "scripts/science.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_the_one_its_results_make():
    science = science_script()
    page = science.PAGE.read_text()
    assert science.TABLE.search(page) and science.page_of_the_results(page) == page
    assert science.page_of_the_results(page.replace("| the base |", "| what |")) == page


def test_results_tell_configuration_seed_device_and_commit():
    science = science_script()
    for _, results, _ in science.pictures(science.PAGE.read_text()):
        found = json.loads((tree.ROOT / results).read_text())
        if found.get("kind") == "ablation":
            assert found["train"] and found["data"]["md5"]
            for cell in found["cells"]:
                assert cell["model"] and cell["seed"] > 0 and cell["device"] and re.fullmatch(r"[0-9a-f]{40}", cell["commit"])
        if found.get("kind") == "claims":
            assert found["context"]["device"] and re.fullmatch(r"[0-9a-f]{40}", found["context"]["commit"])


def test_pictures_that_are_shown_are_there():
    science = science_script()
    assert all(picture.is_file() for _, _, picture in science.pictures(science.PAGE.read_text()))
