"""The number and the code as people write and paste them."""

import pytest

from support.chromium import By, Keys

LT, GB = "LT", "GB"


def choose(pages, region):
    pages.find(f"#id_country option[value={region}]").click()


def test_picker_has_exactly_the_supported_countries(pages):
    pages.open("/sign-up/")
    options = pages.browser.find_elements(By.CSS_SELECTOR, "#id_country option")
    assert [each.text for each in options] == [
        "Estonia (+372)",
        "Latvia (+371)",
        "Lithuania (+370)",
        "United Kingdom (+44)",
        "United States (+1)",
    ]


@pytest.mark.parametrize(
    ("region", "form"),
    [
        (LT, "8 612 {rest}"),
        (LT, "0612{rest}"),
        (LT, "612-{rest}"),
        (LT, "370 612 {rest}"),
        (GB, "+370 612 {rest}"),
        (GB, "00370 (612) {rest}"),
        (GB, "\u202a+370\u00a0612\u00a0{rest}\u202c"),
    ],
)
def test_number_is_read_as_people_write_it(plain, number, site, region, form):
    plain.fill_sign_up(number)
    choose(plain, region)
    plain.type("#id_phone_number", form.format(rest=number[7:]))
    plain.click("#number-form button")
    plain.wait(lambda: plain.shown("#code"))
    assert len(site.messages(number)) == 1


def test_account_types_a_national_number_for_the_api(pages, number, site):
    pages.log_in()
    pages.open_number()
    choose(pages, LT)
    pages.type("#id_phone_number", f"8 612 {number[7:]}")
    pages.click("#number-form button")
    pages.wait(lambda: pages.shown("#code"))
    assert len(site.messages(number)) == 1


@pytest.mark.parametrize(
    "text", ["12", "abc", "+49 1512 3456789", "+370 5 2123456", ""]
)
def test_error_beside_the_number_names_the_countries(pages, text):
    pages.log_in()
    pages.open_number()
    pages.type("#id_phone_number", text)
    pages.click("#number-form button")
    told = pages.wait_text("United Kingdom", "#id_phone_number_error")
    assert told.startswith("Enter a mobile phone number of one of these countries")
    assert (pages.focused, pages.value("#id_phone_number")) == ("id_phone_number", text)


def test_field_of_the_code_suits_phones(pages, number):
    pages.sign_up(number)
    field = pages.find("#code")
    kept = [field.get_attribute(n) for n in ("autocomplete", "inputmode", "maxlength")]
    assert kept == ["one-time-code", "numeric", None]


@pytest.mark.parametrize("text", ["12", "12345", "1234 5678", "letters"])
def test_text_without_one_code_is_not_sent(pages, number, text):
    pages.sign_up(number)
    pages.cdp("Input.insertText", text=text)
    pages.find("#code").send_keys(Keys.ENTER)
    pages.wait_text("Enter the 4 digits of the code.", "#error")
    assert pages.requests_to("/sign-up/code/") == 0


def test_whole_message_is_read_without_script(plain, number):
    plain.sign_up(number)
    code = plain.code_of(number)
    plain.type("#code", f"The iDenfy code: {code}. Valid for 5 minutes.")
    plain.click("#code-form button")
    plain.wait_path("/")
