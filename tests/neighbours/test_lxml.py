"""lxml: extension functions, resolvers, parser targets and files that wait; trees used by tasks that move."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from crowd import run_crowd
from helpers import in_task, join_all, move_to_another_thread
from lxml import etree

import pygo

Wait = Callable[[], None]
DOCUMENT = b"<list>" + b"".join(b"<item n='%d'>text %d</item>" % (n, n) for n in range(6)) + b"</list>"
NUMBERS = [str(number) for number in range(6)]


def xpath_function(wait: Wait) -> Any:
    def double(context: Any, nodes: Any) -> float:
        wait()
        return 2.0 * float(nodes[0])

    functions = {("urn:test", "double"): double}
    query = etree.XPath("//item[t:double(@n) > 4]/@n", namespaces={"t": "urn:test"}, extensions=functions)
    return query(etree.fromstring(DOCUMENT))


STYLE = b"""
<x:stylesheet version="1.0" xmlns:x="http://www.w3.org/1999/XSL/Transform" xmlns:t="urn:test"
              extension-element-prefixes="t">
  <x:template match="/"><out><x:apply-templates select="//item"/><t:mark/></out></x:template>
  <x:template match="item"><x:value-of select="t:double(@n)"/>,</x:template>
</x:stylesheet>"""


def xslt_function_and_element(wait: Wait) -> Any:
    class Mark(etree.XSLTExtension):
        def execute(self, context: Any, self_node: Any, input_node: Any, output_parent: Any) -> None:
            wait()
            output_parent.append(etree.Element("mark"))

    def double(context: Any, nodes: Any) -> str:
        wait()
        return str(2 * int(nodes[0]))

    extensions = {("urn:test", "mark"): Mark(), ("urn:test", "double"): double}
    result = etree.XSLT(etree.fromstring(STYLE), extensions=extensions)(etree.fromstring(DOCUMENT))
    return result.getroot().text, [child.tag for child in result.getroot()]


def resolver(wait: Wait) -> Any:
    class Resolver(etree.Resolver):
        def resolve(self, url: str, public_id: str, context: Any) -> Any:
            wait()
            return self.resolve_string("<!ENTITY greeting 'hello'>", context)

    parser = etree.XMLParser(load_dtd=True, no_network=True)
    parser.resolvers.add(Resolver())
    return etree.fromstring(b"<!DOCTYPE a SYSTEM 'other.dtd'><a>&greeting;</a>", parser).text


def parser_target(wait: Wait) -> Any:
    class Target:
        def __init__(self) -> None:
            self.events: list[str] = []

        def start(self, tag: str, attributes: Any) -> None:
            wait()
            self.events.append("<" + tag)

        def end(self, tag: str) -> None:
            wait()
            self.events.append(">" + tag)

        def data(self, data: str) -> None:
            wait()

        def close(self) -> Any:
            wait()
            return "".join(self.events)

    return etree.fromstring(DOCUMENT, etree.XMLParser(target=Target()))


class Slow(io.RawIOBase):
    """A file that hands out a few bytes at a time, after a wait."""

    def __init__(self, data: bytes, wait: Wait) -> None:
        self.rest, self.wait = data, wait

    def read(self, size: int = -1) -> bytes:
        self.wait()
        piece, self.rest = self.rest[:37], self.rest[37:]
        return piece


def parse_of_a_file(wait: Wait) -> Any:
    return [item.get("n") for item in etree.parse(Slow(DOCUMENT, wait)).getroot()]


def iterparse(wait: Wait) -> Any:
    seen = []
    for _, element in etree.iterparse(Slow(DOCUMENT, wait), tag="item"):
        wait()
        seen.append(element.get("n"))
        element.clear()
    return seen


def incremental_writing(wait: Wait) -> Any:
    class Output(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def write(self, data: Any) -> int:
            wait()
            self.data += bytes(data)
            return len(data)

    output = Output()
    with etree.xmlfile(output, buffered=False) as writer, writer.element("list"):
        for number in range(3):
            wait()
            writer.write(etree.Element("item", n=str(number)))
    return output.data


def custom_classes(wait: Wait) -> Any:
    class Item(etree.ElementBase):
        def _init(self) -> None:
            wait()

    lookup = etree.ElementNamespaceClassLookup()
    lookup.get_namespace(None)["item"] = Item
    parser = etree.XMLParser()
    parser.set_element_class_lookup(lookup)
    return [item.get("n") for item in etree.fromstring(DOCUMENT, parser)]


EVENTS = "<list" + "<item>item" * 6 + ">list"
WAYS = {
    xpath_function: ["3", "4", "5"],
    xslt_function_and_element: ("0,2,4,6,8,10,", ["mark"]),
    resolver: "hello",
    parser_target: EVENTS,
    parse_of_a_file: NUMBERS,
    iterparse: NUMBERS,
    incremental_writing: b'<list><item n="0"/><item n="1"/><item n="2"/></list>',
    custom_classes: NUMBERS,
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_lxml_calls_may_wait(way: Any, workers: int) -> None:
    run_crowd(way, WAYS[way], stays=way not in (iterparse, incremental_writing))


def test_trees_move_with_their_tasks_and_between_them(workers: int) -> None:
    def build(count: int) -> Any:
        root = etree.Element("root")
        for number in range(count):
            etree.SubElement(root, "child", n=str(number))
            if number % 10 == 0:
                move_to_another_thread()
        return root

    def merge() -> int:
        whole = etree.Element("whole")
        for task in [pygo.spawn(build, 30) for _ in range(4)]:
            whole.append(task.join())
            move_to_another_thread()
        return len(whole.findall(".//child"))

    assert join_all([pygo.spawn(merge) for _ in range(3)]) == [120] * 3


def test_errors_are_reported_to_the_task_that_made_them(workers: int) -> None:
    """libxml2 keeps its error handlers per OS thread, lxml its log per thread state."""

    def parse(tag: str) -> list[str]:
        messages = []
        for _ in range(10):
            parser = etree.XMLParser()
            try:
                etree.parse(Slow(f"<{tag}><open></{tag}>".encode() * 3, pygo.yield_now), parser)
            except etree.XMLSyntaxError as exc:
                messages.append(str(exc))
            move_to_another_thread(3)
            assert all(tag in entry.message or "Extra" in entry.message for entry in parser.error_log)
        return messages

    tasks = {tag: pygo.spawn(parse, tag) for tag in ("alpha", "beta", "gamma", "delta")}
    for tag, task in tasks.items():
        messages = task.join()
        assert len(messages) == 10
        assert all(tag in message for message in messages)


def test_exceptions_leave_lxml_after_a_wait(workers: int) -> None:
    def broken(context: Any) -> None:
        pygo.yield_now()
        raise KeyError("broken")

    def body() -> Iterator[Any]:
        return etree.XPath("t:broken()", namespaces={"t": "urn:test"}, extensions={("urn:test", "broken"): broken})(
            etree.fromstring(DOCUMENT)
        )

    for _ in range(10):
        with pytest.raises(KeyError):
            in_task(body)
