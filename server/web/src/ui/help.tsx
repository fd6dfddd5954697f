/** The help overlay: the keys, and what the signs mean. */
import { Glyph } from "./glyph";
import { CloseIcon } from "./icons";
import { ProbeMark } from "./probe";

const KEYS: [keys: string[], meaning: string][] = [
  [["j", "↓"], "next older event"],
  [["k", "↑"], "next newer event"],
  [["g", "Home"], "newest event, and let new ones in"],
  [["G", "End"], "oldest loaded event"],
  [["Enter"], "open its causal chain"],
  [["Esc"], "close the chain, or leave the search"],
  [["/"], "search"],
  [["p"], "pause, go on"],
  [["c"], "copy a link to the open event"],
  [["z"], "local time or UTC"],
  [["t"], "light, dark, as the system"],
  [["?"], "this help"],
];

const DIALOG_ID = "help";

export function openHelp(): void {
  const dialog = document.getElementById(DIALOG_ID);
  if (dialog instanceof HTMLDialogElement && !dialog.open) dialog.showModal();
}

export function Help() {
  const close = () => (document.getElementById(DIALOG_ID) as HTMLDialogElement).close();
  return (
    <dialog
      id={DIALOG_ID}
      class="help"
      aria-labelledby="help-title"
      onClick={(click) => {
        if (click.target === click.currentTarget) close();
      }}
      onKeyDown={(key) => key.stopPropagation()}
    >
      <div class="help-body">
        <header>
          <h2 id="help-title">Keys and signs</h2>
          <button type="button" class="button icon-only" aria-label="Close" onClick={close}>
            <CloseIcon />
          </button>
        </header>
        <div class="help-columns">
          <dl class="keys">
            {KEYS.map(([keys, meaning]) => (
              <div key={meaning}>
                <dt>
                  {keys.map((key) => (
                    <kbd key={key}>{key}</kbd>
                  ))}
                </dt>
                <dd>{meaning}</dd>
              </div>
            ))}
          </dl>
          <ul class="signs">
            <li>
              <Glyph tone="critical" /> critical: somebody should look
            </li>
            <li>
              <Glyph tone="warning" /> warning: not as it should be
            </li>
            <li>
              <Glyph tone="good" /> something is well again
            </li>
            <li>
              <Glyph tone="info" /> information
            </li>
            <li>
              <span class="sign-rail" /> one chain: the cause stands below its effect
            </li>
            <li>
              <ProbeMark state="attached" /> probe attached: silence means that nothing happened
            </li>
            <li>
              <ProbeMark state="degraded" /> degraded: heard by a lesser means
            </li>
            <li>
              <ProbeMark state="off" /> off: silence means nothing at all
            </li>
            <li>
              <span class="slot ready">2</span> worker slot 2 serves
            </li>
            <li>
              <span class="slot booting">2</span> worker slot 2 is starting
            </li>
          </ul>
        </div>
      </div>
    </dialog>
  );
}
