"""The XML of routers: a small tree, without document types, and so without entities of their own."""

from dataclasses import dataclass, field
from xml.parsers import expat

from peertunnel.protocols.errors import RemoteProtocolError

MAX_XML = 64 * 1024  # bytes; descriptions of real routers have up to 20 KiB
MAX_ELEMENTS = 2000  # the same have up to 500
MAX_DEPTH = 32  # they have up to 10


@dataclass(slots=True)
class Element:
    """An element: its name without prefix, its own text, and those within it."""

    name: str
    text: str = ""
    children: "list[Element]" = field(default_factory=list)

    def child(self, name: str) -> "Element | None":
        """Return the first child of a name."""
        return next((child for child in self.children if child.name == name), None)

    def value(self, name: str) -> str:
        """Return the text of the first child of a name, without space around it; empty when there is none."""
        child = self.child(name)
        return child.text.strip() if child is not None else ""

    def all(self, name: str) -> "list[Element]":
        """Return every element of a name within this one, in the document's order."""
        found = [self] if self.name == name else []
        for child in self.children:
            found += child.all(name)
        return found


def read_xml(data: bytes) -> Element:
    """Read a document and return its outermost element; raises RemoteProtocolError."""
    if len(data) > MAX_XML:
        raise RemoteProtocolError(f"an XML document has more than {MAX_XML} bytes")
    tree = _Tree()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = tree.refuse
    parser.StartElementHandler = tree.start
    parser.EndElementHandler = tree.end
    parser.CharacterDataHandler = tree.add
    try:
        parser.Parse(data.rstrip(b"\0"), True)  # which some append
    # An encoding that Python doesn't know, or that is none of text, is an error of its own kind each.
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise RemoteProtocolError(f"this is not XML: {error}") from None
    return tree.root.children[0]


class _Tree:
    def __init__(self) -> None:
        self.root = Element("")
        self._open = [self.root]
        self._count = 0

    def refuse(self, *_: object) -> None:
        raise RemoteProtocolError("an XML document has a document type")

    def start(self, name: str, _: object) -> None:
        self._count += 1
        if self._count > MAX_ELEMENTS or len(self._open) > MAX_DEPTH:
            raise RemoteProtocolError("an XML document has too many elements")
        element = Element(name.rpartition(":")[2])
        self._open[-1].children.append(element)
        self._open.append(element)

    def end(self, _: object) -> None:
        self._open.pop()

    def add(self, text: str) -> None:
        self._open[-1].text += text
