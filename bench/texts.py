"""The benchmark's texts: English prose from the documentation that Python itself carries, so that they are
real, the same on every machine with the same Python, and need no download."""

import inspect
import random
import re
import importlib

SEED = 20261124


def _paragraphs() -> list[str]:
    modules = ["argparse", "asyncio", "collections", "concurrent.futures", "configparser", "csv", "datetime",
               "decimal", "difflib", "email", "enum", "fractions", "functools", "gettext", "heapq", "http.client",
               "inspect", "ipaddress", "itertools", "json", "logging", "mailbox", "math", "multiprocessing",
               "os", "pathlib", "pickle", "random", "re", "shutil", "socket", "sqlite3", "ssl", "statistics",
               "string", "subprocess", "tarfile", "tempfile", "threading", "tokenize", "turtle", "typing",
               "unittest", "urllib.request", "xml.dom", "zipfile"]
    found: list[str] = []
    for name in modules:
        module = importlib.import_module(name)
        members = [module, *(member for _, member in sorted(inspect.getmembers(module), key=lambda m: m[0]))]
        for member in members:
            text = inspect.getdoc(member) or ""
            found += [re.sub(r"\s+", " ", part).strip() for part in re.split(r"\n\s*\n", text)]
    return sorted({text for text in found if len(text.split()) >= 4})


def mixed(count: int) -> list[str]:
    """Texts of 4 to 180 words, short ones more often, in a fixed random order."""
    rng, paragraphs = random.Random(SEED), _paragraphs()
    words = " ".join(rng.sample(paragraphs, len(paragraphs))).split()
    texts = []
    for _ in range(count):
        length = min(180, max(4, round(rng.lognormvariate(3.5, 0.9))))
        start = rng.randrange(len(words) - length)
        texts.append(" ".join(words[start:start + length]))
    return texts


def queries(count: int) -> list[str]:
    """Short queries of 5 to 9 words."""
    rng, paragraphs = random.Random(SEED + 1), _paragraphs()
    words = " ".join(rng.sample(paragraphs, len(paragraphs))).split()
    starts = [rng.randrange(len(words) - 9) for _ in range(count)]
    return [" ".join(words[start:start + rng.randint(5, 9)]) for start in starts]


def held_out(count: int) -> list[str]:
    """Paragraphs as they stand, which no choice of ours was tuned on."""
    return random.Random(SEED + 2).sample(_paragraphs(), count)
