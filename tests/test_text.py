from dashboard.text import plain


def test_a_name_cannot_become_a_picture_a_link_or_a_formula():
    assert plain("![x](http://a/b.png)") == r"\!\[x\]\(http\://a/b.png\)"
    assert plain("a\n# b") == r"a \# b"
    assert plain("$x$ :red[y] <b>") == r"\$x\$ \:red\[y\] \<b\>"


def test_plain_words_stay_as_they_are():
    assert plain("Blue eyes, 2 of 3") == "Blue eyes, 2 of 3"
