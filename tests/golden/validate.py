#!/usr/bin/env python3
"""What we print is valid under libvirt's own schemas: virt-xml-validate over the golden outputs."""
import pathlib
import shutil
import subprocess
import sys

SKIP = 77


def main() -> int:
    tool = shutil.which("virt-xml-validate")
    if not tool or not pathlib.Path("/usr/share/libvirt/schemas/domain.rng").exists():
        print("skipped: virt-xml-validate or libvirt's schemas are not installed (package libvirt-clients)")
        return SKIP
    root = pathlib.Path(sys.argv[1])
    # ext-*: our extensions, which libvirt's schema cannot know
    jobs = [(path, "domain") for path in sorted(root.glob("domain/*.out.xml")) if not path.name.startswith("ext-")]
    jobs += [(path, "domain") for path in sorted(root.glob("convert/*.out.xml"))]
    jobs += [(path, "domain") for path in sorted(root.glob("compute/*.out.xml")) if path.name != "hostile.out.xml"]
    jobs += [(path, "capability") for path in sorted(root.glob("caps/capabilities*.xml"))]
    jobs += [(path, "domaincaps") for path in sorted(root.glob("caps/domaincapabilities*.xml"))]
    bad = 0
    for path, schema in jobs:
        run = subprocess.run([tool, str(path), schema], capture_output=True, text=True)
        if run.returncode != 0:
            bad += 1
            print(f"{path.name}: not valid under {schema}.rng\n{run.stdout}{run.stderr}")
    print(f"{len(jobs)} files checked, {bad} not valid")
    return 1 if bad or not jobs else 0


sys.exit(main())
