import pytest

from tilth.evidence import human


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (human.count, 81_920, "81,920"),
        (human.count, 99_999, "99,999"),
        (human.count, 100_000, "100 K"),
        (human.count, 999_900, "1 M"),
        (human.count, 1_234_567, "1.23 M"),
        (human.count, 175e9, "175 B"),
        (human.count, None, "–"),
        (human.decimal, -0.0001, "0.000"),
        (human.decimal, -1.5, "−1.500"),
        (human.decimal, float("nan"), "–"),
        (human.significant, 0.00025, "0.00025"),
        (human.significant, 1234.5, "1,230"),
        (human.significant, 9.999, "10"),
        (human.significant, 3e-7, "3.00 × 10⁻⁷"),
        (human.significant, 0, "0"),
        (human.scientific, 1.25e15, "1.2 × 10¹⁵"),
        (human.percent, 0.954, "95.4 %"),
        (human.percent, 0.0002, "< 0.1 %"),
        (human.percent, 0, "0.0 %"),
        (human.duration, 0.12, "120 ms"),
        (human.duration, 4.25, "4.2 s"),
        (human.duration, 59.7, "1 min"),
        (human.duration, 192.4, "3 min 12 s"),
        (human.duration, 3600 + 4 * 60 + 30, "1 h 4 min"),
        (human.duration, 2 * 86400 + 3 * 3600, "2 d 3 h"),
    ],
)
def test_numbers_as_people_read_them(function, value, text):
    assert function(value).replace("\u00a0", " ") == text
