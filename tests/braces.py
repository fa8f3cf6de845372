#!/usr/bin/env python3
"""No TRY in the braces of an initializer behind something else: `Pair{TRY(open(a)), TRY(open(b))}` loses the first descriptor when the
second TRY returns, because g++ and clang destroy no member of an aggregate on the way out of a statement expression."""
import pathlib
import re
import sys

FOLDERS = ("conf", "xml", "driver", "tools")
# What stands before the brace of a block, and not of an initializer.
BLOCK = re.compile(r"(\)|\b(else|do|try|const|noexcept|override|mutable|namespace[\w\s:]*)|[;}]|\)\s*->\s*[\w:<>&*\s,]+)$")
TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|R"([^(\s]*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9A-Fa-f])\'(?:\\.|[^\'\\\n])+\'', re.DOTALL)


def bare(text: str) -> str:
    """Without comments, and with strings of nothing, in the same places."""
    return TOKEN.sub(lambda found: re.sub(r"[^\n]", " ", found[0]) if found[0].startswith("/") else
                     '"' + re.sub(r"[^\n]", " ", found[0][1:-1]) + '"', text)


def is_block(code: str, begin: int) -> bool:
    before = code[:begin].rstrip()
    if before.endswith("{"):
        return is_block(code, len(before) - 1)
    return not before or bool(BLOCK.search(before[-200:]))


def lines(text: str) -> list:
    """Of each TRY that is wrong."""
    code = bare(text)
    wrong = set()
    open_ones = []  # [bracket, where, commas in it, semicolons in it]
    for found in re.finditer(r"[][(){},;]|\bTRY\(", code):
        what = found[0]
        if what in "])}":
            if open_ones:
                open_ones.pop()
        elif what == "," and open_ones:
            open_ones[-1][2] += 1
        elif what == ";" and open_ones:
            open_ones[-1][3] += 1
        elif what == "TRY(":
            for bracket, begin, commas, semicolons in reversed(open_ones):
                if bracket != "{":
                    continue
                if semicolons or is_block(code, begin):
                    break
                if commas:
                    wrong.add(code.count("\n", 0, found.start()) + 1)
                    break
            open_ones.append(["(", found.end() - 1, 0, 0])
        elif what in "[({":
            open_ones.append([what, found.start(), 0, 0])
    return sorted(wrong)


GOOD = ("Pair p{TRY(a()), b};", "f(x, TRY(a()));", "if (x) { y(1, 2); TRY(a()); }", "auto l = [&](int a, int b) -> Result<int> { TRY(c()); };",
        "Pair p{x, [&](int a) { return TRY(b()); }};", "Pair p{f(x, TRY(a()))};", "// {x, TRY(a())}\n", 'f("{", TRY(a()));')
BAD = ("Pair p{a, TRY(b())};", "Pair p{TRY(a()),\n TRY(b())};", "f({{a}, g(TRY(b()))});", "return {a, {TRY(b())}};", "Json{{'{', TRY(b())}};")


def main() -> int:
    root = pathlib.Path(sys.argv[1])
    wrong = [f"self-check: {text!r}" for text in GOOD if lines(text)] + [f"self-check: {text!r}" for text in BAD if not lines(text)]
    files = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*")) if path.suffix in (".h", ".cpp")]
    for path in files:
        wrong += [f"{path.relative_to(root)}:{line}: a TRY in braces behind something else" for line in lines(path.read_text())]
    print("\n".join(wrong) or f"{len(files)} files")
    return 1 if wrong or not files else 0


if __name__ == "__main__":
    sys.exit(main())
