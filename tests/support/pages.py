"""Steps of a person at the example's pages."""

from contextlib import suppress
from typing import Any

from support.chromium import By, Keys, WebDriverWait
from support.example_site import Site

PASSWORD = "correct horse battery"
NETWORK = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}


class Pages:
    """One browser at the site."""

    def __init__(self, browser, site: Site) -> None:
        self.browser, self.site = browser, site

    # The browser

    def cdp(self, command: str, **values: Any) -> Any:
        return self.browser.execute_cdp_cmd(command, values)

    def reset(self):
        while len(self.browser.window_handles) > 1:
            self.browser.close()
            self.browser.switch_to.window(self.browser.window_handles[0])
        self.browser.switch_to.window(self.browser.window_handles[0])
        self.set_network()
        self.set_scripts(True)
        self.set_width(420)
        self.open("/login/")
        self.browser.delete_all_cookies()
        self.browser.execute_script("sessionStorage.clear()")
        self.browser.get_log("browser")
        return self

    def set_scripts(self, on: bool) -> None:
        self.cdp("Emulation.setScriptExecutionDisabled", value=not on)

    def set_network(self, **changes: Any) -> None:
        values = {"offline": False, **NETWORK, **changes}
        self.cdp("Network.enable")
        self.cdp("Network.emulateNetworkConditions", **values)

    def set_width(self, width: int, scale: float = 1) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": scale}
        self.cdp("Emulation.setDeviceMetricsOverride", mobile=False, **size)

    def set_media(self, **features: str) -> None:
        names = {"theme": "prefers-color-scheme", "forced": "forced-colors"}
        values = [{"name": names[k], "value": v} for k, v in features.items()]
        self.cdp("Emulation.setEmulatedMedia", features=values)

    def script(self, text: str, *values: Any) -> Any:
        return self.browser.execute_script(text, *values)

    def requests_to(self, path: str) -> int:
        """How many this page has made."""
        names = "performance.getEntriesByType('resource').map((each) => each.name)"
        urls = self.script(f"return {names}")
        return sum(url.split("?")[0] == self.site.url + path for url in urls)

    # What is on the page

    def open(self, path: str) -> None:
        self.browser.get(self.site.url + path)

    @property
    def path(self) -> str:
        return self.browser.current_url.removeprefix(self.site.url)

    def find(self, selector: str):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str = "main") -> str:
        with suppress(Exception):
            return self.find(selector).text
        return ""

    def shown(self, selector: str) -> bool:
        with suppress(Exception):
            return self.find(selector).is_displayed()
        return False

    def value(self, selector: str) -> str:
        return self.find(selector).get_property("value")

    @property
    def focused(self) -> str:
        return self.script("return document.activeElement.id")

    def lose_next_answer(self):
        """The next request of the page's script arrives, and its answer is lost."""
        self.script(
            """const real = window.fetch;
            window.fetch = async (...all) => {
              window.fetch = real; await real(...all); throw new TypeError("lost");
            };"""
        )

    def wait(self, condition, seconds: float = 15):
        return WebDriverWait(self.browser, seconds, 0.05).until(lambda b: condition())

    def wait_text(self, text: str, selector: str = "main", seconds: float = 15) -> str:
        try:
            self.wait(lambda: text in self.text(selector), seconds)
        except Exception as error:
            raise AssertionError(
                f"{text!r} is not in: {self.path} {self.text('main')}"
            ) from error
        return self.text(selector)

    def wait_path(self, path: str) -> None:
        try:
            self.wait(lambda: self.path == path)
        except Exception as error:
            raise AssertionError(
                f"{path!r} is not: {self.path} {self.text('main')}"
            ) from error

    # What a person does

    def type(self, selector: str, text: str) -> None:
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def click(self, selector: str) -> None:
        self.find(selector).click()

    def fill_sign_up(self, number: str, email: str = "") -> None:
        self.open("/sign-up/")
        self.type("#id_email", email or f"ona{number[1:]}@example.com")
        self.type("#id_password", PASSWORD)
        self.type("#id_phone_number", number)

    def sign_up(self, number: str, email: str = "") -> None:
        """As far as the code's field."""
        self.fill_sign_up(number, email)
        self.click("#number-form button")
        self.wait(lambda: self.shown("#code"))

    def log_in(self, user: str = "demo@example.com", password: str = "") -> None:
        self.open("/login/")
        self.type("#id_username", user)
        self.type("#id_password", password or self.site.password)
        self.find("#id_password").send_keys(Keys.ENTER)
        self.wait_path("/")

    def open_number(self) -> None:
        """The page of an account's number, by way of the password."""
        self.open("/number/")
        if self.path == "/password/":
            self.type("#id_password", self.site.password)
            self.click("main button")
        self.wait_path("/number/")

    def ask_code(self, number: str) -> None:
        self.open_number()
        self.type("#id_phone_number", number)
        self.click("#number-form button")

    def code_of(self, number: str) -> str:
        """The newest code that was sent to this number."""
        self.wait(lambda: self.site.messages(number))
        code: str = self.site.messages(number)[0]["code"]
        return code

    def wrong_code_of(self, number: str) -> str:
        return f"{(int(self.code_of(number)) + 1) % 10_000:04}"

    def enter(self, code: str) -> None:
        """Type a code. With scripts, the first complete one needs no Enter."""
        field = self.find("#code")
        field.clear()
        field.send_keys(code)

    def submit(self, code: str) -> None:
        self.find("#code").clear()
        self.find("#code").send_keys(code, Keys.ENTER)

    def lose_login(self, number: str) -> None:
        """The page of an account's code, whose session ended meanwhile."""
        self.log_in()
        self.ask_code(number)
        self.wait(lambda: self.shown("#code"))
        self.browser.delete_cookie("sessionid")
        self.script("document.dispatchEvent(new Event('visibilitychange'))")
        self.wait_text("You are logged out.", "#error")

    def confirm_with_used_email(self, number: str) -> None:
        """Confirm a number while another account has the e-mail address."""
        email, admin = f"used{number[1:]}@example.com", "admin@example.com"
        self.sign_up(number, email)
        rename = "UPDATE accounts_user SET username = ? WHERE username = ?"
        self.site.sql(rename, email, admin)
        try:
            self.submit(self.code_of(number))
            self.wait_text("exists already")
        finally:
            self.site.sql(rename, admin, email)
