"""The lessons as a web book: `python notebooks/build.py book`. Nothing is executed, and nothing is fetched.

    README, lessons with their stored outputs, Markdown      --.
    docstrings of the heart, read without importing it        --+-> build/book/*.html, files/, search-index.js
    theme/page.html, book.css, book.js                        --'

A link to a file that has a page leads to the page. Any other leads to the repository where pyproject.toml has its
address, and is plain text where it has none. A translation lies in notebooks/<language>/, under the names of the
originals: a page whose counterpart is there links to it.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import html
import io
import json
import os
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from html import escape
from pathlib import Path
from typing import NamedTuple

import jinja2
import nbformat
from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin
from PIL import Image
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

ROOT = Path(__file__).resolve().parent.parent
THEME = ROOT / "notebooks" / "theme"
HEART = (
    "config", "layers", "backbones", "mask_decoder", "instance_decoder", "model", "matcher", "losses", "temporal", "tracking"
)  # fmt: skip
GROUPS = ("lessons", "beside", "measured", "api")
TEXTS = [  # group in the contents, name of the page, file; those beside the lessons may be translated
    ("beside", "glossary", "notebooks/GLOSSARY.md"),
    ("beside", "handbook", "README.md"),
    ("beside", "tutor", "notebooks/TUTOR.md"),
    ("beside", "phone", "notebooks/PHONE.md"),
    ("beside", "architecture", "ARCHITECTURE.md"),
    ("measured", "lab", "results/lab/report/README.md"),
    ("measured", "lab-plan", "results/lab/PLAN.md"),
    ("measured", "photo-trials", "results/photos/TRIALS.md"),
    ("measured", "samples", "data_samples/README.md"),
    ("measured", "photos-tiny", "data_samples/weights/photos-tiny/README.md"),
]
EVERYDAY = {"chance", "precision", "swap", "track"}  # terms that are plain words too, outside of their own lesson
WORDS = {
    "en": {"name": "English", "skip": "Skip to the text", "menu": "Contents", "search": "Search the book",
           "here": "On this page", "theme": "Dark or light", "next": "Next", "back": "Back", "found": "places found",
           "lessons": "Lessons", "beside": "Beside the lessons", "measured": "Measured", "api": "Reference",
           "try": "Try it", "explorer": "The explorer", "demo": "The demo",
           "talk": "Slides: 45 minutes", "workshop": "Slides: 3 hours", "handbook": "README: install and use",
           "wide": "wider than the page, scroll sideways"},
    "ko": {"name": "한국어", "skip": "본문으로 건너뛰기", "menu": "차례", "search": "책에서 찾기",
           "here": "이 페이지의 내용", "theme": "어둡게 또는 밝게", "next": "다음", "back": "이전", "found": "곳을 찾았습니다",
           "lessons": "레슨", "beside": "레슨과 함께", "measured": "측정 결과", "api": "참조 문서",
           "try": "직접 해 보기", "explorer": "탐색기", "demo": "데모",
           "talk": "슬라이드: 45분", "workshop": "슬라이드: 3시간", "handbook": "README: 설치와 사용",
           "wide": "페이지보다 넓습니다. 옆으로 밀어 보세요"},
}  # fmt: skip


class Page(NamedTuple):
    language: str
    group: str
    slug: str
    source: Path
    title: str

    @property
    def out(self) -> str:
        return f"{self.slug}.html" if self.language == "en" else f"{self.language}/{self.slug}.html"


def pages_of(language: str) -> list[Page]:
    """What there is in a language, in the order of the contents."""
    home = ROOT / "notebooks" / ("" if language == "en" else language)
    lessons = [("lessons", path.stem, path) for path in sorted(home.glob("[0-9][0-9]_*.ipynb"))]
    if language == "en":
        texts = [(group, slug, ROOT / name) for group, slug, name in TEXTS]
        start, package = ROOT / "README.md", ROOT / "minst"
        files = [path for name in HEART for path in [package / f"{name}.py", *sorted((package / name).glob("*.py"))]]
        texts += [("api", dotted(path), path) for path in files]
    else:
        start = ROOT / f"README.{language}.md"
        texts = [(group, slug, home / Path(name).name) for group, slug, name in TEXTS if group == "beside"]
        texts = [(group, slug, start if slug == "handbook" else path) for group, slug, path in texts]
    found = [("start", "index", start), *lessons, *texts]
    return [Page(language, *one, title_of(*one, WORDS[language])) for one in found if one[2].exists()]


def dotted(path: Path) -> str:
    """minst/backbones/base.py -> minst.backbones.base"""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def title_of(group: str, slug: str, path: Path, words: dict) -> str:
    """As the first heading has it."""
    if group == "api" or slug in words:
        return words.get(slug, slug)
    text = nbformat.read(path, 4).cells[0].source if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
    return re.sub(r"[`*]", "", re.search(r"^# +(.+)$", text, re.MULTILINE)[1])


@cache
def api_text(path: Path) -> str:
    """The docstrings of a module as Markdown: what is public, its signature, its assumptions, its source folded."""
    code = path.read_text(encoding="utf-8")
    module = ast.parse(code)
    parts = [f"# {dotted(path)}", ast.get_docstring(module) or ""]
    for node in module.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            parts += api_entry(node, code, node.name, "##")
            methods = [part for part in getattr(node, "body", []) if isinstance(part, ast.FunctionDef)]
            for method in methods if isinstance(node, ast.ClassDef) else []:
                if not method.name.startswith("_") and ast.get_docstring(method):
                    parts += api_entry(method, code, f"{node.name}.{method.name}", "###")
    return re.sub(r"(?<![(/`])(notebooks/\w+\.ipynb)", r"[\1](\1)", "\n\n".join(parts))


def api_entry(node: ast.ClassDef | ast.FunctionDef, code: str, name: str, level: str) -> list[str]:
    """Heading, signature, docstring, what its comment says of the paper, and the source to unfold."""
    lines = code.splitlines()
    start = above = min([node.lineno, *(part.lineno for part in node.decorator_list)]) - 1
    while above and lines[above - 1].lstrip().startswith("# "):
        above -= 1
    said = " ".join(line.strip()[2:] for line in lines[above:start])
    head, source = ("\n".join(some) for some in (signature(node, lines), lines[start : node.end_lineno]))
    parts = [f"{level} {name}", f"```python\n{textwrap.dedent(head)}\n```", ast.get_docstring(node) or ""]
    if said.startswith(("Assumption:", "Deviation:")):
        parts.append(f"> {said}")
    folded = f"<details><summary>Source of {name}</summary>\n\n```python\n{textwrap.dedent(source)}\n```\n\n</details>"
    return [*parts, folded]


def signature(node: ast.ClassDef | ast.FunctionDef, lines: list[str]) -> list[str]:
    """The head of a function; that of a class with its fields or, where it has none, the head of __init__."""
    head = lines[node.lineno - 1 : node.body[0].lineno - 1]
    fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
    if fields:
        return head + lines[fields[0].lineno - 1 : fields[-1].end_lineno]
    for part in node.body if isinstance(node, ast.ClassDef) else []:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            head = head + signature(part, lines)
    return head


def coloured(code: str, language: str = "", _attrs: str = "") -> str:
    """Code as HTML whose colours book.css has."""
    lexer = get_lexer_by_name(language or "text")
    return f"<pre><code>{highlight(code, lexer, HtmlFormatter(nowrap=True))}</code></pre>"


def formula(tex: str, options: dict) -> str:
    r"""MathML, which every browser draws by itself; \tag{1.1} stands beside it."""
    block = options["display_mode"]
    tag = re.search(r"\\tag\{(.+?)\}", tex)
    tex = re.sub(r"\\tag\{.+?\}", "", tex).replace(r"\arg\max", r"\mathrm{arg}\,\max")
    drawn = convert(tex, display="block" if block else "inline")
    return drawn + (f'<span class="tag">({tag[1]})</span>' if tag else "")


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def terms_of(glossary: Page | None) -> dict[str, tuple[str, str, str]]:
    """{anchor: (regular expression of its forms, meaning, row's lesson)} of a glossary's terms, the longest first."""
    lines = glossary.source.read_text(encoding="utf-8").splitlines() if glossary else []
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    rows = sorted((row for row in rows if len(row) == 5 and ".ipynb)" in row[3]), key=lambda row: -len(row[0]))
    return {anchor(term): (forms(term), re.sub(r"[*`]", "", meaning), lesson) for term, _, meaning, lesson, _ in rows}


def forms(term: str) -> str:
    """A term in running text: in the plural too, with a capital too; Korean words are followed by particles."""
    if not term.isascii():
        return rf"(?<!\w){re.escape(term)}"
    stem, ending = (term[:-1], "(?:y|ies)") if term.endswith("y") else (term, "(?:s|es)?")
    first = f"[{stem[0]}{stem[0].upper()}]" if stem[0].isalpha() else re.escape(stem[0])
    return rf"(?<![\w-]){first}{re.escape(stem[1:])}{ending}(?![\w-])"


def raw(content: str) -> Token:
    return Token("html_inline", "", 0, content=content)


class Book:
    """All pages, and what each needs to know of the others."""

    def __init__(self, out: Path, address: str | None, extras: dict[str, str]):
        languages = ["en", *(name for name in WORDS if name != "en" and (ROOT / "notebooks" / name).is_dir())]
        self.out, self.address, self.extras = out, address, extras
        self.pages = [page for language in languages for page in pages_of(language)]
        self.home = {page.source: page for page in self.pages if page.slug != "index"}
        self.api = {page.title: page for page in self.pages if page.group == "api"}
        self.terms = {name: terms_of(self.page(name, "glossary")) for name in languages}
        self.markdown = MarkdownIt("commonmark", {"html": True, "highlight": coloured}).enable("table")
        self.markdown.use(dollarmath_plugin, renderer=formula, double_inline=True, allow_digits=False)
        self.markdown.core.ruler.push("book", self.rewrite)
        rules = self.markdown.renderer.rules
        rules["table_open"] = lambda *_: '<div class="scroll"><table>'
        rules["table_close"] = lambda *_: "</table></div>"

    def page(self, language: str, slug: str) -> Page | None:
        return next((page for page in self.pages if (page.language, page.slug) == (language, slug)), None)

    def rewrite(self, state) -> None:
        """Anchors for headings; links that lead somewhere; pictures as files; terms with their meaning."""
        opened = None
        for token in state.tokens:
            if token.type == "inline":
                if opened.type == "heading_open":
                    opened.attrs["id"] = self.anchor_of(token, state.env["ids"])
                explained = state.env["page"].group == "lessons" and opened.type not in ("heading_open", "th_open")
                token.children = list(self.inline(token.children, state.env, explained))
            opened = token

    def anchor_of(self, heading: Token, used: dict) -> str:
        name = anchor("".join(part.content for part in heading.children))
        used[name] = used.get(name, -1) + 1
        return f"{name}-{used[name]}" if used[name] else name

    def inline(self, tokens: list[Token], env: dict, explained: bool) -> Iterator[Token]:
        page, links = env["page"], []  # the links that are open here: do they lead somewhere?
        for token in tokens:
            if token.type == "link_open":
                token.attrs["href"] = self.link(page, token.attrs["href"])
                links.append(token.attrs["href"] is not None)
            leads = links.pop() if token.type == "link_close" else all(links)
            if token.type == "image":
                picture = (page.source.parent / token.attrs["src"]).resolve()
                yield raw(self.picture(picture.read_bytes(), token.content, page))
            elif token.type == "code_inline":
                code = f"<code>{escape(token.content).replace('.', '.<wbr>')}</code>"  # a long name may end a line at a dot
                there = None if links else self.reference(page, token.content)
                yield raw(f'<a href="{there}">{code}</a>' if there else code)
            elif token.type == "text" and not links and explained:
                yield raw(self.with_meanings(token.content, page, env["seen"]))
            elif leads or token.type not in ("link_open", "link_close"):
                yield token

    def to(self, page: Page, there: str) -> str:
        return os.path.relpath(there, Path(page.out).parent)

    def link(self, page: Page, target: str) -> str | None:
        """Where a link of a file leads in the book; None where it would lead nowhere."""
        name, _, mark = target.partition("#")
        if "://" in target or not name:
            return target
        for folder in (page.source.parent, page.source.parent.parent, ROOT):  # a translation may mean the original
            path = (folder / name).resolve()
            if path in self.home:
                return self.to(page, self.home[path].out) + (f"#{mark}" if mark else "")
            if path.exists() and path.suffix == ".pdf":
                return self.store(path.read_bytes(), "pdf", page)
            if path.exists() and path.is_relative_to(ROOT):
                return f"{self.address}/blob/main/{path.relative_to(ROOT)}" if self.address else None
        return None

    def reference(self, page: Page, code: str) -> str | None:
        """`minst.tracking.by_masks` -> its place in the reference, if it has one."""
        module, name = code, ""
        while module.startswith("minst.") and module not in self.api:
            module, _, last = module.rpartition(".")
            name = f"{last}.{name}" if name else last
        if module not in self.api or (name and f"## {name}\n" not in api_text(self.api[module].source)):
            return None
        return self.to(page, self.api[module].out) + (f"#{anchor(name)}" if name else "")

    def with_meanings(self, text: str, page: Page, seen: set) -> str:
        """The first of each term on a page leads to the glossary, and carries what that says."""
        terms, parts, done = self.terms[page.language], [], 0
        names = list(terms)
        pattern = "|".join(f"(?P<t{i}>{terms[name][0]})" for i, name in enumerate(names))
        for found in re.finditer(pattern, text) if names else []:
            name = names[int(found.lastgroup[1:])]
            elsewhere = name in EVERYDAY and page.slug not in terms[name][2]
            if name not in seen and not elsewhere:
                says = escape(terms[name][1])
                link = f'<a class="term" href="glossary.html#term-{name}" data-says="{says}">{escape(found[0])}</a>'
                parts += [escape(text[done : found.start()]), link]
                done = found.end()
                seen.add(name)
        return "".join([*parts, escape(text[done:])])

    def store(self, content: bytes, suffix: str, page: Page) -> str:
        """A file of the book, named after its content; its address on a page."""
        path = self.out / "files" / f"{hashlib.sha256(content).hexdigest()[:12]}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return self.to(page, f"files/{path.name}")

    def picture(self, content: bytes, alt: str, page: Page) -> str:
        image = Image.open(io.BytesIO(content))
        place = self.store(content, image.format.lower(), page)
        size = f'width="{image.width}" height="{image.height}"'
        return f'<img src="{place}" alt="{escape(alt)}" {size} loading="lazy">'

    def output(self, output: dict, env: dict) -> str:
        """What a cell gave, as it is stored in the notebook."""
        page, data = env["page"], output.get("data", {})
        pictures = [(kind, base64.b64decode(data[kind])) for kind in ("image/png", "image/jpeg") if kind in data]
        if "text/html" in data:  # a film; the still one is for who does not like things to move
            place = r"data:\w+/(\w+);base64,([^'\"]+)"
            film = re.sub(place, lambda m: self.store(base64.b64decode(m[2]), m[1], page), data["text/html"])
            still = pictures and "<video" not in film and self.store(pictures[0][1], pictures[0][0][6:], page)
            calm = f'<source media="(prefers-reduced-motion: reduce)" srcset="{still}">' if still else ""
            return f"<picture>{calm}{film}</picture>" if "<video" not in film else film
        if "text/markdown" in data:
            return self.markdown.render(data["text/markdown"], env)
        for kind, content in pictures:
            return self.picture(content, output["metadata"].get(kind, {}).get("alt", ""), page)
        if "text/plain" in data:
            return f'<pre class="output said">{escape(data["text/plain"])}</pre>'
        return f'<pre class="output">{escape(output.text)}</pre>'

    def body(self, page: Page) -> str:
        env = {"page": page, "ids": {}, "seen": set()}
        if page.source.suffix == ".ipynb":
            parts = []
            for cell in nbformat.read(page.source, 4).cells[:-1]:  # the last one leads to the neighbours, as the page does
                if cell.cell_type == "markdown":
                    parts.append(self.markdown.render(cell.source, env))
                elif "install" not in cell.metadata.get("tags", []):
                    outputs = "".join(self.output(output, env) for output in cell.outputs)
                    parts.append(f'<div class="cell">{coloured(cell.source, "python")}{outputs}</div>')
            return "".join(parts)
        text = api_text(page.source) if page.group == "api" else page.source.read_text(encoding="utf-8")
        if page.slug == "index":  # what it is, and the lessons; all else is the handbook's
            first, *others = re.split(r"(?m)^(?=## )", text)
            text = first + next(part for part in others if ".ipynb) |" in part)
        if page.slug == "glossary":
            row = re.compile(r"^\| ([^|]+?) (\|.*\.ipynb\).*)$", re.MULTILINE)
            text = row.sub(lambda m: f'| <dfn id="term-{anchor(m[1])}">{m[1]}</dfn> {m[2]}', text)
        return self.markdown.render(text, env)

    def write(self) -> None:
        template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string((THEME / "page.html").read_text("utf-8"))
        for language, words in ((name, WORDS[name]) for name in self.terms):
            reading = [self.page(language, page.slug) or page for page in self.pages if page.language == "en"]
            groups = {group: [page for page in reading if page.group == group] for group in GROUPS}
            extras = {name: own if (self.out / (own := f"{language}/{there}")).exists() else there
                      for name, there in self.extras.items()}  # slides in the language, if there are any
            index = []
            for before, page, after in zip([None, *reading], reading, [*reading[1:], None]):
                if page.language != language:  # not translated: the contents lead to the original
                    continue
                body = self.body(page)
                index += sections(page, body)
                text = template.render(
                    page=page, body=body, words=words, names=WORDS, groups=groups, extras=extras, start=reading[0],
                    others=[there for name in self.terms if name != language and (there := self.page(name, page.slug))],
                    headings=re.findall(r'<h2 id="([^"]+)">(.*?)</h2>', body), before=before, after=after,
                    to=lambda there, page=page: self.to(page, there),
                )  # fmt: skip
                (self.out / page.out).parent.mkdir(exist_ok=True)
                (self.out / page.out).write_text(text, encoding="utf-8")
            found = f"window.bookIndex = {json.dumps(index, ensure_ascii=False, separators=(',', ':'))};\n"
            if index:  # a language without a page has no folder
                home = self.out / ("" if language == "en" else language)
                (home / "search-index.js").write_text(found, encoding="utf-8")


def sections(page: Page, body: str) -> list[tuple[str, str, str, str]]:
    """What search looks through: (page, address, heading, text) of each part of a page."""
    parts = re.split(r'<h[1-3] id="([^"]+)">(.*?)</h[1-3]>', body, flags=re.DOTALL)
    found = zip(parts[1::3], parts[2::3], parts[3::3])
    address = Path(page.out).name
    return [(page.title, f"{address}#{mark}", words_of(head), words_of(text)) for mark, head, text in found]


def words_of(text: str) -> str:
    return html.unescape(" ".join(re.sub(r"<math.*?</math>|<[^>]+>", " ", text, flags=re.DOTALL).split()))


def build(out: Path, address: str | None, decks: Callable[[Book], dict] = lambda book: {}, **static: Path | None) -> str:
    """Write the book; one line about it. decks: writes slides; static: folders of pages without Python (explorer, demo)."""
    static = {name: folder for name, folder in static.items() if folder}
    for name, folder in static.items():
        if not (folder / "index.html").exists():
            raise SystemExit(f"--{name} {folder}: there is no index.html; name the folder of static pages")
    if out.exists():
        if not (out / "book.css").exists() and any(out.iterdir()):
            raise SystemExit(f"--out {out} holds something that is no book; name another folder")
        shutil.rmtree(out)
    out.mkdir(parents=True)
    book = Book(out, address, {name: f"{name}/index.html" for name in static})
    slides = decks(book)
    book.extras |= {Path(name).stem: Path(name).name for name in slides}
    book.write()
    for name in ("book.css", "book.js"):
        shutil.copy(THEME / name, out)
    for name, folder in static.items():
        shutil.copytree(folder, out / name)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    shown = "".join(f", {count} slides in {name}" for name, count in slides.items())
    return f"{out}: {len(book.pages)} pages{shown}, {size / 1e6:.1f} MB; open {out / 'index.html'}"
