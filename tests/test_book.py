"""The web book: whole, linked, described, and usable in a browser, with a keyboard, on a phone, in the dark."""

import ast
import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

for needed in ("latex2mathml", "markdown_it", "mdit_py_plugins", "bs4"):
    pytest.importorskip(needed, reason=f"{needed} is missing: pip install -e '.[test]'")
from bs4 import BeautifulSoup

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "notebooks"))
import language  # noqa: E402
import slides as decks  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
LESSONS = sorted(path.stem for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
LOOKED_AT = ["index", "00_start_here", "04_dual_decoder", "09_ablation_lab", "glossary", "tutor", "lab", "minst.tracking", "talk", "ko/talk"]
DECKS = {"talk": 45, "workshop": 180, "ko/talk": 45, "ko/workshop": 180}  # minutes
AXE = os.environ.get("MINST_AXE")  # axe.min.js of npm's axe-core


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The book, built by its command."""
    out = tmp_path_factory.mktemp("book") / "pages"
    command = [sys.executable, NOTEBOOKS / "build.py", "book", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    written = "".join(rf", \d+ slides in {name}\.html" for name in DECKS)
    assert re.fullmatch(rf".*pages: \d+ pages{written}, \d+\.\d MB; open .*index\.html\n", done.stdout), done.stdout
    return out


@pytest.fixture(scope="module")
def pages(folder) -> dict[str, BeautifulSoup]:
    return read(folder)


def read(folder: Path) -> dict[str, BeautifulSoup]:
    """{"04_dual_decoder.html": its elements}, of every page."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.html"))}
    return {name: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for name, path in found.items()}


@pytest.fixture
def book():
    """The module notebooks/book.py, fresh: a test may give it another root."""
    spec = importlib.util.spec_from_file_location("book", NOTEBOOKS / "book.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dead_links(folder: Path, pages: dict) -> list[str]:
    """Links, pictures, styles and scripts of pages that lead to nothing in the folder, or out to a host."""
    dead = []
    ids = {name: {element["id"] for element in page.select("[id]")} for name, page in pages.items()}
    for name, page in pages.items():
        targets = [(e, e.get("href") or e.get("src") or e.get("srcset")) for e in page.select("a, link, img, script[src], source, video")]
        for element, target in targets:
            if not target:
                dead.append(f"{name}: {element}")
            elif re.match(r"(https?:|data:,)", target):
                if element.name != "a" and target != "data:,":
                    dead.append(f"{name}: {target} is fetched")
            else:
                path, _, mark = target.partition("#")
                there = os.path.normpath(os.path.join(os.path.dirname(name), path)) if path else name
                if not (folder / there).is_file() or (mark and there in ids and mark not in ids[there]):
                    dead.append(f"{name}: {target}")
    return dead


def cells_of(lesson: str) -> list:
    return nbformat.read(NOTEBOOKS / f"{lesson}.ipynb", 4).cells


def test_every_link_leads_somewhere_and_nothing_is_fetched(folder, pages):
    assert len(pages) >= 30 and dead_links(folder, pages) == []
    style = (folder / "book.css").read_text() + (folder / "book.js").read_text()
    assert "http" not in style and "@import" not in style and "url(" not in style


def test_every_picture_has_its_alternative_text(pages):
    for name, page in pages.items():
        assert [str(img)[:200] for img in page.find_all("img") if not img.get("alt")] == [], name
    for lesson in LESSONS:
        shown = [img["alt"] for img in pages[f"{lesson}.html"].find_all("img")]
        outputs = [output for cell in cells_of(lesson) for output in cell.get("outputs", [])]
        described = [alt for output in outputs for part in output.get("metadata", {}).values() if (alt := part.get("alt"))]
        assert len(described) >= 4 and set(described) <= set(shown), lesson


def test_lessons_are_whole(pages):
    """Code, texts that cells printed, pictures, and answers that stay folded."""
    for lesson in LESSONS:
        page, cells = pages[f"{lesson}.html"], cells_of(lesson)
        shown = [pre.get_text() for pre in page.select("main pre")]
        for cell in cells:
            if cell.cell_type == "code" and "install" not in cell.metadata.get("tags", []):
                assert cell.source.strip() in map(str.strip, shown), cell.source
                printed = [output.text for output in cell.outputs if output.output_type == "stream"]
                assert {text.strip() for text in printed} <= set(map(str.strip, shown)), printed
        pictures = sum("png" in str(o.get("data", {}).keys()) or "jpeg" in str(o.get("data", {}).keys())
                       or "<img" in o.get("data", {}).get("text/html", "") for c in cells for o in c.get("outputs", []))  # fmt: skip
        assert len(page.select("main img")) == pictures, lesson
        folded = sum(cell.source.count("<details>") for cell in cells if cell.cell_type == "markdown")
        details = page.select("main details")
        assert len(details) == folded > 3 and not [one for one in details if one.has_attr("open")]
        assert all(one.summary and len(one.get_text()) > len(one.summary.get_text()) for one in details)


def test_no_mark_of_emphasis_is_left_in_the_text(pages):
    """`*모두 실행(Run All)*에는` is none: before a letter, Markdown's marks do not close behind a bracket."""
    for name, page in pages.items():
        if name.startswith(("minst.", "explorer/", "demo/")):
            continue  # docstrings have shapes such as H*W
        page = BeautifulSoup(str(page), "html.parser")
        for code in page.select("code, pre, math, script, style"):
            code.decompose()
        assert not re.search(r"\*+[^\s*][^*]*\*", page.get_text()), name


def test_formulas_are_drawn(pages):
    for lesson in LESSONS:
        text = "\n".join(cell.source for cell in cells_of(lesson) if cell.cell_type == "markdown")
        page = pages[f"{lesson}.html"]
        assert len(page.find_all("math")) == len(re.findall(r"\$\$.+?\$\$|\$[^$]+\$", text, re.DOTALL)), lesson
        drawn = " ".join(math.get_text() for math in page.find_all("math"))
        assert "\\" not in drawn and "$" not in drawn and "tag" not in drawn
        tags = [tag.get_text() for tag in page.select(".math.block .tag")]
        assert tags == [f"({tag})" for tag in re.findall(r"\\tag\{(.+?)\}", text)]


def test_terms_carry_what_the_glossary_says(pages):
    rows = {row.dfn.get_text(): row.find_all("td")[2].get_text() for row in pages["glossary.html"].select("tr:has(dfn)")}
    assert len(rows) >= 40
    for lesson in LESSONS:
        terms = pages[f"{lesson}.html"].select("main a.term")
        marks = [term["href"] for term in terms]
        assert len(marks) == len(set(marks)) >= 10, lesson
        assert {term["data-says"] for term in terms} <= set(rows.values())
        assert not pages[f"{lesson}.html"].select("pre .term, h1 .term, h2 .term, a a")
    (query,) = pages["04_dual_decoder.html"].select('a.term[href="glossary.html#term-query"]')
    assert query.get_text() == "queries" and query["data-says"] == rows["query"]
    chance = [lesson for lesson in LESSONS if pages[f"{lesson}.html"].select('[href="glossary.html#term-chance"]')]
    assert chance == ["06_temporal_training"]  # elsewhere it is a word


def plain(text: str) -> str:
    """Without spaces and Markdown's marks."""
    return re.sub(r"[`*\s]", "", text)


def test_reference_has_every_public_name_with_its_docstring(pages, book):
    for name in book.HEART:
        module = importlib.import_module(f"minst.{name}")
        page = pages[f"minst.{name}.html"]
        said = plain(page.main.get_text())
        for public in module.__all__:
            value = getattr(module, public)
            if getattr(value, "__module__", None) == module.__name__ and (inspect.isclass(value) or inspect.isfunction(value)):
                assert page.find(["h2", "h3"], string=public), public
                assert plain(inspect.getdoc(value).partition("\n\n")[0]) in said, public
    tracker = pages["minst.tracking.html"]
    assert tracker.find(id="kerneltrackerstep") and "Deviation:" in tracker.get_text()
    lesson = pages["07_kernel_reuse_and_association.html"]
    assert lesson.select('a[href^="minst.tracking.html"]') and tracker.select('a[href="07_kernel_reuse_and_association.html"]')


@pytest.fixture
def translated(tmp_path, book):
    """A repository with two lessons, one of them in Korean too."""
    root = tmp_path / "repository"
    (root / "notebooks" / "ko").mkdir(parents=True)
    for name in ("README.md", "LICENSE", "notebooks/GLOSSARY.md", f"notebooks/{LESSONS[0]}.ipynb", f"notebooks/{LESSONS[4]}.ipynb"):
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "data_samples" / "pictures", root / "data_samples" / "pictures")
    korean = nbformat.read(ROOT / "notebooks" / f"{LESSONS[4]}.ipynb", 4)
    korean.cells[0].source = f"# 04 · 이중 디코더\n\n마스크를 만드는 질의. [앞]({LESSONS[0]}.ipynb) [용어]({'GLOSSARY.md'}) [허가](../../LICENSE)"
    nbformat.write(korean, root / "notebooks" / "ko" / f"{LESSONS[4]}.ipynb")
    (root / "notebooks" / "ko" / "GLOSSARY.md").write_text(
        f"# 용어집\n\n| 용어 | 기호 | 뜻 | 레슨 | 모듈 |\n|---|---|---|---|---|\n| 마스크 | | 화소의 모음 | [04]({LESSONS[4]}.ipynb) | |\n",
        encoding="utf-8",
    )
    book.ROOT = root
    return book, tmp_path / "out"


def test_a_translation_and_its_original_lead_to_each_other(translated):
    book, out = translated
    book.build(out, "https://code.example/minst")
    pages = read(out)
    assert dead_links(out, pages) == []
    korean, english = pages[f"ko/{LESSONS[4]}.html"], pages[f"{LESSONS[4]}.html"]
    assert korean.html["lang"] == "ko" and korean.h1.get_text() == "04 · 이중 디코더"
    assert [a["href"] for a in english.select("header a[hreflang]")] == [f"ko/{LESSONS[4]}.html"]
    assert [a["href"] for a in korean.select("header a[hreflang]")] == [f"../{LESSONS[4]}.html"]
    assert not pages[f"{LESSONS[0]}.html"].select("header a[hreflang]")
    assert korean.select_one("main a.term")["data-says"] == "화소의 모음" and korean.select_one("main a.term").get_text() == "마스크"
    links = [a["href"] for a in korean.select("main p:first-of-type a:not(.term)")]
    assert links == [f"../{LESSONS[0]}.html", "glossary.html", "https://code.example/minst/blob/main/LICENSE"]


def test_without_an_address_what_is_not_in_the_book_is_text(translated):
    book, out = translated
    book.build(out, None)
    korean = read(out)[f"ko/{LESSONS[4]}.html"]
    assert "허가" in korean.get_text() and not [a for a in korean.select("main a") if a.get_text() == "허가"]
    assert not read(out)["index.html"].select('a[href*="LICENSE"]')


def test_static_pages_are_linked_only_if_they_are_there(translated, tmp_path):
    book, out = translated
    with pytest.raises(SystemExit, match=r"--demo .*no index\.html"):
        book.build(out, None, demo=tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "index.html").write_text("<html lang=en></html>")
    book.build(out, None, demo=tmp_path / "demo", explorer=None)
    pages = read(out)
    for name, page in pages.items():
        if not name.startswith("demo"):
            depth = "../" * name.count("/")
            assert len(page.select(f'#contents a[href="{depth}demo/index.html"]')) == 1 and not page.select('[href*="explorer/"]')


def test_a_folder_that_is_no_book_is_not_emptied(book, tmp_path):
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(SystemExit, match="no book"):
        book.build(tmp_path, None)
    assert (tmp_path / "thesis.txt").exists()


def test_the_builder_is_small_and_knows_no_host():
    files = [NOTEBOOKS / "book.py", *(NOTEBOOKS / "theme").iterdir()]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    assert "://" not in text.replace('"://" in', "") and text.count("\n") <= 750
    imports = {node.module for node in ast.walk(ast.parse(files[0].read_text())) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in imports if name and name.startswith(("minst", "torch"))]


def test_slides_last_as_long_as_they_say_and_show_the_pictures_of_the_lessons(pages):
    lessons = {img["src"] for lesson in LESSONS for img in pages[f"{lesson}.html"].select("main img")}
    for name, minutes in DECKS.items():
        slides = pages[f"{name}.html"].select("section")
        until = [int(slide["data-until"]) for slide in slides]
        assert until == sorted(until) and until[-1] == minutes, until
        shown = [img["src"].removeprefix("../") for slide in slides for img in slide.select("img")]
        assert len(shown) >= 12 and set(shown) <= lessons
        assert all(slide.get_text().strip() for slide in slides)
        code = pages[f"{name}.html"].select("section > div > pre")
        assert sum("your turn" in pre.get_text() for pre in code) >= 12 if minutes == 180 else not code


def test_korean_slides_are_the_english_ones_in_korean_and_lead_to_each_other(pages):
    for name in ("talk", "workshop"):
        english, korean = pages[f"{name}.html"], pages[f"ko/{name}.html"]
        first, second = (page.select("section") for page in (english, korean))
        assert [slide["data-until"] for slide in first] == [slide["data-until"] for slide in second]
        shown = [[[img["src"].removeprefix("../") for img in slide.select("img")] for slide in slides] for slides in (first, second)]
        assert shown[0] == shown[1]
        said, titles = ([slide.find(["h1", "h2"]).get_text() for slide in slides] for slides in (first, second))
        assert not set(said) & set(titles) and all(re.search("[가-힣]", title) for title in titles)
        for slide, original in zip(second, first):  # prose and notes, too
            for part, there in zip(slide.select("p, aside"), original.select("p, aside")):
                assert len(there.get_text().split()) < 8 or re.search("[가-힣]", part.get_text()), part
            assert not slide.aside or re.search("[가-힣]", slide.aside["aria-label"])
        assert english.html["lang"] == "en" and korean.html["lang"] == "ko"
        assert [a["href"] for a in first[0].select("a")] == ["index.html", f"ko/{name}.html"]
        assert [a["href"] for a in second[0].select("a")] == ["index.html", f"../{name}.html"]
        for lesson in LESSONS[:8]:
            for page, home in ((pages[f"{lesson}.html"], ""), (pages[f"ko/{lesson}.html"], "ko/")):
                found = [a["href"] for a in page.select("#contents a") if a["href"].endswith(f"{name}.html")]
                assert found == [f"{name}.html"], (home, lesson)


def test_the_hand_out_of_a_language_is_that_of_its_tutor(pages, folder):
    for home in ("", "ko/"):
        (link,) = (a["href"] for a in pages[f"{home}tutor.html"].select('main a[href$=".pdf"]'))
        assert (folder / home / link).read_bytes() == (NOTEBOOKS / home / "handout.pdf").read_bytes()


def test_words_of_the_slides_are_those_that_are_shown():
    source = (NOTEBOOKS / "slides.py").read_text() + (NOTEBOOKS / "theme" / "slides.html").read_text()
    for said in language.LANGUAGES:
        words = language.words(said)["slides"]
        assert {title for *_, title in decks.TALK} <= set(words)
        assert [word for word in words if word not in source] == []


def test_a_language_with_part_of_the_lessons_has_no_slides(book, tmp_path):
    made = book.Book(tmp_path, None, {})
    assert decks.languages(made) == ["en", "ko"]
    for name in ("tutor", LESSONS[1], LESSONS[3]):  # of the plan for tutors, and of the talk
        some = book.Book(tmp_path, None, {})
        some.pages = [page for page in made.pages if page.out != f"ko/{name}.html"]
        assert decks.languages(some) == ["en"]


# --- in Chromium ---


@pytest.fixture
def visit(browser, folder):
    """visit("glossary", width=390, dark=True) -> the page, opened from the folder, without an error in its console."""
    opened, errors = [], []

    def go(name, width=1280, dark=False, **options):
        page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme="dark" if dark else "light", **options)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: errors.append(request.url) if request.url.startswith("http") else None)
        page.goto((folder / f"{name}.html").as_uri())
        opened.append(page)
        return page

    yield go
    for page in opened:
        page.close()
    assert errors == []


def background(page) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def focused(page, what: str):
    return page.evaluate(f"document.activeElement.{what}")


def test_search_finds_a_word_and_leads_to_it(visit):
    page = visit("index")
    page.keyboard.press("/")
    page.wait_for_function("document.activeElement.id === 'search'")
    page.keyboard.insert_text("deep supervision")  # at once: a slow machine would still show what "d" finds
    page.locator("#found a", has_text="04 · Dual decoder").first.wait_for()
    names = page.locator("#found a").all_inner_texts()
    assert any(name.startswith("04 · Dual decoder") for name in names), names
    assert re.match(r"\d+ places found", page.locator("#found [role=status]").inner_text())
    page.keyboard.press("Tab")
    assert focused(page, "closest('#found') !== null")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"\.html#"))
    text = " ".join(page.locator("main").text_content().lower().split())  # it may stand in a folded answer
    assert "deep supervision" in text


def test_search_says_that_nothing_was_found_and_leaves_on_escape(visit):
    page = visit("glossary")
    page.locator("#search").fill("<b>zebra")
    page.wait_for_function("document.querySelector('#found p').textContent.startsWith('0 ')")
    assert page.locator("#found a").count() == 0
    page.keyboard.press("Escape")
    assert page.locator("#found").is_hidden()


def test_theme_follows_the_system_and_the_button_and_is_kept(visit):
    light, dark = background(visit("index")), background(visit("index", dark=True))
    assert light == "rgb(255, 255, 255)" and dark != light
    page = visit("index", dark=True)
    page.locator("#theme").click()
    assert background(page) == light
    page.reload()
    assert background(page) == light
    page.locator("#theme").click()
    assert background(page) == dark


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_scrolls_sideways(width, visit, pages):
    page = visit("index", width=width)
    home = page.url.rpartition("/")[0]
    for name in pages:
        page.goto(f"{home}/{name}")
        page.evaluate("document.querySelectorAll('main details').forEach(one => one.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name


def test_keyboard_alone_reaches_text_contents_and_folded_answers(visit):
    page = visit("05_losses", width=390)
    page.keyboard.press("Tab")
    assert focused(page, "className") == "skip"
    page.keyboard.press("Tab")
    assert focused(page, "id") == "menu" and page.locator("#contents").is_hidden()
    page.keyboard.press("Enter")
    assert page.locator("#contents a[aria-current=page]").is_visible()
    page.keyboard.press("Tab")
    assert focused(page, "closest('#contents') !== null")
    page.keyboard.press("Escape")
    assert page.locator("#contents").is_hidden()
    page.keyboard.press("Shift+Tab")
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(focused(page, "tagName"))
        if focused(page, "tagName") == "SUMMARY":
            break
    assert {"A", "PRE", "SUMMARY"} <= reached  # terms, code that is wider than the page, an answer
    page.keyboard.press("Enter")
    assert focused(page, "parentElement.open") is True


def test_a_term_says_what_it_means_to_pointer_focus_and_finger(visit):
    page = visit("04_dual_decoder")
    term = page.locator("main a.term", has_text="cross-attention").first
    term.hover()
    assert "ask the tokens" in page.locator("#says").inner_text()
    page.locator("#says").hover()  # it stays while it is read
    page.wait_for_timeout(400)
    assert page.locator("#says").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#says").count() == 0
    term.focus()
    assert page.locator("[role=tooltip]").get_attribute("id") == term.get_attribute("aria-describedby") == "says"
    phone = visit("04_dual_decoder", width=390, has_touch=True)
    last = phone.locator("main a.term").last
    last.tap()
    assert phone.locator("#says").is_visible() and phone.url.endswith("04_dual_decoder.html")
    box = phone.locator("#says").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    last.tap()
    phone.wait_for_url(re.compile(r"glossary\.html#term-"))


def test_who_wants_no_movement_sees_stills(visit):
    moving = visit("03_mask_decoder")
    calm = visit("03_mask_decoder", reduced_motion="reduce")
    shown = [page.locator("picture img").evaluate("img => img.currentSrc") for page in (moving, calm)]
    assert shown[0].endswith(".gif") and shown[1].endswith(".png")


@pytest.mark.parametrize(("name", "minute"), [("talk", "until minute 3"), ("ko/talk", "3분까지")])
def test_slides_are_turned_by_keys_and_buttons(name, minute, visit):
    page = visit(name)
    assert page.locator("section:visible").count() == 1 and page.locator("h1").is_visible()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert page.locator("output").inner_text().startswith("3 / ") and page.locator("section.now img").is_visible()
    assert page.locator("section.now aside").is_hidden()
    page.keyboard.press("n")
    assert page.locator("section.now aside").is_visible()
    page.locator("#back").click()
    page.reload()
    said = page.locator("output").inner_text()
    assert said.startswith("2 / ") and said.endswith(f" · {minute}")


@pytest.mark.skipif(not AXE, reason="MINST_AXE names no axe.min.js: npm pack axe-core")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", LOOKED_AT)
def test_axe_finds_nothing_serious(name, dark, visit):
    page = visit(name, width=390 if dark else 1280, dark=dark)
    page.evaluate("document.querySelectorAll('main details').forEach(one => one.open = true)")
    page.evaluate(Path(AXE).read_text(encoding="utf-8"))
    found = page.evaluate("async () => (await axe.run({preload: false})).violations.map(v => [v.impact, v.id, v.nodes[0].html])")
    assert [one for one in found if one[0] in ("serious", "critical")] == []


@pytest.mark.parametrize("name", ["index", "04_dual_decoder", "glossary", "lab", "minst.tracking"])
@pytest.mark.parametrize("width", [390, 1280])
def test_pictures_for_who_looks(name, width, visit, screenshots):
    for dark in (False, True):
        page = visit(name, width=width, dark=dark)
        page.screenshot(path=screenshots / f"book-{name}-{width}-{'dark' if dark else 'light'}.png")
        assert page.locator("h1").count() == 1 and page.locator("h1").is_visible()
