"""Examples below a command's help."""


def examples(*lines: tuple[str, str], after: str = "") -> str:
    """Each a command, and what it does. `\\b` keeps click from filling the lines."""
    width = max(len(command) for command, _ in lines)
    shown = [f"  {command.ljust(width)}  {f'# {what}' if what else ''}".rstrip() for command, what in lines]
    text = "\b\nExamples:\n" + "\n".join(shown)
    return f"{text}\n\n{after}" if after else text
