"""What MkDocs calls while it builds the site: pages made from the code, and links out of docs/.

Pages of docs/ are written to be read in the repository, too: they link to files of the code, to
README and to CONTRIBUTING. On the site these links lead to a page that shows the file.
"""

import re
import sys
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import made_pages as pages
from mkdocs.structure.files import File, Files

PROJECT = {
    "README.md": "project/readme.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
}
"""Files of the root that have a page of their own."""
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
PICTURE = re.compile(r"(!\[[^\]]*\]\()([^)\s#]+)(\.png|\.svg)(\)(?:\{[^}]*\})?)")
FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def on_config(config: Any) -> Any:
    """Fill the navigation with what the registries hold."""
    for kind in pages.KINDS:
        names = {pages.title(kind, name): f"methods/{kind}/{name}.md" for name in pages.KINDS[kind]}
        _entry(config["nav"], pages.TITLES[kind]).extend(
            [f"methods/{kind}/index.md", *({title: page} for title, page in names.items())]
        )
    reference = _entry(config["nav"], "API")
    reference.extend({module: f"api/{module}.md"} for module in pages.API)
    return config


def _entry(nav: list[Any], name: str) -> list[Any]:
    """Return the list under a title, anywhere in the navigation."""
    for item in nav:
        if isinstance(item, dict):
            for title, value in item.items():
                if title == name:
                    item[title] = value = list(value or [])
                    return value
                if isinstance(value, list) and (found := _search(value, name)) is not None:
                    return found
    raise LookupError(f"mkdocs.yml: no entry {name} in nav")


def _search(nav: list[Any], name: str) -> list[Any] | None:
    try:
        return _entry(nav, name)
    except LookupError:
        return None


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made from the code, and those of files that any page links to."""
    made = {"fields.md": pages.fields()}
    for kind, registry in pages.KINDS.items():
        made[f"methods/{kind}/index.md"] = pages.overview(kind)
        made |= {f"methods/{kind}/{name}.md": pages.method(kind, name) for name in registry}
    made |= {f"api/{module}.md": pages.api(module) for module in pages.API}
    made |= {page: (pages.ROOT / name).read_text() for name, page in PROJECT.items()}
    waiting = dict(made)
    waiting |= {
        file.src_uri: Path(file.abs_src_path or "").read_text()
        for file in files
        if file.src_uri.endswith(".md")
    }
    while waiting:
        page, text = waiting.popitem()
        for path in linked(page, text):
            if (shown := f"source/{path}.md") not in made:
                made[shown] = waiting[shown] = pages.source(path)
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def home(page: str) -> str:
    """Return where the text of a page stands in the repository, for its links."""
    for name, shown in PROJECT.items():
        if page == shown:
            return name
    return page.removeprefix("source/").removesuffix(".md") if _is_source(page) else f"docs/{page}"


def _is_source(page: str) -> bool:
    return page.startswith("source/")


def linked(page: str, text: str) -> set[str]:
    """Return the files of the repository that need a page, as a page links to them."""
    found = {_target(page, match[2]) for match in LINK.finditer(FENCED.sub("", text))}
    return {path for path in found if path is not None and _shown(path, page).startswith("source/")}


def _target(page: str, link: str) -> str | None:
    """Return the file in the repository that a link leads to; None for addresses."""
    if re.match(r"[a-z]+:", link):
        return None
    return normpath(join(dirname(home(page)), link))


def _shown(path: str, page: str) -> str:
    """Return the page, or the file of docs/, that shows a file of the repository to a page."""
    if path in PROJECT:
        return PROJECT[path]
    if not page.startswith(("methods/", "api/", "source/", "FIDELITY")) and (told := _told(path)):
        return told
    inside = path.removeprefix("docs/")
    if path.startswith("docs/") and inside.endswith((".md", ".png", ".svg")):
        return inside
    return f"source/{path}.md" if (pages.ROOT / path).is_file() else inside


def _told(path: str) -> str:
    """Return the page that tells of a file or a folder of the code, for a page written by hand."""
    if path == "entity/config/fields.py":
        return "fields.md"
    inside = path.removeprefix("entity/").removesuffix(".py")
    kind, _, name = inside.partition("/")
    if kind in pages.KINDS and (not name or name in pages.KINDS[kind]):
        return f"methods/{kind}/{name or 'index'}.md"
    module = path.removesuffix(".py").replace("/", ".")
    return f"api/{module}.md" if module in pages.API else ""


def _with_dark(page: str, text: str) -> str:
    """Put a picture's dark sibling, where docs/ has one, beside it: each shows with its colours."""

    def both(match: re.Match[str]) -> str:
        start, path, suffix, end = match.groups()
        dark = f"{path}-dark{suffix}"
        if not (pages.ROOT / normpath(join(dirname(home(page)), dark))).is_file():
            return match[0]
        return f"{start}{path}{suffix}#only-light{end} {start}{dark}#only-dark{end}"

    return PICTURE.sub(both, text)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links into the repository to pages of the site, and formulas to MathML."""
    here = page.file.src_uri

    def turned(match: re.Match[str]) -> str:
        path = _target(here, match[2])
        if path is None:
            return match[0]
        shown = relpath(_shown(path, here), dirname(here) or ".")
        return f"{match[1]}{shown}{match[3] or ''}{match[4]}"

    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(match[0])
        return f"\0{len(kept) - 1}\0"

    text = LINK.sub(turned, _with_dark(here, FENCED.sub(keep, markdown)))
    text = re.sub(r"^\$\$\n(.*?)\n\$\$$", lambda m: pages.mathml(m[1]), text, flags=re.M | re.S)
    return re.sub("\0(\\d+)\0", lambda match: kept[int(match[1])], text)
