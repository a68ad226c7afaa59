"""What keys do at the chat's prompt, beyond what prompt-toolkit gives them."""

from __future__ import annotations

from itertools import islice

from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

FENCE = '"""'


def is_open(text: str) -> bool:
    """Whether ``text`` begins with a fence and has not come to the one that ends it."""
    stripped = text.strip()
    if not stripped.startswith(FENCE):
        return False
    return len(stripped) < 2 * len(FENCE) or not stripped.endswith(FENCE)


def unfenced(text: str) -> str:
    """What stands between the fences; ``text`` itself where it has none."""
    text = text.strip()
    if text.startswith(FENCE) and not is_open(text):
        return text[len(FENCE) : -len(FENCE)].strip()
    return text


def keys() -> KeyBindings:
    """The chat's bindings."""
    bindings = KeyBindings()
    at_prompt = has_focus(DEFAULT_BUFFER)

    @bindings.add("enter", filter=at_prompt)
    def _(event: KeyPressEvent) -> None:
        """Send what is typed; between fences, begin a new line."""
        buffer = event.current_buffer
        if is_open(buffer.text):
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter", filter=at_prompt)
    def _(event: KeyPressEvent) -> None:
        """Begin a new line."""
        event.current_buffer.newline(copy_margin=False)

    @bindings.add("tab", filter=at_prompt)
    def _(event: KeyPressEvent) -> None:
        """Complete; at once where there is one way to, so that Enter can follow quickly."""
        buffer = event.current_buffer
        if buffer.complete_state is not None:
            buffer.complete_next()
            return
        asked = CompleteEvent(completion_requested=True)
        found = list(islice(buffer.completer.get_completions(buffer.document, asked), 2))
        if len(found) == 1:
            buffer.apply_completion(found[0])
        elif found:
            buffer.start_completion(insert_common_part=True)

    @bindings.add("c-c", filter=at_prompt)
    def _(event: KeyPressEvent) -> None:
        """Clear the line; on an empty one, count towards leaving."""
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    @bindings.add("c-g", filter=at_prompt)
    def _(event: KeyPressEvent) -> None:
        """Open the editor on what is typed."""
        event.current_buffer.tempfile_suffix = ".md"
        event.current_buffer.open_in_editor()

    return bindings
