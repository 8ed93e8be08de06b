"""Personal data is masked in its own form; what only looks like it stays as it is."""

import random
import string
from collections import Counter

import pytest

from tilth.errors import UsageError

pytest.importorskip("phonenumbers", reason="needs the extra personal")
pytest.importorskip("stdnum", reason="needs the extra personal")

from tilth.corpus.filters.personal import personal
from tilth.corpus.filters.secrets import entropy

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq9\nkY+Zz12/abCDefGH3456ijkl\n-----END RSA PRIVATE KEY-----"

MASKED = [
    ("email", "Write to jane.doe+x@mail.some-farm.co.uk.", "Write to email@example.com."),
    ("email", "<müller@straße.de>; mailto:a_b@x.org", "<email@example.com>; mailto:email@example.com"),
    ("phone", "Call (212) 736-5000 now", "Call (000) 000-0000 now"),
    ("phone", "Tel. 212-736-5000.", "Tel. 000-000-0000."),
    ("phone", "from abroad +44 20 7219 3000, or", "from abroad +00 00 0000 0000, or"),
    ("phone", "+49 (0) 30/72 62 98-299", "+00 (0) 00/00 00 00-000"),
    ("phone", "Fax: +49 30 26996-0", "Fax: +00 00 00000-0"),
    ("phone", "New York, NY 10001 (212) 736-5000", "New York, NY 10001 (000) 000-0000"),
    ("phone", "(212) 736-5000 (646) 736-5001", "(000) 000-0000 (000) 000-0000"),
    ("phone", "+44 20 7946 0958 +44 20 7946 0959", "+00 00 0000 0000 +00 00 0000 0000"),
    ("phone", "212-736-5000 24 hours, 9 to 5", "000-000-0000 24 hours, 9 to 5"),
    ("phone", "Fax:212-736-5000, p:212.736.5000 f:212.736.5001", "Fax:000-000-0000, p:000.000.0000 f:000.000.0000"),
    ("phone", "Phone No. (212) 736-5000", "Phone No. (000) 000-0000"),
    ("phone", "212\u2011736\u20115000", "000\u2011000\u20110000"),
    ("ip", "from 188.102.128.236 at noon", "from 192.0.2.1 at noon"),
    ("ip", "the server 8.8.4.4 answers; http://93.184.216.34/x", "the server 192.0.2.1 answers; http://192.0.2.1/x"),
    ("ip", "[2a00:1450:4001:81b::200e]", "[2001:db8::1]"),
    ("card", "Visa 4111 1111 1111 1111, Amex 378282246310005", "Visa 0000 0000 0000 0000, Amex 000000000000000"),
    ("card", "5555-5555-5555-4444 or 2223003122003222", "0000-0000-0000-0000 or 0000000000000000"),
    ("iban", "IBAN: DE89 3704 0044 0532 0130 00 BIC", "IBAN: DE00 0000 0000 0000 0000 00 BIC"),
    ("iban", "GB29NWBK60161331926819", "GB00XXXX00000000000000"),
    ("national_id", "SSN 536-90-4399", "SSN 000-00-0000"),
    ("national_id", "CPF 390.533.447-05", "CPF 000.000.000-00"),
    ("national_id", "RCCMNL83S18D969H", "XXXXXX00X00X000X"),
    ("national_id", "NINO AB 12 34 56 C, AB123456C", "NINO XX 00 00 00 X, XX000000X"),
    ("national_id", "85.07.30-033.28 and 131052-308T", "00.00.00-000.00 and 000000-000X"),
    ("secret", "key AKIAIOSFODNN7EXAMPLE.", "key AKIAxxxxxxxx0xxxxxxx."),
    ("secret", 'password = "hunter2Zq!x"', 'password = "xxxxxx0xx!x"'),
    ("secret", "API_KEY=9f8a7b6c5d4e3f2a", "API_KEY=0x0x0x0x0x0x0x0x"),
    ("secret", "'secret': 'Tr0ub4dor&3'", None),
    ("secret", PEM, None),
]

LEFT = """
In 1914-1918 and 1939-1945 they fought; 1990 1991 1992 1993 were dry.
ISBN 978-0-306-40615-7, ISBN 0-306-40615-2, ISSN 2049-3630
On 12/05/2020 at 08:11:45, on 2020-05-12, 05.12.2020 and 1999/12/31
3.14159265358979, 0.668260, 1,234,567.89 and 12 345 678
Version 1.2.3.4, v10.11.12.13, release 103.0.50.60, Chrome/103.0.50.60, section 2.10.14.3
127.0.0.1, 192.168.10.120, 10.0.0.138, 255.255.255.0, 192.0.2.1, 300.1.2.3, 2001:db8::1, fe80::1
Room 4111 1111 1111 1112; order 4111111111111112; 1234567890123456
IBAN DE89 3704 0044 0532 0130 01; AB12 3456 7890 1234
SSN 000-12-3456, 666-12-3456, 123-45-678
@handle, a@b, icon@2x.png, user@localhost, email@example.com, someone@example.org, name@site.test
The password: correct horse battery staple. Passwords: see below. Secret: nobody knows!
password = get_password(user1); token == other_token2; secret_key = settings.secret_key1; token: ${TOKEN_1234}
The task-oriented sk-learning of desk-bound AKIAs and eyJacks.
£1,250,000 to 2,500,000; $123-456-7890; 50°12'34.5" N; 100-200-300; 555-1234
lines 1234567-1234570, chapter 12.34.56, EAN 4006381333931, DOI 10.1000/182.12345678
0991..0992; 12345678901; 2 + 2 = 4; 1-2-3-4-5-6-7-8
ISBN No. 212-736-5000, 12:212-736-5000, 212-736-5000 + 1, 212-736-5000+1
""".strip().split("\n")


@pytest.mark.parametrize(("kind", "text", "masked"), MASKED, ids=lambda value: str(value)[:24])
def test_each_kind_is_masked_in_its_form(run, kind, text, masked):
    result = run(personal(), text)
    assert list(result.metadata[0]["personal"]) == [kind]
    if masked is not None:
        assert result.texts == [masked]
    assert result.texts != [text]
    assert run(personal(), result.texts[0]).texts == result.texts, "masking again changes nothing"


def test_a_private_key_keeps_its_frame_and_lines(run):
    masked = run(personal(), f"a\n{PEM}\nb").texts[0].split("\n")
    assert masked[1:5:3] == PEM.split("\n")[::3]
    assert masked[2:4] == ["xxxxxxxxxxxxxxxx0xx0", "xx+xx00/xxxxxxxx0000xxxx"]
    assert [len(line) for line in masked] == [1, *map(len, PEM.split("\n")), 1]


@pytest.mark.parametrize("text", LEFT)
def test_what_only_looks_like_it_stays(run, text):
    result = run(personal(regions=["US", "GB", "DE"]), text)
    assert (result.texts, result.metadata) == ([text], [{}])


def test_counts_by_kind(run):
    text = "a@x.com, b@y.com, +44 20 7219 3000\n\nand 188.102.128.236"
    result = run(personal(), text, "nothing here")
    assert result.metadata == [{"personal": {"email": 2, "phone": 1, "ip": 1}}, {}]
    assert result.texts[0] == "email@example.com, email@example.com, +00 00 0000 0000\n\nand 192.0.2.1"
    assert run(personal(kinds=["ip"]), text).metadata == [{"personal": {"ip": 1}}]
    assert run(personal(kinds=[]), text).texts == [text]


def test_regions_decide_about_national_phone_numbers(run):
    text = "Tel. 030 22751170"
    assert run(personal(), text).texts == [text]
    assert run(personal(regions=["DE"]), "Tel. 030 227-55550").texts == ["Tel. 000 000-00000"]


def test_keys_of_services(run):
    letters = string.ascii_letters + string.digits
    draw = random.Random(0)

    def value(size):
        return "".join(draw.choices(letters, k=size))

    keys = [
        f"ghp_{value(36)}", f"AIza{value(35)}", f"xoxb-{value(24)}", f"sk_live_{value(24)}", f"sk-{value(48)}",
        f"hf_{value(34)}", f"glpat-{value(20)}", f"npm_{value(36)}", f"eyJ{value(20)}.eyJ{value(40)}.{value(43)}",
    ]  # fmt: skip
    result = run(personal(), *(f"the key {key} is" for key in keys))
    assert [facts.get("personal") for facts in result.metadata] == [{"secret": 1}] * len(keys)
    for key, text in zip(keys, result.texts, strict=True):
        assert len(text) == len(f"the key {key} is")
        assert key[-15:] not in text


def test_entropy():
    assert entropy("aaaaaaaa") == 0
    assert entropy("abcdefgh") == 3
    assert entropy("password") == 2.75


def test_wrong_settings():
    with pytest.raises(UsageError, match="'mail' is not one of the kinds secret, email"):
        personal(kinds=["mail"])
    with pytest.raises(UsageError, match="XX is no region"):
        personal(regions=["XX"])


def test_odd_texts(run, odd_text):
    assert run(personal(), odd_text).texts == [odd_text]


def test_prose_holds_none(run, novels):
    result = run(personal(regions=["US", "GB", "DE"]), *novels)
    assert result.metadata == [{}] * 73


def test_abstracts_hold_addresses_only(run, abstracts):
    found = sum((Counter(facts.get("personal", {})) for facts in run(personal(), *abstracts).metadata), Counter())
    assert found == {"email": 22, "ip": 1}  # all read and right


def test_imprints_of_web_pages(run, web_pages):
    """All that is found was read: every one is what it is counted as."""
    result = run(personal(regions=["US", "GB", "DE"]), *web_pages)
    found = sum((Counter(facts.get("personal", {})) for facts in result.metadata), Counter())
    assert set(found) == {"email", "phone", "iban", "ip"}
    assert 100 <= found["email"] <= 115
    assert 110 <= found["phone"] <= 120
    assert found["iban"] == 10
    assert found["ip"] == 1


HOSTILE = [
    *[
        "a",
        "1",
        "1 ",
        "1.",
        "1-",
        "(1",
        "+1 ",
        "a@",
        "@",
        "a.",
        "a@a.",
        "a:",
        ":",
        "f:",
        "2a:",
        'x="',
        "4",
        "-",
        "A",
        "\n",
    ],
    *["DE89 ", "AB12 3456 ", "4111 ", "1234 5678 ", "1" * 30 + " ", "0" * 12 + ".", "jane.doe"],
    *["-----BEGIN PRIVATE KEY-----", "eyJaaaaaaaaaa.", "eyJ", "sk-", "AKIA", "ghp_" + "a" * 300],
    *["password=", "token: ", "api_key", "key: " + "a1" * 60 + " "],
]


@pytest.mark.parametrize("piece", HOSTILE, ids=lambda piece: repr(piece)[:20])
def test_time_is_linear_in_hostile_texts(run, seconds, piece):
    stage = personal(regions=["US", "GB", "DE"])
    small, large = (seconds(run, stage, piece * (size // len(piece))) for size in (50_000, 200_000))
    assert large < 8 * small + 0.5
    assert large < 6
