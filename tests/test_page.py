"""The page of ``nazx serve`` in a real browser, without a window: Debian's chromium."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from page_driver import ENTER, ESCAPE, Page, started
from serving_helpers import BOOK, MODEL, Server, running, slowed

from nazx_cli.session.saving.store import Store
from nazx_cli.session.state import History, Message, State, Turn

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver
    from selenium.webdriver.remote.webelement import WebElement

pytest.importorskip("selenium.webdriver")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (apt: chromium-driver)"
)

KEY = "s3cret"
HOSTILE = (
    "<script>window.hurt = 1</script> <img src=x onerror='window.hurt = 2'> "
    "<svg onload=alert(1)> &lt;b&gt; [a](javascript:alert(1))"
)
QUESTION = "What did the heron buy?"
STOPS_EARLY = """
  // From within the page: a tiny model has said all before a driver has looked twice.
  new MutationObserver((changes, watch) => {
    const send = document.querySelector("#send");
    const last = [...document.querySelectorAll(".answer > span")].pop();
    if (send.textContent !== "Stop" || !last || last.textContent.length <= 20) return;
    watch.disconnect();
    send.click();
  }).observe(document.body, {childList: true, subtree: true, characterData: true});
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("page"), "--max-tokens", "24", key=KEY) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    driver = started(str(CHROMIUM), str(DRIVER), tmp_path_factory.mktemp("browser"))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def first(browser: WebDriver, server: Server) -> Page:
    """The page, which has the key; it is asked for once."""
    page = Page(browser, server)
    browser.get(page.address)
    page.wait(lambda: page.all("#key[open]"))
    assert page("#model").text == ""
    page("#key-value").send_keys("wrong" + ENTER)
    page.wait(lambda: "try again" in page("#key-about").text and page.all("#key[open]"))
    page("#key-value").send_keys(KEY + ENTER)
    page.wait(lambda: page("#model").text == MODEL)
    assert page.run(
        "return [sessionStorage['nazx.key'], localStorage.length, document.cookie]"
    ) == [
        KEY,
        0,
        "",
    ]
    return page


@pytest.fixture
def page(first: Page) -> Page:
    first.open()
    return first


def test_a_dropped_document_is_asked_about_and_its_source_shown(page: Page) -> None:
    page.drop("book.txt", BOOK)
    assert page.texts("#documents li .name") == ["book.txt"]
    page.ask(QUESTION)
    assert page.texts(".question") == [QUESTION]
    answer = page(".answer > span").text
    assert answer
    source = page(".source")
    assert "book.txt, lines 1-3" in source.text and "red umbrella" in source.text
    source.click()
    page.wait(lambda: page.all("#passage[open]"))
    assert page("#passage-title").text == "book.txt, lines 1-3"
    assert page("#passage mark").text in BOOK
    assert page("#passage-text").text.strip() == BOOK.strip()
    page.press(ESCAPE)
    assert not page.all("#passage[open]") and page.active == source
    assert "window" in page("#gauge").text and "Memory" in page("#gauge").text
    assert 0 < float(page("#memory").get_property("value")) < 1

    page.browser.refresh()  # which keeps the session
    page.wait(lambda: page.texts(".answer > span") == [answer])
    assert page.texts("#documents li .name") == ["book.txt"]
    page(".source").click()
    page.wait(lambda: page.all("#passage[open] mark"))
    page("#passage-close").click()


def test_stop_ends_an_answer_within_a_token_and_keeps_it(page: Page, server: Server) -> None:
    begin_long(server, "long")
    page.open("long")
    page.run(STOPS_EARLY)
    with slowed(server):
        page("#question").send_keys("And then?" + ENTER)
        page.says("Stopped.")
    server.wait_for("queue_running", 0)
    said = page.texts(".turn:last-child .answer > span")[0]
    assert page.texts(".turn:last-child .note") == ["stopped"] and page("#send").text == "Ask"
    page.browser.refresh()
    page.wait(lambda: len(page.all(".turn")) == 2)
    kept = page.texts(".turn:last-child .answer > span")[0]
    assert kept.startswith(said.rstrip()[:20]) and page.texts(".note")[-1] == "stopped"


def begin_long(server: Server, name: str) -> None:
    """A session whose answers do not end by themselves; its first is left."""
    import http.client

    body: dict[str, object] = {"model": MODEL, "nazx": {"session": name}, "stream": True}
    body |= {"messages": [{"role": "user", "content": "Who?"}]}
    body |= {"max_tokens": 1_000_000, "temperature": 1.5, "top_p": 0.5, "seed": 1}
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    link.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = link.getresponse()
    while b'"content": ""' in answer.readline() or answer.readline() == b"\n":
        pass
    answer.close()
    link.close()
    server.wait_for("queue_running", 0)


def test_sessions_are_listed_opened_and_gone_on_with(page: Page) -> None:
    page.ask("One?")
    page.wait_for_sessions()
    one = page("#session-title").text
    page("#new").click()
    page.wait(lambda: page("#session-title").text == "New session" and not page.all(".turn"))
    page.wait(lambda: page.active == page("#question"))
    page.ask("Two?")
    page.wait_for_sessions()
    two = page("#session-title").text
    names = page.texts("#sessions .name")
    assert one != two and {one, two} <= set(names)
    assert page.texts("#sessions [aria-current] .name") == [two]
    page.all("#sessions a")[names.index(one)].click()
    page.wait(lambda: page.texts(".question") == ["One?"])
    page.ask("And then?")
    page.wait_for_sessions()
    assert page("#session-title").text == one
    page.browser.back()
    page.wait(lambda: page.texts(".question") == ["Two?"])
    page.open(one)
    page.wait(lambda: page.texts(".question") == ["One?", "And then?"])


def test_nothing_that_is_said_or_read_becomes_markup(page: Page, server: Server) -> None:
    name = "<img src=x onerror=alert(1)>.txt"
    page.drop(name, f"The heron says {HOSTILE}.\n")
    assert page.texts("#documents li .name") == [name]
    page.ask(f"What does the heron say? {HOSTILE}")
    page(".source").click()
    page.wait(lambda: page.all("#passage[open] mark"))
    assert HOSTILE in page("#passage-text").text and name in page("#passage-title").text
    page("#passage-close").click()
    assert HOSTILE in page(".question").text and HOSTILE in page(".source").text

    store = Store(server.home / "sessions")
    with (
        store.open("hostile", create=True) as file,
        store.open(page("#session-title").text, create=False) as other,
    ):
        from cli_helpers import make_tokenizer

        from nazx_cli.session.saving.session_file import ModelTag

        tag = ModelTag.of(Path(server.model), other.model)
        turn = Turn(HOSTILE, Message("user", HOSTILE), (), HOSTILE, interrupted=False)
        assert other.load(make_tokenizer(), tag) is not None
        file.save({"main": State(history=History((turn,)))}, "main", (), tag)
    page.open("hostile")
    page.wait(lambda: page.texts(".answer > span") == [HOSTILE])
    assert page.all("body script, main img, main svg, main b, #side img") == []
    assert page.run("return window.hurt ?? null") is None
    assert (
        page.run(
            "try { document.body.innerHTML = '<b>x</b>'; return null } catch (e) { return e.name }"
        )
        == "TypeError"
    )


def test_another_answer_stands_below_an_unsure_one_and_opens_where_it_stands(page: Page) -> None:
    page.run(
        """const [answer] = arguments;
        return import("/page/talk.js").then(({ Turn }) => {
          const turn = new Turn("Who?", { open: (source) => { window.opened = source.quote; } });
          turn.add("Trout.");
          turn.end("1 s", []);
          const place = { filename: "a.txt", first_line: 3, last_line: 3, place: "3", document: 1 };
          const citation = { ...place, file_id: null, quote: "Blue frogs." };
          turn.doubt("unsure", { answer, citation });
          document.getElementById("talk").append(turn.element);
          const alone = new Turn("Why?", null);
          alone.doubt("a guess", undefined);
          document.getElementById("talk").append(alone.element);
        });""",
        HOSTILE,
    )
    assert page(".answer > span").text == "Trout."
    assert page.texts(".answer .other") == [f"Unsure; or perhaps: {HOSTILE}", "A guess"]
    page(".source").click()
    assert page.run("return window.opened") == "Blue frogs."
    assert page.run("return window.hurt ?? null") is None


def test_all_of_it_works_from_the_keyboard(page: Page) -> None:
    page.drop("book.txt", BOOK)
    page("#question").send_keys(QUESTION + ENTER)
    page.wait(lambda: page.all("button.source"))
    page.wait(lambda: page("#send").text == "Ask")
    page.run("document.querySelector('.skip').focus()")
    seen: list[str] = []

    def reached(element: WebElement) -> bool:
        seen.append(str(element.get_attribute("id") or element.get_attribute("class")))
        return element.get_attribute("class") == "source"

    page.tab_to(reached)
    assert {"files", "new", "talk"} <= set(seen)
    source = page.active
    page.press(ENTER)
    page.wait(lambda: page.all("#passage[open]"))
    assert page.active == page("#passage-text")
    page.tab_to(lambda element: element == page("#passage-close"))
    page.press(ENTER)
    assert not page.all("#passage[open]") and page.active == source
    page.tab_to(lambda element: element == page("#question"))
    page.tab_to(lambda element: element == page("#send"))


def test_what_can_be_used_has_a_name_for_screen_readers(page: Page) -> None:
    page.drop("book.txt", BOOK)
    page.ask(QUESTION)
    page.wait_for_sessions()
    page.open(page("#session-title").text)
    page.wait(lambda: page.all(".source") and page.all("#documents button"))
    for element in page.all("button, input, textarea, a, meter, nav, aside, [role]"):
        if element.is_displayed() and element.get_attribute("role") not in ("status", "alert"):
            assert element.accessible_name, element.get_attribute("outerHTML")
    assert page("#talk").aria_role == "log" and page("#status").aria_role == "status"
    assert page("#problem").get_attribute("role") == "alert"


def test_a_document_is_taken_out_of_the_session(page: Page, server: Server) -> None:
    for name in ("one.txt", "two.txt"):
        page.drop(name, f"{name} {BOOK}")
    page.ask(QUESTION)
    page.wait_for_sessions()
    name = page("#session-title").text
    page.run("document.querySelector('#drop').focus(); document.querySelector('.skip').focus()")
    page.tab_to(lambda element: element.accessible_name == "Remove one.txt")
    page.press(ENTER)
    page.says("one.txt is removed.")
    page.wait(lambda: page.texts("#documents li .name") == ["two.txt"])
    _, said = server.raw("GET", f"/nazx/sessions/{name}")
    assert [each["filename"] for each in said["documents"]] == ["two.txt"]  # type: ignore[attr-defined]
    page.browser.refresh()
    page.wait(lambda: page.texts("#documents li .name") == ["two.txt"])


def test_a_session_is_deleted_when_that_is_said_twice(page: Page, server: Server) -> None:
    page.ask("Who?")
    page.wait_for_sessions()
    name = page("#session-title").text

    def begin() -> None:
        page.tab_to(lambda element: element.accessible_name == f"Delete session {name}")
        page.press(ENTER)
        page.wait(lambda: page.all("#delete[open]"))

    begin()
    assert page("#delete").accessible_name == f"Delete session {name}?"
    assert "1 turn." in page("#delete-about").text and page.active == page("#delete-no")
    page.press(ESCAPE)
    assert not page.all("#delete[open]")
    assert page.active.accessible_name == f"Delete session {name}"
    begin()
    page.press(ENTER)  # on what keeps it
    page.wait(lambda: not page.all("#delete[open]"))
    assert name in page.texts("#sessions .name")
    begin()
    page.tab_to(lambda element: element == page("#delete-yes"))
    page.press(ENTER)
    page.says(f"Session {name} is deleted.")
    assert page("#session-title").text == "New session" and not page.all(".turn")
    assert name not in page.texts("#sessions .name")
    assert server.raw("GET", f"/nazx/sessions/{name}")[0] == 404


def test_documents_of_a_big_folder_are_read_and_listed_together(
    browser: WebDriver, tmp_path: Path
) -> None:
    folder = tmp_path / "birds"
    folder.mkdir()
    for number in range(230):
        (folder / f"{number:03}.txt").write_text(f"Bird {number} stood.\n")
    (folder / "999.txt").write_text(BOOK)
    options = ("--file", str(folder), "--index", "always", "--max-tokens", "8")
    with running(tmp_path / "server", *options) as server:
        page = Page(browser, server)
        page.open()
        assert page("#shelf-read").accessible_name == "231 documents of this server"
        assert page.texts("#documents li") == []
        page("#shelf summary").click()
        for count in (100, 200, 231):
            page.wait(lambda count=count: len(page.all("#shelf-list .name")) == count)
            if count < 231:
                page("#shelf-list button").send_keys(ENTER)
        assert page.texts("#shelf-list .name")[-1].endswith("999.txt")
        page.ask(QUESTION)
        before = page.texts(".source")
        assert any("red umbrella" in each for each in before)
        page.browser.refresh()
        page.wait(lambda: page.all("button.source") and page("#shelf-read").is_selected())
        page.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        (at,) = (n for n, each in enumerate(page.texts(".source")) if "umbrella" in each)
        page.all("button.source")[at].click()
        page.wait(lambda: page.all("#passage[open] mark"))
        assert page("#passage mark").text in BOOK
        page("#passage-close").click()
        page("#shelf-name").click()
        page.ask("What did the fox buy?")
        assert page.texts(".turn:last-child button.source") == []


def test_what_goes_wrong_is_one_line_with_what_to_do(page: Page, server: Server) -> None:
    page.run(
        """const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(64)], "x.bin"));
        const input = document.getElementById("files");
        input.files = data.files;
        input.dispatchEvent(new Event("change"));"""
    )
    page.wait(lambda: "x.bin" in page("#problem").text)
    assert "\n" not in page("#problem").text and "; next: choose" in page("#problem").text
    with Store(server.home / "sessions").open("busy", create=True):
        page.open("busy")
        page.ask("Who?")
        assert "; next: close it there" in page("#problem").text
        assert page("#question").get_property("value") == "Who?"  # to be asked again
    page("#send").click()
    page.wait(lambda: page.texts(".note") and page.texts(".note")[-1].endswith(" s"))
    assert not page("#problem").is_displayed()


def test_light_dark_and_narrow(page: Page) -> None:
    def colors(scheme: str) -> list[list[int]]:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        found: list[str] = page.run(
            "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
        )
        return [[int(n) for n in each[4:-1].split(",")] for each in found]

    (text, ground), (dark_text, dark_ground) = colors("light"), colors("dark")
    assert sum(ground) - sum(text) > 450 and sum(dark_text) - sum(dark_ground) > 450
    colors("light")
    page.ask("A-very-long-word-" * 12)
    size = {"width": 400, "height": 700, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert page.run("return document.documentElement.scrollWidth") <= 400
        bottom = page.run("return document.getElementById('send').getBoundingClientRect().bottom")
        assert bottom <= 700
        assert not page("#files").is_displayed() and not page("#new").is_displayed()
        page("#fold").click()
        assert (
            page("#new").is_displayed() and page("#fold").get_attribute("aria-expanded") == "true"
        )
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
