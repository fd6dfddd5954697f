/** A button that opens a small panel next to it. The browser itself closes it on Escape or a click elsewhere. */
import type { ComponentChildren } from "preact";
import { useId, useRef, useState } from "preact/hooks";

interface Props {
  label: ComponentChildren;
  name: string;
  class: string;
  children: ComponentChildren;
}

const MARGIN_PX = 8;

export function Popover({ label, name, class: className, children }: Props) {
  const id = useId();
  const panel = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const [open, setOpen] = useState(false);

  function toggled(): void {
    const opened = panel.current?.matches(":popover-open") ?? false;
    setOpen(opened);
    if (opened && panel.current && button.current) stand(panel.current, button.current);
  }

  return (
    <>
      <button
        type="button"
        ref={button}
        class={className}
        aria-expanded={open}
        aria-controls={id}
        aria-label={name}
        onClick={() => panel.current?.togglePopover()}
      >
        {label}
      </button>
      <div id={id} ref={panel} popover="auto" class="popover" onToggle={toggled}>
        {open && children}
      </div>
    </>
  );
}

/** Puts the panel under its button, or above it where there is no room, and inside the window in any case. */
function stand(panel: HTMLElement, button: HTMLElement): void {
  requestAnimationFrame(() => {
    const at = button.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = panel;
    const left = Math.max(MARGIN_PX, Math.min(at.left, innerWidth - width - MARGIN_PX));
    const below = at.bottom + 4;
    const top = below + height <= innerHeight - MARGIN_PX ? below : Math.max(MARGIN_PX, at.top - height - 4);
    panel.style.left = `${left}px`;
    panel.style.top = `${top}px`;
    panel.dataset.placed = "";
  });
}
