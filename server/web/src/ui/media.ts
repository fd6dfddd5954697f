/** Widths of the window that change what is shown. The style sheets have the same limits. */
import { type ReadonlySignal, signal } from "@preact/signals";

/** The chain covers the page, as a sheet. */
export const isSheet = watched("(max-width: 899px)");
/** There is room to show the hosts unfolded. */
export const isRoomy = watched("(min-width: 700px)");

function watched(query: string): ReadonlySignal<boolean> {
  const media = matchMedia(query);
  const matches = signal(media.matches);
  media.addEventListener("change", () => {
    matches.value = media.matches;
  });
  return matches;
}
