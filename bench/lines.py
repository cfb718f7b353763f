"""How much there is to read: the lines of the core, and what each training script can reach.

    python -m bench.lines                    of this repository
    python -m bench.lines --root CHECKOUT    of another commit; files that it does not have are left out

The first table counts, for each file of the core, all lines; code lines, which are those without blanks, comments and
docstrings; and the tokens of Python's tokenizer on them (from Python 3.12 on an f-string is several).

The second table counts, from the source text alone, what a training script can call, directly or through others:

    definitions    functions, classes and methods of the repository, the script's own included. A function inside a
                   function is part of the outer one.
    lines          that these definitions span, decorators and docstrings included; a class without its methods.
    names          of the repository's other modules that the script itself uses: imported, or as `module.name`.

A definition reaches every name in its text: a call, a callback, a type in a signature. Which object's method
`thing.name` is cannot be seen, so it reaches each `name` of the classes reached, and of the modules passed around as
values. Dunder methods, forward and backward are reached with their class: Python and torch call them. Not followed:
getattr, code that runs on import, and other methods that only a library calls.
"""

import ast
import tokenize
from pathlib import Path

from bench.tables import argument_parser
from errors import UserError, run_main

SCRIPTS = ("train_stage1.py", "train_stage2.py", "train_stage3.py")
KERNELS = tuple(f"kernels/{name}.py" for name in ("__init__", "puma_loss", "torch_puma", "reference", "triton_puma"))
CORE = (*SCRIPTS, "model.py", "data.py", "sources.py", "benchmarks.py", "runtime.py", "checkpoint.py", "errors.py",
        "guard.py", *KERNELS)

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITION = (*FUNCTION, ast.ClassDef)
NOT_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
IMPLICIT = ("__", "forward", "backward")  # how the methods that Python and torch call begin
TOP = "<module>"  # stands for the statements of a module that are no definitions

Place = tuple[str, str]  # a module and a name in it: "function", "Class", "Class.method"; "" is the module itself


def count(text: str) -> tuple[int, int, int]:
    """(all lines, code lines, tokens of the code lines) of a file's text."""
    documented = [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.Module, *DEFINITION))]
    strings = [node.body[0] for node in documented if ast.get_docstring(node) is not None]
    docstrings = {line for node in strings for line in range(node.lineno, node.end_lineno + 1)}
    tokens = tokenize.generate_tokens(iter(text.splitlines(keepends=True)).__next__)
    code = [token for token in tokens if token.type not in NOT_CODE and token.start[0] not in docstrings]
    code_lines = {line for token in code for line in range(token.start[0], token.end[0] + 1)}
    return len(text.splitlines()), len(code_lines), len(code)


def methods(node: ast.AST) -> list[ast.AST]:
    """The methods of a class; none of anything else."""
    return [member for member in node.body if isinstance(member, FUNCTION)] if isinstance(node, ast.ClassDef) else []


def span(node: ast.AST) -> int:
    """Lines of a definition with its decorators; of a class without its methods."""
    first = min(part.lineno for part in (node, *node.decorator_list))
    return node.end_lineno - first + 1 - sum(map(span, methods(node)))


def stored_names(node: ast.AST) -> set[str]:
    """The variables and parameters that are bound anywhere in a piece of code."""
    stored = {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    return stored | {part.arg for part in ast.walk(node) if isinstance(part, ast.arg)}


def module_names(tree: ast.Module, package: str) -> dict[str, Place | list[ast.AST]]:
    """The names of a module: an imported one's origin, any other's definitions or the statements that assign it.

    package: what the module's relative imports start from. Imports inside functions count as the module's.
    """
    imported: dict[str, Place | list[ast.AST]] = {"": []}  # the module itself: what it runs on import is not followed
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0]: (alias.name.partition(".")[0], "") for alias in node.names}
            imported |= {alias.asname: (alias.name, "") for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            origin = ".".join(filter(None, (package if node.level else "", node.module)))
            imported |= {alias.asname or alias.name: (origin, alias.name) for alias in node.names}
    own = [(node.name, node) for node in tree.body if isinstance(node, DEFINITION)]
    own += [(f"{name}.{method.name}", method) for name, node in own for method in methods(node)]
    rest = [node for node in tree.body if not isinstance(node, DEFINITION)]
    own += [(name, node) for node in rest for name in (TOP, *stored_names(node))]
    return imported | {name: [node for other, node in own if other == name] for name, _ in own}


class Project:
    """The Python files in `root` and in the folders directly below it."""

    def __init__(self, root: Path) -> None:
        self.modules: dict[str, dict[str, Place | list[ast.AST]]] = {}  # see module_names
        for file in (*root.glob("*.py"), *root.glob("[!.]*/*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            names = module_names(ast.parse(file.read_text()), package=".".join(parts[:-1]))
            self.modules[".".join(parts).removesuffix(".__init__")] = names

    def resolve(self, module: str, name: str) -> Place | None:
        """Where `module.name` is defined, through any imports; None: outside the project."""
        entry = self.modules.get(module, {}).get(name, (module, name))
        if isinstance(entry, list):
            return module, name
        if entry[1] and entry != (module, name):
            return self.resolve(*entry)
        submodule = ".".join(filter(None, entry))
        return (submodule, "") if submodule in self.modules else None

    def target(self, node: ast.AST, module: str, local: frozenset[str]) -> Place | None:
        """What an expression `name` or `module.name` means; None: a local name, or nothing of the project."""
        if isinstance(node, ast.Name):
            return None if node.id in local else self.resolve(module, node.id)
        owner = self.target(node.value, module, local) if isinstance(node, ast.Attribute) else None
        return self.resolve(owner[0], node.attr) if owner and not owner[1] else None

    def uses(self, node: ast.AST, module: str, local: frozenset[str] = frozenset()) -> set[Place | str]:
        """The places that a piece of code names, and the attributes (strings) of objects that are not known."""
        local = local | stored_names(node) if isinstance(node, FUNCTION) else local
        place = self.target(node, module, local)
        if place:
            return {place}
        attribute = {node.attr} if isinstance(node, ast.Attribute) else set()
        children = [child for child in ast.iter_child_nodes(node) if child not in methods(node)]  # places of their own
        return attribute.union(*(self.uses(child, module, local) for child in children))

    def members(self, module: str, name: str, attributes: set[str]) -> set[Place | None]:
        """What `thing.attribute` can mean where the thing is of this class, or, without a name, is this module."""
        prefix = f"{name}." if name else ""
        own = [(key, key.removeprefix(prefix)) for key in self.modules[module] if key.startswith(prefix)]
        return {self.resolve(module, key) for key, last in own if last in attributes or last.startswith(IMPLICIT)}

    def reach(self, script: str) -> dict[Place, int]:
        """Each definition that a script (the name of a module) can call, with the lines that it spans."""
        reached, used, new = set(), set(), {(script, TOP)}
        while new:
            reached |= new
            used.update(*(self.uses(node, module) for module, name in new for node in self.modules[module][name]))
            attributes = {use for use in used if isinstance(use, str)}
            members = (self.members(*place, attributes) for place in reached)
            new = (used - attributes).union(*members) - reached - {None}
        code = {(module, name): self.modules[module][name] for module, name in reached}
        definitions = {place: [node for node in nodes if isinstance(node, DEFINITION)] for place, nodes in code.items()}
        return {place: sum(map(span, nodes)) for place, nodes in definitions.items() if nodes}

    def names(self, script: str) -> set[Place]:
        """What a script itself uses of the project's other modules."""
        code = [node for entry in self.modules[script].values() if isinstance(entry, list) for node in entry]
        places = {use for node in code for use in self.uses(node, script) if isinstance(use, tuple)}
        return {(module, name) for module, name in places if name and module != script}


def main() -> None:
    """Print both tables."""
    parser = argument_parser(__doc__, out_dir=False)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="the repository to count")
    args = parser.parse_args()
    counts = {name: count((args.root / name).read_text()) for name in CORE if (args.root / name).is_file()}
    if not counts:
        raise UserError(f"{args.root} has no file of the core; --root is the folder with train_stage2.py")
    counts["total"] = tuple(map(sum, zip(*counts.values(), strict=True)))
    print(f"{'the core':24}   lines    code  tokens")
    for name, numbers in counts.items():
        print(f"{name:24}" + "".join(f"{number:8,}" for number in numbers))
    print(f"\n{'can call':24}   definitions   lines   names")
    project = Project(args.root)
    for script in (name.removesuffix(".py") for name in SCRIPTS if name in counts):
        reached = project.reach(script)
        print(f"{script + '.py':24}{len(reached):14,}{sum(reached.values()):8,}{len(project.names(script)):8,}")


if __name__ == "__main__":
    run_main(main, resumes=False)
