/** Buttons that put text on the clipboard, also where the page is served over plain HTTP. */
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { CheckIcon } from "./icons";

const THANKS_MS = 1_600;

interface Props {
  id?: string;
  icon: ComponentChildren;
  label: string;
  text: () => string;
}

export function CopyButton({ id, icon, label, text }: Props) {
  const [state, setState] = useState<"idle" | "copied" | "failed">("idle");
  useEffect(() => {
    if (state === "idle") return;
    const timer = setTimeout(() => setState("idle"), THANKS_MS);
    return () => clearTimeout(timer);
  }, [state]);

  return (
    <button
      type="button"
      id={id}
      class="button quiet"
      onClick={async () => setState((await copy(text())) ? "copied" : "failed")}
    >
      {state === "copied" ? <CheckIcon /> : icon}
      <span aria-live="polite">{state === "copied" ? "Copied" : state === "failed" ? "Not copied" : label}</span>
    </button>
  );
}

async function copy(text: string): Promise<boolean> {
  if (isSecureContext && navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch (error) {
      if (!(error instanceof DOMException)) throw error;
    }
  }
  return copyBySelection(text);
}

/** The clipboard's own interface exists only on HTTPS and localhost. */
function copyBySelection(text: string): boolean {
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "visually-hidden";
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  return copied;
}
