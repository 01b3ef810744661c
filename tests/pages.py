"""Reading pages that the package writes."""

from html.parser import HTMLParser

VOID = ("meta", "br", "img")


class Page(HTMLParser):
    """What is on a page; refuses one whose elements aren't closed in order.

    Attributes:
        text: All text, spaces and line breaks made one.
        tags: Every element: its name and its attributes.
    """

    def __init__(self, text):
        super().__init__()
        self.tags, self._open, self._parts, self._source = [], [], [], text
        self.feed(text)
        self.close()
        assert self._open == []
        self.text = " ".join("".join(self._parts).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self._parts.append(data)

    def count(self, tag):
        """How many elements of a kind there are."""
        return sum(name == tag for name, _ in self.tags)

    def check_alone(self):
        """Make sure that it needs no network, no other file and no scripts."""
        assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in self.tags}
        for tag, attributes in self.tags:
            if tag == "img":
                assert attributes.pop("src").startswith("data:image/jpeg;base64,")
                assert attributes["alt"]
            assert not [key for key in attributes if key in ("src", "href") or key.startswith("on")]
            assert attributes.get("xlink:href", "#").startswith("#")
        assert "url(" not in self._source
        assert "@import" not in self._source
        assert "prefers-color-scheme: dark" in self._source
