"""Check the built site: every link leads somewhere, and nothing is loaded from elsewhere.

    python docs/site/check.py build/site

A link leads to a page and a place on it. Addresses of other sites
are not asked for: the check needs no network.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}
OUTSIDE = re.compile(r"""(?:url\(|@import )['"]?((?:https?:)?//[^)'"\s]+)""")
LOADING = {"stylesheet", "icon", "preload", "preconnect", "manifest", "modulepreload"}


class Links(HTMLParser):
    """The places of a page, where it leads to, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.leads: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect from one tag."""
        found = {key: value for key, value in attrs if value is not None}
        if "id" in found:
            self.places.add(found["id"])
        if tag == "a":
            if "name" in found:
                self.places.add(found["name"])
            if "href" in found:
                self.leads.append(found["href"])
        elif tag in LOADED and LOADED[tag] in found and self._is_loaded(tag, found):
            self.loads.append(found[LOADED[tag]])

    def _is_loaded(self, tag: str, found: dict[str, str]) -> bool:
        return tag != "link" or bool(LOADING & set(found.get("rel", "").split()))


def faults(site: Path) -> list[str]:
    """Return a sentence for every link that leads nowhere and everything loaded from elsewhere.

    Parameters
    ----------
    site
        The folder that MkDocs wrote.
    """
    read = {path.resolve(): Links(path.read_text()) for path in sorted(site.rglob("*.html"))}
    found = [f"{site}: no page"] if not read else []
    for path, links in read.items():
        here = path.relative_to(site.resolve())
        if here.name == "404.html":
            continue  # its links are of the place that a server shows it at
        for link in links.loads:
            if re.match(r"(https?:)?//", link):
                found.append(f"{here}: loads {link}")
        for link in [*links.leads, *links.loads]:
            if fault := _fault(path, link, read):
                found.append(f"{here}: {link} {fault}")
    for path in site.rglob("*.css"):
        for address in OUTSIDE.findall(path.read_text()):
            found.append(f"{path.relative_to(site)}: loads {address}")
    return found


def _fault(page: Path, link: str, read: dict[Path, Links]) -> str:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return ""
    to = page if not parts.path else (page.parent / unquote(parts.path)).resolve()
    if to.is_dir():
        to = to / "index.html"
    if not to.exists():
        return "leads to no page"
    place = unquote(parts.fragment)
    if not place or to not in read or place.startswith("__"):
        return ""
    return "" if place in read[to].places else "leads to no such place on its page"


def main() -> int:
    """Print what is wrong with a site."""
    found = faults(Path(sys.argv[1]))
    print("\n".join(found) or "Every link leads somewhere, and nothing is loaded from elsewhere.")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
