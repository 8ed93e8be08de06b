"""Words of the wikis' languages that tell prose from the rest. Names are lower case.

A language that is not here is read with the English words; the names of its namespaces are in every dump.
"""

from dataclasses import dataclass


def names(listed: str) -> frozenset[str]:
    """The names that are listed with `|` between them."""
    return frozenset(listed.split("|"))


FILE_NAMES = names(
    "file|image|media|datei|bild|fichier|archivo|imagen|ficheiro|imagem|immagine|bestand|afbeelding|plik|grafika|fil|"
    "tiedosto|kuva|soubor|obrázek|файл|изображение|картинка|зображення|ファイル|画像|文件|档案|檔案|图像|圖像|ملف|صورة|קובץ|תמונה"
)
"""Namespaces of pictures, with the aliases that a dump's list of namespaces leaves out."""

CATEGORY_NAMES = names(
    "category|kategorie|catégorie|categoría|categoria|categorie|kategoria|kategori|luokka|категория|категорія|カテゴリ|"
    "分类|分類|تصنيف|קטגוריה"
)

NO_LANGUAGES = names("voy|wmf")
"""Prefixes of links to sister projects, shown in the text, that look like the code of a language."""

BACK_MATTER = {
    "en": names(
        "references|external links|see also|further reading|notes|bibliography|sources|footnotes|citations|"
        "notes and references|references and notes|references and further reading|notes and citations|works cited|"
        "general references|cited sources|sources and further reading|external sources|sister projects|cited works|"
        "bibliography and further reading|explanatory notes|notes and sources|bibliographical references"
    ),
    "bg": names(
        "източници|вижте също|външни препратки|бележки|литература|използвана литература|допълнителна литература|"
        "бележки и източници|цитирани източници|препратки|външни връзки"
    ),
    "cs": names("reference|související články|externí odkazy|poznámky|literatura"),
    "de": names("einzelnachweise|weblinks|literatur|siehe auch|anmerkungen|quellen|fußnoten|belege"),
    "es": names("referencias|véase también|enlaces externos|notas|bibliografía|notas y referencias"),
    "fi": names("lähteet|katso myös|aiheesta muualla|viitteet|kirjallisuutta"),
    "fr": names(
        "références|notes et références|notes|voir aussi|liens externes|bibliographie|annexes|articles connexes"
    ),
    "it": names("note|voci correlate|collegamenti esterni|altri progetti|bibliografia"),
    "ja": names("脚注|出典|関連項目|外部リンク|参考文献|注釈"),
    "nl": names("referenties|zie ook|externe links|externe link|bronnen|literatuur|voetnoten|noten"),
    "pl": names("przypisy|zobacz też|linki zewnętrzne|bibliografia|uwagi"),
    "pt": names("referências|ver também|ligações externas|notas|bibliografia|notas e referências"),
    "ru": names("примечания|см. также|ссылки|литература|источники"),
    "sv": names("referenser|se även|externa länkar|källor|noter"),
    "uk": names("примітки|див. також|посилання|література|джерела"),
    "zh": names("参考文献|參考文獻|外部链接|外部連結|参见|參見|参考资料|參考資料|注释|註釋|相關條目|相关条目"),
}
"""Headings of sections that hold references and links and no prose, by language."""

DISAMBIGUATION = names(
    "disambiguation|disambig|disamb|dab|hndis|geodis|schooldis|hospitaldis|пояснение|begriffsklärung|desambiguación|"
    "homonymie|disambigua|曖昧さ回避|aimai|doorverwijspagina|ujednoznacznienie|desambiguação|förgrening|gren|"
    "неоднозначность|багатозначність|rozcestník|täsmennyssivu|消歧义|消歧義|消歧義頁|توضيح|פירושונים"
)
"""Templates of pages that only say which page is meant."""

DISAMBIGUATION_TITLES = names(
    "disambiguation|пояснение|begriffsklärung|desambiguación|homonymie|disambigua|曖昧さ回避|doorverwijspagina|"
    "ujednoznacznienie|desambiguação|значения|olika betydelser|значення|rozcestník|täsmennyssivu|消歧义|消歧義|توضيح|"
    "פירושונים"
)
"""What stands in parentheses at the end of such a page's title."""


@dataclass(frozen=True)
class Names:
    """What a wiki calls its namespaces of files and categories, in lower case, beside the usual names."""

    language: str = "en"
    files: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()

    def hides(self, namespace: str) -> bool:
        """Whether a link into this namespace shows something other than its words: a picture, a list of categories."""
        return namespace in FILE_NAMES or namespace in CATEGORY_NAMES or namespace in self.files | self.categories


ENGLISH = Names()
