"""The line that describes the machine on which numbers were measured."""

import platform
from pathlib import Path

import pytest
import torch

from worldvae.system import machine


def says(text: str, path: Path, monkeypatch: pytest.MonkeyPatch, cores: int = 2, threads: int = 2) -> str:
    path.write_text(text)
    monkeypatch.setattr(machine, "CPUINFO", path)
    monkeypatch.setattr(machine, "usable_cores", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return machine.describe_machine()


def test_it_names_processor_cores_and_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "processor\t: 0\nmodel name\t: A processor\nflags\t\t: fpu {}\n\nprocessor\t: 1\nmodel name\t: another\n"
    info = tmp_path / "cpuinfo"
    assert says(text.format("avx2"), info, monkeypatch) == "A processor, 2 cores, AVX2"
    modern = text.format("avx2 avx512f avx512_bf16 amx_tile")
    expected = "A processor, 1 core, AVX2, AVX-512, bfloat16, AMX"
    assert says(modern, info, monkeypatch, cores=1, threads=1) == expected
    assert says(text.format("sse"), info, monkeypatch, threads=1) == "A processor, 2 cores, 1 thread"


def test_a_system_without_cpuinfo_is_described_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says("", tmp_path / "cpuinfo", monkeypatch)
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "nothing")
    assert machine.describe_machine() == f"{platform.processor() or platform.machine()}, 2 cores"
    assert platform.node() not in machine.describe_machine().split(", ")
