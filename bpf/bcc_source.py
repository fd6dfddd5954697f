"""Writes the programs as one C file for BCC: `python3 bcc_source.py OUTPUT`, as `make -C bpf` does.

The sources stay the same. What differs is how maps are declared and reached and how a program is tied to its hook, and
those few forms are translated here, line by line; bcc.h stands in for the headers. Programs that need trampolines,
iterators or the kernel's BTF are left out.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
PARTS = ("events.h", "queue_types.h", "maps.bpf.h", "lifecycle.bpf.h", "oom_context.bpf.h", "oom.bpf.h", "signals.bpf.h", "queues.bpf.h")  # fmt: skip
LEFT_OUT = ("fentry/", "fexit/", "iter/", "kretprobe/oom", "kprobe/oom", "tp_btf/sk_data_ready")

_TABLES = {"HASH": "hash", "LRU_HASH": "lru_hash", "ARRAY": "array", "PERCPU_ARRAY": "percpu_array"}
_MAP = re.compile(
    r"struct \{\n\t__uint\(type, BPF_MAP_TYPE_(?P<type>\w+)\);\n\t__uint\(max_entries, (?P<entries>[^\n]+)\);\n"
    r"(?:\t__type\(key, (?P<key>[^\n]+)\);\n\t__type\(value, (?P<value>[^\n]+)\);\n)?\} (?P<name>\w+) SEC\(\"\.maps\"\);"
)
_PROGRAM = re.compile(r'SEC\("(?P<hook>[^"]+)"\)\nint (?P<head>[^{]+)\n\{\n(?P<body>.*?)\n\}\n', re.DOTALL)
_HEAD = re.compile(r"(?P<form>BPF_PROG|BPF_KPROBE)\((?P<name>\w+)(?:, (?P<arguments>.*))?\)", re.DOTALL)
_CALLS = (
    (re.compile(r"bpf_map_lookup_elem\(&(\w+), ([^()]+)\)"), r"\1.lookup(\2)"),
    (re.compile(r"bpf_map_update_elem\(&(\w+), ([^,()]+), ([^,()]+), BPF_ANY\)"), r"\1.update(\2, \3)"),
    (re.compile(r"bpf_map_delete_elem\(&(\w+), ([^()]+)\)"), r"\1.delete(\2)"),
    (re.compile(r"bpf_ringbuf_reserve\(&(\w+), ([^,]+), 0\)"), r"\1.ringbuf_reserve(\2)"),
    (re.compile(r"bpf_ringbuf_submit\((\w+), 0\)"), r"records.ringbuf_submit(\1, 0)"),
    (
        re.compile(r"BPF_CORE_READ_STR_INTO\(&([\w>-]+), (\w+), ([\w, ]+)\)"),
        lambda m: f"bpf_probe_read_kernel_str({m[1]}, sizeof({m[1]}), {_address(m[2], m[3].split(', '))})",
    ),
)


class SourceError(ValueError):
    """The sources hold a form that this translation does not know; the text shows it."""


def translate(source: str) -> str:
    """One of the sources as BCC takes it; raises SourceError."""
    source = re.sub(r'#include "[^"]+"\n', "", source)
    source = re.sub(r"^(struct|enum) \w+ \**keep_\w+ __attribute__\(\(unused\)\);\n", "", source, flags=re.MULTILINE)
    source = _MAP.sub(_table, source)
    source = _PROGRAM.sub(_program, source)
    for form, meaning in _CALLS:
        source = form.sub(meaning, source)
    if left := re.search(r".*(SEC\(|bpf_map_\w+\(|__uint\(|bpf_ringbuf_\w+\().*", source):
        raise SourceError(f"cannot be said in BCC: {left[0].strip()}")
    return source


def one_file() -> str:
    """All programs that BCC can compile, in one text."""
    parts = [(FOLDER / "bcc.h").read_text(), *(translate((FOLDER / name).read_text()) for name in PARTS)]
    return "\n".join(parts)


def _table(found: re.Match[str]) -> str:
    if found["type"] == "RINGBUF":
        return f"BPF_RINGBUF_OUTPUT({found['name']}, ({found['entries']}) / {4096});"
    return (
        f'BPF_TABLE("{_TABLES[found["type"]]}", {found["key"]}, {found["value"]}, {found["name"]}, {found["entries"]});'
    )


def _program(found: re.Match[str]) -> str:
    hook, head, body = found["hook"], found["head"], found["body"]
    if hook.startswith(LEFT_OUT):
        return ""
    form = _HEAD.fullmatch(head)
    if form is None:
        raise SourceError(f"the program {head} on {hook} has no form that is known")
    arguments = re.split(r",\s*", form["arguments"] or "")
    if form["form"] == "BPF_KPROBE":
        return f"int {form['name']}(struct pt_regs *ctx, {', '.join(arguments)})\n{{\n{body}\n}}\n"
    taken = "".join(f"\t{argument} = ({_type(argument)})ctx->args[{i}];\n" for i, argument in enumerate(arguments))
    return f"int {form['name']}(struct bpf_raw_tracepoint_args *ctx)\n{{\n{taken}{body}\n}}\n"


def _type(argument: str) -> str:
    """`struct task_struct *` of `struct task_struct *task`."""
    return re.sub(r"\w+$", "", argument).strip()


def _address(start: str, members: list[str]) -> str:
    """Where the last member is: read through all but the last."""
    way = f"BPF_CORE_READ({start}, {', '.join(members[:-1])})" if members[1:] else start
    return f"({way})->{members[-1]}"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(one_file())
