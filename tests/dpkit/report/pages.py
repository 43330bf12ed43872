"""A page taken apart: its tags and attributes, and whether tags nest."""

from html.parser import HTMLParser

from dpkit.jobs.progress import Outcome
from dpkit.jobs.result import page
from dpkit.training.report import told

HOSTILE = '</pre><script>alert("x")</script><img src=https://example.org/a.png>'

VOID = {"meta", "img", "br", "hr", "link", "input", "source"}


class Page(HTMLParser):
    """Collects tags and attributes, and checks that tags nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.stack = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


def training_page(result, history, config_text):
    """The report of a training run, out of what its result.json holds."""
    return page(result, Outcome(**told(result, history)), config_text)
