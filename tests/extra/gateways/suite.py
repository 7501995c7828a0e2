"""Runs each recipe of `deploy/gateways` in front of the service, and prints the results and measurements."""

import argparse
import concurrent.futures
import json
import os
import re
import shutil
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import checks  # noqa: E402
from gateway import Bench  # noqa: E402
from recipes import RECIPES  # noqa: E402
from support.processes import Failed, temporary_folder  # noqa: E402
from support.service import Blueprint  # noqa: E402
from varnish import run_varnish  # noqa: E402


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("names", nargs="*", help="run only recipes and checks whose names contain one of these")
    options.add_argument("--envoy", default="envoy", help="the Envoy binary")
    options.add_argument("--jobs", type=int, default=7, help="gateways at once")
    options.add_argument("--measured", type=Path, help="write the measured figures to this file (JSON)")
    options = options.parse_args()
    folder, started = temporary_folder(), time.monotonic()
    blueprint = Blueprint(folder / "blueprint")
    envoy = reachable(options.envoy, folder)
    chosen = [recipe for recipe in RECIPES if is_chosen(recipe.name, options.names)]
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        runs = [pool.submit(run_recipe, recipe, blueprint, folder / str(number), envoy)
                for number, recipe in enumerate(chosen)]
        if is_chosen("Varnish", options.names):
            runs.append(pool.submit(run_varnish, blueprint, folder / "varnish"))
        results = [run.result() for run in runs]
    print_table(results)
    if options.measured:
        options.measured.write_text(json.dumps({name: measured for name, _, _, measured in results}, indent=1) + "\n")
    passed, failed = (sum(result[column] for result in results) for column in (1, 2))
    print(f"in {time.monotonic() - started:.0f} s")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def reachable(program, folder):
    """A copy of the program that an unprivileged user can execute; the installed one may be below a home folder."""
    if os.path.dirname(program):
        return str(shutil.copy(program, folder / Path(program).name))
    return program


def is_chosen(name, names):
    return not names or any(part.lower() in name.lower() for part in names)


def run_recipe(recipe, blueprint, folder, envoy):
    lines, passed, failed, measured = [f"{recipe.name}"], 0, 0, {}
    try:
        bench = Bench(recipe, blueprint, folder, {"envoy": envoy})
    except (Failed, OSError, RuntimeError) as error:
        print(f"{recipe.name}\n  FAILED to start: {error}", flush=True)
        return recipe.name, 0, 1, {}
    measured = bench.measured
    try:
        bench.rotation = checks.Rotation(bench)
        for check in checks.ALL:
            name, started = check.__name__.replace("_", " "), time.monotonic()
            try:
                check(bench)
            except (Failed, OSError, KeyError, ValueError) as error:
                failed += 1
                where = "" if isinstance(error, Failed) else "".join(traceback.format_exception(error)[-2:])
                lines.append(f"  FAILED  {name}: {type(error).__name__}: {error} {where}")
                lines.append(bench.gateway.tail(2))
            else:
                passed += 1
                lines.append(f"  ok      {name} ({time.monotonic() - started:.1f} s)")
    finally:
        bench.stop()
    print("\n".join(lines), flush=True)
    return recipe.name, passed, failed, measured


def print_table(results):
    columns = ["withdrawn key lives", "new key visible after", "keys outlast an outage by", "revoked token lives", "beyond exp", "calls for 20 good", "calls for 20 bad", "algorithms", "typ", "outage", "rotation"]
    print()
    for name, _, _, measured in results:
        figures = "; ".join(f"{column} {measured[column]}" for column in columns if column in measured)
        print(f"{name}: {figures}")


if __name__ == "__main__":
    sys.exit(main())
