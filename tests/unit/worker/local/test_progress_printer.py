from __future__ import annotations

import io

from rich.console import Console

from worker.local.progress_printer import ProgressPrinter


def printer_and_output(*, terminal: bool) -> tuple[ProgressPrinter, io.StringIO]:
    text = io.StringIO()
    return ProgressPrinter(Console(file=text, force_terminal=terminal, width=80, highlight=False, soft_wrap=True)), text


def test_without_a_terminal_progress_is_a_line_every_tenth() -> None:
    printer, text = printer_and_output(terminal=False)
    with printer.progress(1000) as show:
        for done in range(0, 1001, 20):
            show(done)
    shares = [line.split()[0] for line in text.getvalue().splitlines()]
    assert shares == ["0%", "10%", "20%", "30%", "40%", "50%", "60%", "70%", "80%", "90%", "100%"]


def test_a_leap_is_one_line() -> None:
    printer, text = printer_and_output(terminal=False)
    with printer.progress(1000) as show:
        for done in (0, 550, 560, 1000, 1000):
            show(done)
    assert [line.split()[:2] for line in text.getvalue().splitlines()] == [
        ["0%", "0"],
        ["55%", "550"],
        ["100%", "1,000"],
    ]


def test_on_a_terminal_progress_is_a_bar_and_lines_are_printed_above_it() -> None:
    printer, text = printer_and_output(terminal=True)
    with printer.progress(1000) as show:
        show(500)
        printer.print_line("in between")
        show(1000)
    assert "in between" in text.getvalue()
    assert "100%" in text.getvalue()


def test_text_is_printed_without_markup() -> None:
    printer, text = printer_and_output(terminal=False)
    printer.title("[bold]not a style[/bold]")
    printer.print_line("x" * 200)
    assert text.getvalue() == "[bold]not a style[/bold]\n  " + "x" * 200 + "\n"
