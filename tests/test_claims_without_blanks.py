"""Claims and extracts in scripts without blanks: restated, with another number, made up."""

from __future__ import annotations

import time

import pytest

from firsthand.retrieval.answers.claims import best_sentence
from firsthand.retrieval.answers.divided_words import divided
from firsthand.retrieval.answers.held_words import content_words
from firsthand.retrieval.answers.passage_words import whole_words
from test_passage_words import supported

PASSAGES = {
    "zh": "北京是中国的首都。人口为2189万。",
    "ja": "東京は日本の首都です。人口は1400万人です。",
    "th": "กรุงเทพเป็นเมืองหลวงของประเทศไทย มีประชากร 8 ล้านคน",
    "lo": "ນະຄອນຫຼວງວຽງຈັນ ເປັນເມືອງຫຼວງຂອງລາວ",
    "dates": "会议于2020年5月3日至6日在上海举行，共有1,500人参加。气温为-5度，1990年-1995年上升。",
    "wide": "日本の人口は１億２５００万人、面積は３７８，０００平方キロです。コンピューターの利用率は８３．５％。",
}


@pytest.mark.parametrize(
    ("name", "claim"),
    [
        ("zh", "北京的人口为2189万。"),
        ("zh", "北京的人口是2189 万。"),
        ("zh", "北京人口：21,890,000。"),
        ("zh", "中国的首都是北京。"),
        ("ja", "東京の人口は1400万人です。"),
        ("ja", "東京は日本の首都で、人口は1400万人。"),
        ("th", "กรุงเทพมีประชากร 8ล้านคน"),
        ("th", "เมืองหลวงของประเทศไทยคือกรุงเทพ"),
        ("lo", "ເມືອງຫຼວງຂອງລາວ ແມ່ນ ນະຄອນຫຼວງວຽງຈັນ"),
        ("dates", "会议于 2020 年 5 月 3-6 日在上海举行。"),
        ("dates", "会议有1500人参加。"),
        ("dates", "气温是-5度。"),
        ("dates", "1990年至1995年上升。"),
        ("wide", "日本の人口は1.25億人です。"),
        ("wide", "日本の面積は378,000平方キロです。"),
        ("wide", "コンピュータの利用率は83.5%です。"),
    ],
)
def test_a_restated_claim_is_supported(name: str, claim: str) -> None:
    assert supported(claim, PASSAGES[name])


@pytest.mark.parametrize(
    ("name", "claim"),
    [
        ("zh", "北京的人口为2188万。"),
        ("zh", "北京的人口为2189。"),
        ("zh", "北京的人口为2189亿。"),
        ("zh", "北京是日本的城市。"),
        ("zh", "北京是中国的首都，上海是日本最大的港口城市。"),
        ("ja", "人口は1500万人です。"),
        ("ja", "東京の人口は1400人です。"),
        ("ja", "大阪は中国の港です。"),
        ("ja", "東京は日本の首都です、大阪は中国で二番目に大きい港です。"),
        ("th", "กรุงเทพมีประชากร 9 ล้านคน"),
        ("th", "เชียงใหม่อยู่ทางเหนือและมีภูเขาสูง"),
        ("dates", "会议于2020年3月5日在上海举行。"),
        ("dates", "气温为5度。"),
        ("wide", "日本の人口は1億2600万人です。"),
    ],
)
def test_a_claim_with_another_number_or_mostly_made_up_is_unsupported(name: str, claim: str) -> None:
    assert not supported(claim, PASSAGES[name])


def test_the_sentence_that_shares_most_words_is_found() -> None:
    for text, question, wanted in (
        (
            "東京は日本の首都です。東京の人口は1400万人です。東京の面積は2194平方キロです。",
            "東京の人口",
            "東京の人口は1400万人です。",
        ),
        ("北京是中国的首都。北京的人口为2189万。北京有大学。", "北京的人口是多少", "北京的人口为2189万。"),
    ):
        assert text[slice(*best_sentence(question, text) or (0, 0))] == wanted


def test_words_by_hand() -> None:
    assert whole_words("北京的人口为2189万。") == ["北京", "人口", "21890000"]
    assert content_words("和港在水") == {"港", "水"}, "one character is a word, but not a function word"
    assert whole_words("古いカメラーは高価です") == ["古", "カメラ", "高価"]
    assert whole_words("ｶﾞｿﾘﾝ ガソリン らーめん") == ["ガソリン", "ガソリン", "らー", "ーめ", "めん"]
    assert whole_words("ねこはいる") == ["ねこ", "こは", "はい"]
    assert whole_words("กิกีกึกุ") == ["กกก", "กกก"], "without marks, as in the index"
    assert whole_words("กขเป็นคงจ") == ["กข", "คงจ"], "function words part others"
    assert whole_words("在GPU上 3-5月05日") == ["gpu", "上", "3月", "5月", "5日"]
    assert divided("plain 5-3 서울의 940만") == "plain 5-3 서울의 940만", "Korean has blanks"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("约3千万人", ["30000000"]),
        ("1億4000万円", ["140000000"]),
        ("3万5000円", ["35000"]),
        ("0.5万円", ["5000"]),
        ("2.18965万人", ["21896.5"]),
        ("5千克米", ["5"]),
        ("3兆瓦", ["3"]),
        ("1,500万円", ["15000000"]),
        ("比率1/3万", ["1/3"]),
        ("1万2億円", ["10000", "200000000"]),
        ("3万から5万円", ["30000", "50000"]),
        ("3千5千人", ["3000", "5000"]),
        ("3万5百2千円", ["30500", "2000"]),
        ("1万1千1200円", ["11000", "1200"]),
        ("1万20000円", ["10000", "20000"]),
        ("１，５００円と1，500円", ["1500", "1", "500"]),
        ("１．５倍", ["1.5"]),
    ],
)
def test_numbers_before_units_are_written_out(text: str, numbers: list[str]) -> None:
    assert [word for word in whole_words(text) if any(letter.isdigit() for letter in word)] == numbers


@pytest.mark.parametrize("part", ["1万", "1億2千", "5月", "3-", "3、", "1,000,", "年-1", "北京", "กิ", "ア", "あ"])
def test_long_runs_are_divided_in_linear_time(part: str) -> None:
    started = time.perf_counter()
    divided("北" + part * (20_000 // len(part)) + "万")
    assert time.perf_counter() - started < 2
