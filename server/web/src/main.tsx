/** Starts the page. */
import { render } from "preact";
import { startClock } from "./state/now";
import { followAddress } from "./state/place";
import { applyTheme } from "./state/prefs";
import { logIn, startSession } from "./state/session";
import { App } from "./ui/app";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/shell.css";
import "./styles/hosts.css";
import "./styles/filters.css";
import "./styles/timeline.css";
import "./styles/panel.css";
import "./styles/help.css";

applyTheme();
startClock();
followAddress((token) => void logIn(token));
void startSession();
render(<App />, document.getElementById("root") as HTMLElement);
